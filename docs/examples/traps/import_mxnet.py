"""The import of MXNet 1.9.1 on NumPy 1.24 and newer."""


def trap():
    """Return MXNet."""
    import mxnet

    return mxnet


def fixed():
    """Return MXNet."""
    import numpy

    numpy.bool, numpy.int = bool, int
    numpy.float, numpy.complex = float, complex
    numpy.object, numpy.str = object, str
    import mxnet

    return mxnet
