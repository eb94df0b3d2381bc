"""Parity of the native pipeline's changes of colour: each factor by itself, and all four together."""

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
from common.parity.native.draws import Draws, Found, evenly, levels_apart
from common.parity.native.visits import Amount, Visits, visited
from common.parity.tolerances import FACTORS
from common.reference import Conventions, transforms


def colour_draws(adapter: Adapter, amount: Amount, seed: int) -> Iterator[CheckResult]:
    """Check the factors of each change of colour by itself, and those of all four together."""
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
                wanted = transforms.ADJUST[kind](plain, factors, conventions)
                found = _one_change(factors, visits, kind, strength)
                draws.add(place, visits, found, levels_apart(visits.X, wanted))
    for number, strengths in enumerate(((0.3, 0.2, 0.4, 0.1), (0.5, 0.5, 0.5, 0.5))):
        jitter = ColorJitter(*strengths)
        sample = sample_colours(jitter, conventions)
        for how, visits in visited(adapter, wheels, [jitter], amount, seed, number):
            draws.add(f"all four {strengths}, {how}", visits, _four_changes(visits, sample))
    yield from draws.results()


def _one_change(factors: Array, visits: Visits, kind: int, strength: float) -> Found:
    low = -strength if kind == HUE else 1 - strength
    values, error = (factors - low) / (2 * strength), FACTORS.limit / (2 * strength)
    return {"ends": chance.ends(values, error), **evenly(values, visits, error)}


def factors_of(X: Array, kind: int, conventions: Conventions) -> Array:
    """Return the factor, or the turn of hue, that was drawn for each image (n,) that was PALETTE."""
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
    """Compare what each change changes most with a sample of the reference's, and each two of the four."""
    drawn = measures(visits.X)
    clear = _clear(drawn)
    found = {
        f"{what}, {group}": chance.same_distribution(drawn[what][clear & mask], np.sort(wanted))
        for group, mask in visits.groups().items()
        for what, wanted in sample.items()
    }
    # From one half of the sample, so that the other does not depend on them.
    middles = {what: np.median(wanted[::2]) for what, wanted in sample.items()}
    other = {what: wanted[1::2] for what, wanted in sample.items()}
    for first, second in combinations(sample, 2):
        agree, wanted = (
            (m[first] < middles[first]) == (m[second] < middles[second]) for m in (drawn, other)
        )
        found[f"{first} and {second}"] = chance.same_share(agree[clear], wanted)
    return found


MEASURES: Mapping[str, Callable[[Array], Array]] = {
    "brightness": known.level,
    "contrast": lambda X: known.spread(X) / known.level(X),
    "saturation": lambda X: known.chroma(X) / known.spread(X).clip(1 / 255),
    "hue": lambda X: known.turn(X, known.WHEEL),
}


def measures(X: Array) -> dict[str, Array]:
    """Return what each change of colour changes most, whatever the order of the four, (n,)."""
    return {name: measure(X) for name, measure in MEASURES.items()}


def _clear(drawn: Mapping[str, Array]) -> Array:
    """Return which images are so far from black and from white that nothing is cut off on the way."""
    return np.asarray((drawn["brightness"] > 0.2) & (drawn["brightness"] < 0.8))


@lru_cache
def sample_colours(jitter: ColorJitter, conventions: Conventions) -> Mapping[str, Array]:
    """Return measures of what the reference makes of WHEEL, with levels rounded after each change."""
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
            X[now] = transforms.to_levels(changed, conventions) / 255
    found = measures(X)
    clear = _clear(found)
    return {name: values[clear] for name, values in found.items()}
