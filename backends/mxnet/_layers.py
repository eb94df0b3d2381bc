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
