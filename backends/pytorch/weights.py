"""Between a PyTorch network and the canonical weights of common.weights.

PyTorch's layouts are the canonical ones, and `resnet18` names its layers
canonically, so that only the counter of batches in BatchNorm is left out.
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
    """Return weights and buffers of a network, also of a prepared one."""
    return {
        WRAPPERS.sub("", name, count=1): tensor
        for name, tensor in net.state_dict().items()
        if not name.endswith(COUNTER)
    }


def set_weights(net, weights: Weights) -> None:
    """Put canonical weights and buffers into a `resnet18`, in place.

    Raises ValueError where names or shapes are not those of the network.
    """
    tensors = tensors_by_name(net)
    require_fit({name: tuple(t.shape) for name, t in tensors.items()}, weights)
    with torch.no_grad():
        for name in tensors:
            tensors[name].copy_(torch.from_numpy(weights[name]))


def save_file(path: Path, weights: Weights) -> None:
    """Write canonical weights as a file of the framework's own kind.

    Here: a state dict, for `load_state_dict` of this network.
    """
    weights = check_weights(weights, "what is to be saved")
    state = {name: torch.from_numpy(w) for name, w in weights.items()}
    for name in weights:
        if name.endswith("running_var"):
            layer = name.removesuffix("running_var")
            state[layer + COUNTER] = torch.tensor(0)
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file of the framework's own kind.

    Here: a state dict of this network, also of a prepared one. It is read
    without running anything that is in it. Raises UserError for any other
    file.
    """
    state = {
        name: tensor
        for name, tensor in read_state(path).items()
        if not name.endswith(COUNTER)
    }
    # First, as any number of names may share what is in memory once.
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
    """Return a `resnet18` that the framework has filled from such a file.

    Here: with `load_state_dict`. Raises UserError as `load_file` does.
    """
    weights = load_file(path)
    net = resnet18(*network_sizes(weights))
    # Not strict: counters of batches may be missing; the rest is there.
    net.load_state_dict(read_state(path), strict=False)
    return net
