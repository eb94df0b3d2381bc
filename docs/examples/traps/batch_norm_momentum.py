"""Gluon's or Keras' momentum, copied into PyTorch."""


def trap(channels):
    """Return what Gluon's BatchNorm(momentum=0.9) is."""
    from torch import nn

    return nn.BatchNorm2d(channels, momentum=0.9)


def fixed(channels):
    """Return what Gluon's BatchNorm(momentum=0.9) is."""
    from torch import nn

    return nn.BatchNorm2d(channels, momentum=1 - 0.9)
