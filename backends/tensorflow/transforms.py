"""Augmentation in TensorFlow: tf.image's transforms, and whole batches.

The native transforms draw inside tf.image, one image at a time. The batched
operations draw nothing: common.augmentation decides, and each operation takes
its parameters for the whole batch. They take uint8 in 0..255 or floats in
0..1, of shape (n, height, width, 3), and return the same kind. uint8 results
are rounded to the nearest integer; normalized results are floats. All of them
take NumPy arrays or tensors. They run eagerly, inside a tf.function and inside
tf.data.Dataset.map.
"""

import tensorflow as tf

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

from . import _native

GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as in Pillow
OPPOSITE = (1 / 2, 5 / 6, 1 / 6)  # hues of cyan, magenta, yellow, in turns


def native(augs):
    """Return the framework's own transforms, ending in ToTensor.

    They take a uint8 image (height, width, 3) or a PIL image, and return
    floats in the framework's layout, in 0..1 or normalized. Their argument
    `seed`, int32 (2,), determines the draws; by default TensorFlow draws it
    too.
    """
    images, normalize = split_normalize(augs)

    def one_liner(aug):
        match aug:
            case RandomFlipLeftRight(0.5):
                return tf.image.stateless_random_flip_left_right
            case RandomFlipTopBottom(0.5):
                return tf.image.stateless_random_flip_up_down
            case RandomFlipLeftRight(p):
                return _native.random_flip(tf.image.flip_left_right, p)
            case RandomFlipTopBottom(p):
                return _native.random_flip(tf.image.flip_up_down, p)
            case RandomResizedCrop(size, scale, ratio):
                return _native.random_resized_crop(size, scale, ratio)
            case ColorJitter():
                return _native.color_jitter(aug)
            case Resize(size):
                return _native.resize(size)
        raise TypeError(f"no native transform for {aug}")

    transforms = [one_liner(aug) for aug in images]

    def transform(image, seed=None):
        if seed is None:
            seed = tf.random.uniform((2,), maxval=2**31 - 1, dtype=tf.int32)
        if not (tf.is_tensor(image) and image.dtype == tf.uint8):
            image = as_rgb(image)
        X = to_float(image)
        for i, one in enumerate(transforms):
            X = one(X, tf.random.fold_in(seed, i))
        for aug in normalize:
            X = (X - aug.mean) / aug.std
        return X

    return transform


def from_images(images, device):
    """Return uint8 images (n, height, width, 3) as a batch on the device."""
    with tf.device(device):
        return tf.identity(tf.constant(images))


def to_images(X):
    """Return a batch as uint8 images (n, height, width, 3) in NumPy."""
    return _as_uint8(X).numpy()


