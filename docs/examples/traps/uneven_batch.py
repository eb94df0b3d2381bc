"""A batch that is not divisible by the number of devices."""


def trap(X, devices):
    """Return a part of the batch on each device."""
    from mxnet.gluon.utils import split_and_load

    return split_and_load(X, devices)


def fixed(X, devices):
    """Return a part of the batch on each device."""
    from mxnet.gluon.utils import split_and_load

    return split_and_load(X, devices, even_split=False)
