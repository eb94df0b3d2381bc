"""What was measured, every repetition of it, as JSON; and its summary: medians of ratios, lowest and highest."""

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import environment
from common.files import write_text


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, the lowest and the highest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of ratios, each of two values of the same repetition."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and how busy it was then."""
    flags = environment.cpu_flags()
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        **environment.hardware(),
        "instructions": [flag for flag in wanted if flag in flags],
        "load_before": load,
    }


def save(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, whole or not at all."""
    write_text(path, json.dumps(results, indent=1, default=asdict) + "\n")
