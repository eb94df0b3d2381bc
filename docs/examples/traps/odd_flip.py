"""MXNet's flip of an image whose width is odd."""


def trap(X):
    """Return an image flipped left to right."""
    from mxnet import npx

    return npx.image.flip_left_right(X)


def fixed(X):
    """Return an image flipped left to right."""
    from mxnet import np

    return np.flip(X, axis=1)
