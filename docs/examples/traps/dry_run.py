"""A forward pass that only is to make the weights of lazy layers."""


def trap(net, X):
    """Make the weights of lazy layers."""
    net(X)


def fixed(net, X):
    """Make the weights of lazy layers."""
    net.eval()(X)
    net.train()
