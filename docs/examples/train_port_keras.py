"""Port the same training to Keras: with Gluon's settings it agrees, and with any one left at its default it does not.

From the root of the project: python -m docs.examples.train_port_keras
"""

import backends.tensorflow  # noqa: F401 (TensorFlow, imported quietly)
from docs.examples.divergence import rows_of, table
from docs.examples.gluon_training import MOMENTUM, RATES, WD, batches, trained_original
from docs.examples.own_port_keras import LAYERS, move_weights, port_net

import keras  # isort: skip
import tensorflow as tf  # isort: skip


def train_keras(net, coupled=True):
    """Train a network; return the mean loss of each step. ``coupled``: decay in the gradient."""
    # A Keras loss has its own dtype, float32 by default.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    trainer = keras.optimizers.SGD(RATES[0], MOMENTUM, weight_decay=None if coupled else WD)
    losses = []
    for rate, (X, y) in zip(RATES, batches(), strict=True):
        trainer.learning_rate = rate
        with tf.GradientTape() as tape:
            l = loss(y, net(tf.constant(X.transpose(0, 2, 3, 1)), training=True))
        weights = net.trainable_variables
        gradients = tape.gradient(l, weights)
        if coupled:
            gradients = [g + WD * w for g, w in zip(gradients, weights, strict=True)]
        trainer.apply(gradients, weights)
        losses.append(float(l))
    return losses


def double_port(same=False, momentum=0.9, epsilon=1e-3):
    """Return the port in float64. Keras' own BatchNorm has a momentum of .99."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    net = port_net(same)
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum, layer.epsilon = momentum, epsilon
    return net


def named_as_gluon(net, names):
    """Return the weights of the port as NumPy arrays, by Gluon's names and in its layout."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    weights = {}
    for number, name in LAYERS.items():
        own = [weight for weight in names if weight.startswith(f"{number}.")]
        if own:
            for weight, array in zip(own, net.get_layer(name).get_weights(), strict=True):
                weights[weight] = array.transpose(axes[array.ndim])
    return weights


PORTS = {
    "Gluon's settings": ({}, {}),
    "decoupled decay, weight_decay=": ({}, {"coupled": False}),
    "padding='same' at stride 2": ({"same": True}, {}),
    "PyTorch's BatchNorm epsilon, 1e-05": ({"epsilon": 1e-5}, {}),
    "BatchNorm's default momentum, 0.99": ({"momentum": 0.99}, {}),
}


def trained_port(before, names, of_net, of_training):
    """Train a port from Gluon's weights; return its losses and its new weights by Gluon's names."""
    net = double_port(**of_net)
    move_weights(before, net)
    losses = train_keras(net, **of_training)
    return losses, named_as_gluon(net, names)


def rows():
    """Return how much each port differs from the original, by title."""
    return rows_of(PORTS, trained_port, *trained_original())


def main():
    """Print the table."""
    print(table(rows()))


if __name__ == "__main__":
    main()
