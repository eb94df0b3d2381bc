"""The result of a check: differences by place, a tolerance, and the likely cause if a difference exceeds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]  # by place, in the order of computation


@dataclass(frozen=True)
class Tolerance:
    """The largest difference that was measured between a correct backend and the reference, times a margin.

    ``reason`` says where that difference comes from.
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
    """A place (a layer, a weight, a step, an operation) and how far the backend is from the reference there."""

    place: str
    value: float


# Returns how far a backend's arrays are from the reference's, place by place.
Distance = Callable[[Arrays, Arrays], list[Difference]]


@dataclass(frozen=True)
class CheckResult:
    """One check of one backend.

    ``cause`` names the known difference that explains a failure, '' if no known difference does. It is None if no cause
    was searched for: the check passed, or cannot tell causes apart. ``seed`` is what the inputs were drawn from.
    """

    check: str
    kind: str  # float32, float64, bfloat16, tf32 or uint8
    differences: tuple[Difference, ...]
    tolerance: Tolerance
    cause: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.differences:
            raise ValueError(f"{self.check}: there is nothing to compare")

    @property
    def largest(self) -> Difference:
        """Return the largest difference; nan counts as larger than any number."""
        return max(self.differences, key=lambda d: np.inf if np.isnan(d.value) else d.value)

    @property
    def first(self) -> Difference | None:
        """Return the first difference that exceeds the tolerance, in the order of computation; None if none does."""
        return next((d for d in self.differences if not d.value <= self.tolerance.limit), None)

    @property
    def passed(self) -> bool:
        """Return whether every difference is within the tolerance."""
        return self.first is None

    def where(self) -> str:
        """Return where the first difference exceeds the tolerance, and by how much."""
        if self.first is None:
            return f"{self.check}, {self.kind}: within {self.tolerance.limit:.1e}"
        return (
            f"{self.check}, {self.kind}: first off at {self.first.place}, by {self.first.value:.1e} "
            f"where {self.tolerance.limit:.1e} is allowed"
        )

    def sentence(self) -> str:
        """Return `where`, and the cause if one was searched for."""
        if self.first is None or self.cause is None:
            return self.where()
        cause = f"explained by {self.cause}" if self.cause else "no known difference explains it"
        return f"{self.where()}; {cause}"


def at(place: str, result: CheckResult) -> CheckResult:
    """Return a result at a place: with its first difference that is too large, or else its largest."""
    worst = result.first or result.largest
    return replace(result, differences=(Difference(f"{place}: {worst.place}", worst.value),))


def together(results: Sequence[CheckResult]) -> CheckResult:
    """Return one result with the differences of several results of a check, and the cause of the first failure."""
    first = next((result for result in results if not result.passed), results[0])
    return replace(first, differences=tuple(d for result in results for d in result.differences))


Size = Callable[[Array], float]


def norm(values: Array) -> float:
    """Return the Euclidean norm of all values."""
    return float(np.linalg.norm(values.ravel()))


def largest(values: Array) -> float:
    """Return the largest absolute value; nan if any is not a number."""
    return float(np.abs(values).max(initial=0.0))


def mean(values: Array) -> float:
    """Return the mean absolute value."""
    return float(np.abs(values).mean())


def by_place(
    size: Size, got: Arrays, wanted: Arrays, scales: Mapping[str, float]
) -> list[Difference]:
    """Return the ``size`` of the difference of each place, divided by its scale; inf if an array is missing."""
    found = []
    for place, array in wanted.items():
        value = np.inf
        if place in got and got[place].shape == array.shape:
            apart = np.subtract(got[place], array, dtype=np.float64)
            value = size(apart) / (scales[place] or 1.0)
        found.append(Difference(place, value))
    return found


def absolute(size: Size) -> Distance:
    """Return the distance that is the size of the difference of each place."""
    return lambda got, wanted: by_place(size, got, wanted, dict.fromkeys(wanted, 1.0))


def relative(size: Size) -> Distance:
    """Return the distance that is the size of each place's difference, divided by the size of what is wanted there."""

    def distance(got: Arrays, wanted: Arrays) -> list[Difference]:
        return by_place(size, got, wanted, {name: size(array) for name, array in wanted.items()})

    return distance


largest_relative = relative(largest)


def exactly_these(distance: Distance) -> Distance:
    """Return the distance that also counts each place that is not wanted, as 1."""

    def with_extra(got: Arrays, wanted: Arrays) -> list[Difference]:
        extra = [Difference(f"{place}, not wanted", 1.0) for place in got if place not in wanted]
        return distance(got, wanted) + extra

    return with_extra


# Differences as they are, or as a share; no place may be there that is not wanted.
difference = exactly_these(absolute(largest))
relative_difference = exactly_these(largest_relative)


def logits_difference(got: Arrays, wanted: Arrays) -> list[Difference]:
    """Return the largest difference as a share of the largest logit, or of 1: one logit may be near 0 by chance."""
    scales = {place: max(largest(array), 1.0) for place, array in wanted.items()}
    return by_place(largest, got, wanted, scales)


def norm_together(got: Arrays, wanted: Arrays) -> list[Difference]:
    """Return the Euclidean norm of all differences, divided by the norm of all that is wanted."""
    size = norm(np.array([norm(array) for array in wanted.values()]))
    found = by_place(norm, got, wanted, dict.fromkeys(wanted, size))
    return [Difference("all together", norm(np.array([d.value for d in found])))]


def size_in(kind: str) -> Size:
    """Return the size that gradients and weights are compared by: the largest value in float64, else the norm.

    In float32 a ReLU whose input is within rounding of 0 passes its gradient on in one framework and not in another, so
    single values differ by some per cent. In bfloat16 every value does.
    """
    return largest if kind == "float64" else norm
