"""A forward pass that only creates the weights of lazy layers."""


def trap(net, X):
    """Create the weights of lazy layers."""
    net(X)


def fixed(net, X):
    """Create the weights of lazy layers."""
    net.eval()(X)
    net.train()
