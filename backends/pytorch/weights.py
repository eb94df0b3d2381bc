"""Between a PyTorch network and the canonical weights of common.weights.

PyTorch's layouts are the canonical ones, and `resnet18` names its layers
canonically, so that only the counter of batches in BatchNorm is left out.
"""

import torch

from common.weights import Weights

COUNTER = "num_batches_tracked"


def get_weights(net) -> Weights:
    """Return the weights and buffers of a `resnet18` in canonical form."""
    return {
        name: tensor.detach().float().cpu().contiguous().numpy().copy()
        for name, tensor in net.state_dict().items()
        if not name.endswith(COUNTER)
    }


def set_weights(net, weights: Weights) -> None:
    """Put canonical weights and buffers into a `resnet18`, in place.

    Raises ValueError where names or shapes are not those of the network.
    """
    tensors = net.state_dict()
    own = {name for name in tensors if not name.endswith(COUNTER)}
    if wrong := sorted(own ^ weights.keys()):
        raise ValueError(f"weights missing or not wanted: {wrong}")
    for name in own:
        if tensors[name].shape != weights[name].shape:
            raise ValueError(
                f"{name} has shape {weights[name].shape}, "
                f"not {tuple(tensors[name].shape)}"
            )
    with torch.no_grad():
        for name in own:
            tensors[name].copy_(torch.from_numpy(weights[name]))
