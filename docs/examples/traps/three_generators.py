"""A seed for one of the three generators that MXNet draws from."""


def trap(seed):
    """Seed flips, colours, crops and the order."""
    from mxnet import npx

    npx.random.seed(seed)


def fixed(seed):
    """Seed flips, colours, crops and the order."""
    import random

    import numpy
    from mxnet import npx

    npx.random.seed(seed)  # flips and colours
    random.seed(seed)  # crops
    numpy.random.seed(seed)  # the order