def to_float(X):
    """Convert uint8 in 0..255 to floats in 0..1, as ToTensor does."""
    return tf.cast(X, tf.float32) / 255 if X.dtype == tf.uint8 else X


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

    Differs: uint8 becomes float first, because TensorFlow has no operator that
    selects uint8 images on a GPU.
    """
    return _augmented(to_float(X), decisions)


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
    # The older `where` selects whole images, in a fifth of the time.
    return tf.compat.v1.where(flips, tf.reverse(X, [2]), X)


def flip_top_bottom(X, flips):
    """Flip images top to bottom where `flips`, bool (n,), is true."""
    return tf.compat.v1.where(flips, tf.reverse(X, [1]), X)


def crop_resize(X, rows, columns):
    """Cut a box out of each image and resize it: rows @ image @ columns.T.

    `rows` is (n, out_height, height) and `columns` (n, out_width, width): the
    weights of common.augmentation.resampling.
    """
    Y = to_float(X)
    rows, columns = tf.cast(rows, Y.dtype), tf.cast(columns, Y.dtype)
    height, width = (Y.shape[i] or tf.shape(Y)[i] for i in (1, 2))
    out_height, out_width = rows.shape[1], columns.shape[1]
    # Not tf.einsum: it takes 1.5 times as long for the same products.
    Y = rows @ tf.reshape(Y, (-1, height, width * 3))
    Y = tf.reshape(Y, (-1, out_height, width, 3))
    Y = tf.transpose(Y, (0, 2, 1, 3))  # (n, width, out_height, 3)
    Y = columns @ tf.reshape(Y, (-1, width, out_height * 3))
    Y = tf.reshape(Y, (-1, out_width, out_height, 3))
    Y = tf.transpose(Y, (0, 2, 1, 3))  # (n, out_height, out_width, 3)
    return _like(X, Y)


def adjust_brightness(X, factors):
    """Multiply each image by its factor; factors (n,), 0 is black."""
    Y = to_float(X)
    return _like(X, _blend(Y, tf.zeros_like(Y), factors))


def adjust_contrast(X, factors):
    """Blend each image with its mean grey; factors (n,), 0 is all grey."""
    Y = to_float(X)
    mean = tf.reduce_mean(_grey(Y), axis=(1, 2), keepdims=True)
    return _like(X, _blend(Y, mean, factors))  # mean is (n, 1, 1, 1)


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
    red, green, blue = tf.unstack(Y, axis=3)  # each (n, height, width)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    # Grey has no hue.
    divisor = 6 * tf.where(chroma == 0, tf.ones_like(chroma), chroma)
    hue = tf.where(
        value == red,
        (green - blue) / divisor,
        tf.where(
            value == green,
            (blue - red) / divisor + 1 / 3,
            (red - green) / divisor + 2 / 3,
        ),
    )
    hue = hue + tf.reshape(tf.cast(shifts, Y.dtype), (-1, 1, 1))
    channels = []
    for opposite in OPPOSITE:
        turns = hue - opposite
        distance = tf.abs(turns - tf.round(turns))  # 0 to 1/2
        share = tf.clip_by_value(2 - 6 * distance, 0, 1)
        channels.append(value - chroma * share)
    return _like(X, tf.stack(channels, axis=3))


# In the order of BRIGHTNESS, CONTRAST, SATURATION, HUE in common.augmentation.
ADJUST = adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue


def color_jitter(X, factors, order):
    """Change brightness, contrast, saturation and hue in each image's order.

    `factors` is (n, 4) and `order` (n, k), as Jitters says.
    """
    Y, factors = to_float(X), tf.convert_to_tensor(factors)
    for turn in tf.unstack(order, axis=1):  # (n,): their next change
        Y = _adjust_in_turn(Y, factors, turn)
    return _like(X, Y)


@tf.function(autograph=False, reduce_retracing=True)
def _adjust_in_turn(Y, factors, turn):
    groups = [tf.where(turn == kind)[:, 0] for kind in range(len(ADJUST))]
    changed = [
        adjust(tf.gather(Y, group), tf.gather(factors[:, kind], group))
        for kind, (adjust, group) in enumerate(
            zip(ADJUST, groups, strict=True)
        )
    ]
    back = tf.argsort(tf.concat(groups, axis=0))
    return tf.gather(tf.concat(changed, axis=0), back)


def normalize(X, mean, std):
    """Subtract `mean` from each channel and divide by `std`, both (3,).

    Returns floats, also for uint8: the results are no longer in 0..1.
    """
    Y = to_float(X)
    return (Y - tf.cast(mean, Y.dtype)) / tf.cast(std, Y.dtype)


def _blend(Y, base, factors):
    """Return factor * Y + (1 - factor) * base, clipped to 0..1."""
    factors = tf.reshape(tf.cast(factors, Y.dtype), (-1, 1, 1, 1))
    return tf.clip_by_value(factors * Y + (1 - factors) * base, 0, 1)


def _grey(Y):
    """Return the grey of each pixel, (n, height, width, 1)."""
    red, green, blue = tf.split(Y, 3, axis=3)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _like(X, Y):
    """Return the result Y as uint8 if the operand X is uint8."""
    return _as_uint8(Y) if X.dtype == tf.uint8 else Y


def _as_uint8(Y):
    """Round floats in 0..1 to uint8 in 0..255."""
    if Y.dtype == tf.uint8:
        return Y
    return tf.cast(tf.round(Y * 255), tf.uint8)
