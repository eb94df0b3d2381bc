"""Parity of the native pipeline's colour changes: each factor by itself, and all four together."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import combinations

import numpy as np

from common.augmentation.decisions import BRIGHTNESS, CONTRAST, HUE, PROPERTIES, SATURATION
from common.augmentation.operations import ColorJitter
from common.parity import chance
from common.parity.adapter import Adapter
from common.parity.comparison import Array, CheckResult
from common.parity.native import pictures as known
from common.parity.native.draws import Draws, Found, pixel_difference, uniform_and_independent
from common.parity.native.visits import Amount, Visits, visited
from common.parity.tolerances import FACTORS
from common.reference import Conventions, transforms


def colour_draws(adapter: Adapter, amount: Amount, seed: int) -> Iterator[CheckResult]:
    """Check the factors of each colour change by itself, and those of all four together."""
    draws = Draws("colours")
    conventions = adapter.backend.probes.NATIVE
    palettes, wheels = (
        np.repeat(picture[None], amount.count, axis=0) for picture in (known.PALETTE, known.WHEEL)
    )
    for number, strength in enumerate((0.5,) if amount.in_turns else (0.5, 0.2)):
        by_one_plan = replace(amount, in_turns=True)
        for kind, name in enumerate(PROPERTIES):
            augs = [ColorJitter(**{name: strength})]
            for how, visits in visited(adapter, palettes, augs, by_one_plan, seed, number):
                place = f"{name} {strength}, {how}"
                factors = factors_of(visits.X, kind, conventions)
                plain = np.repeat(transforms.from_images(known.PALETTE[None]), len(factors), axis=0)
                expected = transforms.ADJUST[kind](plain, factors, conventions)
                found = _one_change(factors, visits, kind, strength)
                draws.add(place, visits, found, pixel_difference(visits.X, expected))
    for number, strengths in enumerate(((0.3, 0.2, 0.4, 0.1), (0.5, 0.5, 0.5, 0.5))):
        jitter = ColorJitter(*strengths)
        sample = sample_colours(jitter, conventions)
        for how, visits in visited(adapter, wheels, [jitter], amount, seed, number):
            draws.add(f"all four {strengths}, {how}", visits, _four_changes(visits, sample))
    yield from draws.results()


def _one_change(factors: Array, visits: Visits, kind: int, strength: float) -> Found:
    low = -strength if kind == HUE else 1 - strength
    values, error = (factors - low) / (2 * strength), FACTORS.limit / (2 * strength)
    return {
        "ends": chance.reaches_ends(values, error),
        **uniform_and_independent(values, visits, error),
    }


def factors_of(X: Array, kind: int, conventions: Conventions) -> Array:
    """Return the factor, or the hue shift in turns, that was drawn for each copy of PALETTE, (n,)."""
    plain = transforms.from_images(known.PALETTE[None])
    if kind == BRIGHTNESS:
        before, after = known.middle(plain), known.middle(X)
        return after - before + 1 if conventions.brightness == "add" else after / before
    if kind == CONTRAST:
        return known.spread(X) / known.spread(plain)
    if kind == SATURATION:
        return known.chroma(X) / known.chroma(plain)
    return known.turn(X, known.PALETTE)


def _four_changes(visits: Visits, sample: Mapping[str, Array]) -> Found:
    """Compare the measures, each by itself and in pairs, with those of a sample of the reference."""
    drawn = measures(visits.X)
    clear = _clear(drawn)
    found = {
        f"{what}, {group}": chance.same_distribution(drawn[what][clear & mask], np.sort(expected))
        for group, mask in visits.groups().items()
        for what, expected in sample.items()
    }
    # Take the medians from one half of the sample, so that they are independent of the other half.
    middles = {what: np.median(expected[::2]) for what, expected in sample.items()}
    other = {what: expected[1::2] for what, expected in sample.items()}
    for first, second in combinations(sample, 2):
        agree, expected = (
            (m[first] < middles[first]) == (m[second] < middles[second]) for m in (drawn, other)
        )
        found[f"{first} and {second}"] = chance.same_share(agree[clear], expected)
    return found


MEASURES: Mapping[str, Callable[[Array], Array]] = {
    "brightness": known.level,
    "contrast": lambda X: known.spread(X) / known.level(X),
    "saturation": lambda X: known.chroma(X) / known.spread(X).clip(1 / 255),
    "hue": lambda X: known.turn(X, known.WHEEL),
}


def measures(X: Array) -> dict[str, Array]:
    """Return for each colour change the quantity that it changes most, (n,), whatever the order of the four."""
    return {name: measure(X) for name, measure in MEASURES.items()}


def _clear(drawn: Mapping[str, Array]) -> Array:
    """Return which images are so far from black and white that no value was clipped."""
    return np.asarray((drawn["brightness"] > 0.2) & (drawn["brightness"] < 0.8))


@lru_cache
def sample_colours(jitter: ColorJitter, conventions: Conventions) -> Mapping[str, Array]:
    """Return measures of WHEEL after the reference's jitter, rounded to uint8 after each change."""
    rng = np.random.default_rng(0)
    strengths = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    centres = np.array([1, 1, 1, 0])
    factors = rng.uniform(centres - strengths, centres + strengths, (chance.SAMPLE, 4))
    orders = rng.permuted(np.tile(np.arange(4), (chance.SAMPLE, 1)), axis=1)
    X = np.repeat(transforms.from_images(known.WHEEL[None]), chance.SAMPLE, axis=0)
    for turn in orders.T:
        for kind in range(4):
            now = turn == kind
            changed = transforms.ADJUST[kind](X[now], factors[now, kind], conventions)
            X[now] = transforms.to_uint8(changed, conventions) / 255
    found = measures(X)
    clear = _clear(found)
    return {name: values[clear] for name, values in found.items()}
