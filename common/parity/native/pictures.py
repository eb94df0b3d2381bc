"""Test pictures: the parameters of a random transform can be recovered from their transformed pixels.

- `noise`: each image differs from its mirror images, which shows flips.
- `ramps`: red increases with the column and green with the row, which shows the box of a crop; blue is noise.
- `PALETTE`: greys and colours that show a single colour change.
- `WHEEL`: the colours of a colour wheel, which show four colour changes in any order.

Images are uint8 (height, width, 3) before a transform, and floats (n, 3, height, width) in 0..1 after it.
"""

import numpy as np

from common.parity.comparison import Array
from common.reference import transforms


def noise(n: int, size: tuple[int, int], seed: int) -> Array:
    """Return uint8 noise images (n, height, width, 3); each contains the values 0 and 255."""
    images = np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    return images


def flips_of(X: Array, plain: Array) -> tuple[Array, Array, Array]:
    """Return which images are mirrored left and right, which top and bottom, and the largest remaining difference.

    ``plain`` are the original images, (n, 3, height, width) in 0..1 like ``X``.
    """
    ways = np.stack([plain, plain[..., ::-1], plain[..., ::-1, :], plain[..., ::-1, ::-1]])
    errors = np.abs(ways - X).max(axis=(2, 3, 4))  # (4, n)
    way = errors.argmin(axis=0)
    return way % 2 == 1, way >= 2, errors.min(axis=0)


# --- Crops ---------------------------------------------------------------------------------------------------------


def ramps(size: tuple[int, int], seed: int) -> Array:
    """Return an image whose red increases by a constant step from column to column, and whose green from row to row."""
    image = noise(1, size, seed)[0]
    rows, columns = np.mgrid[: size[0], : size[1]]
    image[..., 0], image[..., 1] = step(size[1]) * columns, step(size[0]) * rows
    return image


def step(length: int) -> int:
    """Return the difference of neighbouring uint8 values in a ramp over ``length`` pixels."""
    return 255 // (length - 1)


def boxes_of(
    X: Array, picture: tuple[int, int], image: tuple[int, int] | None = None
) -> tuple[Array, Array]:
    """Return the boxes (n, 4) that crops of `ramps` were cut from, and which crops are mirrored left and right.

    ``picture`` is the size of the ramps. ``image`` is the size they were resized to before the crop, if any.
    """
    height, width = image or picture
    left, columns, mirrored = _interval(X[:, 0].mean(axis=1), picture[1], width)
    top, rows, _ = _interval(X[:, 1].mean(axis=2), picture[0], height)
    return np.stack([top, left, rows, columns], axis=1), mirrored


def _interval(ramp: Array, length: int, resized: int) -> tuple[Array, Array, Array]:
    """Return the start and length of the pixels that ramps (n, size) show, and which ramps are reversed.

    A resized ramp is linear except near its ends, where pixels outside the box would contribute. So a line is fitted to
    the inner pixels. Its slope is the length of the box divided by the size of the crop.
    """
    size = ramp.shape[1]
    inner = np.arange(size // 6, size - size // 6)
    # In pixels of the image before the crop; the centre of the first pixel is at 0.5.
    seen = (255 * ramp[:, inner] / step(length) + 0.5) * resized / length
    from_centre = inner - (size - 1) / 2
    slope = seen @ from_centre / (from_centre @ from_centre)
    found = np.rint(np.abs(slope) * size)
    return np.rint(seen.mean(axis=1) - found / 2).astype(int), found.astype(int), slope < 0


# --- Colours -------------------------------------------------------------------------------------------------------

# Pixels of PALETTE and WHEEL: a dark grey, a light grey, a middle grey (PALETTE only), and colours.
DARK, LIGHT, MIDDLE, COLOURED = 0, 1, 2, slice(3, None)


def _colours(hues: Array, value: int, chroma: int) -> Array:
    """Return pixels (n, 3) of these hues, given in turns."""
    X = transforms.from_hsv(hues[:, None, None], np.array(chroma / value), np.array(value / 255))
    return np.rint(255 * X[..., 0, 0])


# 2 x 4 pixels. The channels have different means, so the result shows which grey a colour change blends with.
PALETTE = np.concatenate(
    [
        np.repeat([[70], [160], [128]], 3, axis=1),
        _colours(np.array([0.03, 0.2, 0.4, 0.55, 0.62]), 160, 90),
    ]
)
PALETTE = PALETTE.astype(np.uint8).reshape(2, 4, 3)
# Six hues, a sixth of a turn between neighbours. A hue shift keeps the mean of the picture, which contrast blends with.
# The other changes keep hues, and multiply chroma (the largest channel minus the smallest) like any difference.
WHEEL = np.concatenate(
    [np.repeat([[97], [157]], 3, axis=1), _colours(np.arange(6) / 6 + 0.05, 152, 50)]
)
WHEEL = WHEEL.astype(np.uint8).reshape(2, 4, 3)


def level(X: Array) -> Array:
    """Return the mean of each picture, (n,), which brightness changes."""
    return np.asarray(X.mean(axis=(1, 2, 3)))


def middle(X: Array) -> Array:
    """Return the middle grey of PALETTE, (n,). It stays within 0..1 when 0.5 is added or subtracted."""
    return _greys(X, MIDDLE)


def spread(X: Array) -> Array:
    """Return the light grey minus the dark one, (n,). Contrast multiplies it."""
    return _greys(X, LIGHT) - _greys(X, DARK)


def chroma(X: Array) -> Array:
    """Return the mean chroma of the coloured pixels, (n,). Saturation multiplies it."""
    pixels = _coloured(X)
    return np.asarray((pixels.max(axis=1) - pixels.min(axis=1)).mean(axis=-1))


def turn(X: Array, picture: Array) -> Array:
    """Return the hue shift from ``picture``, (n,), in turns from -0.5 to 0.5."""
    hues = [
        transforms.to_hsv(_coloured(images)[..., None])[0]
        for images in (X, transforms.from_images(picture[None]))
    ]
    turns = np.exp(2j * np.pi * (hues[0] - hues[1])).mean(axis=(1, 2))
    return np.asarray(np.angle(turns) / (2 * np.pi))


def _greys(X: Array, pixel: int) -> Array:
    return np.asarray(X.reshape(len(X), 3, -1)[..., pixel].mean(axis=1))


def _coloured(X: Array) -> Array:
    """Return the pixels that are not grey, (n, 3, 5)."""
    return X.reshape(len(X), 3, -1)[..., COLOURED]
