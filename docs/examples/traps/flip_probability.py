"""The probability of a flip, which MXNet accepts and ignores."""


def trap(X, p):
    """Return an image, mirrored with probability p."""
    from mxnet import npx

    return npx.image.random_flip_left_right(X, p=p)


def fixed(X, p):
    """Return an image, mirrored with probability p."""
    from mxnet import np

    flips = np.random.uniform() < p
    return np.flip(X, axis=1) if flips else X
