"""Brightness: TensorFlow adds it."""


def trap(X, factor):
    """Return images (0..1) with another brightness."""
    import tensorflow as tf

    Y = tf.image.adjust_brightness(X, factor - 1)
    return tf.clip_by_value(Y, 0, 1)


def fixed(X, factor):
    """Return images (0..1) with another brightness."""
    import tensorflow as tf

    return tf.clip_by_value(factor * X, 0, 1)
