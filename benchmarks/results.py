"""Results as JSON, with every repetition, and their summary: the median, lowest and highest of ratios."""

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.system import environment
from common.system.files import write_text


@dataclass(frozen=True)
class Spread:
    """The median, the lowest and the highest of some repetitions."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of the ratios of two values of the same repetition."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def machine() -> dict[str, Any]:
    """Describe the machine."""
    flags = environment.cpu_flags()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    return {
        **environment.hardware(),
        "instructions": [flag for flag in wanted if flag in flags],
    }


def load_of_the_machine() -> float | None:
    """Return the machine's load, averaged over the last minute, or None on Windows."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def added_to(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Return the results in a file, to repeat some of its measures, or only the header if there is no file.

    Raises UserError for results of another machine, other backends or another extent: these do not compare.
    """
    if not path.exists():
        return header
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    plain = json.loads(json.dumps(header))
    for name, value in plain.items():
        if kept.get(name) != value:
            raise UserError(
                f"the {name} of the results in {path} and of this run differ: choose another --output"
            )
    return kept


def save(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, atomically."""
    write_text(path, json.dumps(results, indent=1) + "\n")
