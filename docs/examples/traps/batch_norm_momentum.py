"""Gluon's or Keras' momentum, copied into PyTorch."""


def trap(channels):
    """Return Gluon's BatchNorm(momentum=0.9) in PyTorch."""
    from torch import nn

    return nn.BatchNorm2d(channels, momentum=0.9)


def fixed(channels):
    """Return Gluon's BatchNorm(momentum=0.9) in PyTorch."""
    from torch import nn

    return nn.BatchNorm2d(channels, momentum=1 - 0.9)
