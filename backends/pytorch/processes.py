"""Several processes in PyTorch: DistributedDataParallel, a ring of equals.

Each process has the whole network and a part of every batch. During the
backward pass the processes average their gradients, so all take the same step.
"""

import os

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ._frozen_batch_norm import FrozenBatchNorm


def join():
    """Join the other processes of this run, if the engine's variables are set.

    `torchrun` sets them: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _joined():
        dist.init_process_group()  # gloo on the CPU, NCCL on GPUs


def rank():
    """Return the number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def num_processes():
    """Return the number of processes that train together."""
    return dist.get_world_size() if _joined() else 1


def replicate(net, devices):
    """Return the network with the same weights in every process.

    The first process sends its weights to the others.
    """
    if num_processes() == 1:
        return net
    on_gpu = devices[0].type == "cuda"
    net = DistributedDataParallel(net, devices[:1] if on_gpu else None)
    # Differs: by default every process takes the running statistics of the
    # first one before each step.
    net.broadcast_buffers = False
    return net


def total(values):
    """Return the sum of a number or an array over all processes.

    The sum is computed in float64.
    """
    if num_processes() == 1:
        return values
    summed = torch.as_tensor(np.asarray(values, np.float64)).clone()
    dist.all_reduce(summed)
    return summed.numpy()[()]


def average_buffers(net):
    """Average BatchNorm's running statistics over all processes."""
    if num_processes() == 1:
        return
    for module in net.modules():
        # Those of a frozen layer are equal, and their sum may be rounded.
        if not isinstance(module, FrozenBatchNorm):
            for buffer in module.buffers(recurse=False):
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= num_processes()


def _joined():
    return dist.is_available() and dist.is_initialized()
