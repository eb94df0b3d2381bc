"""MXNet's colour jitter, whose hue reads behind a table."""


def trap(X, hue):
    """Return an image of another hue."""
    from mxnet.gluon.data.vision import transforms

    return transforms.RandomColorJitter(hue=hue)(X)


def fixed(X, hue):
    """Return an image of another hue."""
    from mxnet.gluon.data.vision import transforms

    return transforms.RandomHue(hue)(X)
