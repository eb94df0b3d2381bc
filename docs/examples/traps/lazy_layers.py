"""An initialization that runs before the weights exist."""


def trap(net, X, init_cnn):
    """Initialize a network with lazy layers."""
    net.apply(init_cnn)  # finds only a few weights
    net(X)  # makes the others with defaults


def fixed(net, X, init_cnn):
    """Initialize a network with lazy layers."""
    net.eval()(X)  # makes all weights
    net.train().apply(init_cnn)
