"""Your own training loop around a Keras network."""


def trap(net, X):
    """Return the logits of a training batch."""
    return net(X)


def fixed(net, X):
    """Return the logits of a training batch."""
    return net(X, training=True)
