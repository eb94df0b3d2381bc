"""Augmentation in MXNet: Gluon's transforms, and whole batches.

The native transforms draw inside Gluon, one image at a time. The batched
operations draw nothing: common.augmentation decides, and each operation takes
its parameters for the whole batch. They take uint8 in 0..255 or floats in
0..1, of shape (n, 3, height, width), and return the same kind. uint8 results
are rounded to the nearest integer; normalized results are floats.
"""

import warnings

import numpy as onp
from mxnet import nd, np, npx
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms

from common.augmentation.decisions import (
    Crops,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
    Normalizes,
    Resamples,
)
from common.augmentation.operations import (
    ColorJitter,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
    split_normalize,
)

from . import _native

GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as in Pillow
OPPOSITE = (1 / 2, 5 / 6, 1 / 6)  # hues of cyan, magenta, yellow, in turns


def native(augs):
    """Return the framework's own transforms, ending in ToTensor.

    They take a uint8 image (height, width, 3) or a PIL image, and return
    floats in the framework's layout, in 0..1 or normalized. Differs: colours
    are truncated to integers after each change, and saturation is wrong
    (`SATURATION_IS_WRONG`). Pillow shrinks images, because Gluon does not
    antialias.
    """
    images, normalize = split_normalize(augs)

    def one_liner(aug):
        match aug:
            case RandomFlipLeftRight(p):
                return _native.RandomFlip(
                    transforms.RandomFlipLeftRight(), 1, p
                )
            case RandomFlipTopBottom(p):
                return _native.RandomFlip(
                    transforms.RandomFlipTopBottom(), 0, p
                )
            case RandomResizedCrop(size, scale, ratio):
                return _native.RandomResizedCrop(size, scale, ratio)
            case ColorJitter():
                if aug.saturation:
                    warnings.warn(_native.SATURATION_IS_WRONG, stacklevel=3)
                return _native.RandomColorJitter(aug)
            case Resize(size):
                return _native.Resize(size)
        raise TypeError(f"no native transform for {aug}")

    return transforms.Compose(
        [
            nn.Lambda(_native.to_ndarray),
            *(one_liner(aug) for aug in images),
            transforms.ToTensor(),
            *(transforms.Normalize(aug.mean, aug.std) for aug in normalize),
        ]
    )


def from_images(images, device):
    """Return uint8 images (n, height, width, 3) as a batch on the device."""
    # Done in NumPy: MXNet is slower at transposing bytes.
    batch = onp.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return np.array(batch, dtype=onp.uint8, ctx=device)


def to_images(X):
    """Return a batch as uint8 images (n, height, width, 3) in NumPy."""
    return _as_uint8(X).transpose(0, 2, 3, 1).asnumpy()


def to_float(X):
    """Convert uint8 in 0..255 to floats in 0..1, as ToTensor does."""
    return X.astype(onp.float32) / 255 if X.dtype == onp.uint8 else X


def augment(X, decisions):
    """Apply decisions to a batch, in order, and keep its dtype.

    Normalized results are floats.
    """
    Y = _augmented(X, decisions)
    if any(isinstance(decision, Normalizes) for decision in decisions):
        return Y
    return _like(X, Y)


def augment_to_float(X, decisions):
    """Apply decisions to a batch, in order, and return floats.

    Leading flips run on uint8 input: a quarter of the memory traffic.
    """
    return to_float(_augmented(X, decisions))


def _augmented(X, decisions):
    """Return floats, or uint8 if X is uint8 and all decisions are flips."""
    Y = X
    for decision in decisions:
        match decision:
            case FlipsLeftRight(flips):
                Y = flip_left_right(Y, flips)
            case FlipsTopBottom(flips):
                Y = flip_top_bottom(Y, flips)
            case Crops(_, rows, columns) | Resamples(rows, columns):
                Y = crop_resize(to_float(Y), rows, columns)
            case Jitters(factors, order):
                Y = color_jitter(to_float(Y), factors, order)
            case Normalizes(mean, std):
                Y = normalize(Y, mean, std)
            case _:
                raise TypeError(f"no batched operation for {decision}")
    return Y


def flip_left_right(X, flips):
    """Flip images left to right where `flips`, bool (n,), is true."""
    return _where(_per_image(flips, X), X[:, :, :, ::-1], X)


def flip_top_bottom(X, flips):
    """Flip images top to bottom where `flips`, bool (n,), is true."""
    return _where(_per_image(flips, X), X[:, :, ::-1], X)


def crop_resize(X, rows, columns):
    """Cut a box out of each image and resize it: rows @ image @ columns.T.

    `rows` is (n, out_height, height) and `columns` (n, out_width, width): the
    weights of common.augmentation.resampling.
    """
    Y = to_float(X)
    n, _, height, width = Y.shape
    rows = np.array(rows, dtype=Y.dtype, ctx=Y.ctx)
    columns = np.array(columns, dtype=Y.dtype, ctx=Y.ctx)
    # Not np.matmul, which is slow at repeating a matrix for each channel.
    Y = npx.batch_dot(
        Y.reshape(n, 3 * height, width), columns, transpose_b=True
    )  # (n, 3 * height, out_width)
    Y = Y.reshape(n, 3, height, -1).transpose(0, 2, 1, 3)
    Y = npx.batch_dot(rows, Y.reshape(n, height, -1))
    Y = Y.reshape(n, rows.shape[1], 3, -1)
    return _like(X, Y.transpose(0, 2, 1, 3))  # (n, 3, out_height, out_width)


