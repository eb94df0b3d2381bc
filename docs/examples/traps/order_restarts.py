"""Shuffling and augmentation that start again when a training is resumed."""


def trap(num_examples, first_epoch, num_epochs):
    """Yield each epoch: the examples, and their flips."""
    import tensorflow as tf

    tf.random.set_seed(0)
    data = tf.data.Dataset.range(num_examples)
    data = data.shuffle(num_examples)
    data = data.map(
        lambda i: (i, tf.random.uniform([]) < 0.5)
    )
    for _ in range(first_epoch, num_epochs):
        yield list(data.as_numpy_iterator())


def fixed(num_examples, first_epoch, num_epochs):
    """Yield each epoch: the examples, and their flips."""
    import tensorflow as tf

    for epoch in range(first_epoch, num_epochs):
        data = tf.data.Dataset.range(num_examples)
        data = data.shuffle(num_examples, seed=epoch)
        data = data.map(flipped(epoch))
        yield list(data.as_numpy_iterator())


def flipped(epoch):
    """Return what draws the flip of an example."""
    import tensorflow as tf

    draw = tf.random.stateless_uniform
    return lambda i: (i, draw([], (epoch, i)) < 0.5)
