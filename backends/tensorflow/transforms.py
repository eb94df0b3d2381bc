"""The chapter's augmentations in TensorFlow: tf.image's, and on batches.

The native ones draw inside tf.image, one image at a time. The batched ones
draw nothing: common.sampling has decided, and each operation takes its
parameters for the whole batch. They take uint8 in 0..255 or floats in 0..1,
of shape (n, height, width, 3), and return the same kind; uint8 results are
rounded to the nearest level, and what is normalized is floats. All of them
work eagerly, inside a tf.function and inside tf.data.Dataset.map, on NumPy
arrays or tensors.
"""

import tensorflow as tf

from common.augmentation import (
    ColorJitter,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
    split_normalize,
)
from common.datasets.images import as_rgb
from common.sampling import (
    CONTRAST,
    HUE,
    NOTHING,
    SATURATION,
    Crops,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
    Normalizes,
    Resamples,
)

GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as in Pillow
OPPOSITE = (1 / 2, 5 / 6, 1 / 6)  # hues of cyan, magenta, yellow, in turns


def native(augs):
    """Return the framework's own transforms, ending in ToTensor.

    They take an uint8 image (height, width, 3) or a PIL image, and return
    floats in the framework's layout: in 0..1, or normalized after that. What
    they draw is a function of their argument `seed`, int32 (2,); without it,
    TensorFlow draws that too.
    """
    images, normalize = split_normalize(augs)
    for aug in images:
        if not isinstance(aug, tuple(NATIVE)):
            raise TypeError(f"no native transform for {aug}")

    def transform(image, seed=None):
        if seed is None:
            seed = tf.random.uniform((2,), maxval=2**31 - 1, dtype=tf.int32)
        if not (tf.is_tensor(image) and image.dtype == tf.uint8):
            image = as_rgb(image)
        X = to_float(image)
        for i, aug in enumerate(images):
            own = tf.random.fold_in(seed, i)
            X = NATIVE[type(aug)](aug, X, own)
        for aug in normalize:
            X = (X - aug.mean) / aug.std
        return X

    return transform


def _native_flip_left_right(aug, X, seed):
    if aug.p == 0.5:
        return tf.image.stateless_random_flip_left_right(X, seed)
    flips = tf.random.stateless_uniform((), seed) < aug.p
    return tf.where(flips, tf.image.flip_left_right(X), X)


def _native_flip_top_bottom(aug, X, seed):
    if aug.p == 0.5:
        return tf.image.stateless_random_flip_up_down(X, seed)
    flips = tf.random.stateless_uniform((), seed) < aug.p
    return tf.where(flips, tf.image.flip_up_down(X), X)


def _native_crop(aug, X, seed):
    # Differs: the height of a box is drawn evenly, where PyTorch and MXNet
    # draw its area: a mean area of .36 of the image where theirs is .44 at the
    # first chapter's settings, and .81 and .82 at the Kaggle chapter's, with
    # sides of 32 to 40 pixels of 40.
    # The place is drawn here. Upstream's boxes never reach the lower and the
    # right edge, unless they are as long as the image: in
    # core/kernels/image/sample_distorted_bounding_box_op.cc
    # Uniform(original_height - height) leaves its argument out.
    seed, places = tf.unstack(tf.random.split(seed, 2))
    _, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(X),
        tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=aug.ratio,
        area_range=aug.scale,
    )
    height, width = size[0], size[1]  # and all channels
    room = tf.cast(tf.shape(X)[:2] - size[:2] + 1, tf.float32)
    place = tf.cast(tf.random.stateless_uniform((2,), places) * room, tf.int32)
    top, left = place[0], place[1]
    box = X[top : top + height, left : left + width]
    return _resize(box, aug.size)


def _native_resize(aug, X, _):
    return _resize(X, aug.size)


def _resize(X, size):
    """Return floats 0..1 of another size; rounding may leave that range."""
    return tf.clip_by_value(tf.image.resize(X, size, antialias=True), 0, 1)


