"""BatchNorm with the statistics of the whole batch over all processes.

Differs: PyTorch's own SyncBatchNorm runs on GPUs only.
"""

import copy

import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import UserError

from .processes import num_processes


def require_one_device(devices):
    """Raise UserError for several devices of one process."""
    if len(devices) > 1:
        raise UserError(
            "--sync-batch-norm: PyTorch synchronises processes, not the "
            "devices of one: choose one --device for each process"
        )


def synchronise(net, devices):
    """Return a copy of a network whose BatchNorm layers are synchronised.

    Returns `net` itself if there is only one process.
    """
    require_one_device(devices)
    if num_processes() == 1:
        return net
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SyncBatchNorm  # its tensors stay
    return net


class SyncBatchNorm(_BatchNorm):
    """BatchNorm that takes mean and variance over the batch of all processes.

    Every value counts once, also if the processes have different numbers of
    examples. In evaluation mode, it is PyTorch's own layer.
    """

    momentum: float
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def forward(self, X):
        if not self.training:
            return super().forward(X)
        dtype, X = X.dtype, X.to(self.weight.dtype)  # it may be bfloat16
        axes, shape = [0, *range(2, X.dim())], [-1, *[1] * (X.dim() - 2)]
        own_count = X.new_full([1], X.numel() // X.shape[1])
        sums = _AddUp.apply(torch.cat([X.sum(axes), own_count]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = X - mean.view(shape)
        variance = _AddUp.apply((centred**2).sum(axes)) / count
        self._keep(mean, variance * count / (count - 1))
        scale = self.weight / torch.sqrt(variance + self.eps)
        Y = centred * scale.view(shape) + self.bias.view(shape)
        return Y.to(dtype)

    def _keep(self, mean, variance):
        """Update the running statistics."""
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
            self.num_batches_tracked.add_(1)

    def _check_input_dim(self, X):
        """Accept any number of dimensions."""


class _AddUp(torch.autograd.Function):
    """The sum of a vector over all processes, and so its gradient."""

    @staticmethod
    def forward(ctx, vector):  # noqa: ARG004
        total = vector.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        return _AddUp.apply(gradient)
