"""Convert between a NumPy network and the weights of common.weights.

The names and layouts are the canonical ones. Each layer keeps its own.
"""

import zipfile
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.system.files import atomic_write
from common.weights.canonical import Weights, network_sizes, weight_shapes
from common.weights.checks import check_weights, require_fit

from .resnet import layers_by_name, resnet18

# The errors that NumPy raises for other files.
UNREADABLE = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile)


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    arrays = arrays_by_name(net, "weights")
    sizes = network_sizes(arrays)
    return {name: arrays[name].copy() for name in weight_shapes(*sizes)}


def arrays_by_name(net, kept):
    """Return the `weights` or `gradients` of the layers by canonical name."""
    return {
        f"{name}.{kind}": array
        for name, layer in layers_by_name(net).items()
        for kind, array in getattr(layer, kept, {}).items()
    }


def set_weights(net, weights: Weights) -> None:
    """Copy canonical weights and buffers into a `resnet18`.

    Raises ValueError if names or shapes are not those of the network.
    """
    arrays = arrays_by_name(net, "weights")
    require_fit({name: array.shape for name, array in arrays.items()}, weights)
    for name, array in arrays.items():
        array[:] = weights[name]


def save_file(path: Path, weights: Weights) -> None:
    """Write canonical weights to a file in the framework's own format.

    Here: NumPy's archive, `.npz`.
    """
    weights = check_weights(weights, "the weights to save")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **weights)


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file in the framework's own format.

    Here: NumPy's archive. Reading it runs no code from the file. Raises
    UserError for any other file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            weights = dict(archive)
    except UNREADABLE as error:
        raise UserError(f"NumPy cannot read {path}") from error
    return check_weights(weights, str(path))


def load_net(path: Path):
    """Return a `resnet18` that the framework itself loads from such a file."""
    weights = load_file(path)
    net = resnet18(*network_sizes(weights))
    set_weights(net, weights)
    return net
