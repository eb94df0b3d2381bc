"""Convert between a Gluon network and the weights of common.weights.

Gluon's layouts are the canonical ones. Its names count the layers of a
network: `3.0.bn1.gamma` is the canonical `resnet_block1.0.bn1.weight`.
common.weights.gluon has the table of names and needs no MXNet.
"""

from pathlib import Path

import mxnet as mx
import numpy as onp
from mxnet import np, npx

from common.errors import UserError
from common.weights.canonical import (
    Weights,
    is_buffer,
    network_sizes,
    weight_shapes,
)
from common.weights.checks import check_weights, require_fit
from common.weights.gluon import (
    NAMES,
    graph_beside,
    load_params,
    named_by_position,
    save_params,
)
from common.weights.params import read_params

from ._graph import load_exported
from .resnet import resnet18


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    # A static graph writes BatchNorm's statistics without telling the engine.
    # A read waits for the forward pass only, but the backward pass writes
    # them.
    npx.waitall()
    return {
        name: _value(name, parameter)
        for name, parameter in parameters_by_name(net).items()
    }


def parameters_by_name(net):
    """Return the parameters of a `resnet18` by their canonical names."""
    try:
        num_channels, in_channels = net[0].weight.shape[:2]
        num_classes = net[8].bias.shape[0]
    except (AttributeError, IndexError, TypeError):
        raise ValueError(
            "the network is not a resnet18 of this project"
        ) from None
    names = weight_shapes(num_classes, in_channels, num_channels)
    return {name: _parameter(net, NAMES[name]) for name in names}


def trained_by_name(net):
    """Return the parameters that an optimizer trains, by canonical name."""
    return {
        name: parameter
        for name, parameter in parameters_by_name(net).items()
        if parameter.grad_req != "null"
    }


def _parameter(net, name):
    """Follow Gluon's name of a parameter, such as 3.0.bn1.gamma."""
    for part in name.split("."):
        net = net[int(part)] if part.isdecimal() else getattr(net, part)
    return net


def _value(name, parameter):
    """Return a copy of a weight, or the mean of a buffer over the devices."""
    arrays = [array.asnumpy() for array in parameter.list_data()]
    if is_buffer(name):
        return onp.mean(arrays, axis=0)
    return arrays[0]


def set_weights(net, weights: Weights) -> None:
    """Copy canonical weights and buffers into a `resnet18`.

    Raises ValueError if names or shapes are not those of the network.
    """
    parameters = parameters_by_name(net)
    require_fit({name: p.shape for name, p in parameters.items()}, weights)
    for name, parameter in parameters.items():
        parameter.set_data(np.array(weights[name], dtype=parameter.dtype))


def save_file(path: Path, weights: Weights) -> None:
    """Write canonical weights to a file in the framework's own format.

    Here: `.params`, for `load_parameters` of the book's network, with the
    NumPy interface or without.
    """
    save_params(path, check_weights(weights, "the weights to save"))


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file in the framework's own format.

    Here: `.params` of the book's network, from `save_parameters`, `export` or
    the older `save_params`, with the NumPy interface or without. NumPy reads
    it, because MXNet's own loader trusts the sizes that a file states. Raises
    UserError for any other file.
    """
    return load_params(path)


def load_net(path: Path):
    """Return a `resnet18` that the framework itself loads from such a file.

    Here: with `load_parameters`. Differs: Gluon reads a file of `export` only
    together with its graph, and returns a `SymbolBlock`. Without a graph
    `set_weights` places the arrays by name, which proves nothing. Raises
    UserError as `load_file` does.
    """
    weights = load_file(path)  # refuses files that Gluon would trust
    arrays = read_params(path)
    if not named_by_position(arrays):
        if graph := graph_beside(path):
            return load_exported(graph, arrays, weights)
        net = resnet18(*network_sizes(weights))
        set_weights(net, weights)
        return net
    net = resnet18(*network_sizes(weights))
    try:
        net.load_parameters(str(path), cast_dtype=True)
    except mx.MXNetError as error:
        raise UserError(f"MXNet cannot read {path}") from error
    return net
