"""Parity of the native pipeline's draws: what flips, crops and colours share, and flips.

A framework draws from its own generator, so its draws are no others' draws. They are found again in the pixels of
`pictures` and compared with the book's ranges and distributions, or with those that the backend declares in
``NATIVE`` of its probes. Bounds are those of `chance`.
"""

from collections.abc import Iterator

import numpy as np

from common.augmentation.operations import RandomFlipLeftRight, RandomFlipTopBottom
from common.parity import chance
from common.parity.adapter import Adapter
from common.parity.comparison import Array, CheckResult, Difference
from common.parity.native import pictures as known
from common.parity.native.visits import LEAST, Amount, Visits, visited
from common.parity.tolerances import tolerance
from common.reference import transforms

Found = dict[str, float]  # by place: a distance divided by its bound


class Draws:
    """What is found of the draws of one kind: "flips", "crops" or "colours".

    Distances over the bounds of chance and differences of pixels have a check each: only the former depend on chance.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.found: Found = {}
        self.levels: Found = {}  # by place: the largest difference of pixels, in levels

    def add(self, place: str, visits: Visits, found: Found, levels: float | None = None) -> None:
        """Add what was found in these visits: distances, and how far pixels are from the reference's."""
        if levels is not None:
            self.levels[place] = levels
        certain: Found = {}
        if visits.batched:
            certain = {
                "sizes and labels of batches": chance.certainly(visits.in_order),
                "images of last batches suffice": chance.certainly(visits.last.sum() >= LEAST),
            }
        self.found |= named(place, certain | found)

    def results(self) -> Iterator[CheckResult]:
        """Yield the result of both checks."""
        for check, found in ((self.kind, self.found), (f"pixels of {self.kind}", self.levels)):
            name = f"native draws: {check}"
            differences = tuple(Difference(place, float(value)) for place, value in found.items())
            yield CheckResult(name, "float32", differences, tolerance(name, "float32"))


def levels_apart(X: Array, wanted: Array) -> float:
    """Return the largest difference of floats in 0..1, in levels; inf for other shapes."""
    return float(255 * np.abs(X - wanted).max()) if X.shape == wanted.shape else np.inf


def fair(drawn: Array, visits: Visits, p: float = 0.5, error: float = 0.0) -> Found:
    """Compare how often ``drawn``, bool (n,), is true: altogether, and in parts of the epochs and batches."""
    return {
        f"share, {name}": chance.share(drawn[group], p, error)
        for name, group in visits.groups().items()
    }


def independent(drawn: Array, visits: Visits, error: float = 0.0) -> Found:
    """Compare how often two draws, each true one time in two, agree: they do one time in two.

    Pairs are an image's draws in two epochs, an image and its neighbour in a batch, and the same places of two batches
    that workers, up to four, may have made at the same time.
    """
    table = np.full((visits.epoch.max() + 1, visits.index.max() + 1), -1)
    table[visits.epoch, visits.index] = drawn
    pairs = {
        f"epochs {first} and {first + lag}": (table[first], table[first + lag])
        for lag in (1, 2)
        for first in range(len(table) - lag)
    }
    places = np.full((visits.epoch.max() + 1, visits.batch.max() + 1, visits.place.max() + 1), -1)
    places[visits.epoch, visits.batch, visits.place] = drawn
    pairs["neighbours"] = places[..., :-1], places[..., 1:]
    pairs |= {
        f"batches {lag} apart": (places[:, :-lag], places[:, lag:])
        for lag in range(1, min(5, places.shape[1]))
    }
    found = {}
    for name, (first, second) in pairs.items():
        both = (first >= 0) & (second >= 0)
        if both.sum() >= LEAST:
            found[f"agree, {name}"] = chance.share(first[both] == second[both], 0.5, error)
    return found


def evenly(values: Array, visits: Visits, error: float = 0.0) -> Found:
    """Compare values (n,) with the uniform distribution on 0..1, in parts of the visits, and one with another."""
    groups = visits.groups()
    found = {f"{name}": chance.uniform(values[group], error) for name, group in groups.items()}
    return found | independent(values < 0.5, visits, error)


def named(place: str, found: Found) -> Found:
    """Return distances with a place in front of their names."""
    return {f"{place}: {name}": value for name, value in found.items()}


# --- Flips ---------------------------------------------------------------------------------------------------------


def flip_draws(adapter: Adapter, amount: Amount, seed: int) -> Iterator[CheckResult]:
    """Check how often both flips come, at even and at odd sizes, with several probabilities."""
    recipes = {(6, 8): (0.5, 0.5), (7, 5): (0.25, 0.8)}
    draws = Draws("flips")
    for number, (size, probabilities) in enumerate(recipes.items()):
        augs = RandomFlipLeftRight(probabilities[0]), RandomFlipTopBottom(probabilities[1])
        images = known.noise(amount.flips, size, seed)
        for how, visits in visited(adapter, images, augs, amount, seed, number):
            place = f"flips with p = {probabilities}, {how}"
            plain = transforms.from_images(images[visits.index])
            left_right, top_bottom, apart = known.flips_of(visits.X, plain)
            found = _flips(left_right, top_bottom, visits, probabilities)
            draws.add(place, visits, found, 255 * float(apart.max()))
    yield from draws.results()


def _flips(
    left_right: Array, top_bottom: Array, visits: Visits, probabilities: tuple[float, float]
) -> Found:
    found: Found = {}
    for name, drawn, p in zip(
        ("left-right", "top-bottom"), (left_right, top_bottom), probabilities, strict=True
    ):
        found |= named(name, fair(drawn, visits, p))
        if p == 0.5:
            found |= named(name, independent(drawn, visits))
    p, q = probabilities
    both = chance.share(left_right == top_bottom, p * q + (1 - p) * (1 - q))
    return found | {"both or none": both}
