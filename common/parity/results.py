"""What the checks of one backend leave, as JSON and pictures, so that its process can end before the report is made."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_text, written_whole
from common.parity.outcome import Array, Difference, Outcome, Tolerance

Pictures = dict[str, Array]  # by operation: floats 0..1, (3, height, width)


@dataclass(frozen=True)
class Results:
    """One backend's outcomes; the losses of its free-running training; what its operations make of one image."""

    backend: str
    versions: Mapping[str, str]
    declared: tuple[str, ...]  # the known differences that it says it has
    outcomes: tuple[Outcome, ...]
    losses: tuple[float, ...] = ()
    pictures: Pictures = field(default_factory=dict)

    @property
    def failures(self) -> list[Outcome]:
        """Return the outcomes that are beyond their tolerance."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def diagnosis(self) -> list[str]:
        """Return the failures by cause: how many checks each explains, and the first of them."""
        by_cause: dict[str, list[Outcome]] = {}
        for outcome in self.failures:
            by_cause.setdefault(outcome.cause or "", []).append(outcome)
        count = len(self.outcomes)
        return [
            f"{self.backend}: {len(failed)} of {count} checks failed"
            + (f", explained by {cause}" if cause else ", explained by no known difference")
            + f". The first: {failed[0].where()}"
            for cause, failed in by_cause.items()
        ]


def save_results(folder: Path, results: Results) -> None:
    """Write ``outcomes.json`` and ``pictures.npz`` into ``folder``."""
    content = asdict(results)
    del content["pictures"]
    for plain, outcome in zip(content["outcomes"], results.outcomes, strict=True):
        plain |= {"passed": outcome.passed, "limit": outcome.tolerance.limit}
    write_text(folder / "outcomes.json", json.dumps(content, indent=1) + "\n")
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
        tuple(content["declared"]),
        tuple(_outcome(plain) for plain in content["outcomes"]),
        tuple(content["losses"]),
        pictures,
    )


def _outcome(plain: Mapping[str, Any]) -> Outcome:
    return Outcome(
        plain["check"],
        plain["kind"],
        tuple(Difference(**difference) for difference in plain["differences"]),
        Tolerance(**plain["tolerance"]),
        plain["cause"],
    )
