"""Layers and operators that the network needs and Gluon lacks."""

from mxnet import init
from mxnet.gluon import nn

UNIFORM = init.Uniform()  # Gluon's default: +-0.07, whatever the layer


# npx.relu and + compute the same, but not in oneDNN: each of them copies the
# batch from oneDNN's layout and back.
def relu(F, X):
    return F.npx.activation(X, act_type="relu")


def add(F, X, Y):
    return F.elemwise_add(X.as_nd_ndarray(), Y.as_nd_ndarray()).as_np_ndarray()


def batch_norms(net):
    """Return the BatchNorm layers of a network."""
    found = []

    def add_batch_norm(block):
        if isinstance(block, nn.BatchNorm):
            found.append(block)

    net.apply(add_batch_norm)
    return found


def updated_statistics(net):
    """Return the running statistics that training updates.

    Those of frozen layers are left out.
    """
    return [
        parameter
        for layer in batch_norms(net)
        if not layer._kwargs["use_global_stats"]
        for parameter in (layer.running_mean, layer.running_var)
    ]


class Network(nn.HybridSequential):
    """A sequence of layers whose weights exist from the start.

    The book's cells call `initialize`. By default, Gluon would ignore that for
    weights that exist and leave them on the CPU.
    """

    def initialize(
        self,
        init=UNIFORM,
        ctx=None,
        verbose=False,
        force_reinit=True,
    ):
        super().initialize(init, ctx, verbose, force_reinit)
