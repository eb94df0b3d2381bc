"""Between a Keras network and the canonical weights of common.weights.

Keras keeps convolutions as (height, width, inputs, outputs) and dense layers
as (inputs, outputs); the canonical forms are the other way round.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

from common.errors import UserError
from common.files import written_whole
from common.weights import Weights, check_weights, weight_shapes

from .resnet import resnet18

# Canonical name of a weight: Keras' name, in BatchNorm and elsewhere.
BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
# What Keras and h5py raise for files that are something else.
UNREADABLE = (
    OSError,
    KeyError,
    ValueError,
    IndexError,
    RuntimeError,
    AttributeError,
    TypeError,
)
OTHERS = {"weight": "kernel", "bias": "bias"}


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    return {
        name: _from_keras(variable.numpy())
        for name, variable in _variables(net).items()
    }


def _variables(net):
    """Return the variables of a `resnet18` by their canonical names."""
    num_classes = net.get_layer("fc").units
    in_channels = net.get_layer("conv").kernel.shape[2]
    return {
        name: _variable(net, name)
        for name in weight_shapes(num_classes, in_channels)
    }


def _variable(net, name):
    first, *rest, kind = name.split(".")
    layer = net.get_layer(first)
    if rest:  # resnet_block1.0.conv1: of the first block in a stage
        layer = getattr(layer.layers[int(rest[0])], rest[1])
    return getattr(layer, (BATCH_NORM if "bn" in name else OTHERS)[kind])


def _from_keras(array):
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    array = array.T if array.ndim == 2 else array
    return np.array(array, order="C")


def _to_keras(array):
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def set_weights(net, weights: Weights) -> None:
    """Put canonical weights and buffers into a `resnet18`, in place.

    Raises ValueError where names or shapes are not those of the network.
    """
    variables = _variables(net)
    if wrong := sorted(variables.keys() ^ weights.keys()):
        raise ValueError(f"weights missing or not wanted: {wrong}")
    shapes = weight_shapes(
        variables["fc.bias"].shape[0], variables["conv.weight"].shape[2]
    )
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(
                f"{name} has shape {weights[name].shape}, not {shape}"
            )
    for name, variable in variables.items():
        variable.assign(_to_keras(weights[name]))


def save_file(path: Path, weights: Weights) -> None:
    """Write canonical weights as a file of the framework's own kind.

    Here: `.weights.h5`, for `load_weights` of this network.
    """
    weights = check_weights(weights, "what is to be saved")
    net = resnet18(weights["fc.bias"].size, weights["conv.weight"].shape[1])
    set_weights(net, weights)
    with TemporaryDirectory() as folder, written_whole(path) as temporary:
        file = Path(folder) / "net.weights.h5"  # Keras wants this ending
        net.save_weights(file)
        shutil.copyfile(file, temporary)


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file of the framework's own kind.

    Here: `.weights.h5` of this network, from `save_weights`. Raises
    UserError for any other file.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "net.weights.h5"
        shutil.copyfile(path, file)
        try:
            with h5py.File(file) as content:
                layers = content["layers"]
                num_classes = layers["dense/vars/1"].shape[0]
                in_channels = layers["conv2d/vars/0"].shape[2]
            net = resnet18(num_classes, in_channels)
            net.load_weights(file)
        except UNREADABLE as error:
            raise UserError(
                f"{path} is not a .weights.h5 file of this network, "
                "or is damaged"
            ) from error
    return get_weights(net)
