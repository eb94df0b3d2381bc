"""Between a Gluon network and the canonical weights of common.weights.

Gluon's layouts are the canonical ones. Its names count the layers of a
network: `3.0.bn1.gamma` is the canonical `resnet_block1.0.bn1.weight`.
"""

import re
from pathlib import Path

import mxnet as mx
import numpy as onp
from mxnet import np, npx
from mxnet.util import np_array, np_shape

from common.errors import UserError
from common.files import written_whole
from common.weights import Weights, check_weights, is_buffer, weight_shapes

# Canonical name: position in the network.
POSITIONS = {
    "conv": "0",
    "bn": "1",
    "resnet_block1": "3",
    "resnet_block2": "4",
    "resnet_block3": "5",
    "resnet_block4": "6",
    "fc": "8",
}
SCALE = {"weight": "gamma", "bias": "beta"}  # of BatchNorm


def gluon_name(name):
    """Return Gluon's name of a weight: `3.0.bn1.gamma` and its like."""
    layer, _, rest = name.partition(".")
    *path, kind = rest.split(".")
    if "bn" in name:
        kind = SCALE.get(kind, kind)
    return ".".join([POSITIONS[layer], *path, kind])


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    # A static graph writes BatchNorm's statistics unseen by the engine:
    # reading them waits for the forward pass, and the backward writes them.
    npx.waitall()
    return {
        name: _value(name, parameter)
        for name, parameter in _parameters(net).items()
    }


def _parameters(net):
    """Return the parameters of a `resnet18` by their canonical names."""
    own = net._collect_params_with_prefix()  # as save_parameters names them
    if not {"0.weight", "8.bias"} <= own.keys():
        raise ValueError("the network is not a resnet18 of this project")
    num_classes, in_channels = own["8.bias"].shape[0], own["0.weight"].shape[1]
    names = weight_shapes(num_classes, in_channels)
    return {name: own[gluon_name(name)] for name in names}


def _value(name, parameter):
    """Return a copy; of buffers, the mean over the devices."""
    arrays = [array.asnumpy() for array in parameter.list_data()]
    if is_buffer(name):
        return onp.mean(arrays, axis=0)
    return arrays[0]


def set_weights(net, weights: Weights) -> None:
    """Put canonical weights and buffers into a `resnet18`, in place.

    Raises ValueError where names or shapes are not those of the network.
    """
    parameters = _parameters(net)
    if wrong := sorted(parameters.keys() ^ weights.keys()):
        raise ValueError(f"weights missing or not wanted: {wrong}")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise ValueError(
                f"{name} has shape {weights[name].shape}, "
                f"not {parameter.shape}"
            )
    for name, parameter in parameters.items():
        parameter.set_data(np.array(weights[name], dtype=parameter.dtype))


def save_file(path: Path, weights: Weights) -> None:
    """Write canonical weights as a file of the framework's own kind.

    Here: `.params`, for `load_parameters` of the book's network, with the
    NumPy interface or without.
    """
    weights = check_weights(weights, "what is to be saved")
    # The old interface cannot read what the new one writes; this way, both.
    with np_array(False), np_shape(False), written_whole(path) as temporary:
        arrays = {
            gluon_name(name): mx.nd.array(weight)
            for name, weight in weights.items()
        }
        mx.nd.save(str(temporary), arrays)


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file of the framework's own kind.

    Here: `.params` of the book's network, from `save_parameters`, `export`
    or the older `save_params`, with the NumPy interface or without. Raises
    UserError for any other file.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    arrays = _load(path)
    if isinstance(arrays, list):
        raise UserError(f"{path} holds arrays without names")
    canonical = {gluon_name(name): name for name in weight_shapes(1)}
    if not canonical.keys() & arrays.keys():
        canonical = _counted_names(arrays)
    weights = {
        canonical.get(name, name): array.asnumpy().astype(onp.float32)
        for name, array in arrays.items()
    }
    return check_weights(weights, str(path))


def _load(path):
    """Return the arrays of a file by the names in it."""
    try:
        return npx.load(str(path))
    except mx.MXNetError as error:
        # MXNet reads each kind of file in the interface that wrote it alone.
        written_by_the_old = "np shape" in str(error)
    try:
        if written_by_the_old:
            with np_array(False), np_shape(False):
                return mx.nd.load(str(path))
    except mx.MXNetError:
        pass
    raise UserError(f"{path} is not a .params file, or is damaged")


# Layers of a kind are counted through the process: `arg:conv7_weight`.
COUNTED = re.compile(r"(?:arg:|aux:)?(?:.*_)?([a-z]+)(\d+)_([a-z_]+)")
KINDS = {"conv": "conv", "batchnorm": "bn", "dense": "fc"}


def _counted_names(arrays):
    """Return canonical names for those of `export` and `save_params`.

    The numbers grow in the order in which layers are made, which is the
    canonical one; they start anywhere.
    """
    matches = {name: COUNTED.fullmatch(name) for name in arrays}
    found = {
        name: (KINDS[match[1]], int(match[2]), match[3])
        for name, match in matches.items()
        if match and match[1] in KINDS
    }
    layers = dict.fromkeys(n.rpartition(".")[0] for n in weight_shapes(1))
    canonical: dict[tuple[str, int], str] = {}
    for kind in KINDS.values():
        numbers = sorted({n for k, n, _ in found.values() if k == kind})
        named = [name for name in layers if kind in name.rpartition(".")[2]]
        canonical |= dict(
            zip(((kind, n) for n in numbers), named, strict=False)
        )
    scale = {gluon: own for own, gluon in SCALE.items()}
    return {
        name: f"{canonical[kind, number]}.{scale.get(value, value)}"
        for name, (kind, number, value) in found.items()
        if (kind, number) in canonical
    }
