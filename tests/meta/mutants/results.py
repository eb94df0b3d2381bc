"""The verdicts on mutants, one line of JSON each, and the report."""

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

from tests.meta.mutants.judge import NOTHING, STAGES, TIME, Judgement
from tests.meta.mutants.mutant import Mutant

BY = (*STAGES, TIME, NOTHING)
NOT_BY_PARITY = BY[2:]  # includes TIME, because parity has no time limit
COLUMNS = (
    *("planted", "by quick", "by full only", "by tests only", "too slow", "survived"),
    *("equivalent", "quick", "full", "rejected by an exception"),
)
TITLES = {TIME: "Exceeded the time limit of a stage", NOTHING: "Survived"}
EQUIVALENT = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Verdict:
    """The result of judging a mutant. ``by`` is the stage that rejected it, "nothing", or "time" after a time limit.

    ``reason`` names the check. ``raised`` is true if an exception or an exit rejected it. ``until`` is the last stage
    that was requested, "" in files written before this field existed.
    """

    id: str
    backend: str
    file: str
    line: int
    function: str
    operator: str
    diff: str
    by: str
    reason: str
    seconds: float
    raised: bool = False
    until: str = ""

    @classmethod
    def of(cls, mutant: Mutant, found: Judgement, until: str, seconds: float) -> "Verdict":
        where = (mutant.id, mutant.backend, mutant.file, mutant.line, mutant.function)
        what = (mutant.operator, mutant.diff, found.by, found.reason)
        return cls(*where, *what, round(seconds, 1), found.raised, until)

    def holds_until(self, stage: str) -> bool:
        """Return whether judging the mutant up to ``stage`` cannot change the verdict."""
        judged = STAGES[: STAGES.index(self.until) + 1] if self.until else ()
        return self.by != NOTHING or stage in judged


def append(path: Path, verdict: Verdict) -> None:
    """Append a verdict to a file immediately, so that a run can be interrupted."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(verdict)) + "\n")


def load(path: Path) -> dict[str, Verdict]:
    """Return the last verdict on each mutant in a file, by id; empty if there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {verdict.id: verdict for verdict in (Verdict(**json.loads(line)) for line in lines)}


def equivalents(path: Path = EQUIVALENT) -> dict[str, tuple[str, str]]:
    """Return the reason and the diff of each mutant that is listed as equivalent, by id."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {id: (reason, diff) for reason, table in tables.items() for id, diff in table.items()}


def report(
    verdicts: Sequence[Verdict], listed: Mapping[str, tuple[str, str]], conditions: str
) -> str:
    """Return the report as Markdown: counts by backend, operator and file, and the survivors."""
    lines = ["# Mutants of the tabs", "", conditions, ""]
    for title in ("backend", "operator", "file"):
        key = attrgetter(title)
        groups = dict.fromkeys(map(key, verdicts))
        rows = [(group, [v for v in verdicts if key(v) == group]) for group in groups]
        lines += _table(title, [*rows, ("all", list(verdicts))], listed)
    survivors = [v for v in verdicts if v.by != "quick" and v.id not in listed]
    for by in BY[:0:-1]:
        found = [v for v in survivors if v.by == by]
        lines += _list(TITLES.get(by, f"Rejected by {by} only"), found)
    wrong = [v for v in verdicts if v.id in listed and v.by not in NOT_BY_PARITY]
    return "\n".join([*lines, *_list("Listed as equivalent, but rejected", wrong)]) + "\n"


def _table(
    title: str, rows: Iterable[tuple[str, list[Verdict]]], listed: Mapping[str, tuple[str, str]]
) -> list[str]:
    lines = [_row((title, *COLUMNS)), _row(["---", *["---:"] * len(COLUMNS)])]
    for name, group in rows:
        real = [v for v in group if v.id not in listed]
        counts = Counter(v.by for v in real)
        rejected = counts["quick"] + counts["full"]
        raised = sum(v.raised for v in real)
        shares = [_percent(n, len(real)) for n in (counts["quick"], rejected)]
        numbers = [len(group), *(counts[by] for by in BY), len(group) - len(real)]
        lines.append(_row([name, *numbers, *shares, raised]))
    return [*lines, ""]


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _list(title: str, verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return []
    lines = [f"## {title}: {len(verdicts)}", ""]
    for v in verdicts:
        reason = f" ({v.reason})" if v.reason else ""
        lines.append(f"- `{v.id}`, line {v.line}{reason}: `{v.diff}`")
    return [*lines, ""]
