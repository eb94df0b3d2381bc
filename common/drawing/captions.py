"""Captions for pictures of augmented images: what an augmentation may do, and what was drawn for one image."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby

import numpy as np

from common.augmentation.decisions import (
    HUE,
    Crops,
    Decision,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
)
from common.augmentation.operations import (
    Augmentation,
    ColorJitter,
    Normalize,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
)

# In the order of the last axis of `Jitters.factors`.
PROPERTIES = ("brightness", "contrast", "saturation", "hue")
FLIPPED = {FlipsLeftRight: "mirrored", FlipsTopBottom: "upside down"}


def described(augmentations: Sequence[Augmentation], drawn_by: str = "") -> str:
    """Return the augmentations with their numbers, one a line, for the title of a picture.

    ``drawn_by`` is the title of the framework if that draws by itself. Then only the arguments of a ColorJitter are
    given, not what they mean: TensorFlow, for example, adds to the brightness instead of multiplying it.
    """
    lines = []
    for augmentation in augmentations:
        if drawn_by and isinstance(augmentation, ColorJitter):
            lines.append(_arguments(augmentation))
        else:
            lines.append(_described(augmentation))
    if drawn_by:
        lines.append(f"drawn by {drawn_by}")
    return "\n".join(filter(None, lines))


def captions(decisions: Sequence[Decision], i: int, short: bool = False) -> str:
    """Return what ``decisions`` drew for image ``i``, one a line, in the order of application.

    A box is height x width at (top, left), in pixels; ``short`` leaves the corner out. A resize of the whole image and
    a Normalize draw nothing, and have no line.
    """
    lines = [line for decision in decisions for line in _drawn(decision, i, short)]
    if set(lines) <= {f"not {flipped}" for flipped in FLIPPED.values()}:
        return "as it was"
    return "\n".join(lines)


def _described(augmentation: Augmentation) -> str:
    match augmentation:
        case RandomFlipLeftRight(p):
            return f"left-right flip, {_how_often(p)}"
        case RandomFlipTopBottom(p):
            return f"top-bottom flip, {_how_often(p)}"
        case RandomResizedCrop((height, width), (least, most), (narrowest, widest)):
            area = f"{100 * least:g} to {100 * most:g} % of the area"
            return f"random resized crop to {height} × {width}: {area}, {_ratio(narrowest, widest)}"
        case Resize((height, width)):
            return f"resize to {height} × {width}"
        case ColorJitter():
            return _jitter(augmentation)
        case Normalize():
            return "normalize each channel"


def _how_often(p: float) -> str:
    return "one time in two" if p == 0.5 else f"with probability {p:g}"


def _ratio(narrowest: float, widest: float) -> str:
    low, high = (Fraction(ratio).limit_denominator(100) for ratio in (narrowest, widest))
    if low == high:
        return "square" if low == 1 else f"ratio {low}"
    return f"ratio {low} to {high}"


def _arguments(jitter: ColorJitter) -> str:
    return ", ".join(f"{name} {strength:g}" for name, strength in vars(jitter).items() if strength)


def _jitter(jitter: ColorJitter) -> str:
    """Return the range of each property that changes, and that their order is drawn. Empty if none changes."""
    changed = {name: strength for name, strength in vars(jitter).items() if strength}
    factors = [name for name in changed if name != "hue"]
    ranges = []
    for strength, group in groupby(factors, key=changed.__getitem__):
        names = list(group)
        what = "a factor" if len(names) == 1 else "factors"
        low, high = max(0.0, 1 - strength), 1 + strength
        ranges.append(f"{', '.join(names)}: {what} from {low:g} to {high:g}")
    if jitter.hue:
        turns = "half a turn" if jitter.hue == 0.5 else f"{jitter.hue:g} turns"
        ranges.append(f"hue: up to {turns} either way")
    order = "\nin an order drawn for each image" if len(changed) > 1 else ""
    return "; ".join(ranges) + order


def _drawn(decision: Decision, i: int, short: bool) -> list[str]:
    """Return the lines of one decision, none if nothing was drawn."""
    match decision:
        case FlipsLeftRight(flips) | FlipsTopBottom(flips):
            flipped = FLIPPED[type(decision)]
            return [flipped if flips[i] else f"not {flipped}"]
        case Crops(boxes, rows, columns):
            whole = (0, 0, rows.shape[-1], columns.shape[-1])
            if (boxes == np.array(whole)).all():
                return []
            top, left, height, width = boxes[i]
            corner = "" if short else f" at ({top}, {left})"
            return [f"box {height} × {width}{corner}"]
        case Jitters(factors, order):
            return [_factor(property, factors[i, property]) for property in order[i]]
    return []


def _factor(property: int, value: float) -> str:
    if property == HUE:
        return f"hue {value:+z.2f} turns"
    return f"{PROPERTIES[property]} × {value:.2f}"
