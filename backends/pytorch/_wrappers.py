"""Wrappers of a network: for several devices and mixed precision."""

import torch
from torch import nn

from .processes import num_processes, total


def on_devices(net, devices):
    """Move a network to its devices; with several, wrap it in DataParallel.

    Differs: DataParallel copies the weights for each batch, and keeps only the
    running statistics of the first device.
    """
    net = net.to(devices[0])
    return nn.DataParallel(net, devices) if len(devices) > 1 else net


class MixedPrecision(nn.Module):
    """Run a network's convolutions and matrix products in bfloat16."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, X):
        with torch.autocast(X.device.type, torch.bfloat16):
            return self.net(X).float()


def share(num_examples):
    """Return the factor of the mean loss of this process.

    The mean over the processes is then that of the whole batch.
    """
    return num_examples * num_processes() / total(num_examples)
