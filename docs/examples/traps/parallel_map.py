"""Random numbers in a map of tf.data that runs in parallel."""


def trap(n, seed):
    """Return which of n images are mirrored."""
    import tensorflow as tf

    tf.random.set_seed(seed)

    def flips(_):
        return tf.random.uniform(()) < 0.5

    images = tf.data.Dataset.range(n)
    images = images.map(flips, tf.data.AUTOTUNE)
    return list(images.as_numpy_iterator())


def fixed(n, seed):
    """Return which of n images are mirrored."""
    import tensorflow as tf

    def flips(i):
        own = tf.stack([seed, i])
        return tf.random.stateless_uniform((), own) < 0.5

    images = tf.data.Dataset.range(n)
    images = images.map(flips, tf.data.AUTOTUNE)
    return list(images.as_numpy_iterator())
