"""NumPy as the parity checks see it: activations, gradients.

Training uses none of this. Names are those of common.weights.canonical.
"""

from contextlib import nullcontext

import numpy as np

from common.reference import ALIGNED

from .resnet import layers_by_name
from .trainer import backpropagate, predict
from .weights import arrays_by_name

CONVENTIONS = ALIGNED  # nothing differs: this tab uses the reference
NATIVE = CONVENTIONS  # for transforms.native
labels_first = False  # losses take (logits, labels)


def in_float64(net):
    """Return the network converted to float64."""
    for layer in layers_by_name(net).values():
        kept = getattr(layer, "weights", {})
        for kind in kept:
            kept[kind] = kept[kind].astype(np.float64)
    return net


def set_mode(net, training):
    """Set training or evaluation mode, if the network has a mode.

    In this tab the mode belongs to the call.
    """


def without_tracing():
    """Return a context in which functions run eagerly, op by op.

    For networks and shapes that are used once. NumPy traces nothing.
    """
    return nullcontext()


def activations(net, X, training=False):
    """Return the output of every layer for a batch, by canonical name."""
    predict(net, X, training)
    return {name: l.output for name, l in layers_by_name(net).items()}


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss for every weight, in NumPy.

    Runs in training mode, which updates BatchNorm's running statistics.
    """
    backpropagate(net, X, y, loss)
    return arrays_by_name(net, "gradients")
