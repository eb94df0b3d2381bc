"""What the parity checks see of NumPy: activations, gradients, states.

Training never asks for these. Names are those of common.weights.canonical.
"""

from contextlib import nullcontext

import numpy as np

from common.reference import ALIGNED

from .resnet import layers_by_name
from .trainer import backpropagate, predict
from .weights import arrays_by_name

CONVENTIONS = ALIGNED  # nothing differs: it is made of the reference
NATIVE = CONVENTIONS  # of transforms.native
labels_first = False  # in the framework's losses, before the logits


def in_float64(net):
    """Return the network in float64, to compute in that precision."""
    for layer in layers_by_name(net).values():
        kept = getattr(layer, "weights", {})
        for kind in kept:
            kept[kind] = kept[kind].astype(np.float64)
    return net


def set_mode(net, training):
    """Leave the network in training or evaluation mode, if it has one.

    In this tab the mode belongs to the call.
    """


def without_tracing():
    """Return a context in which functions run op by op, untraced.

    For networks and shapes that are used once. NumPy traces nothing.
    """
    return nullcontext()


def activations(net, X, training=False):
    """Return the output of every layer on a batch, by canonical name."""
    predict(net, X, training)
    return {name: l.output for name, l in layers_by_name(net).items()}


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss by every weight, in NumPy.

    In training mode; BatchNorm's running statistics move with it.
    """
    backpropagate(net, X, y, loss)
    return arrays_by_name(net, "gradients")


def get_state(net, trainer):  # noqa: ARG001
    """Return the state of an optimizer of this network, in NumPy."""
    return trainer.state


def set_state(net, trainer, state):  # noqa: ARG001
    """Put a state into an optimizer of this network."""
    trainer.state = state
