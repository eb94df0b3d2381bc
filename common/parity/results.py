"""The results of one backend's checks, saved as JSON and pictures. Each backend runs in a process of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.parity.comparison import Array, CheckResult, Difference, Tolerance
from common.parity.coverage import Covered
from common.system.files import atomic_write, write_text, writing

Pictures = dict[str, Array]  # operation: floats 0..1, (3, height, width)
SO_FAR = "so-far.jsonl"  # one line for each finished check


@dataclass(frozen=True)
class BackendResults:
    """One backend's checks, the losses of its free-running training, and pictures of its operations.

    The checks include every seed, one seed after another. The losses and pictures are those of the first seed.
    """

    backend: str
    versions: Mapping[str, str]
    configuration: Mapping[str, str]  # precision, device, threads, compiler
    declared: tuple[str, ...]  # the known differences that it declares
    checks: tuple[CheckResult, ...]
    losses: tuple[float, ...] = ()
    pictures: Pictures = field(default_factory=dict)
    error: str = ""  # why the checks ended early: an exception, or how the process ended
    last_seed: int = 0  # the seed of the last checks, finished or not
    covered: Covered = field(default_factory=dict)  # dimension: the values that were used
    not_called: tuple[str, ...] = ()  # functions of the contract that no check called

    @property
    def passed(self) -> bool:
        """Return whether all checks were run and passed."""
        return not self.error and not self.failures

    @property
    def failures(self) -> list[CheckResult]:
        """Return the checks that failed."""
        return [check for check in self.checks if not check.passed]

    @property
    def failing_seeds(self) -> list[int]:
        """Return the seeds for which a check failed or the checks ended early."""
        found = {check.seed for check in self.failures}
        return sorted(found | ({self.last_seed} if self.error else set()))

    @property
    def worst(self) -> dict[tuple[str, str], CheckResult]:
        """Return each check by name and kind, with the seed that gave the largest difference."""
        found: dict[tuple[str, str], CheckResult] = {}
        for check in self.checks:
            key = check.check, check.kind
            found[key] = max(found.get(key, check), check, key=_size)
        return found

    def diagnosis(self) -> list[str]:
        """Return the failures grouped by cause: the number of checks, and the first of them."""
        by_cause: dict[str | None, list[CheckResult]] = {}
        for check in self.failures:
            by_cause.setdefault(check.cause, []).append(check)
        count = len(self.checks)
        lines = [
            f"{self.backend}: {len(failed)} of {count} checks failed"
            + ("" if cause is None else f", explained by {cause or 'no known difference'}")
            + f". First: {failed[0].where()}"
            for cause, failed in by_cause.items()
        ]
        if self.error:
            lines.append(f"{self.backend}: stopped after {count} checks: {self.error}")
        return lines


def _size(check: CheckResult) -> float:
    return np.inf if np.isnan(check.largest.value) else check.largest.value


def by_check(
    results: Sequence[BackendResults],
) -> list[tuple[CheckResult, list[CheckResult | None]]]:
    """Return a row for each check: a result that describes it, and each backend's result or None.

    If there are several seeds, a backend's result is the one with the largest difference.
    """
    found = [result.worst for result in results]
    keys = dict.fromkeys(key for checks in found for key in checks)
    rows = [[checks.get(key) for checks in found] for key in keys]
    return [(next(c for c in row if c is not None), row) for row in rows]


def by_dimension(results: Sequence[BackendResults]) -> list[tuple[str, str]]:
    """Return what the checks covered: each dimension and its values, in one row for each backend if they differ."""
    known = [result for result in results if result.covered]
    rows = []
    for dimension in dict.fromkeys(name for result in known for name in result.covered):
        values = {r.backend: ", ".join(r.covered.get(dimension, ["none"])) for r in known}
        if len(set(values.values())) == 1:
            rows.append((dimension, next(iter(values.values()))))
        else:
            rows += [(f"{dimension} ({backend})", found) for backend, found in values.items()]
    return rows


def number(value: float) -> str:
    """Format a difference for display."""
    return "0" if value == 0 else f"{value:.1e}"


def save_results(folder: Path, results: BackendResults) -> None:
    """Write ``outcomes.json`` and ``pictures.npz`` into ``folder``, and remove what `add_check` wrote."""
    content = asdict(replace(results, checks=(), pictures={}))
    del content["pictures"], content["checks"]
    content["outcomes"] = [_plain(check) for check in results.checks]
    text = json.dumps(content, indent=1, allow_nan=False)
    with atomic_write(folder / "pictures.npz") as temporary:
        np.savez_compressed(temporary, **results.pictures)
    write_text(folder / "outcomes.json", text + "\n")
    (folder / SO_FAR).unlink(missing_ok=True)


def are_saved(folder: Path) -> bool:
    """Return whether `save_results` has written to ``folder``, which means that all checks have ended."""
    return (folder / "outcomes.json").is_file()


def load_results(folder: Path) -> BackendResults:
    """Read what `save_results` wrote."""
    content = json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))
    with np.load(folder / "pictures.npz") as file:
        pictures = {name: file[name] for name in file.files}
    return BackendResults(
        content["backend"],
        content["versions"],
        content["configuration"],
        tuple(content["declared"]),
        tuple(_check_result(plain) for plain in content["outcomes"]),
        tuple(content["losses"]),
        pictures,
        content["error"],
        content["last_seed"],
        content["covered"],
        tuple(content["not_called"]),
    )


# --- Results of checks whose process has ended early -----------------------------------------------------------------


def begin_seed(folder: Path, seed: int) -> None:
    """Record in ``folder`` that the checks of a seed begin."""
    _append(folder, {"seed": seed})


def add_check(folder: Path, check: CheckResult) -> None:
    """Record a check in ``folder``, in case the process ends before `save_results`."""
    _append(folder, {"outcome": _plain(check)})


def load_so_far(folder: Path) -> tuple[tuple[CheckResult, ...], int]:
    """Return the checks recorded in ``folder`` and the last seed; no checks and seed 0 if it does not exist."""
    checks: list[CheckResult] = []
    seed = 0
    path = folder / SO_FAR
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            content = json.loads(line)
        except ValueError:  # the process ended within the last line
            break
        seed = content.get("seed", seed)
        if "outcome" in content:
            checks.append(_check_result(content["outcome"]))
    return tuple(checks), seed


def _append(folder: Path, content: Mapping[str, Any]) -> None:
    # Not written atomically like all other files: each line is complete by itself, and the process may end at any time.
    with writing(folder), (folder / SO_FAR).open("a", encoding="utf-8") as file:
        file.write(json.dumps(content, allow_nan=False) + "\n")


def _plain(check: CheckResult) -> dict[str, Any]:
    """Return a check as a JSON-compatible dict."""
    plain = asdict(check) | {"passed": check.passed, "limit": check.tolerance.limit}
    for difference in plain["differences"]:
        if not np.isfinite(difference["value"]):  # JSON has no nan and no inf
            difference["value"] = str(difference["value"])
    return plain


def _check_result(plain: Mapping[str, Any]) -> CheckResult:
    return CheckResult(
        plain["check"],
        plain["kind"],
        tuple(Difference(d["place"], float(d["value"])) for d in plain["differences"]),
        Tolerance(**plain["tolerance"]),
        plain["cause"],
        plain["seed"],
    )
