"""MXNet as the checks see it: activations, gradients, defaults.

Training uses none of this. Names are those of common.weights.
"""

from contextlib import nullcontext
from dataclasses import replace

from mxnet import autograd

from common.reference import Conventions
from common.weights.gluon import LAYERS

from .trainer import predict
from .weights import trained_by_name

# Differs: the running variance is biased, and Adam adds epsilon inside the
# bias correction.
CONVENTIONS = Conventions(bn_variance="biased", adam_epsilon_place="inside")
# For transforms.native: see _native.py.
NATIVE = replace(CONVENTIONS, saturation="blue", rounding="down")
# Gluon has no public access to a network's layers: `_children` and `_active`
# below are private.
NAMES = {position: name for name, position in LAYERS.items()}
labels_first = False  # losses take (logits, labels)


def in_float64(net):
    """Return the network converted to float64."""
    net.cast("float64")
    return net


def set_mode(net, training):
    """Set training or evaluation mode, if the network has a mode.

    Differs: in MXNet the mode belongs to the call.
    """


def without_tracing():
    """Return a context in which functions run eagerly, op by op.

    For networks and shapes that are used once. MXNet builds static graphs in
    milliseconds, so they stay on.
    """
    return nullcontext()


def activations(net, X, training=False):
    """Return the output of every layer for a batch, by canonical name.

    Differs: a hybridized network is one operator without layers to hook, so
    here the network runs layer by layer.
    """
    outputs = {}

    def keep_as(name):
        def keep(block, inputs, output):  # noqa: ARG001
            outputs[name] = output

        return keep

    hooks = [
        block.register_forward_hook(keep_as(name))
        for name, block in _layers(net).items()
    ]
    hybridized = net._active
    net.hybridize(False)
    predict(net, X, training)
    for hook in hooks:
        hook.detach()
    net.hybridize(hybridized, static_alloc=True, static_shape=True)
    return outputs


def _layers(block, prefix=""):
    """Return all blocks in a network by their canonical names."""
    found = {}
    for name, child in block._children.items():
        full = f"{prefix}.{name}" if prefix else NAMES.get(name, name)
        found[full] = child
        found |= _layers(child, full)
    return found


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss for every weight, in NumPy.

    Runs in training mode, which updates BatchNorm's running statistics.
    """
    with autograd.record():
        l = loss(net(X), y).mean()
    l.backward()
    return {
        name: parameter.grad().asnumpy()
        for name, parameter in trained_by_name(net).items()
    }
