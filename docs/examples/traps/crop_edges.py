"""A crop whose position TensorFlow draws from one position too few."""


def trap(seed):
    """Return top and left of a box: 32 of 40 pixels."""
    import tensorflow as tf

    begin, _, _ = (
        tf.image.stateless_sample_distorted_bounding_box(
            (40, 40, 3),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed=(seed, 0),
            min_object_covered=0.0,
            aspect_ratio_range=(1, 1),
            area_range=(0.63, 0.65),
        )
    )
    top, left, _ = begin.numpy()
    return top, left


def fixed(seed):
    """Return top and left of a box: 32 of 40 pixels."""
    import tensorflow as tf

    room = 40 - 32 + 1
    places = tf.random.stateless_uniform(
        (2,), (seed, 0), maxval=room, dtype=tf.int32
    )
    top, left = places.numpy()
    return top, left
