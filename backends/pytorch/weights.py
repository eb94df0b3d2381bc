"""Between a PyTorch network and the canonical weights of common.weights.

PyTorch's layouts are the canonical ones, and `resnet18` names its layers
canonically, so that only the counter of batches in BatchNorm is left out.
"""

import re
import warnings
import zipfile
from pathlib import Path

import torch

from common.errors import UserError
from common.files import written_whole
from common.weights import Weights, check_weights

from .resnet import resnet18

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

    Here: a state dict of this network, also of a prepared one. It is read
    without running anything that is in it. Raises UserError for any other
    file.
    """
    weights = {
        name: (tensor.float() if _is_half(tensor) else tensor).numpy()
        for name, tensor in _state(path).items()
        if not name.endswith(COUNTER)
    }
    return check_weights(weights, str(path))


def load_net(path: Path):
    """Return a `resnet18` that the framework has filled from such a file.

    Here: with `load_state_dict`. Raises UserError as `load_file` does.
    """
    weights = load_file(path)
    net = resnet18(weights["fc.bias"].size, weights["conv.weight"].shape[1])
    # Not strict: counters of batches may be missing; the rest is there.
    net.load_state_dict(_state(path), strict=False)
    return net


def _is_half(tensor):
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _state(path):
    """Return the tensors of a file by their names, without wrappers'."""
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > path.stat().st_size:  # torch.save compresses nothing
                raise UserError(f"{path} is compressed: save it anew")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is refused anyhow
            state = torch.load(path, map_location="cpu", weights_only=True)
        tensors = dict(state.items())
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(
            f"{path} is not a state dict of tensors, or is damaged; "
            "nothing in it was run"
        ) from error
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not _is_whole(tensor):
            raise UserError(f"{path} holds what is no tensor of numbers")
    return _without_wrappers(
        {name: tensor.detach() for name, tensor in tensors.items()}
    )


def _is_whole(tensor):
    """Tell whether a tensor has all its values, in memory, one by one.

    A file may repeat one value without end by a stride of zero.
    """
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
        and tensor.nbytes <= tensor.untyped_storage().nbytes()
    )


def _without_wrappers(state):
    """Return the tensors by the names of the network within a wrapper."""
    names = [WRAPPERS.sub("", name, count=1) for name in state]
    wrapped = all(WRAPPERS.match(name) for name in state)
    if not wrapped or len(set(names)) < len(names):
        return state
    return dict(zip(names, state.values(), strict=True))
