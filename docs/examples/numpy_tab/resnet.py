"""The book's ResNet-18 for small images, in NumPy.

Every convolution has a bias and pads 1 on both sides, also at stride 2. A
shortcut is a 1 x 1 convolution without BatchNorm. No pooling follows the first
layer. common.reference computes each layer, forward and backward; this file
connects the layers.
"""

import numpy as np

from common.reference import layers
from common.weights.canonical import initial_weights, network_sizes


class _Layer:
    """A layer that keeps its output and, after `backward`, its gradients.

    A `frozen` layer has no gradients, and stays in evaluation mode.
    """

    frozen = False

    def __init__(self, **shapes):
        self.weights = {k: np.zeros(s, np.float32) for k, s in shapes.items()}

    def __call__(self, X, training=False):
        self.training = training and not self.frozen
        self.output, self.back = self.compute(X)
        return self.output

    def compute(self, X):
        """Return the output and a function that computes the gradients."""
        raise NotImplementedError

    def backward(self, dY):
        dX, *gradients = self.back(dY)
        names = ("weight", "bias")[: len(gradients)]
        if self.frozen:
            names, gradients = (), ()
        self.gradients = dict(zip(names, gradients, strict=True))
        return dX


class _Conv2D(_Layer):
    def __init__(self, inputs, outputs, kernel_size, strides=1):
        shape = (outputs, inputs, kernel_size, kernel_size)
        super().__init__(weight=shape, bias=(outputs,))
        self.strides = strides

    def compute(self, X):
        weight, bias = self.weights.values()
        return layers.conv2d(X, weight, bias, self.strides)


class _BatchNorm(_Layer):
    """The running variance is unbiased, as in PyTorch."""

    def __init__(self, channels):
        kinds = ("weight", "bias", "running_mean", "running_var")
        super().__init__(**dict.fromkeys(kinds, (channels,)))
        for kind in ("weight", "running_var"):
            self.weights[kind] += 1

    def compute(self, X):
        weight, bias, mean, variance = self.weights.values()
        if self.training:
            running = mean, variance
            mean, variance = X.mean((0, 2, 3)), X.var((0, 2, 3))
            count = X[:, 0].size
            new = mean, variance * (count / (count - 1))
            for kind, old, now in zip(
                ("running_mean", "running_var"), running, new, strict=True
            ):
                self.weights[kind] = (0.9 * old + 0.1 * now).astype(old.dtype)
        return layers.batch_norm(
            X, weight, bias, mean, variance, 1e-5, self.training
        )


class _ReLU(_Layer):
    def compute(self, X):
        return layers.relu(X)


class _GlobalAvgPool(_Layer):
    def compute(self, X):
        return layers.global_avg_pool(X)


class _Dense(_Layer):
    def __init__(self, inputs, outputs):
        super().__init__(weight=(outputs, inputs), bias=(outputs,))

    def compute(self, X):
        return layers.dense(X, *self.weights.values())


class _Sequential:
    """Named layers, applied in order."""

    def __init__(self, children):
        self.children = children

    def __call__(self, X, training=False):
        for child in self.children.values():
            X = child(X, training)
        self.output = X
        return X

    def backward(self, dY):
        for child in reversed(self.children.values()):
            dY = child.backward(dY)
        return dY


class Residual:
    """The residual block of ResNet models."""

    def __init__(
        self, in_channels, num_channels, use_1x1conv=False, strides=1
    ):
        branch = {
            "conv1": _Conv2D(in_channels, num_channels, 3, strides),
            "bn1": _BatchNorm(num_channels),
            "relu1": _ReLU(),
            "conv2": _Conv2D(num_channels, num_channels, 3),
            "bn2": _BatchNorm(num_channels),
        }
        shortcut = {}
        if use_1x1conv:
            shortcut["conv3"] = _Conv2D(in_channels, num_channels, 1, strides)
        self.branch, self.shortcut = _Sequential(branch), _Sequential(shortcut)
        self.relu = _ReLU()
        self.children = branch | shortcut

    def __call__(self, X, training=False):
        Y = self.branch(X, training)  # (n, channels, h/strides, ...)
        self.output = self.relu(Y + self.shortcut(X, training))
        return self.output

    def backward(self, dY):
        dY = self.relu.backward(dY)
        return self.branch.backward(dY) + self.shortcut.backward(dY)


def resnet_block(in_channels, num_channels, num_residuals, first_block=False):
    """Return a stage of blocks; all stages but the first halve the size."""
    blk = {}
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blk["0"] = Residual(
                in_channels, num_channels, use_1x1conv=True, strides=2
            )
        else:
            blk[str(i)] = Residual(num_channels, num_channels)
    return _Sequential(blk)


def resnet18(num_classes, in_channels=3, num_channels=64):
    """Return the ResNet-18 of the chapter: 11,176,970 weights for 10 classes.

    Takes float images of shape (n, in_channels, height, width), of any size.
    Returns logits of shape (n, num_classes). The first stage has
    `num_channels` channels; each stage has twice as many as the one before it.
    """
    c = num_channels
    net = _Sequential(
        {
            "conv": _Conv2D(in_channels, c, 3),
            "bn": _BatchNorm(c),
            "relu": _ReLU(),  # (n, c, h, w)
            "resnet_block1": resnet_block(c, c, 2, first_block=True),
            "resnet_block2": resnet_block(c, 2 * c, 2),  # (n, 2c, h/2, w/2)
            "resnet_block3": resnet_block(
                2 * c, 4 * c, 2
            ),  # (n, 4c, h/4, w/4)
            "resnet_block4": resnet_block(
                4 * c, 8 * c, 2
            ),  # (n, 8c, h/8, w/8)
            "global_avg_pool": _GlobalAvgPool(),  # (n, 8c)
            "fc": _Dense(8 * c, num_classes),
        }
    )
    init_cnn(net)
    return net


def init_cnn(module):
    """Initialize weights for CNNs: Xavier-uniform, with zero biases.

    `module` is a whole network. Draws from NumPy's generator.
    """
    found = layers_by_name(module)
    sizes = network_sizes(
        {
            "fc.bias": found["fc"].weights["bias"],
            "conv.weight": found["conv"].weights["weight"],
        }
    )
    seed = np.random.randint(2**32, dtype=np.uint64)
    for name, weight in initial_weights(*sizes, seed=int(seed)).items():
        layer, _, kind = name.rpartition(".")
        if isinstance(found[layer], _Conv2D | _Dense):
            found[layer].weights[kind] = weight


def layers_by_name(module, prefix=""):
    """Return all layers and blocks in a network by their canonical names."""
    found = {}
    for name, child in getattr(module, "children", {}).items():
        found[prefix + name] = child
        found |= layers_by_name(child, f"{prefix}{name}.")
    return found
