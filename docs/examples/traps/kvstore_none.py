"""Several devices in MXNet without a store that adds up the gradients."""


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
