"""BatchNorm's running statistics, after a forward pass in MXNet."""


def trap(net, X):
    """Move BatchNorm's running statistics towards X."""
    from mxnet import autograd

    with autograd.record():
        net(X)


def fixed(net, X):
    """Move BatchNorm's running statistics towards X."""
    from mxnet import autograd

    with autograd.record():
        y = net(X)
    y.backward()
