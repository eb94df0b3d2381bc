"""The result of a check: a difference for each place, a tolerance, and the likely cause of a failure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = Mapping[str, Array]  # place: array, in the order of computation


@dataclass(frozen=True)
class Tolerance:
    """The largest difference measured between a correct backend and the reference, times a margin.

    ``reason`` explains where that difference comes from.
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
    """A place (a layer, a weight, a step, an operation) and the backend's difference from the reference there."""

    place: str
    value: float


# Compares a backend's arrays with the reference's; returns one difference for each place.
Distance = Callable[[Arrays, Arrays], list[Difference]]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of one backend.

    ``cause`` names the known difference that explains a failure; it is "" if no known difference does. It is None if no
    cause was searched for: the check passed, or it cannot tell causes apart. ``seed`` is the seed of the inputs.
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
        """Return the first difference above the tolerance, in the order of computation, or None."""
        return next((d for d in self.differences if not d.value <= self.tolerance.limit), None)

    @property
    def passed(self) -> bool:
        """Return whether every difference is within the tolerance."""
        return self.first is None

    def where(self) -> str:
        """Return which difference is the first above the tolerance, and its value."""
        if self.first is None:
            return f"{self.check}, {self.kind}: within {self.tolerance.limit:.1e}"
        return (
            f"{self.check}, {self.kind}: first differs at {self.first.place}, by {self.first.value:.1e} "
            f"(tolerance {self.tolerance.limit:.1e})"
        )

    def sentence(self) -> str:
        """Return `where`, and the cause if one was searched for."""
        if self.first is None or self.cause is None:
            return self.where()
        cause = f"explained by {self.cause}" if self.cause else "no known difference explains it"
        return f"{self.where()}; {cause}"


def at(place: str, result: CheckResult) -> CheckResult:
    """Return ``result`` reduced to one difference at ``place``: the first above the tolerance, or the largest."""
    worst = result.first or result.largest
    return replace(result, differences=(Difference(f"{place}: {worst.place}", worst.value),))


def together(results: Sequence[CheckResult]) -> CheckResult:
    """Merge several results of one check: all differences, and the cause of the first failure."""
    first = next((result for result in results if not result.passed), results[0])
    return replace(first, differences=tuple(d for result in results for d in result.differences))


Size = Callable[[Array], float]


def norm(values: Array) -> float:
    """Return the Euclidean norm of all values."""
    return float(np.linalg.norm(values.ravel()))


def largest(values: Array) -> float:
    """Return the largest absolute value; nan if any value is nan."""
    return float(np.abs(values).max(initial=0.0))


def mean(values: Array) -> float:
    """Return the mean absolute value."""
    return float(np.abs(values).mean())


def by_place(
    size: Size, got: Arrays, expected: Arrays, scales: Mapping[str, float]
) -> list[Difference]:
    """Return the ``size`` of the difference at each place, divided by its scale; inf if an array is missing."""
    found = []
    for place, array in expected.items():
        value = np.inf
        if place in got and got[place].shape == array.shape:
            error = np.subtract(got[place], array, dtype=np.float64)
            value = size(error) / (scales[place] or 1.0)
        found.append(Difference(place, value))
    return found


def absolute(size: Size) -> Distance:
    """Return the distance that measures the absolute difference at each place by ``size``."""
    return lambda got, expected: by_place(size, got, expected, dict.fromkeys(expected, 1.0))


def relative(size: Size) -> Distance:
    """Return the distance that divides each difference by the size of the expected array."""

    def distance(got: Arrays, expected: Arrays) -> list[Difference]:
        return by_place(
            size, got, expected, {name: size(array) for name, array in expected.items()}
        )

    return distance


largest_relative = relative(largest)


def same_places(distance: Distance) -> Distance:
    """Return a distance that also counts each unexpected place as a difference of 1."""

    def with_extra(got: Arrays, expected: Arrays) -> list[Difference]:
        extra = [Difference(f"{place}, unexpected", 1.0) for place in got if place not in expected]
        return distance(got, expected) + extra

    return with_extra


# Absolute and relative differences; unexpected places are rejected.
difference = same_places(absolute(largest))
relative_difference = same_places(largest_relative)


def logits_difference(got: Arrays, expected: Arrays) -> list[Difference]:
    """Return the largest difference relative to the largest logit, or to 1 if all logits are smaller."""
    scales = {place: max(largest(array), 1.0) for place, array in expected.items()}
    return by_place(largest, got, expected, scales)


def overall_norm(got: Arrays, expected: Arrays) -> list[Difference]:
    """Return the Euclidean norm of all differences, divided by the norm of all expected values."""
    size = norm(np.array([norm(array) for array in expected.values()]))
    found = by_place(norm, got, expected, dict.fromkeys(expected, size))
    return [Difference("overall", norm(np.array([d.value for d in found])))]


def size_for(kind: str) -> Size:
    """Return the size that compares gradients and weights: the largest value in float64, a norm in other kinds.

    In float32, a ReLU whose input is within rounding of 0 passes its gradient on in one framework and not in another.
    Single values then differ by a few percent. In bfloat16 all values do.
    """
    return largest if kind == "float64" else norm