def adjust_brightness(X, factors):
    """Multiply each image by its factor; factors (n,), 0 is black."""
    Y = to_float(X)
    return _like(X, _blend(Y, np.zeros_like(Y[:, :1]), factors))


def adjust_contrast(X, factors):
    """Blend each image with its mean grey; factors (n,), 0 is all grey."""
    Y = to_float(X)
    grey = _grey(Y)
    mean = _mean(grey.reshape(len(Y), 1, -1))[:, :, None]  # (n, 1, 1, 1)
    return _like(X, _blend(Y, mean, factors))


def adjust_saturation(X, factors):
    """Blend each pixel with its grey; factors (n,), 0 is all grey."""
    Y = to_float(X)
    return _like(X, _blend(Y, _grey(Y), factors))


def adjust_hue(X, shifts):
    """Rotate the hue of each image by its shift; shifts (n,), in turns.

    Uses hue, chroma and value of HSV (Smith 1978). A channel is value - chroma
    * clip(2 - 6 * d, 0, 1). Here d is the distance, in turns, of the hue from
    the one OPPOSITE to the channel's own.
    """
    Y = to_float(X)
    red, green, blue = Y[:, 0], Y[:, 1], Y[:, 2]  # each (n, height, width)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    divisor = 6 * (chroma + (chroma == 0))  # grey has no hue
    hue = _where(
        value == red,
        (green - blue) / divisor,
        _where(
            value == green,
            (blue - red) / divisor + 1 / 3,
            (red - green) / divisor + 2 / 3,
        ),
    )
    # Whole turns change nothing. Without them a shift is at most half a turn,
    # and `abs` gives d in less time than `rint`.
    shifts = shifts - onp.rint(shifts)
    hue = hue + _per_image(shifts, Y)[:, 0]
    channels = []
    for opposite in OPPOSITE:
        turns = np.abs(hue - opposite)  # 0 to 3/2
        distance = np.abs(np.abs(turns - 1 / 2) - 1 / 2)  # 0 to 1/2
        share = np.clip(2 - 6 * distance, 0, 1)
        channels.append(value - chroma * share)
    return _like(X, np.stack(channels, axis=1))


# In the order of BRIGHTNESS, CONTRAST, SATURATION, HUE in common.augmentation.
ADJUST = adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue


def color_jitter(X, factors, order):
    """Change brightness, contrast, saturation and hue in each image's order.

    `factors` is (n, 4) and `order` (n, k), as Jitters says.
    """
    Y = to_float(X)
    for turn in order.T:  # (n,): the next change of each image
        kinds = onp.unique(turn)
        groups = [onp.flatnonzero(turn == kind) for kind in kinds]
        changed = [
            ADJUST[kind](_take(Y, group), factors[group, kind])
            for kind, group in zip(kinds, groups, strict=True)
        ]
        back = onp.argsort(onp.concatenate(groups))
        Y = _take(np.concatenate(changed), back)
    return _like(X, Y)


def _take(X, indices):
    return X.take(np.array(indices, dtype="int64", ctx=X.ctx), axis=0)


def normalize(X, mean, std):
    """Subtract `mean` from each channel and divide by `std`, both (3,).

    Returns floats, also for uint8: the results are no longer in 0..1.
    """
    Y = to_float(X)
    return (Y - _per_channel(mean, Y)) / _per_channel(std, Y)


def _blend(Y, base, factors):
    """Return factor * Y + (1 - factor) * base, clipped to 0..1."""
    factors = _per_image(factors, Y)
    return np.clip(factors * Y + (1 - factors) * base, 0, 1)


def _grey(Y):
    """Return the grey of each pixel, (n, 1, height, width)."""
    red, green, blue = Y[:, 0:1], Y[:, 1:2], Y[:, 2:3]
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _per_image(values, X):
    """Return one value per image, (n, 1, 1, 1), on the device of X."""
    return np.array(values.reshape(-1, 1, 1, 1), dtype=X.dtype, ctx=X.ctx)


def _per_channel(values, X):
    """Return one value per channel, (3, 1, 1), on the device of X."""
    return np.array(values[:, None, None], dtype=X.dtype, ctx=X.ctx)


def _where(condition, X, Y):
    """Return X where the condition is true, and Y elsewhere.

    Uses the operator of `mxnet.nd`: `mxnet.np.where` takes six times as long.
    """
    condition = np.broadcast_to(condition.astype(X.dtype), X.shape)
    operands = (A.as_nd_ndarray() for A in (condition, X, Y))
    return nd.where(*operands).as_np_ndarray()


def _mean(planes):
    """Return the mean of each plane (n, k, pixels), (n, k, 1).

    Computed as a product, which is four times as fast as `mean`.
    """
    n = planes.shape[2]
    share = np.full((n,), 1 / n, planes.dtype, ctx=planes.ctx)
    return np.dot(planes, share)[:, :, None]


def _like(X, Y):
    """Return the result Y as uint8 if the operand X is uint8."""
    return _as_uint8(Y) if X.dtype == onp.uint8 else Y


def _as_uint8(Y):
    """Round floats in 0..1 to uint8 in 0..255."""
    if Y.dtype == onp.uint8:
        return Y
    return np.round(Y * 255).astype(onp.uint8)
