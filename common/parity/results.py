"""What the checks of one backend leave, as JSON and pictures, so that its process can end before the report is made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.parity.comparison import Array, Difference, Outcome, Tolerance
from common.system.files import write_text, written_whole

Pictures = dict[str, Array]  # by operation: floats 0..1, (3, height, width)


@dataclass(frozen=True)
class Results:
    """One backend's outcomes; the losses of its free-running training; what its operations make of one image."""

    backend: str
    versions: Mapping[str, str]
    configuration: Mapping[str, str]  # what computed: precision, device, threads, compiler
    declared: tuple[str, ...]  # the known differences that it says it has
    outcomes: tuple[Outcome, ...]
    losses: tuple[float, ...] = ()
    pictures: Pictures = field(default_factory=dict)
    error: str = ""  # what broke the checks off, if anything did

    @property
    def passed(self) -> bool:
        """Tell whether all checks were made, and passed."""
        return not self.error and not self.failures

    @property
    def failures(self) -> list[Outcome]:
        """Return the outcomes that are beyond their tolerance."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def diagnosis(self) -> list[str]:
        """Return the failures by cause: how many checks each explains, and the first of them."""
        by_cause: dict[str | None, list[Outcome]] = {}
        for outcome in self.failures:
            by_cause.setdefault(outcome.cause, []).append(outcome)
        count = len(self.outcomes)
        lines = [
            f"{self.backend}: {len(failed)} of {count} checks failed"
            + ("" if cause is None else f", explained by {cause or 'no known difference'}")
            + f". The first: {failed[0].where()}"
            for cause, failed in by_cause.items()
        ]
        if self.error:
            lines.append(f"{self.backend}: broke off after {count} checks: {self.error}")
        return lines


def by_check(results: Sequence[Results]) -> list[tuple[Outcome, list[Outcome | None]]]:
    """Return each check that any backend has had: an outcome that describes it, and each backend's, None where none."""
    found = [{(o.check, o.kind): o for o in result.outcomes} for result in results]
    checks = dict.fromkeys(key for outcomes in found for key in outcomes)
    rows = [[outcomes.get(key) for outcomes in found] for key in checks]
    return [(next(o for o in row if o is not None), row) for row in rows]


def number(value: float) -> str:
    """Return a difference as it is shown."""
    return "0" if value == 0 else f"{value:.1e}"


def save_results(folder: Path, results: Results) -> None:
    """Write ``outcomes.json`` and ``pictures.npz`` into ``folder``."""
    content = asdict(results)
    del content["pictures"]
    for plain, outcome in zip(content["outcomes"], results.outcomes, strict=True):
        plain |= {"passed": outcome.passed, "limit": outcome.tolerance.limit}
        for difference in plain["differences"]:
            if not np.isfinite(difference["value"]):  # which JSON has no number for
                difference["value"] = str(difference["value"])
    text = json.dumps(content, indent=1, allow_nan=False)
    write_text(folder / "outcomes.json", text + "\n")
    with written_whole(folder / "pictures.npz") as temporary:
        np.savez_compressed(temporary, **results.pictures)


def load_results(folder: Path) -> Results:
    """Read what `save_results` wrote."""
    content = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
    with np.load(folder / "pictures.npz") as file:
        pictures = {name: file[name] for name in file.files}
    return Results(
        content["backend"],
        content["versions"],
        content["configuration"],
        tuple(content["declared"]),
        tuple(_outcome(plain) for plain in content["outcomes"]),
        tuple(content["losses"]),
        pictures,
        content["error"],
    )


def _outcome(plain: Mapping[str, Any]) -> Outcome:
    return Outcome(
        plain["check"],
        plain["kind"],
        tuple(Difference(d["place"], float(d["value"])) for d in plain["differences"]),
        Tolerance(**plain["tolerance"]),
        plain["cause"],
    )
