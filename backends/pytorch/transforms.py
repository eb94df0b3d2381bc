"""Augmentation in PyTorch: torchvision's transforms, and whole batches.

The native transforms draw inside torchvision, one image at a time. The batched
operations draw nothing: common.augmentation decides, and each operation takes
its parameters for the whole batch. They take uint8 in 0..255 or floats in
0..1, of shape (n, 3, height, width), and return the same kind. uint8 results
are rounded to the nearest integer; normalized results are floats.
"""

import numpy as np
import torch

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
from common.datasets.images import as_rgb

from .devices import from_numpy

GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as in Pillow
# Hues of cyan, magenta and yellow, in turns.
OPPOSITE = np.array([1 / 2, 5 / 6, 1 / 6])


def native(augs):
    """Return the framework's own transforms, ending in ToTensor.

    They take a uint8 image (height, width, 3) or a PIL image, and return
    floats in the framework's layout, in 0..1 or normalized.
    """
    images, normalize = split_normalize(augs)
    # Imported here: it takes seconds, and batches do not need it.
    from torchvision import transforms

    from . import _native

    def one_liner(aug):
        match aug:
            case RandomFlipLeftRight(p):
                return transforms.RandomHorizontalFlip(p)
            case RandomFlipTopBottom(p):
                return transforms.RandomVerticalFlip(p)
            case RandomResizedCrop(size, scale, ratio):
                return _native.RandomResizedCrop(size, scale, ratio)
            case ColorJitter(brightness, contrast, saturation, hue):
                return transforms.ColorJitter(
                    brightness, contrast, saturation, hue
                )
            case Resize(size):
                return transforms.Resize(size)
        raise TypeError(f"no native transform for {aug}")

    return transforms.Compose(
        [
            as_rgb,
            transforms.ToPILImage(),
            *(one_liner(aug) for aug in images),
            transforms.ToTensor(),
            *(transforms.Normalize(aug.mean, aug.std) for aug in normalize),
        ]
    )


def from_images(images, device):
    """Return uint8 images (n, height, width, 3) as a batch on the device."""
    batch = torch.as_tensor(images).to(device)
    return batch.permute(0, 3, 1, 2)  # (n, 3, height, width), channels last


def to_images(X):
    """Return a batch as uint8 images (n, height, width, 3) in NumPy."""
    return _as_uint8(X).permute(0, 2, 3, 1).cpu().numpy()


def to_float(X):
    """Convert uint8 in 0..255 to floats in 0..1, as ToTensor does."""
    return X.float() / 255 if X.dtype == torch.uint8 else X


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
    return torch.where(_per_image(flips, X), X.flip(3), X)


def flip_top_bottom(X, flips):
    """Flip images top to bottom where `flips`, bool (n,), is true."""
    return torch.where(_per_image(flips, X), X.flip(2), X)


def crop_resize(X, rows, columns):
    """Cut a box out of each image and resize it: rows @ image @ columns.T.

    `rows` is (n, out_height, height) and `columns` (n, out_width, width): the
    weights of common.augmentation.resampling.
    """
    Y = to_float(X).contiguous()  # NCHW in memory, for products of rows
    rows = from_numpy(rows, Y.device).to(Y.dtype)
    columns = from_numpy(columns, Y.device).to(Y.dtype)
    Y = Y.flatten(1, 2) @ columns.mT  # (n, 3 * height, out_width)
    Y = rows[:, None] @ Y.unflatten(1, (3, -1))  # (n, 3, out_h, out_w)
    return _like(X, Y)


def adjust_brightness(X, factors):
    """Multiply each image by its factor; factors (n,), 0 is black."""
    Y = to_float(X)
    return _like(X, _blend(Y, torch.zeros_like(Y[:, :1]), factors))


def adjust_contrast(X, factors):
    """Blend each image with its mean grey; factors (n,), 0 is all grey."""
    Y = to_float(X)
    mean = _grey(Y).mean(dim=(2, 3), keepdim=True)  # (n, 1, 1, 1)
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
    red, green, blue = Y.unbind(1)  # each (n, height, width)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = 6 * torch.where(chroma == 0, 1, chroma)  # grey has no hue
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(
            value == green,
            (blue - red) / divisor + 1 / 3,
            (red - green) / divisor + 2 / 3,
        ),
    )
    hue = hue[:, None] + _per_image(shifts, Y)  # (n, 1, height, width)
    turns = hue - _per_channel(OPPOSITE, Y)  # (n, 3, height, width)
    distance = (turns - turns.round()).abs_()  # 0 to 1/2
    share = (2 - 6 * distance).clamp_(0, 1)
    return _like(X, value[:, None] - chroma[:, None] * share)


# In the order of BRIGHTNESS, CONTRAST, SATURATION, HUE in common.augmentation.
ADJUST = adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue


def color_jitter(X, factors, order):
    """Change brightness, contrast, saturation and hue in each image's order.

    `factors` is (n, 4) and `order` (n, k), as Jitters says.
    """
    Y = to_float(X).contiguous()  # NCHW in memory: sums are faster
    for turn in order.T:  # (n,): the next change of each image
        kinds = np.unique(turn)
        groups = [np.flatnonzero(turn == kind) for kind in kinds]
        changed = [
            ADJUST[kind](_take(Y, group), factors[group, kind])
            for kind, group in zip(kinds, groups, strict=True)
        ]
        back = np.argsort(np.concatenate(groups))
        Y = _take(torch.cat(changed), back)
    return _like(X, Y)


def _take(X, indices):
    return X.index_select(0, from_numpy(indices, X.device))


def normalize(X, mean, std):
    """Subtract `mean` from each channel and divide by `std`, both (3,).

    Returns floats, also for uint8: the results are no longer in 0..1.
    """
    Y = to_float(X)
    return (Y - _per_channel(mean, Y)) / _per_channel(std, Y)


def _blend(Y, base, factors):
    """Return factor * Y + (1 - factor) * base, clipped to 0..1."""
    factors = _per_image(factors, Y)
    return (factors * Y + (1 - factors) * base).clamp_(0, 1)


def _grey(Y):
    """Return the grey of each pixel, (n, 1, height, width)."""
    red, green, blue = Y.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _per_image(values, X):
    """Return one value per image, (n, 1, 1, 1), on the device of X."""
    values = from_numpy(values, X.device).view(-1, 1, 1, 1)
    return values.to(X.dtype) if values.is_floating_point() else values


def _per_channel(values, X):
    """Return one value per channel, (3, 1, 1), on the device of X."""
    return from_numpy(values, X.device).to(X.dtype)[:, None, None]


def _like(X, Y):
    """Return the result Y as uint8 if the operand X is uint8."""
    return _as_uint8(Y) if X.dtype == torch.uint8 else Y


def _as_uint8(Y):
    """Round floats in 0..1 to uint8 in 0..255."""
    if Y.dtype == torch.uint8:
        return Y
    return (Y * 255).round().to(torch.uint8)
