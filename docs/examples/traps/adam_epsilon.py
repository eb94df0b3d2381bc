"""Adam's epsilon: Keras' default is ten times the others'."""


def trap(lr):
    """Return Adam with the book's settings."""
    from keras.optimizers import Adam

    return Adam(lr)


def fixed(lr):
    """Return Adam with the book's settings."""
    from keras.optimizers import Adam

    return Adam(lr, epsilon=1e-8)
