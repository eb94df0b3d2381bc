"""Several devices in MXNet, and nothing that keeps them in step."""


def trap(net, lr):
    """Return a trainer for a network on several devices."""
    from mxnet.gluon import Trainer

    settings = {"learning_rate": lr}
    return Trainer(
        net.collect_params(), "sgd", settings, kvstore=None
    )


def fixed(net, lr):
    """Return a trainer for a network on several devices."""
    from mxnet.gluon import Trainer

    settings = {"learning_rate": lr}
    return Trainer(net.collect_params(), "sgd", settings)
