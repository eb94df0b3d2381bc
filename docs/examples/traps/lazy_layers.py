"""An initialization that comes before the weights are there."""


def trap(net, X, init_cnn):
    """Initialize a network with lazy layers."""
    net.apply(init_cnn)  # finds few weights
    net(X)  # makes the others, in its own way


def fixed(net, X, init_cnn):
    """Initialize a network with lazy layers."""
    net.eval()(X)  # makes all weights
    net.train().apply(init_cnn)
