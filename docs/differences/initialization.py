"""The default initial weights of each framework's layers, drawn in NumPy."""

import numpy as np

from common.weights.canonical import Weights, initial_weights, is_buffer, weight_shapes


def pytorch_start() -> Weights:
    """Draw PyTorch's default weights and biases: uniform within 1 / sqrt(fan in)."""
    rng = np.random.default_rng(0)
    shapes = weight_shapes(10)
    weights = dict(initial_weights(10))
    for name, shape in shapes.items():
        kernel = shapes.get(name.replace("bias", "weight"), ())
        if len(kernel) > 1 and not is_buffer(name):
            bound = 1 / np.sqrt(np.prod(kernel[1:]))
            weights[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return weights


def gluon_start() -> Weights:
    """Draw Gluon's default weights: uniform within 0.07, biases zero."""
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(-0.07, 0.07, weight.shape).astype(np.float32)
        if weight.ndim > 1
        else weight
        for name, weight in initial_weights(10).items()
    }


INITIALISATIONS = (
    (
        "PyTorch's initial weights",
        "PyTorch",
        "Kaiming-uniform with a = sqrt 5, and random biases, where Xavier and zero are aligned",
        pytorch_start,
    ),
    (
        "Gluon's initial weights",
        "MXNet",
        "uniform in +-.07 whatever the layer, where Xavier is aligned",
        gluon_start,
    ),
)
START_NAMES = tuple(name for name, *_ in INITIALISATIONS)
