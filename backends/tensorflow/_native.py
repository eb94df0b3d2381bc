"""tf.image's own random transforms, each a function of (image, seed)."""

import tensorflow as tf


def random_flip(flip, p):
    """Return a flip with a probability, which tf.image's flips lack."""

    def transform(X, seed):
        flips = tf.random.stateless_uniform((), seed) < p
        return tf.where(flips, flip(X), X)

    return transform


def random_resized_crop(size, scale, ratio):
    """Return tf.image's random crop, moved to a corrected place and resized.

    Differs: TensorFlow draws the height of a box uniformly, PyTorch and MXNet
    its area. With the first chapter's settings, the mean area is .36 of the
    image instead of .44. With the Kaggle chapter's, it is .81 instead of .82,
    with sides of 32 to 40 pixels of 40.
    """

    def transform(X, seed):
        seed, places = tf.unstack(tf.random.split(seed, 2))
        _, box, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(X),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=ratio,
            area_range=scale,
        )
        # TensorFlow's boxes never reach the lower and the right edge, unless
        # they are as long as the image: Uniform(original_height - height)
        # excludes its argument, in
        # core/kernels/image/sample_distorted_bounding_box_op.cc.
        room = tf.cast(tf.shape(X)[:2] - box[:2] + 1, tf.float32)
        place = tf.random.stateless_uniform((2,), places) * room
        top, left = tf.unstack(tf.cast(place, tf.int32))
        height, width = box[0], box[1]  # and all channels
        return _resized(X[top : top + height, left : left + width], size)

    return transform


def color_jitter(aug):
    """Return tf.image's four colour transforms.

    Differs: brightness is added, contrast scales the distance from each
    channel's mean, and saturation scales that of HSV. The order is fixed.
    """

    def transform(X, seed):
        brightness, contrast, saturation, hue = tf.unstack(
            tf.random.split(seed, 4)
        )
        if aug.brightness:
            X = tf.image.stateless_random_brightness(
                X, aug.brightness, brightness
            )
        if aug.contrast:
            X = tf.image.stateless_random_contrast(
                X, *_around_one(aug.contrast), contrast
            )
        X = tf.clip_by_value(X, 0, 1)  # saturation and hue need this range
        if aug.saturation:
            X = tf.image.stateless_random_saturation(
                X, *_around_one(aug.saturation), saturation
            )
        if aug.hue:
            X = tf.image.stateless_random_hue(X, aug.hue, hue)
        return tf.clip_by_value(X, 0, 1)

    return transform


def resize(size):
    """Return tf.image's resize with antialiasing, which is off by default."""
    return lambda X, _: _resized(X, size)


def _resized(X, size):
    """Resize floats in 0..1, and clip what rounding moves out of the range."""
    return tf.clip_by_value(tf.image.resize(X, size, antialias=True), 0, 1)


def _around_one(strength):
    return max(0, 1 - strength), 1 + strength
