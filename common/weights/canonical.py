"""The canonical form of ResNet-18's weights: names, layouts and initial values.

All backends share the names below. Convolutions are (output channels, input channels, height, width), dense layers
(outputs, inputs), all float32. Each backend's ``weights.py`` converts between this form and its own, so that every
backend can read the weights of any other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# float32, or float64 in parity checks in float64.
Weights = dict[str, NDArray[np.floating[Any]]]
Shape = tuple[int, ...]
LAST_LAYER = ("fc.weight", "fc.bias")  # the only ones that depend on the number of classes

# ResNet-18 (He et al. 2016) as the book builds it for small images: (name of the stage, its channels as a multiple of
# those of the first stage, first stride).
STAGES = (
    ("resnet_block1", 1, 1),
    ("resnet_block2", 2, 2),
    ("resnet_block3", 4, 2),
    ("resnet_block4", 8, 2),
)


def weight_shapes(
    num_classes: int, in_channels: int = 3, num_channels: int = 64
) -> dict[str, Shape]:
    """Return the canonical name and shape of every parameter and buffer of ``resnet18``, from input to output."""
    shapes: dict[str, Shape] = {}
    _add_conv(shapes, "conv", in_channels, num_channels, 3)
    _add_batch_norm(shapes, "bn", num_channels)
    channels = num_channels
    for stage, factor, stride in STAGES:
        outputs = factor * num_channels
        for i in range(2):
            name = f"{stage}.{i}"
            _add_conv(shapes, f"{name}.conv1", channels, outputs, 3)
            _add_conv(shapes, f"{name}.conv2", outputs, outputs, 3)
            if i == 0 and stride != 1:
                _add_conv(shapes, f"{name}.conv3", channels, outputs, 1)
            _add_batch_norm(shapes, f"{name}.bn1", outputs)
            _add_batch_norm(shapes, f"{name}.bn2", outputs)
            channels = outputs
    shapes["fc.weight"], shapes["fc.bias"] = (num_classes, channels), (num_classes,)
    return shapes


def _add_conv(shapes: dict[str, Shape], name: str, inputs: int, outputs: int, kernel: int) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
    shapes[f"{name}.bias"] = (outputs,)


def _add_batch_norm(shapes: dict[str, Shape], name: str, channels: int) -> None:
    for kind in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{kind}"] = (channels,)


def is_buffer(name: str) -> bool:
    """Return whether ``name`` is one of BatchNorm's running statistics, not a trained parameter."""
    return name.endswith(("running_mean", "running_var"))


def trained_names(weights: Mapping[str, Any], freeze: bool = False) -> list[str]:
    """Return the names of the parameters that a training changes: with ``freeze``, those of the last layer."""
    return [n for n in weights if not is_buffer(n) and (n in LAST_LAYER or not freeze)]


def num_parameters(weights: Mapping[str, NDArray[np.floating[Any]]]) -> int:
    """Return the number of trained parameters, such as 11,176,970 for 10 classes and 3 channels."""
    return sum(weight.size for name, weight in weights.items() if not is_buffer(name))


def network_sizes(weights: Mapping[str, NDArray[Any]]) -> tuple[int, int, int]:
    """Return the arguments of ``resnet18``: the numbers of classes, input channels and channels of the first stage."""
    num_channels, in_channels = weights["conv.weight"].shape[:2]
    return weights["fc.bias"].size, in_channels, num_channels


def initial_weights(
    num_classes: int, in_channels: int = 3, num_channels: int = 64, seed: int = 0
) -> Weights:
    """Draw the initial weights, which are the same in every backend.

    Convolutions and the dense layer are Xavier-uniform (Glorot and Bengio 2010), biases are zero,
    and BatchNorm is the identity with running mean 0 and variance 1. The chapter uses Xavier;
    PyTorch's default biases would be random.
    """
    rng = np.random.default_rng(seed)
    return {
        name: _initial(name, shape, rng)
        for name, shape in weight_shapes(num_classes, in_channels, num_channels).items()
    }


def with_new_last_layer(weights: Weights, num_classes: int, seed: int = 0) -> Weights:
    """Return the weights with a last layer for ``num_classes`` classes, drawn as in `initial_weights`."""
    _, in_channels, num_channels = network_sizes(weights)
    new = initial_weights(num_classes, in_channels, num_channels, seed)
    return weights | {name: new[name] for name in LAST_LAYER}


def _initial(name: str, shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    if len(shape) > 1:
        outputs, inputs, area = shape[0], shape[1], int(np.prod(shape[2:]))
        bound = np.sqrt(6 / ((inputs + outputs) * area))
        return np.float32(2 * bound) * rng.random(shape, np.float32) - np.float32(bound)
    ones = name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1)
    return np.ones(shape, np.float32) if ones else np.zeros(shape, np.float32)