def _native_jitter(aug, X, seed):
    # Differs: brightness is added, contrast turns about the mean of each
    # channel, saturation scales that of HSV, and the order is always this.
    brightness, contrast, saturation, hue = tf.unstack(
        tf.random.split(seed, 4)
    )
    if aug.brightness:
        X = tf.image.stateless_random_brightness(X, aug.brightness, brightness)
    if aug.contrast:
        X = tf.image.stateless_random_contrast(
            X, max(0, 1 - aug.contrast), 1 + aug.contrast, contrast
        )
    X = tf.clip_by_value(X, 0, 1)  # or saturation and hue have no meaning
    if aug.saturation:
        X = tf.image.stateless_random_saturation(
            X, max(0, 1 - aug.saturation), 1 + aug.saturation, saturation
        )
    if aug.hue:
        X = tf.image.stateless_random_hue(X, aug.hue, hue)
    return tf.clip_by_value(X, 0, 1)


NATIVE = {
    RandomFlipLeftRight: _native_flip_left_right,
    RandomFlipTopBottom: _native_flip_top_bottom,
    RandomResizedCrop: _native_crop,
    ColorJitter: _native_jitter,
    Resize: _native_resize,
}


def from_images(images, device):
    """Return uint8 images (n, height, width, 3) as a batch on the device."""
    with tf.device(device):
        return tf.identity(tf.constant(images))


def to_images(X):
    """Return a batch as uint8 images (n, height, width, 3) in NumPy."""
    return _as_levels(X).numpy()


def to_float(X):
    """Return uint8 levels 0..255 as floats 0..1, as ToTensor does."""
    return tf.cast(X, tf.float32) / 255 if X.dtype == tf.uint8 else X


def augment(X, decisions):
    """Apply decisions to a batch, in order; returns the kind it was given.

    What is normalized, though, stays floats.
    """
    Y = _augmented(X, decisions)
    if any(isinstance(decision, Normalizes) for decision in decisions):
        return Y
    return _like(X, Y)


def augment_to_float(X, decisions):
    """Apply decisions to a batch, in order; returns floats.

    Differs: levels are made floats first, as no operator of TensorFlow's
    chooses among bytes on a GPU.
    """
    return _augmented(to_float(X), decisions)


def _augmented(X, decisions):
    """Return floats, or of levels that are flipped alone, levels."""
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
    """Mirror left and right the images where `flips`, bool (n,), is true."""
    # The older `where` takes whole images, and a fifth of the time.
    return tf.compat.v1.where(flips, tf.reverse(X, [2]), X)


def flip_top_bottom(X, flips):
    """Turn upside down the images where `flips`, bool (n,), is true."""
    return tf.compat.v1.where(flips, tf.reverse(X, [1]), X)


def crop_resize(X, rows, columns):
    """Cut a box out of each image and resize it: rows @ image @ columns.T.

    `rows` is (n, out_height, height) and `columns` (n, out_width, width): the
    weights of common.resampling.
    """
    Y = to_float(X)
    rows, columns = tf.cast(rows, Y.dtype), tf.cast(columns, Y.dtype)
    height, width = (Y.shape[i] or tf.shape(Y)[i] for i in (1, 2))
    out_height, out_width = rows.shape[1], columns.shape[1]
    # Not tf.einsum, which takes half as long again for the same products.
    Y = rows @ tf.reshape(Y, (-1, height, width * 3))
    Y = tf.reshape(Y, (-1, out_height, width, 3))
    Y = tf.transpose(Y, (0, 2, 1, 3))  # (n, width, out_height, 3)
    Y = columns @ tf.reshape(Y, (-1, width, out_height * 3))
    Y = tf.reshape(Y, (-1, out_width, out_height, 3))
    Y = tf.transpose(Y, (0, 2, 1, 3))  # (n, out_height, out_width, 3)
    return _like(X, Y)


def adjust_brightness(X, factors):
    """Multiply each image by its factor, (n,)."""
    P = _planes(to_float(X))
    return _like(X, _pixels(_blend(P, tf.zeros_like(P[0]), factors)))


def adjust_contrast(X, factors):
    """Blend each image with its mean grey; factors (n,), 0 is all grey."""
    P = _planes(to_float(X))
    return _like(X, _pixels(_blend(P, _mean(_grey(P)), factors)))


def adjust_saturation(X, factors):
    """Blend each pixel with its grey; factors (n,), 0 is all grey."""
    P = _planes(to_float(X))
    return _like(X, _pixels(_blend(P, _grey(P), factors)))


def adjust_hue(X, shifts):
    """Turn the colour circle of each image by its shift, (n,), in turns.

    Hue, chroma and value of HSV (Smith 1978). A channel is value - chroma *
    clip(2 - 6 * d, 0, 1), where d is the distance of the hue, in turns, from
    the one OPPOSITE to the channel's own.
    """
    return _like(X, _pixels(_turn_hue(_planes(to_float(X)), shifts)))


