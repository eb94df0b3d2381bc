"""Pictures from whose transformed pixels the draws of a random transform are found again.

- `noise`: every image differs from its mirror images, so that its flips are seen.
- `ramps`: red counts the columns, green the rows, so a crop shows where it was cut out, blue is noise.
- `PALETTE`: greys and colours, from which one change of colour is found.
- `WHEEL`: the colours of a wheel, from which four changes of colour are found, whatever their order.

Images here are uint8 (height, width, 3) before, and floats (n, 3, height, width) in 0..1 after a transform.
"""

import numpy as np

from common.parity.comparison import Array
from common.reference import transforms


def noise(n: int, size: tuple[int, int], seed: int) -> Array:
    """Return uint8 images (n, height, width, 3) of noise; the levels 0 and 255 are in each of them."""
    images = np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = 0, 255
    return images


def flips_of(X: Array, plain: Array) -> tuple[Array, Array, Array]:
    """Return which images are mirrored left and right and which upside down, and what each then differs by.

    ``plain`` are the images before, (n, 3, height, width) in 0..1 like ``X``.
    """
    ways = np.stack([plain, plain[..., ::-1], plain[..., ::-1, :], plain[..., ::-1, ::-1]])
    apart = np.abs(ways - X).max(axis=(2, 3, 4))  # (4, n)
    way = apart.argmin(axis=0)
    return way % 2 == 1, way >= 2, apart.min(axis=0)


# --- Crops ---------------------------------------------------------------------------------------------------------


def ramps(size: tuple[int, int], seed: int) -> Array:
    """Return an image whose red grows by the same step from column to column, and whose green from row to row."""
    image = noise(1, size, seed)[0]
    rows, columns = np.mgrid[: size[0], : size[1]]
    image[..., 0], image[..., 1] = step(size[1]) * columns, step(size[0]) * rows
    return image


def step(length: int) -> int:
    """Return the levels between two neighbours of a ramp over ``length`` pixels."""
    return 255 // (length - 1)


def boxes_of(
    X: Array, picture: tuple[int, int], image: tuple[int, int] | None = None
) -> tuple[Array, Array]:
    """Return the boxes (n, 4) that crops of `ramps` were cut from, and which are mirrored left and right.

    The ``picture`` of that size may have been resized to the size ``image`` before.
    """
    height, width = image or picture
    left, columns, mirrored = _interval(X[:, 0].mean(axis=1), picture[1], width)
    top, rows, _ = _interval(X[:, 1].mean(axis=2), picture[0], height)
    return np.stack([top, left, rows, columns], axis=1), mirrored


def _interval(ramp: Array, length: int, resized: int) -> tuple[Array, Array, Array]:
    """Return the start and the length of the pixels that ramps (n, size) show, and which run backwards.

    A resize keeps a ramp straight, but near its ends, where pixels outside the box would count. So a line is fitted to
    the pixels between, whose slope is the length of the box over its size now.
    """
    size = ramp.shape[1]
    inner = np.arange(size // 6, size - size // 6)
    # In pixels of the image that was cut: the centre of the first is at 0.5.
    seen = (255 * ramp[:, inner] / step(length) + 0.5) * resized / length
    from_centre = inner - (size - 1) / 2
    slope = seen @ from_centre / (from_centre @ from_centre)
    found = np.rint(np.abs(slope) * size)
    return np.rint(seen.mean(axis=1) - found / 2).astype(int), found.astype(int), slope < 0


# --- Colours -------------------------------------------------------------------------------------------------------

# Pixels of PALETTE and of WHEEL: a dark and a light grey, a grey in the middle (of PALETTE only), and colours.
DARK, LIGHT, MIDDLE, COLOURED = 0, 1, 2, slice(3, None)


def _colours(hues: Array, value: int, chroma: int) -> Array:
    """Return pixels (n, 3) of these hues, in turns."""
    X = transforms.from_hsv(hues[:, None, None], np.array(chroma / value), np.array(value / 255))
    return np.rint(255 * X[..., 0, 0])


# 2 by 4 pixels. Channels have different means, so it matters which of them a change of colour blends with.
PALETTE = np.concatenate(
    [
        np.repeat([[70], [160], [128]], 3, axis=1),
        _colours(np.array([0.03, 0.2, 0.4, 0.55, 0.62]), 160, 90),
    ]
)
PALETTE = PALETTE.astype(np.uint8).reshape(2, 4, 3)
# Six hues a sixth of a turn apart: however they turn, the mean of the picture stays, which contrast blends with. The
# other changes keep hues, and multiply chroma, the largest channel minus the smallest, as they multiply differences.
WHEEL = np.concatenate(
    [np.repeat([[97], [157]], 3, axis=1), _colours(np.arange(6) / 6 + 0.05, 152, 50)]
)
WHEEL = WHEEL.astype(np.uint8).reshape(2, 4, 3)


def level(X: Array) -> Array:
    """Return the mean of each picture, (n,): brightness changes it."""
    return np.asarray(X.mean(axis=(1, 2, 3)))


def middle(X: Array) -> Array:
    """Return the grey of PALETTE that stays within 0..1 with 0.5 added to it or taken from it, (n,)."""
    return _greys(X, MIDDLE)


def spread(X: Array) -> Array:
    """Return how far the light grey is from the dark one, (n,): contrast multiplies it."""
    return _greys(X, LIGHT) - _greys(X, DARK)


def chroma(X: Array) -> Array:
    """Return the mean chroma of the coloured pixels, (n,): saturation multiplies it."""
    pixels = _coloured(X)
    return np.asarray((pixels.max(axis=1) - pixels.min(axis=1)).mean(axis=-1))


def turn(X: Array, picture: Array) -> Array:
    """Return by how much the hues of ``picture`` have turned, (n,), in turns from -0.5 to 0.5."""
    hues = [
        transforms.to_hsv(_coloured(images)[..., None])[0]
        for images in (X, transforms.from_images(picture[None]))
    ]
    turns = np.exp(2j * np.pi * (hues[0] - hues[1])).mean(axis=(1, 2))
    return np.asarray(np.angle(turns) / (2 * np.pi))


def _greys(X: Array, pixel: int) -> Array:
    return np.asarray(X.reshape(len(X), 3, -1)[..., pixel].mean(axis=1))


def _coloured(X: Array) -> Array:
    """Return pixels that are not grey, (n, 3, 5)."""
    return X.reshape(len(X), 3, -1)[..., COLOURED]
