"""Port the same network from Gluon to Keras, first with a mistake, which the comparison names.

From the root of the project: python -m docs.examples.own_port_keras
"""

import numpy as np

import backends.tensorflow  # noqa: F401 (TensorFlow, imported quietly)
from common.parity import compare_ports, keep
from docs.examples.gluon_original import original_net, record_gluon, weights_of

import keras  # isort: skip
from keras import layers  # isort: skip

NAMES = ["conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "pool", "fc"]
LAYERS = {str(i): name for i, name in enumerate(NAMES)}


def port_net(same):
    """Return the port. ``same`` uses padding='same' at stride 2, which pads 0 and 1 instead of 1 and 1."""
    padding = [] if same else [layers.ZeroPadding2D(1, name="pad")]
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3, padding="same", name="conv1"),
            layers.BatchNormalization(epsilon=1e-3, name="bn1"),
            layers.ReLU(name="relu1"),
            *padding,
            layers.Conv2D(16, 3, strides=2, padding="same" if same else "valid", name="conv2"),
            layers.BatchNormalization(epsilon=1e-3, name="bn2"),
            layers.ReLU(name="relu2"),
            layers.GlobalAveragePooling2D(keepdims=True, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, name="fc"),
        ]
    )


def move_weights(weights, net):
    """Copy the weights of the Gluon network to a Keras network."""
    for number, name in LAYERS.items():
        moved = [weight for key, weight in weights.items() if key.startswith(f"{number}.")]
        if moved:
            # OIHW to HWIO; dense: (outputs, inputs) to (inputs, outputs)
            axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
            net.get_layer(name).set_weights([w.transpose(axes[w.ndim]) for w in moved])


def record_keras(net, training=False):
    """Return a function that maps a NumPy input, channels first, to the output of each layer."""
    recorder = keras.Model(net.inputs[0], [layer.output for layer in net.layers])

    def run(X):
        outputs = recorder(X.transpose(0, 2, 3, 1), training=training)
        arrays = {}
        for layer, output in zip(net.layers, outputs, strict=True):
            keep(arrays, layer.name, output.numpy())
        return arrays

    return run


def main():
    """Compare the original with two ports: with Keras' padding at stride 2, and with the original's."""
    original = original_net()
    X = np.random.default_rng(1).standard_normal((4, 3, 16, 16)).astype(np.float32)
    for same in (True, False):
        port = port_net(same)
        move_weights(weights_of(original), port)
        print("--- padding='same' at stride 2" if same else "--- 1 on every side")
        layouts = ("NCHW", "NHWC")
        print(compare_ports(record_gluon(original), record_keras(port), X, LAYERS, layouts=layouts))


if __name__ == "__main__":
    main()
