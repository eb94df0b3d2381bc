"""Keras' BatchNorm with its default epsilon and momentum."""


def trap():
    """Return the equivalent of Gluon's BatchNorm()."""
    from keras.layers import BatchNormalization

    return BatchNormalization()


def fixed():
    """Return the equivalent of Gluon's BatchNorm()."""
    from keras.layers import BatchNormalization

    return BatchNormalization(momentum=0.9, epsilon=1e-5)
