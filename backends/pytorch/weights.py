"""Convert between a PyTorch network and the weights of common.weights.

PyTorch's layouts and the layer names of `resnet18` are the canonical ones.
Only BatchNorm's counter of batches is left out.
"""

from pathlib import Path

import numpy as np
import torch

from common.system.files import atomic_write
from common.weights.canonical import Weights, network_sizes
from common.weights.checks import (
    Entry,
    check_entries,
    check_weights,
    require_fit,
)

from ._state_dict import COUNTER, DTYPES, WRAPPERS, read_state, values
from .resnet import resnet18


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    return {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in tensors_by_name(net).items()
    }


def tensors_by_name(net):
    """Return the weights and buffers of a network, prepared or not."""
    return {
        WRAPPERS.sub("", name, count=1): tensor
        for name, tensor in net.state_dict().items()
        if not name.endswith(COUNTER)
    }


def trained_by_name(net):
    """Return the weights that an optimizer trains, by canonical name."""
    return {
        WRAPPERS.sub("", name, count=1): parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad
    }


def set_weights(net, weights: Weights) -> None:
    """Copy canonical weights and buffers into a `resnet18`.

    Raises ValueError if names or shapes are not those of the network.
    """
    tensors = tensors_by_name(net)
    require_fit({name: tuple(t.shape) for name, t in tensors.items()}, weights)
    with torch.no_grad():
        for name in tensors:
            tensors[name].copy_(torch.from_numpy(weights[name]))


def save_file(path: Path, weights: Weights) -> None:
    """Write canonical weights to a file in the framework's own format.

    Here: a state dict, for `load_state_dict` of this network.
    """
    weights = check_weights(weights, "the weights to save")
    state = {name: torch.from_numpy(w) for name, w in weights.items()}
    for name in weights:
        if name.endswith("running_var"):
            layer = name.removesuffix("running_var")
            state[layer + COUNTER] = torch.tensor(0)
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file in the framework's own format.

    Here: a state dict of this network, prepared or not. Reading it runs no
    code from the file. Raises UserError for any other file.
    """
    state = {
        name: tensor
        for name, tensor in read_state(path).items()
        if not name.endswith(COUNTER)
    }
    # Before they are copied: many names may share one tensor in memory.
    check_entries(
        {
            name: Entry(tuple(tensor.shape), np.dtype(DTYPES[tensor.dtype]))
            for name, tensor in state.items()
        },
        str(path),
    )
    weights = {name: values(tensor) for name, tensor in state.items()}
    return check_weights(weights, str(path))


def load_net(path: Path):
    """Return a `resnet18` that the framework itself loads from such a file.

    Here: with `load_state_dict`. Raises UserError as `load_file` does.
    """
    weights = load_file(path)
    net = resnet18(*network_sizes(weights))
    # Not strict: only counters of batches may be missing.
    net.load_state_dict(read_state(path), strict=False)
    return net
