"""Each augmentation refuses values outside its range, wherever it is built: some frameworks draw wrong pixels then."""

import math
from dataclasses import replace

import numpy as np
import pytest

from common.augmentation.operations import (
    Augmentation,
    ColorJitter,
    Normalize,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
)

NAN, INF = math.nan, math.inf
FLIPS = RandomFlipLeftRight(), RandomFlipTopBottom()
SIZES = RandomResizedCrop((8, 9)), Resize((8, 9))
CROP, JITTER, NORMALIZE = RandomResizedCrop((8, 9)), ColorJitter(), Normalize((0, 0, 0), (1, 1, 1))

P = "needs a probability p from 0 to 1"
SIZE = r"needs a size \(height, width\) of whole numbers from 1"
SCALE = r"needs a scale \(least, most\) with 0 < least <= most <= 1"
RATIO = r"needs a ratio \(narrowest, widest\) with 0 < narrowest <= widest"
FACTOR = "needs a {} of 0 or more"
HUE = "needs a hue from 0 to 0.5"
MEAN, STD = "needs three finite means", "needs three finite standard deviations above 0"
FACTORS = "brightness", "contrast", "saturation"

OUTSIDE = [
    *[(flip, "p", value, P) for flip in FLIPS for value in (-0.1, 1.1, NAN, INF)],
    *[(aug, "size", value, SIZE) for aug in SIZES for value in ((0, 9), (9, -1), (9,), (9, 9, 3))],
    *[(CROP, "scale", value, SCALE) for value in ((0, 1), (1, 0.1), (0.5, 1.5), (NAN, 1), (1,))],
    *[(CROP, "ratio", value, RATIO) for value in ((0, 1), (2, 0.5), (-2, -1), (1, INF), (1, NAN))],
    # 1e39 is infinite in float32.
    *[(JITTER, name, x, FACTOR.format(name)) for name in FACTORS for x in (-1, NAN, INF, 1e39)],
    *[(JITTER, "hue", value, HUE) for value in (-0.1, 0.51, 180, NAN)],
    *[(NORMALIZE, "mean", value, MEAN) for value in ((0, 0), (0, NAN, 0), (INF, 0, 0))],
    # 1e-46 is 0 in float32.
    *[(NORMALIZE, "std", (1, x, 1), STD) for x in (0, -0.2, NAN, INF, 1e-46)],
    (NORMALIZE, "std", (1, 1, 1, 1), STD),
]
OF_ANOTHER_TYPE = [
    *[(flip, "p", value, P) for flip in FLIPS for value in ("0.5", None, (0.5,))],
    *[(aug, "size", value, SIZE) for aug in SIZES for value in (8, (8.0, 8.0), "89", None)],
    (CROP, "scale", 0.5, SCALE),
    (CROP, "ratio", ("1", "2"), RATIO),
    *[(JITTER, name, (0.5, 1.5), FACTOR.format(name)) for name in FACTORS],
    (JITTER, "hue", 0.1j, HUE),
    (NORMALIZE, "mean", 0.5, MEAN),
    (NORMALIZE, "std", None, STD),
]
# The ends of each range, and NumPy's numbers.
VALID = [
    *[(flip, "p", value) for flip in FLIPS for value in (0, 1, 0.5, np.float32(0.1))],
    *[(aug, "size", value) for aug in SIZES for value in ((1, 1), [8, 9], (np.int64(3), 4))],
    *[(CROP, "scale", value) for value in ((1e-9, 1), (1, 1), [0.1, 0.1])],
    *[(CROP, "ratio", value) for value in ((0.01, 100), (3, 3))],
    *[(JITTER, name, value) for name in FACTORS for value in (0, 0.5, 7, np.float64(2))],
    *[(JITTER, "hue", value) for value in (0, 0.5)],
    (NORMALIZE, "mean", (-1, 0, 300)),
    (NORMALIZE, "std", [1e-9, 1, 255]),
]


def refused(error: type[Exception], aug: Augmentation, name: str, value: object, words: str):
    with pytest.raises(error, match=f"^{type(aug).__name__} {words}, not ") as raised:
        replace(aug, **{name: value})
    assert str(raised.value).endswith(f"not {value!r}")


@pytest.mark.parametrize(("aug", "name", "value", "words"), OUTSIDE)
def test_a_value_outside_its_range_is_refused(aug, name, value, words):
    refused(ValueError, aug, name, value, words)


@pytest.mark.parametrize(("aug", "name", "value", "words"), OF_ANOTHER_TYPE)
def test_a_value_of_another_type_is_refused(aug, name, value, words):
    refused(TypeError, aug, name, value, words)


@pytest.mark.parametrize(("aug", "name", "value"), VALID)
def test_values_at_the_ends_of_the_range_are_accepted(aug, name, value):
    assert getattr(replace(aug, **{name: value}), name) is value
