"""The results of one backend's checks, kept as JSON and pictures: each backend has a process of its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.parity.comparison import Array, CheckResult, Difference, Tolerance
from common.system.files import write_text, written_whole

Pictures = dict[str, Array]  # by operation: floats 0..1, (3, height, width)


@dataclass(frozen=True)
class BackendResults:
    """One backend's checks, the losses of its free-running training, and pictures of its operations."""

    backend: str
    versions: Mapping[str, str]
    configuration: Mapping[str, str]  # what computed: precision, device, threads, compiler
    declared: tuple[str, ...]  # the known differences that it declares
    checks: tuple[CheckResult, ...]
    losses: tuple[float, ...] = ()
    pictures: Pictures = field(default_factory=dict)
    error: str = ""  # the exception or exit code that ended the checks early

    @property
    def passed(self) -> bool:
        """Return whether all checks were made and passed."""
        return not self.error and not self.failures

    @property
    def failures(self) -> list[CheckResult]:
        """Return the checks that failed."""
        return [check for check in self.checks if not check.passed]

    def diagnosis(self) -> list[str]:
        """Return the failures by cause: how many checks each explains, and the first of them."""
        by_cause: dict[str | None, list[CheckResult]] = {}
        for check in self.failures:
            by_cause.setdefault(check.cause, []).append(check)
        count = len(self.checks)
        lines = [
            f"{self.backend}: {len(failed)} of {count} checks failed"
            + ("" if cause is None else f", explained by {cause or 'no known difference'}")
            + f". The first: {failed[0].where()}"
            for cause, failed in by_cause.items()
        ]
        if self.error:
            lines.append(f"{self.backend}: broke off after {count} checks: {self.error}")
        return lines


def by_check(
    results: Sequence[BackendResults],
) -> list[tuple[CheckResult, list[CheckResult | None]]]:
    """Return a row for each check: a result that describes it, and each backend's result, None if it has none."""
    found = [{(c.check, c.kind): c for c in result.checks} for result in results]
    keys = dict.fromkeys(key for checks in found for key in checks)
    rows = [[checks.get(key) for checks in found] for key in keys]
    return [(next(c for c in row if c is not None), row) for row in rows]


def number(value: float) -> str:
    """Return a difference as it is shown."""
    return "0" if value == 0 else f"{value:.1e}"


def save_results(folder: Path, results: BackendResults) -> None:
    """Write ``outcomes.json`` and ``pictures.npz`` into ``folder``."""
    content = asdict(results)
    del content["pictures"]
    content["outcomes"] = content.pop("checks")
    for plain, check in zip(content["outcomes"], results.checks, strict=True):
        plain |= {"passed": check.passed, "limit": check.tolerance.limit}
        for difference in plain["differences"]:
            if not np.isfinite(difference["value"]):  # JSON has no nan and no inf
                difference["value"] = str(difference["value"])
    text = json.dumps(content, indent=1, allow_nan=False)
    write_text(folder / "outcomes.json", text + "\n")
    with written_whole(folder / "pictures.npz") as temporary:
        np.savez_compressed(temporary, **results.pictures)


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
    )


def _check_result(plain: Mapping[str, Any]) -> CheckResult:
    return CheckResult(
        plain["check"],
        plain["kind"],
        tuple(Difference(d["place"], float(d["value"])) for d in plain["differences"]),
        Tolerance(**plain["tolerance"]),
        plain["cause"],
    )
