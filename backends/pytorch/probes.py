"""PyTorch as the checks see it: activations, gradients, defaults.

Training uses none of this. Names are those of common.weights.
"""

from contextlib import nullcontext
from dataclasses import replace

from common.reference import ALIGNED

from ._state_dict import WRAPPERS
from .trainer import predict
from .weights import trained_by_name

# Differs: the running variance is unbiased, and Adam adds epsilon outside the
# bias correction. The reference does the same by default.
CONVENTIONS = ALIGNED
# For transforms.native: Pillow uses 8-bit hues and truncates fractions.
NATIVE = replace(CONVENTIONS, hue="8-bit", rounding="down")
labels_first = False  # losses take (logits, labels)


def in_float64(net):
    """Return the network converted to float64."""
    return net.double()


def set_mode(net, training):
    """Set training or evaluation mode, if the network has a mode.

    Differs: in PyTorch the mode belongs to the network and persists.
    """
    net.train(training)


def without_tracing():
    """Return a context in which functions run eagerly, op by op.

    For networks and shapes that are used once. PyTorch traces nothing unless
    it compiles.
    """
    return nullcontext()


def activations(net, X, training=False):
    """Return the output of every layer for a batch, by canonical name."""
    outputs = {}

    def keep_as(name):
        def keep(module, inputs, output):  # noqa: ARG001
            outputs[name] = output

        return keep

    hooks = [
        module.register_forward_hook(keep_as(WRAPPERS.sub("", name, count=1)))
        for name, module in net.named_modules()
    ]
    predict(net, X, training)
    for hook in hooks:
        hook.remove()
    return outputs


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss for every weight, in NumPy.

    Runs in training mode, which updates BatchNorm's running statistics.
    """
    net.train()
    net.zero_grad()
    loss(net(X), y).mean().backward()
    return {
        name: parameter.grad.cpu().contiguous().numpy()
        for name, parameter in trained_by_name(net).items()
    }
