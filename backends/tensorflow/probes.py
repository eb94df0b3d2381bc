"""TensorFlow as the checks see it: activations, gradients, defaults.

Training uses none of this. Names are those of common.weights.
"""

import warnings
from contextlib import contextmanager
from dataclasses import replace

import keras
import tensorflow as tf

from common.reference import Conventions
from common.weights.canonical import network_sizes
from common.weights.keras import from_keras

from ._graphs import graph
from ._layers import default_dtype
from .resnet import Residual, resnet18
from .weights import get_weights, set_weights, trained_by_name

# Differs: Adam adds epsilon inside the bias correction.
CONVENTIONS = Conventions(adam_epsilon_place="inside")
# For transforms.native: see _native.py.
NATIVE = replace(
    CONVENTIONS,
    brightness="add",
    contrast="channel",
    saturation="hsv",
    crop_box="height",
)
labels_first = True  # losses take (labels, logits)


def in_float64(net):
    """Return the network converted to float64.

    Differs: a variable's type is fixed when it is made, so this is a copy.
    """
    weights = get_weights(net)
    with default_dtype("float64"):
        copy = resnet18(*network_sizes(weights))
    set_weights(copy, weights)
    return copy


def set_mode(net, training):
    """Set training or evaluation mode, if the network has a mode.

    Differs: in Keras the mode belongs to the call.
    """


@contextmanager
def without_tracing():
    """Return a context in which functions run eagerly, op by op.

    For networks and shapes that are used once. Differs: TensorFlow takes
    seconds to trace a training step for each new network and shape. Op by op,
    the step takes a tenth of a second.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with warnings.catch_warnings():
            # tf.data traces its functions all the same, and says so.
            warnings.filterwarnings("ignore", "Even though the `tf.config")
            yield
    finally:
        tf.config.run_functions_eagerly(before)


def activations(net, X, training=False):
    """Return the output of every layer for a batch, by canonical name.

    Differs: Keras has no hooks, so each layer's `call` is replaced during one
    eager pass.
    """
    outputs, layers = {}, _layers(net)

    def keeping(name, call):
        def keep(*inputs, **options):
            outputs[name] = call(*inputs, **options)
            return outputs[name]

        return keep

    for name, layer in layers.items():
        vars(layer)["call"] = keeping(name, layer.call)
    try:
        net(X, training=training)
    finally:
        for layer in layers.values():
            del vars(layer)["call"]
    return outputs


def _layers(net):
    """Return the layers of a network by their canonical names."""
    found = {}
    for layer in net.layers:
        if not isinstance(layer, keras.Sequential):
            found[layer.name] = layer
            continue
        for i, block in enumerate(layer.layers):
            name = f"{layer.name}.{i}"
            found[name] = block
            if isinstance(block, Residual):
                parts = (block.conv1, block.conv2, block.conv3)
                for part in (*parts, block.bn1, block.bn2):
                    if part is not None:
                        found[f"{name}.{part.name}"] = part
    return found


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss for every weight, in NumPy.

    Runs in training mode, which updates BatchNorm's running statistics.
    """
    found = _gradients(net, X, y, loss)
    return {
        name: from_keras(gradient.numpy())
        for name, gradient in zip(trained_by_name(net), found, strict=True)
    }


@graph
def _gradients(net, X, y, loss):
    with tf.GradientTape() as tape:
        l = tf.reduce_mean(loss(y, net(X, training=True)))
    return tape.gradient(l, list(trained_by_name(net).values()))
