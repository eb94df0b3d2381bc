"""Parity of the native pipeline's draws: what flips, crops and colours share, and flips.

A framework draws from its own generator, so its draws are no others' draws. They are found again in the pixels of
`known_pictures` and compared with the book's ranges and distributions, or with those that the backend declares in
``NATIVE`` of its probes. Bounds are those of `chance`.
"""

import numpy as np

from common.augmentation.operations import RandomFlipLeftRight, RandomFlipTopBottom
from common.parity import chance
from common.parity import known_pictures as known
from common.parity.adapter import Adapter
from common.parity.comparison import Array, CheckResult, Difference
from common.parity.tolerances import tolerance
from common.parity.visits import Amount, Visits, visited

Found = dict[str, float]  # by place: a distance divided by its bound
# Fewer draws than this can be off by 0.42 by chance, which is nearly always or never for a coin.
LEAST = 80
# How far pixels may be from the reference's with the draws that were found, in levels.
LEVELS = 3.0


def levels_apart(X: Array, wanted: Array) -> float:
    """Return the largest difference of floats in 0..1, over the `LEVELS` that are allowed; inf for other shapes."""
    return float(255 * np.abs(X - wanted).max() / LEVELS) if X.shape == wanted.shape else np.inf


def fair(drawn: Array, visits: Visits, p: float = 0.5, error: float = 0.0) -> Found:
    """Compare how often ``drawn``, bool (n,), is true: altogether, and in parts of the epochs and batches."""
    return {
        f"share, {name}": chance.share(drawn[group], p, error)
        for name, group in visits.groups(LEAST).items()
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
    groups = visits.groups(LEAST)
    found = {f"{name}": chance.uniform(values[group], error) for name, group in groups.items()}
    return found | independent(values < 0.5, visits, error)


def named(place: str, found: Found) -> Found:
    """Return distances with a place in front of their names."""
    return {f"{place}: {name}": value for name, value in found.items()}


def result_of(check: str, found: Found) -> CheckResult:
    """Return the result of a check that found these distances."""
    differences = tuple(Difference(place, float(value)) for place, value in found.items())
    return CheckResult(check, "float32", differences, tolerance(check, "float32"))


# --- Flips ---------------------------------------------------------------------------------------------------------


def flip_draws(adapter: Adapter, amount: Amount, seed: int) -> CheckResult:
    """Check how often both flips come, at even and at odd sizes, with several probabilities."""
    recipes = {(6, 8): (0.5, 0.5), (7, 5): (0.25, 0.8)}
    found: Found = {}
    for number, (size, probabilities) in enumerate(recipes.items()):
        augs = RandomFlipLeftRight(probabilities[0]), RandomFlipTopBottom(probabilities[1])
        images = known.noise(amount.flips, size, seed)
        for how, visits in visited(adapter, images, augs, amount, seed, number):
            place = f"flips with p = {probabilities}, {how}"
            found |= named(place, _flips(visits, images, probabilities))
    return result_of("native draws: flips", found)


def _flips(visits: Visits, images: Array, probabilities: tuple[float, float]) -> Found:
    left_right, top_bottom, apart = known.flips_of(visits.X, known.as_batch(images[visits.index]))
    # A level is 4e-3; floats of levels are exact to 1e-7.
    found = {"pixels": float(apart.max() / 1e-6)}
    for name, drawn, p in zip(
        ("left-right", "top-bottom"), (left_right, top_bottom), probabilities, strict=True
    ):
        found |= named(name, fair(drawn, visits, p))
        if p == 0.5:
            found |= named(name, independent(drawn, visits))
    p, q = probabilities
    both = chance.share(left_right == top_bottom, p * q + (1 - p) * (1 - q))
    return found | {"both or none": both}
