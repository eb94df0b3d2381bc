"""Parity of the native pipeline's random draws: code shared by flips, crops and colours, and flips.

Each framework draws from its own generator, so draws of two frameworks differ. They are recovered from the pixels of
`pictures`. Their ranges and distributions are compared with the book's, or with those that the backend declares in
``NATIVE`` of its probes. The bounds come from `chance`.
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

Found = dict[str, float]  # place: a distance divided by its bound


class Draws:
    """The distances of one kind of draws: "flips", "crops" or "colours".

    Statistical distances and pixel differences belong to two checks, because only the former depend on chance.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.found: Found = {}
        self.pixels: Found = {}  # place: the largest difference of pixels, in 0..255

    def add(self, place: str, visits: Visits, found: Found, pixels: float | None = None) -> None:
        """Add the distances found in these visits, and the largest pixel difference from the reference."""
        if pixels is not None:
            self.pixels[place] = pixels
        certain: Found = {}
        if visits.batched:
            certain = {
                "sizes and labels of batches": chance.must_hold(visits.in_order),
                "enough images in last batches": chance.must_hold(visits.last.sum() >= LEAST),
            }
        self.found |= prefixed(place, certain | found)

    def results(self) -> Iterator[CheckResult]:
        """Yield the results of both checks."""
        for check, found in ((self.kind, self.found), (f"pixels of {self.kind}", self.pixels)):
            name = f"native draws: {check}"
            differences = tuple(Difference(place, float(value)) for place, value in found.items())
            yield CheckResult(name, "float32", differences, tolerance(name, "float32"))


def pixel_difference(X: Array, expected: Array) -> float:
    """Return the largest difference of floats in 0..1, scaled to 0..255; inf if shapes differ."""
    return float(255 * np.abs(X - expected).max()) if X.shape == expected.shape else np.inf


def share_by_group(drawn: Array, visits: Visits, p: float = 0.5, error: float = 0.0) -> Found:
    """Compare how often ``drawn``, bool (n,), is true: in all visits, and in groups of epochs and batches."""
    return {
        f"share, {name}": chance.share(drawn[group], p, error)
        for name, group in visits.groups().items()
    }


def independent(drawn: Array, visits: Visits, error: float = 0.0) -> Found:
    """Check that pairs of draws, each true with probability 1/2, agree in half of the cases.

    Pairs are the draws of an image in two epochs, of neighbours in a batch, and at the same position in two batches. Up
    to four workers may have made those two batches at the same time.
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


def uniform_and_independent(values: Array, visits: Visits, error: float = 0.0) -> Found:
    """Compare values (n,) with the uniform distribution on 0..1 in groups of the visits, and with each other."""
    groups = visits.groups()
    found = {f"{name}": chance.uniform(values[group], error) for name, group in groups.items()}
    return found | independent(values < 0.5, visits, error)


def prefixed(place: str, found: Found) -> Found:
    """Return distances whose names are prefixed with a place."""
    return {f"{place}: {name}": value for name, value in found.items()}


# --- Flips ---------------------------------------------------------------------------------------------------------


def flip_draws(adapter: Adapter, amount: Amount, seed: int) -> Iterator[CheckResult]:
    """Check how often both flips occur, for even and odd sizes and several probabilities."""
    recipes = {(6, 8): (0.5, 0.5), (7, 5): (0.25, 0.8)}
    draws = Draws("flips")
    for number, (size, probabilities) in enumerate(recipes.items()):
        augs = RandomFlipLeftRight(probabilities[0]), RandomFlipTopBottom(probabilities[1])
        images = known.noise(amount.flips, size, seed)
        for how, visits in visited(adapter, images, augs, amount, seed, number):
            place = f"flips with p = {probabilities}, {how}"
            plain = transforms.from_images(images[visits.index])
            left_right, top_bottom, errors = known.flips_of(visits.X, plain)
            found = _flips(left_right, top_bottom, visits, probabilities)
            draws.add(place, visits, found, 255 * float(errors.max()))
    yield from draws.results()


def _flips(
    left_right: Array, top_bottom: Array, visits: Visits, probabilities: tuple[float, float]
) -> Found:
    found: Found = {}
    for name, drawn, p in zip(
        ("left-right", "top-bottom"), (left_right, top_bottom), probabilities, strict=True
    ):
        found |= prefixed(name, share_by_group(drawn, visits, p))
        if p == 0.5:
            found |= prefixed(name, independent(drawn, visits))
    p, q = probabilities
    both = chance.share(left_right == top_bottom, p * q + (1 - p) * (1 - q))
    return found | {"both or none": both}
