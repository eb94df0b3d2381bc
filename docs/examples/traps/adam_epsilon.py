"""Adam's epsilon, which is ten times the others' in Keras."""


def trap(lr):
    """Return Adam, for the settings of the book."""
    from keras.optimizers import Adam

    return Adam(lr)


def fixed(lr):
    """Return Adam, for the settings of the book."""
    from keras.optimizers import Adam

    return Adam(lr, epsilon=1e-8)
