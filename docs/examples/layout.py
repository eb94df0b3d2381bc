"""Weights that must be put into another order, not only transposed."""


def dense_after_flatten(weight, channels, height, width):
    """Return Gluon's weights (outputs, inputs) of a dense layer as Keras' (inputs, outputs).

    For a dense layer that follows a flattened image: Gluon and PyTorch flatten it channel by channel, Keras pixel by
    pixel.
    """
    outputs = len(weight)
    by_pixel = weight.reshape(outputs, channels, height, width).transpose(2, 3, 1, 0)
    return by_pixel.reshape(height * width * channels, outputs)
