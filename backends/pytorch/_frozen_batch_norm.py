"""BatchNorm that stays in evaluation mode."""

from torch import nn


class FrozenBatchNorm(nn.BatchNorm2d):
    """BatchNorm that uses its running statistics, and does not update them.

    Differs: PyTorch's own layer updates them even if its weights need no
    gradients.
    """

    def train(self, mode=True):  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)
