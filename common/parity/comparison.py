"""What a check finds: differences by place, held to a tolerance, and the likely cause where they are too large."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.reference import Conventions
from common.reference import Difference as KnownDifference

Array = NDArray[Any]
Arrays = Mapping[str, Array]  # by place, in the order of computation


@dataclass(frozen=True)
class Tolerance:
    """How far correct backends may be apart: the largest difference that was measured, times a margin.

    ``reason`` says where that difference comes from. ``conditions`` say what was measured.
    """

    measured: float
    margin: float
    reason: str

    @property
    def limit(self) -> float:
        """Return the largest difference that passes."""
        return self.measured * self.margin


@dataclass(frozen=True)
class Difference:
    """A place (a layer, a weight, a step, an operation) and how far the backend is from the arbiter there."""

    place: str
    value: float


# How far what a backend has got is from what is wanted, place by place.
Distance = Callable[[Arrays, Arrays], list[Difference]]


@dataclass(frozen=True)
class Outcome:
    """One check of one backend. ``cause`` names the known difference that explains a failure, '' where none does.

    It is None where none was looked for: the check passed, or is none that could tell.
    """

    check: str
    kind: str  # float32, float64 or uint8
    differences: tuple[Difference, ...]
    tolerance: Tolerance
    cause: str | None = None

    def __post_init__(self) -> None:
        if not self.differences:
            raise ValueError(f"{self.check}: there is nothing to compare")

    @property
    def largest(self) -> Difference:
        """Return the largest difference; one that is not a number is larger than all."""
        return max(self.differences, key=lambda d: np.inf if np.isnan(d.value) else d.value)

    @property
    def first(self) -> Difference | None:
        """Return the first difference that is too large, in the order of computation; None if none is."""
        return next((d for d in self.differences if not d.value <= self.tolerance.limit), None)

    @property
    def passed(self) -> bool:
        """Tell whether everything is within the tolerance."""
        return self.first is None

    def where(self) -> str:
        """Return where the first difference that is too large is, and how large it is."""
        if self.first is None:
            return f"{self.check}, {self.kind}: within {self.tolerance.limit:.1e}"
        return (
            f"{self.check}, {self.kind}: first off at {self.first.place}, by {self.first.value:.1e} "
            f"where {self.tolerance.limit:.1e} is allowed"
        )

    def sentence(self) -> str:
        """Return where it went wrong first, and the cause where one was sought."""
        if self.first is None or self.cause is None:
            return self.where()
        cause = f"explained by {self.cause}" if self.cause else "no known difference explains it"
        return f"{self.where()}; {cause}"


def compare(
    check: str,
    kind: str,
    got: Arrays,
    wanted: Callable[[Conventions], Arrays],
    conventions: Conventions,
    tolerance: Tolerance,
    distance: Distance,
    suspects: Sequence[KnownDifference],
) -> Outcome:
    """Hold what a backend computed against the arbiter, and on a failure look for the cause.

    ``wanted`` computes the arbiter's answer under given conventions. The cause is looked for by asking it again under
    each of the ``suspects``: the first that brings the backend within the tolerance explains the failure.
    """
    outcome = Outcome(check, kind, tuple(distance(got, wanted(conventions))), tolerance)
    if outcome.passed:
        return outcome
    for known in suspects:
        found = tuple(distance(got, wanted(known.conventions(conventions))))
        if replace(outcome, differences=found).passed:
            return replace(outcome, cause=f"{known.name} ({known.meaning})")
    return replace(outcome, cause="" if suspects else None)


def relative(got: Arrays, wanted: Arrays) -> list[Difference]:
    """Return the largest difference of each place, as a share of the largest value wanted there."""
    return differences(got, wanted, {name: largest(array) for name, array in wanted.items()})


def relative_norms(got: Arrays, wanted: Arrays) -> list[Difference]:
    """Return the Euclidean norm of the difference of each place, as a share of the norm of what is wanted there."""
    return norms(got, wanted, {name: norm(array) for name, array in wanted.items()})


def norm_together(got: Arrays, wanted: Arrays) -> list[Difference]:
    """Return the Euclidean norm of all differences, as a share of the norm of all that is wanted."""
    size = norm(np.array([norm(array) for array in wanted.values()]))
    found = norms(got, wanted, dict.fromkeys(wanted, size))
    return [Difference("all together", norm(np.array([d.value for d in found])))]


def differences(got: Arrays, wanted: Arrays, scales: Mapping[str, float]) -> list[Difference]:
    """Return the largest difference of each place, divided by its scale; what is missing is infinitely far."""
    return [
        Difference(place, _apart(got.get(place), array, scales[place]))
        for place, array in wanted.items()
    ]


def norms(got: Arrays, wanted: Arrays, scales: Mapping[str, float]) -> list[Difference]:
    """Return the Euclidean norm of the difference of each place, divided by its scale.

    For gradients in float32, of which single ones part by some per cent: a ReLU whose input is within rounding of 0
    passes a gradient on in one framework and not in the other. And for all that is computed in bfloat16.
    """
    return [
        Difference(place, _norm_apart(got.get(place), array) / (scales[place] or 1.0))
        for place, array in wanted.items()
    ]


def _norm_apart(got: Array | None, wanted: Array) -> float:
    if got is None or got.shape != wanted.shape:
        return np.inf
    return norm(np.subtract(got, wanted, dtype=np.float64))


def norm(values: Array) -> float:
    """Return the Euclidean norm of all values."""
    return float(np.linalg.norm(values.ravel()))


def _apart(got: Array | None, wanted: Array, scale: float) -> float:
    if got is None or got.shape != wanted.shape:
        return np.inf
    return largest(np.subtract(got, wanted, dtype=np.float64)) / (scale or 1.0)


def largest(values: Array) -> float:
    """Return the largest absolute value; nan if any is not a number."""
    return float(np.abs(values).max(initial=0.0))
