"""The chapters' augmentations in NumPy and float64: the formulas of the frameworks' sources, pixel by pixel.

Images are (n, 3, height, width), floats in 0..1. Parameters have one value for each image. The code shares only the
decisions with the backends; it computes the matrices of a crop again from its box.
"""

from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from common.augmentation.decisions import (
    Crops,
    Decision,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
    Normalizes,
    decide,
)
from common.augmentation.operations import Augmentation
from common.reference.conventions import ALIGNED, Conventions

Array = NDArray[Any]
LUMA = np.array([0.299, 0.587, 0.114])[:, None, None]  # ITU-R BT.601


def from_images(images: NDArray[np.uint8]) -> Array:
    """Return uint8 images (n, height, width, 3) as floats (n, 3, height, width) in 0..1."""
    return np.moveaxis(images / 255, -1, 1)


def augmented(
    images: NDArray[np.uint8],
    augmentations: Sequence[Augmentation],
    indices: NDArray[np.int64],
    seed: int,
    epoch: int,
    conventions: Conventions = ALIGNED,
) -> Array:
    """Return the images ``indices`` of a uint8 data set (n, height, width, 3), augmented as in that epoch's batch."""
    size = images.shape[1], images.shape[2]
    decisions = decide(augmentations, indices, seed, epoch, size)
    return augment(from_images(images[indices]), decisions, conventions)


def augment(X: Array, decisions: Sequence[Decision], conventions: Conventions = ALIGNED) -> Array:
    """Apply ``decisions`` in order."""
    for decision in decisions:
        match decision:
            case FlipsLeftRight(flips):
                X = flip_left_right(X, flips)
            case FlipsTopBottom(flips):
                X = flip_top_bottom(X, flips)
            case Crops(boxes, rows, columns):
                X = crop_resize(X, boxes, (rows.shape[1], columns.shape[1]), conventions)
            case Jitters(factors, order):
                X = color_jitter(X, factors, order, conventions)
            case Normalizes(mean, std):
                X = normalize(X, mean, std)
            case _:
                assert_never(decision)
    return X


def flip_left_right(X: Array, flips: NDArray[np.bool_]) -> Array:
    """Mirror the images left and right for which ``flips`` (n,) is true."""
    return np.stack([x[:, :, ::-1] if flip else x for x, flip in zip(X, flips, strict=True)])


def flip_top_bottom(X: Array, flips: NDArray[np.bool_]) -> Array:
    """Turn the images upside down for which ``flips`` (n,) is true."""
    return np.stack([x[:, ::-1] if flip else x for x, flip in zip(X, flips, strict=True)])


def crop_resize(
    X: Array, boxes: Array, size: tuple[int, int], conventions: Conventions = ALIGNED
) -> Array:
    """Crop (top, left, height, width) from each image and resize it to ``size``, bilinear with antialiasing."""
    crops = []
    for x, (top, left, height, width) in zip(X, boxes, strict=True):
        cut = x[:, top : top + height, left : left + width]
        rows = resize_matrix(height, size[0], conventions.antialias)
        columns = resize_matrix(width, size[1], conventions.antialias)
        crops.append(rows @ cut @ columns.T)
    return np.stack(crops)


def resize_matrix(length: int, size: int, antialias: bool = True) -> Array:
    """Return the (size, length) weights of a bilinear resize of an axis, with half-pixel centres.

    Each output pixel is a mean of the input, weighted by a triangle around the pixel's centre. The triangle is two
    input pixels wide. With antialiasing it is two output pixels wide if those are larger. At the edges, the weights are
    normalized over the pixels inside; without antialiasing the nearest pixel is repeated.
    """
    scale = length / size
    centres = (np.arange(size) + 0.5) * scale
    if not antialias:
        centres = centres.clip(0.5, length - 0.5)
    reach = max(scale, 1.0) if antialias else 1.0
    distances = np.abs(np.arange(length) + 0.5 - centres[:, None])
    triangle = np.maximum(0.0, 1.0 - distances / reach)
    return np.asarray(triangle / triangle.sum(axis=1, keepdims=True))


def adjust_brightness(X: Array, factors: Array, conventions: Conventions = ALIGNED) -> Array:
    """Multiply each image by its factor."""
    if conventions.brightness == "add":
        return (X + (_per_image(factors) - 1)).clip(0, 1)
    return (X * _per_image(factors)).clip(0, 1)


