"""Canonical names, layouts and first values of ResNet-18's weights, and their safetensors files.

One form for all frameworks: the names below; convolutions as (output channels, input channels, height, width), dense
layers as (outputs, inputs), float32. Each backend's ``weights.py`` brings its own layout to this one and back, so that
a file written by one backend is read by every other.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, UserNotice
from common.files import written_whole

# float32; float64 where a parity check has its network in float64.
Weights = dict[str, NDArray[np.floating[Any]]]
Shape = tuple[int, ...]

# ResNet-18 (He et al. 2016) as the book builds it for small images: (block name, channels, first stride).
STAGES = (
    ("resnet_block1", 64, 1),
    ("resnet_block2", 128, 2),
    ("resnet_block3", 256, 2),
    ("resnet_block4", 512, 2),
)


def weight_shapes(num_classes: int, in_channels: int = 3) -> dict[str, Shape]:
    """Return the canonical name and shape of every parameter and buffer of ``resnet18``, from input to output."""
    shapes: dict[str, Shape] = {}
    _add_conv(shapes, "conv", in_channels, 64, 3)
    _add_batch_norm(shapes, "bn", 64)
    channels = 64
    for stage, num_channels, stride in STAGES:
        for i in range(2):
            name = f"{stage}.{i}"
            _add_conv(shapes, f"{name}.conv1", channels, num_channels, 3)
            _add_conv(shapes, f"{name}.conv2", num_channels, num_channels, 3)
            if i == 0 and stride != 1:
                _add_conv(shapes, f"{name}.conv3", channels, num_channels, 1)
            _add_batch_norm(shapes, f"{name}.bn1", num_channels)
            _add_batch_norm(shapes, f"{name}.bn2", num_channels)
            channels = num_channels
    shapes["fc.weight"], shapes["fc.bias"] = (num_classes, channels), (num_classes,)
    return shapes


def _add_conv(shapes: dict[str, Shape], name: str, inputs: int, outputs: int, kernel: int) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
    shapes[f"{name}.bias"] = (outputs,)


def _add_batch_norm(shapes: dict[str, Shape], name: str, channels: int) -> None:
    for kind in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{kind}"] = (channels,)


def is_buffer(name: str) -> bool:
    """Tell BatchNorm's running statistics from parameters that are trained."""
    return name.endswith(("running_mean", "running_var"))


def num_parameters(weights: Mapping[str, NDArray[np.floating[Any]]]) -> int:
    """Return the number of trained parameters: 11,176,970 for 10 classes and 3 channels."""
    return sum(weight.size for name, weight in weights.items() if not is_buffer(name))


def initial_weights(num_classes: int, in_channels: int = 3, seed: int = 0) -> Weights:
    """Draw the weights that every backend starts from.

    Xavier-uniform for convolutions and the dense layer (Glorot and Bengio 2010), zero biases, BatchNorm at the
    identity with running mean 0 and variance 1. The chapter asks for Xavier; PyTorch's own biases would be random.
    """
    rng = np.random.default_rng(seed)
    return {
        name: _initial(name, shape, rng)
        for name, shape in weight_shapes(num_classes, in_channels).items()
    }


def _initial(name: str, shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    if len(shape) > 1:
        outputs, inputs, area = shape[0], shape[1], int(np.prod(shape[2:]))
        bound = np.sqrt(6 / ((inputs + outputs) * area))
        return np.float32(2 * bound) * rng.random(shape, np.float32) - np.float32(bound)
    ones = name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1)
    return np.ones(shape, np.float32) if ones else np.zeros(shape, np.float32)


def check_weights(weights: Mapping[str, NDArray[Any]], source: str) -> Weights:
    """Return ``weights`` from input to output, as float32.

    Raises UserError, naming ``source`` and every name and shape that is not as it should be, unless they are
    ResNet-18's. Warns where values of more than 32 bits are rounded.
    """
    shapes = weight_shapes(_size(weights, "fc.weight", 0, 2), _size(weights, "conv.weight", 1, 4))
    if not shapes.keys() & weights.keys():
        raise UserError(
            f"{source} does not hold the weights of this project's ResNet-18: none of its {len(weights):,} names is "
            f"known, the first are {', '.join(map(shown, list(weights)[:3]))}"
        )
    wrong = [f"{name} is missing" for name in shapes if name not in weights]
    wrong += [f"{shown(name)} is not wanted" for name in weights if name not in shapes]
    for name, shape in shapes.items():
        if name in weights:
            wrong += _faults(name, weights[name], shape)
    if wrong:
        what = f"{source} does not hold the weights of this project's ResNet-18"
        listed = "".join(f"\n  {line}" for line in wrong)
        raise UserError(
            f"{what}: {wrong[0] if len(wrong) == 1 else f'{len(wrong):,} faults{listed}'}"
        )
    return _as_float32({name: weights[name] for name in shapes}, source)


ANY = -1  # a size that is not known


def _size(weights: Mapping[str, NDArray[Any]], name: str, axis: int, axes: int) -> int:
    """Return the size of an axis that is not the same in all networks, ANY where it cannot be told."""
    known = name in weights and weights[name].ndim == axes
    return weights[name].shape[axis] if known else ANY


def _faults(name: str, weight: NDArray[Any], shape: Shape) -> list[str]:
    fits = weight.ndim == len(shape) and all(
        right in (ANY, size) for size, right in zip(weight.shape, shape, strict=True)
    )
    if not fits:
        wanted = str(shape).replace(str(ANY), "any")
        return [f"{name} has shape {weight.shape}, not {wanted}"]
    if weight.size == 0:
        return [f"{name} has no values"]
    if not np.issubdtype(weight.dtype, np.floating):
        return [f"{name} holds {weight.dtype}, not floating-point numbers"]
    return []


def shown(name: str) -> str:
    """Return a name from a file as a terminal can show it."""
    short = name if len(name) <= 80 else f"{name[:77]}..."
    return short if short.isprintable() else ascii(short)


def _as_float32(weights: Mapping[str, NDArray[Any]], source: str) -> Weights:
    with np.errstate(over="ignore"):
        result = {name: weight.astype(np.float32, copy=False) for name, weight in weights.items()}
    rounded = [
        name
        for name, weight in weights.items()
        if weight.dtype.itemsize > 4 and not np.array_equal(result[name], weight, equal_nan=True)
    ]
    if rounded:
        notice = f"{source} holds more than 32 bits, rounded to float32, in {', '.join(rounded)}"
        warnings.warn(UserNotice(notice), stacklevel=3)
    return result


def check_values(weights: Weights, source: str) -> None:
    """Raise UserError, naming ``source``, for weights that no network can compute with."""
    wrong = [
        name
        for name, weight in weights.items()
        if not np.isfinite(weight).all() or (name.endswith("running_var") and weight.min() < 0)
    ]
    if wrong:
        raise UserError(
            f"{source} holds values that a network cannot compute with (not finite, or a variance below 0) in "
            f"{', '.join(wrong)}"
        )


def save_weights(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    """Write ``weights`` as a safetensors file, whole or not at all, with ``metadata`` in its header."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(weight) for name, weight in weights.items()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(contiguous, metadata))


def load_weights(path: Path) -> tuple[Weights, dict[str, str]]:
    """Read weights and metadata that `save_weights` wrote. Raises UserError for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    return check_weights(weights, str(path)), metadata
