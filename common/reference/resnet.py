"""ResNet-18 (He et al. 2016) as the book builds it for small images, in NumPy: forward, backward, statistics.

It is the reference for every backend's network. Images are (n, channels, height, width). Weights have the canonical
names and layouts of `common.weights.canonical`. The arithmetic uses the dtype of the images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.reference import layers
from common.reference.conventions import ALIGNED, Conventions
from common.reference.layers import Array
from common.weights.canonical import STAGES, is_buffer

Arrays = Mapping[str, Array]
Back = Callable[[Array], Array]


@dataclass
class Forward:
    """The result of a forward pass.

    ``activations`` has the output of each residual block and of each layer with weights, by canonical name, in the
    order of computation. ``statistics`` has the mean, variance and count of each BatchNorm's batch, in training mode.
    """

    logits: Array
    activations: dict[str, Array]
    statistics: dict[str, tuple[Array, Array, int]]
    _backward: Back = field(repr=False)
    _gradients: dict[str, Array] = field(repr=False)
    _parameters: tuple[str, ...] = field(repr=False)

    def backward(self, dlogits: Array) -> dict[str, Array]:
        """Return the gradient of every parameter by canonical name, given the gradient of the logits."""
        self._backward(dlogits)
        return {name: self._gradients[name] for name in self._parameters}


def forward(
    weights: Arrays, X: Array, training: bool = False, conventions: Conventions = ALIGNED
) -> Forward:
    """Run the network on images (n, channels, height, width), floats in 0..1.

    In training mode, BatchNorm uses the statistics of the batch. This function never changes the running statistics.
    """
    run = _Pass(
        {name: w.astype(X.dtype, copy=False) for name, w in weights.items()}, training, conventions
    )
    back: list[Back] = []
    X = run.conv(back, X, "conv")
    X = run.relu(back, run.batch_norm(back, X, "bn"))  # (n, 64, h, w)
    for stage, _, first_stride in STAGES:
        X = run.residual(
            back, X, f"{stage}.0", first_stride
        )  # (n, channels, h / stride, w / stride)
        X = run.residual(back, X, f"{stage}.1", 1)
    X, backward = layers.global_avg_pool(X)  # (n, 512)
    back.append(lambda dY: backward(dY)[0])
    logits = run.dense(back, X, "fc")
    return Forward(
        logits,
        run.activations,
        run.statistics,
        _chain(back),
        run.gradients,
        tuple(parameters(weights)),
    )


def logits(weights: Arrays, X: Array, conventions: Conventions = ALIGNED) -> Array:
    """Return the logits (n, classes) of images (n, channels, height, width), in evaluation mode."""
    return forward(weights, X, conventions=conventions).logits


def _chain(back: list[Back]) -> Back:
    def backward(dY: Array) -> Array:
        for step in reversed(back):
            dY = step(dY)
        return dY

    return backward


class _Pass:
    """One pass through the network, which records activations, batch statistics and gradients."""

    def __init__(self, weights: Arrays, training: bool, conventions: Conventions) -> None:
        self.weights, self.training, self.conventions = weights, training, conventions
        self.activations: dict[str, Array] = {}
        self.statistics: dict[str, tuple[Array, Array, int]] = {}
        self.gradients: dict[str, Array] = {}

    def residual(self, back: list[Back], X: Array, name: str, stride: int) -> Array:
        """Run the block ``name``: two convolutions, and a shortcut, which has a 1 x 1 convolution at stride 2."""
        branch: list[Back] = []
        shortcut: list[Back] = []
        Y = self.conv(branch, X, f"{name}.conv1", stride)
        Y = self.relu(branch, self.batch_norm(branch, Y, f"{name}.bn1"))
        Y = self.batch_norm(branch, self.conv(branch, Y, f"{name}.conv2"), f"{name}.bn2")
        if f"{name}.conv3.weight" in self.weights:
            X = self.conv(shortcut, X, f"{name}.conv3", stride)
        back.append(lambda dY: _chain(shortcut)(dY) + _chain(branch)(dY))
        self.activations[name] = self.relu(back, Y + X)
        return self.activations[name]

    def conv(self, back: list[Back], X: Array, name: str, stride: int = 1) -> Array:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        Y, backward = layers.conv2d(X, weight, bias, stride, self.conventions.padding)
        return self._with_weights(back, name, Y, backward)

    def batch_norm(self, back: list[Back], X: Array, name: str) -> Array:
        weight, bias, mean, variance = (
            self.weights[f"{name}.{kind}"]
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        if self.training:
            mean, variance = X.mean(axis=(0, 2, 3)), X.var(axis=(0, 2, 3))
            self.statistics[name] = mean, variance, X[:, 0].size
        epsilon = self.conventions.bn_epsilon
        Y, backward = layers.batch_norm(X, weight, bias, mean, variance, epsilon, self.training)
        return self._with_weights(back, name, Y, backward)

    def dense(self, back: list[Back], X: Array, name: str) -> Array:
        Y, backward = layers.dense(X, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])
        return self._with_weights(back, name, Y, backward)

    def relu(self, back: list[Back], X: Array) -> Array:
        Y, backward = layers.relu(X)
        back.append(lambda dY: backward(dY)[0])
        return Y

    def _with_weights(
        self, back: list[Back], name: str, Y: Array, backward: layers.Backward
    ) -> Array:
        """Record a layer's activation, and its gradients in the backward pass."""
        self.activations[name] = Y

        def step(dY: Array) -> Array:
            dX, dweight, dbias = backward(dY)
            self.gradients[f"{name}.bias"] = dbias
            self.gradients[f"{name}.weight"] = dweight
            return dX

        back.append(step)
        return Y


def updated_buffers(
    weights: Arrays, passed: Forward, conventions: Conventions = ALIGNED
) -> dict[str, Array]:
    """Return BatchNorm's running statistics after a training step, by canonical name."""
    keep = conventions.bn_momentum
    buffers: dict[str, Array] = {}
    for name, (mean, variance, count) in passed.statistics.items():
        if conventions.bn_variance == "unbiased":
            variance = variance * (count / (count - 1))
        for kind, new in (("running_mean", mean), ("running_var", variance)):
            running = weights[f"{name}.{kind}"]
            buffers[f"{name}.{kind}"] = (keep * running + (1 - keep) * new).astype(new.dtype)
    return buffers


def before_batch_norm(name: str) -> bool:
    """Return whether ``name`` is a bias before a BatchNorm, which removes every constant: its true gradient is 0.

    Frameworks compute rounding noise as this gradient, and Adam turns the noise into full steps. In training mode these
    steps do not change the network's results, so checks leave these biases out when they compare weights.
    """
    return name == "conv.bias" or name.endswith((".conv1.bias", ".conv2.bias"))


def parameters(weights: Arrays) -> dict[str, Array]:
    """Return the trained parameters, without BatchNorm's buffers."""
    return {name: weight for name, weight in weights.items() if not is_buffer(name)}


def correct(logits: Array, y: NDArray[np.int64]) -> int:
    """Return the number of correct predictions."""
    return int((logits.argmax(axis=1) == y).sum())
