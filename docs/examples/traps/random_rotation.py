"""MXNet's rotation under the NumPy interface."""


def trap(X, low, high):
    """Rotate a float image (3, height, width)."""
    from mxnet.gluon.data.vision import transforms

    turn = transforms.RandomRotation((low, high))
    return turn(X)


def fixed(X, low, high):
    """Rotate a float image (3, height, width)."""
    from mxnet.gluon.data.vision import transforms
    from mxnet.util import np_array

    turn = transforms.RandomRotation((low, high))
    with np_array(False):
        Y = turn(X.as_nd_ndarray())
    return Y.as_np_ndarray()
