"""A convolution of stride 2 that pads only as much as it needs."""


def trap(channels):
    """Return a layer that halves the size."""
    from keras.layers import Conv2D

    return Conv2D(channels, 3, strides=2, padding="same")


def fixed(channels):
    """Return a layer that halves the size."""
    from keras import Sequential
    from keras.layers import Conv2D, ZeroPadding2D

    convolution = Conv2D(channels, 3, strides=2)
    return Sequential([ZeroPadding2D(1), convolution])
