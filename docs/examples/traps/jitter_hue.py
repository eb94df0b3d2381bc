"""MXNet's colour jitter, whose hue reads past the end of a table."""


def trap(X, hue):
    """Return an image with another hue."""
    from mxnet.gluon.data.vision import transforms

    return transforms.RandomColorJitter(hue=hue)(X)


def fixed(X, hue):
    """Return an image with another hue."""
    from mxnet.gluon.data.vision import transforms

    return transforms.RandomHue(hue)(X)
