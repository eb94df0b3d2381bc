"""Keras' BatchNorm with the numbers that it has by itself."""


def trap():
    """Return what Gluon's BatchNorm() is."""
    from keras.layers import BatchNormalization

    return BatchNormalization()


def fixed():
    """Return what Gluon's BatchNorm() is."""
    from keras.layers import BatchNormalization

    return BatchNormalization(momentum=0.9, epsilon=1e-5)
