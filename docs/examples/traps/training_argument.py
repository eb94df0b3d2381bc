"""A training loop of one's own around a Keras network."""


def trap(net, X):
    """Return the logits of a batch to train on."""
    return net(X)


def fixed(net, X):
    """Return the logits of a batch to train on."""
    return net(X, training=True)
