"""Convert between a Keras network and the weights of common.weights.

Differs: Keras keeps convolutions as (height, width, inputs, outputs) and dense
layers as (inputs, outputs). The canonical layouts are (outputs, inputs,
height, width) and (outputs, inputs).
"""

import shutil
from pathlib import Path

from common.errors import UserError
from common.system.files import atomic_write
from common.system.temporary import temporary_folder
from common.weights.canonical import Weights, network_sizes, weight_shapes
from common.weights.checks import check_weights, require_fit
from common.weights.keras import UNREADABLE, from_keras, load_keras, to_keras

from .resnet import resnet18

# Keras' names by the canonical names: in BatchNorm, and elsewhere.
BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
OTHERS = {"weight": "kernel", "bias": "bias"}


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    return {
        name: from_keras(variable.numpy())
        for name, variable in variables_by_name(net).items()
    }


def variables_by_name(net):
    """Return the variables of a `resnet18` by their canonical names."""
    return {name: _variable(net, name) for name in weight_shapes(*_sizes(net))}


def trained_by_name(net):
    """Return the variables that an optimizer trains, by canonical name."""
    return {
        name: variable
        for name, variable in variables_by_name(net).items()
        if variable.trainable
    }


def _sizes(net):
    """Return the arguments that `resnet18` was called with."""
    in_channels, num_channels = net.get_layer("conv").kernel.shape[2:]
    return net.get_layer("fc").units, in_channels, num_channels


def _variable(net, name):
    first, *rest, kind = name.split(".")
    layer = net.get_layer(first)
    if rest:  # resnet_block1.0.conv1: the first block of a stage
        layer = getattr(layer.layers[int(rest[0])], rest[1])
    return getattr(layer, (BATCH_NORM if "bn" in name else OTHERS)[kind])


def set_weights(net, weights: Weights) -> None:
    """Copy canonical weights and buffers into a `resnet18`.

    Raises ValueError if names or shapes are not those of the network.
    """
    variables = variables_by_name(net)
    require_fit(weight_shapes(*_sizes(net)), weights)
    for name, variable in variables.items():
        variable.assign(to_keras(weights[name]))


def save_file(path: Path, weights: Weights) -> None:
    """Write canonical weights to a file in the framework's own format.

    Here: `.weights.h5`, for `load_weights` of this network.
    """
    weights = check_weights(weights, "the weights to save")
    net = resnet18(*network_sizes(weights))
    set_weights(net, weights)
    with temporary_folder() as folder, atomic_write(path) as temporary:
        file = folder / "net.weights.h5"  # Keras wants this ending
        net.save_weights(file)
        shutil.copyfile(file, temporary)


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file in the framework's own format.

    Here: `.weights.h5` of this network, from `save_weights`. h5py reads it,
    because Keras' own loader follows links out of the file. Raises UserError
    for any other file.
    """
    return load_keras(path)[0]  # without metadata


def load_net(path: Path):
    """Return a `resnet18` that the framework itself loads from such a file.

    Here: with `load_weights`. Raises UserError as `load_file` does.
    """
    weights = load_file(path)  # refuses links that Keras would follow
    net = resnet18(*network_sizes(weights))
    with temporary_folder() as folder:
        file = folder / "net.weights.h5"  # Keras wants this ending
        shutil.copyfile(path, file)
        try:
            net.load_weights(file)
        except UNREADABLE as error:
            raise UserError(f"Keras cannot read {path}") from error
    return net
