"""Reorder weights that a transpose does not convert."""


def dense_after_flatten(weight, channels, height, width):
    """Convert Gluon's weights (outputs, inputs) of a dense layer to Keras' (inputs, outputs).

    For a dense layer after a flattened image. Gluon and PyTorch flatten
    channel by channel, Keras pixel by pixel.
    """
    outputs = len(weight)
    by_pixel = weight.reshape(outputs, channels, height, width).transpose(2, 3, 1, 0)
    return by_pixel.reshape(height * width * channels, outputs)
