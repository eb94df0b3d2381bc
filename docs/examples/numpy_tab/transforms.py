"""Augmentation in NumPy: one image at a time, and whole batches.

NumPy has no transforms of its own. The native ones draw from its generator and
run the batched operations on a batch of one image. The batched operations draw
nothing: common.augmentation decides, and each operation takes its parameters
for the whole batch. They take uint8 in 0..255 or floats in 0..1, of shape (n,
3, height, width), and return the same kind. uint8 results are rounded to the
nearest integer; normalized results are floats.
"""

import numpy as np

from common.augmentation.decisions import (
    Crops,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
    Normalizes,
    Resamples,
    decide,
)
from common.augmentation.operations import split_normalize
from common.datasets.images import as_rgb
from common.reference import transforms as reference

from .devices import cpu


def native(augs):
    """Return the framework's own transforms, ending in ToTensor.

    They take a uint8 image (height, width, 3) or a PIL image, and return
    floats in the framework's layout, in 0..1 or normalized. Their argument
    `seed` determines the draws; by default NumPy draws it too.
    """
    split_normalize(augs)  # ValueError if anything follows Normalize

    def transform(image, seed=None):
        if seed is None:
            seed = np.random.randint(2**32, dtype=np.uint64)
        image = as_rgb(image)
        decisions = decide(augs, np.array([0]), int(seed), 0, image.shape[:2])
        X = augment(from_images(image[None], cpu()), decisions)
        return to_float(X)[0]

    return transform


def from_images(images, device):  # noqa: ARG001
    """Return uint8 images (n, height, width, 3) as a batch on the device."""
    return np.moveaxis(images, -1, 1)


def to_images(X):
    """Return a batch as uint8 images (n, height, width, 3) in NumPy."""
    return np.moveaxis(_as_uint8(X), 1, -1)


def to_float(X):
    """Convert uint8 in 0..255 to floats in 0..1, as ToTensor does."""
    return X / np.float32(255) if X.dtype == np.uint8 else X


def augment(X, decisions):
    """Apply decisions to a batch, in order, and keep its dtype.

    Normalized results are floats.
    """
    Y = augment_to_float(X, decisions)
    if any(isinstance(decision, Normalizes) for decision in decisions):
        return Y
    return _like(X, Y)


def augment_to_float(X, decisions):
    """Apply decisions to a batch, in order, and return floats."""
    Y = to_float(X)
    for decision in decisions:
        match decision:
            case FlipsLeftRight(flips):
                Y = flip_left_right(Y, flips)
            case FlipsTopBottom(flips):
                Y = flip_top_bottom(Y, flips)
            case Crops(_, rows, columns) | Resamples(rows, columns):
                Y = crop_resize(Y, rows, columns)
            case Jitters(factors, order):
                Y = color_jitter(Y, factors, order)
            case Normalizes(mean, std):
                Y = normalize(Y, mean, std)
            case _:
                raise TypeError(f"no batched operation for {decision}")
    return Y


def flip_left_right(X, flips):
    """Flip images left to right where `flips`, bool (n,), is true."""
    return reference.flip_left_right(X, flips)


def flip_top_bottom(X, flips):
    """Flip images top to bottom where `flips`, bool (n,), is true."""
    return reference.flip_top_bottom(X, flips)


def crop_resize(X, rows, columns):
    """Cut a box out of each image and resize it: rows @ image @ columns.T.

    `rows` is (n, out_height, height) and `columns` (n, out_width, width): the
    weights of common.augmentation.resampling.
    """
    Y = to_float(X)
    rows, columns = rows.astype(Y.dtype), columns.astype(Y.dtype)
    columns = columns.transpose(0, 2, 1)  # (n, width, out_width)
    return _like(X, rows[:, None] @ Y @ columns[:, None])


def adjust_brightness(X, factors):
    """Multiply each image by its factor; factors (n,), 0 is black."""
    return _like(X, reference.adjust_brightness(to_float(X), factors))


def adjust_contrast(X, factors):
    """Blend each image with its mean grey; factors (n,), 0 is all grey."""
    return _like(X, reference.adjust_contrast(to_float(X), factors))


def adjust_saturation(X, factors):
    """Blend each pixel with its grey; factors (n,), 0 is all grey."""
    return _like(X, reference.adjust_saturation(to_float(X), factors))


def adjust_hue(X, shifts):
    """Rotate the hue of each image by its shift; shifts (n,), in turns."""
    return _like(X, reference.adjust_hue(to_float(X), shifts))


def color_jitter(X, factors, order):
    """Change brightness, contrast, saturation and hue in each image's order.

    `factors` is (n, 4) and `order` (n, k), as Jitters says.
    """
    return _like(X, reference.color_jitter(to_float(X), factors, order))


def normalize(X, mean, std):
    """Subtract `mean` from each channel and divide by `std`, both (3,).

    Returns floats, also for uint8: the results are no longer in 0..1.
    """
    return reference.normalize(to_float(X), mean, std)


def _like(X, Y):
    """Return the result Y, which may be float64, with the dtype of X."""
    return _as_uint8(Y) if X.dtype == np.uint8 else Y.astype(X.dtype)


def _as_uint8(Y):
    """Round floats in 0..1 to uint8 in 0..255."""
    return Y if Y.dtype == np.uint8 else reference.to_uint8(Y)
