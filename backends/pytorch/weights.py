"""Between a PyTorch network and the canonical weights of common.weights.

PyTorch's layouts are the canonical ones, and `resnet18` names its layers
canonically, so that only the counter of batches in BatchNorm is left out.
"""

import re
from pathlib import Path
from pickle import UnpicklingError

import torch

from common.errors import UserError
from common.files import written_whole
from common.weights import Weights, check_weights

COUNTER = "num_batches_tracked"
# What `prepare` and DataParallel put around a network.
WRAPPERS = re.compile(r"^(_orig_mod\.|module\.|net\.)+")


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    return {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in _tensors(net).items()
    }


def _tensors(net):
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
    tensors = _tensors(net)
    if wrong := sorted(tensors.keys() ^ weights.keys()):
        raise ValueError(f"weights missing or not wanted: {wrong}")
    for name in tensors:
        if tensors[name].shape != weights[name].shape:
            raise ValueError(
                f"{name} has shape {weights[name].shape}, "
                f"not {tuple(tensors[name].shape)}"
            )
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
    with written_whole(path) as temporary:
        torch.save(state, temporary)


def load_file(path: Path) -> Weights:
    """Read canonical weights from a file of the framework's own kind.

    Here: a state dict of this network. It is read without running anything
    that is in it. Raises UserError for any other file.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights = {
            name: tensor.detach().float().numpy()
            for name, tensor in state.items()
            if not name.endswith(COUNTER)
        }
    except (UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise UserError(
            f"{path} is not a state dict, or is damaged"
        ) from error
    return check_weights(weights, str(path))
