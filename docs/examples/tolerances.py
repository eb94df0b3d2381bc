"""Measure how much correct ports differ: this project's ResNet-18 in three frameworks, layer by layer.

From the root of the project: python -m docs.examples.tolerances
"""

import numpy as np

import backends.mxnet
import backends.pytorch
import backends.tensorflow
from common.parity import compare_ports
from common.weights.canonical import initial_weights
from docs.examples.gluon_original import record_gluon
from docs.examples.own_port import record_pytorch
from docs.examples.own_port_keras import record_keras

BLOCKS = ["conv", "bn", "relu", *(f"resnet_block{i}" for i in range(1, 5)), "global_avg_pool", "fc"]
GLUON = {str(i): name for i, name in enumerate(BLOCKS)}
LAYOUTS = {"pytorch": "NCHW", "tensorflow": "NHWC"}


def trained_weights():
    """Return weights like those after training: none is 0 or 1."""
    rng = np.random.default_rng(0)
    weights = initial_weights(10)
    for name, weight in weights.items():
        if name.endswith("running_var"):
            weights[name] = rng.uniform(0.5, 2, weight.shape).astype(np.float32)
        elif weight.ndim == 1:
            weights[name] += rng.uniform(-0.3, 0.3, weight.shape).astype(np.float32)
    return weights


def network(backend, weights, dtype):
    """Return a network of a backend with these weights."""
    net = backend.resnet18(10)
    backend.BACKEND.weights.set_weights(net, weights)
    if dtype == "float64":
        net.double() if backend is backends.pytorch else net.cast(dtype)
    return net


def largest_difference(port, dtype, training):
    """Return the largest relative difference between MXNet and a port, over all layers and three inputs."""
    weights, worst = trained_weights(), 0.0
    for seed in range(3):
        X = np.random.default_rng(seed).standard_normal((16, 3, 32, 32)).astype(dtype)
        original = record_gluon(network(backends.mxnet, weights, dtype), training)
        if port == "pytorch":
            names = GLUON
            run = record_pytorch(network(backends.pytorch, weights, dtype), training)
        else:
            net = network(backends.tensorflow, weights, dtype)
            # Pooling is left out: Keras' pooling drops the axes of the image.
            names = {str(i): net.layers[i].name for i in range(len(BLOCKS)) if i != 7}
            run = record_keras(net, training)
        report = compare_ports(original, run, X, names, layouts=("NCHW", LAYOUTS[port]))
        report.check()
        worst = max(worst, *(layer.relative for layer in report.layers))
    return worst


def main():
    """Print a row for each port and type, with a column for each mode."""
    print(f"{'MXNet and':<20}{'evaluation mode':>17}{'training mode':>17}")
    for port, dtype in (("pytorch", "float32"), ("pytorch", "float64"), ("tensorflow", "float32")):
        row = f"{backends.FRAMEWORKS[port].title}, {dtype}"
        found = (largest_difference(port, dtype, training) for training in (False, True))
        print(f"{row:<20}" + "".join(f"{d:>17.1g}" for d in found))


if __name__ == "__main__":
    main()
