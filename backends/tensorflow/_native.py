"""tf.image's own random transforms, each a function of a seed."""

import tensorflow as tf

from common.augmentation import (
    ColorJitter,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
)


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