def _turn_hue(P, shifts):
    red, green, blue = tf.unstack(P)  # each (n, height, width)
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
    hue = hue + _per_image(tf.cast(shifts, P.dtype))
    channels = []
    for opposite in OPPOSITE:
        turns = hue - opposite
        distance = tf.abs(turns - tf.round(turns))  # 0 to 1/2
        share = tf.clip_by_value(2 - 6 * distance, 0, 1)
        channels.append(value - chroma * share)
    return tf.stack(channels)


def color_jitter(X, factors, order):
    """Change brightness, contrast, saturation and hue in each image's order.

    `factors` is (n, 4) and `order` (n, k), as common.sampling.Jitters says.
    """
    Y = to_float(X)
    factors = tf.cast(factors, Y.dtype)
    turns = tf.unstack(tf.cast(order, tf.int32), axis=1)  # k of (n,)
    # What a graph is given it cannot look into; there the hue may turn by 0.
    known = tf.get_static_value(order)
    turns_hue = known is None or bool((known == HUE).any())
    return _like(X, _jitter(Y, factors, turns, turns_hue)) if turns else X


# As a graph: operator by operator it takes four times as long.
@tf.function(autograph=False, reduce_retracing=True)
def _jitter(Y, factors, turns, turns_hue):
    P, order = _planes(Y), tf.stack(turns, axis=1)
    hue = tf.cast(order == HUE, tf.int32)  # (n, k)
    after = tf.cumsum(hue, axis=1, exclusive=True)  # 1 after hue's turn
    for turn in tf.unstack(tf.where(hue + after > 0, NOTHING, order), axis=1):
        P = _blend_by_turn(P, factors, turn)  # (n,): what each image changes
    if turns_hue:
        changes = tf.cast(tf.reduce_max(hue, axis=1), P.dtype)
        P = _turn_hue(P, factors[:, HUE] * changes)
    for turn in tf.unstack(tf.where(after > 0, order, NOTHING), axis=1):
        P = _blend_by_turn(P, factors, turn)
    return _pixels(P)


def _blend_by_turn(P, factors, turn):
    """Change brightness, contrast, saturation or nothing in each image.

    All of them are blends: with black, the mean grey, the grey of the pixel,
    or by a factor of 1. So every image takes part, and none is moved.
    """
    factors = tf.gather(factors, tf.maximum(turn, 0), axis=1, batch_dims=1)
    factors = tf.where(turn == NOTHING, tf.ones_like(factors), factors)
    grey = _grey(P)
    base = _per_image(tf.cast(turn == CONTRAST, P.dtype)) * _mean(grey)
    base += _per_image(tf.cast(turn == SATURATION, P.dtype)) * grey
    return _blend(P, base, factors)


def _planes(Y):
    """Return pixels as planes of one colour each, (3, n, height, width).

    Where the three lie side by side, blends take longer.
    """
    return tf.transpose(Y, (3, 0, 1, 2))


def _pixels(P):
    """Return planes as images again, (n, height, width, 3)."""
    return tf.transpose(P, (1, 2, 3, 0))


def normalize(X, mean, std):
    """Take `mean` from each channel and divide it by `std`, both (3,).

    Returns floats, also of levels: they are no longer in 0..1.
    """
    Y = to_float(X)
    return (Y - tf.cast(mean, Y.dtype)) / tf.cast(std, Y.dtype)


def _blend(P, base, factors):
    """Return factor * P + (1 - factor) * base, kept in 0..1."""
    factors = _per_image(tf.cast(factors, P.dtype))
    return tf.clip_by_value(factors * P + (1 - factors) * base, 0, 1)


def _grey(P):
    """Return the grey of each pixel, (n, height, width)."""
    red, green, blue = tf.unstack(P)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _mean(grey):
    """Return the mean of each image, (n, 1, 1)."""
    return tf.reduce_mean(grey, axis=(1, 2), keepdims=True)


def _per_image(values):
    """Return one value per image, (n, 1, 1)."""
    return tf.reshape(values, (-1, 1, 1))


def _like(X, Y):
    """Return the result Y in the kind of the operand X."""
    return _as_levels(Y) if X.dtype == tf.uint8 else Y


def _as_levels(Y):
    """Return floats 0..1 as the nearest uint8 levels."""
    if Y.dtype == tf.uint8:
        return Y
    return tf.cast(tf.round(Y * 255), tf.uint8)
