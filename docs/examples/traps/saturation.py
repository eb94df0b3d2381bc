"""MXNet's saturation, whose grey contains only blue."""


def trap(X, factor):
    """Return uint8 images with another saturation."""
    from mxnet import npx

    return npx.image.random_saturation(
        X, min_factor=factor, max_factor=factor
    )


def fixed(X, factor):
    """Return uint8 images with another saturation."""
    from mxnet import np

    X = X.astype("float32")
    luma = np.array([0.299, 0.587, 0.114])
    grey = (X * luma).sum(axis=-1, keepdims=True)
    Y = factor * X + (1 - factor) * grey
    return np.clip(Y, 0, 255).astype("uint8")
