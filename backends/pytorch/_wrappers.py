"""Networks around a network: on several devices, in mixed precision."""

import torch
from torch import nn


def on_devices(net, devices):
    """Return the network on its devices, copied to each if they are several.

    Differs: DataParallel copies the weights anew for each batch, and keeps
    the running statistics of the first device only.
    """
    net = net.to(devices[0])
    return nn.DataParallel(net, devices) if len(devices) > 1 else net


class MixedPrecision(nn.Module):
    """Compute convolutions and products of a network in bfloat16."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, X):
        with torch.autocast(X.device.type, torch.bfloat16):
            return self.net(X).float()