def adjust_contrast(X: Array, factors: Array, conventions: Conventions = ALIGNED) -> Array:
    """Blend each image with its mean grey; factor 0 gives a grey image."""
    seen = X if conventions.contrast == "channel" else _grey(X)
    return _blend(X, seen.mean(axis=(2, 3), keepdims=True), factors)


def adjust_saturation(X: Array, factors: Array, conventions: Conventions = ALIGNED) -> Array:
    """Blend each pixel with its own grey; factor 0 gives a grey image."""
    if conventions.saturation == "blue":
        return _blend(X, LUMA[2] * X[:, 2:], factors)
    if conventions.saturation == "hsv":
        hue, saturation, value = to_hsv(X)
        scaled = (saturation * _per_image(factors)[:, 0]).clip(0, 1)
        return from_hsv(hue, scaled, value)
    return _blend(X, _grey(X), factors)


def adjust_hue(X: Array, shifts: Array, conventions: Conventions = ALIGNED) -> Array:
    """Shift the hue of each image by its shift, in turns of the colour wheel."""
    hue, saturation, value = to_hsv(X)
    shift = _per_image(shifts)[:, 0]
    if conventions.hue == "8-bit":
        # Pillow's HSV image: all three channels and the shift are 8-bit integers.
        # Adding 1e-4 protects whole numbers that rounding has made slightly smaller.
        hue, saturation, value = (np.floor(255 * p + 1e-4) for p in (hue, saturation, value))
        hue = (hue + np.trunc(255 * shift)) % 256
        return from_hsv(hue / 255, saturation / 255, value / 255)
    return from_hsv((hue + shift) % 1, saturation, value)


# In the order of `common.augmentation.decisions.PROPERTIES`.
ADJUST = adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue


def color_jitter(
    X: Array, factors: Array, order: Array, conventions: Conventions = ALIGNED
) -> Array:
    """Change brightness, contrast, saturation and hue of each image by ``factors`` (n, 4), in its ``order`` (n, k)."""
    images = []
    for i, kinds in enumerate(order):
        x = X[i : i + 1]
        for kind in kinds:
            x = ADJUST[kind](x, factors[i : i + 1, kind], conventions)
        images.append(x)
    return np.concatenate(images)


def normalize(X: Array, mean: Array, std: Array) -> Array:
    """Subtract ``mean`` (3,) from each channel and divide by ``std`` (3,). The result is not in 0..1."""
    return np.stack([(X[:, c] - mean[c]) / std[c] for c in range(3)], axis=1)


def to_uint8(X: Array, conventions: Conventions = ALIGNED) -> NDArray[np.uint8]:
    """Convert floats 0..1 to uint8."""
    scaled = 255 * X
    rounded = np.rint(scaled) if conventions.rounding == "nearest" else np.floor(scaled)
    return rounded.astype(np.uint8)


def to_hsv(X: Array) -> tuple[Array, Array, Array]:
    """Return hue in turns, saturation and value, each (n, height, width), by the hexcone model of Smith (1978)."""
    red, green, blue = X[:, 0], X[:, 1], X[:, 2]
    value, least = X.max(axis=1), X.min(axis=1)
    chroma = value - least
    some = np.where(chroma == 0, 1, chroma)
    sixths = np.select(
        [value == red, value == green],
        [(green - blue) / some, 2 + (blue - red) / some],
        4 + (red - green) / some,
    )
    return (sixths / 6) % 1, chroma / np.where(value == 0, 1, value), value


def from_hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """Return the image (n, 3, height, width) of hue in turns, saturation and value, by Smith's six cases."""
    sixth = np.floor(hue * 6)
    fraction = hue * 6 - sixth
    low = value * (1 - saturation)
    falling = value * (1 - saturation * fraction)
    rising = value * (1 - saturation * (1 - fraction))
    cases = [
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    ]
    which = sixth.astype(np.int64) % 6
    return np.stack([np.choose(which, [case[c] for case in cases]) for c in range(3)], axis=1)


def _grey(X: Array) -> Array:
    """Return the luma of each pixel, (n, 1, height, width)."""
    return (LUMA * X).sum(axis=1, keepdims=True)


def _blend(X: Array, base: Array, factors: Array) -> Array:
    factors = _per_image(factors)
    return (factors * X + (1 - factors) * base).clip(0, 1)


def _per_image(values: Array) -> Array:
    return np.asarray(values, np.float64)[:, None, None, None]
