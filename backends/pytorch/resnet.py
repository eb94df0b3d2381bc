"""The book's ResNet-18 for small images, in PyTorch.

Every convolution has a bias and pads 1 on both sides, also at stride 2. A
shortcut is a 1 x 1 convolution without BatchNorm. No pooling follows the first
layer. The layers know their input channels, so all weights exist as soon as
the network does. The book's current edition has lazy layers instead, so its
`net.apply(init_cnn)` reaches 2 modules instead of 21.
"""

from collections import OrderedDict

from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """The residual block of ResNet models."""

    def __init__(
        self, in_channels, num_channels, use_1x1conv=False, strides=1
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels, num_channels, kernel_size=3, padding=1, stride=strides
        )
        self.conv2 = nn.Conv2d(
            num_channels, num_channels, kernel_size=3, padding=1
        )
        self.conv3 = None
        if use_1x1conv:
            self.conv3 = nn.Conv2d(
                in_channels, num_channels, kernel_size=1, stride=strides
            )
        # Differs: PyTorch's momentum is the weight of the new batch, one minus
        # that of MXNet and Keras. Its running variance is unbiased.
        self.bn1 = nn.BatchNorm2d(num_channels, eps=1e-5, momentum=0.1)
        self.bn2 = nn.BatchNorm2d(num_channels, eps=1e-5, momentum=0.1)

    def forward(self, X):
        Y = F.relu(self.bn1(self.conv1(X)))  # (n, channels, h/strides, ...)
        Y = self.bn2(self.conv2(Y))
        if self.conv3 is not None:
            X = self.conv3(X)
        return F.relu(Y + X)


def resnet_block(in_channels, num_channels, num_residuals, first_block=False):
    """Return a stage of blocks; all stages but the first halve the size."""
    blk = []
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blk.append(
                Residual(
                    in_channels, num_channels, use_1x1conv=True, strides=2
                )
            )
        else:
            blk.append(Residual(num_channels, num_channels))
    return nn.Sequential(*blk)


def resnet18(num_classes, in_channels=3, num_channels=64):
    """Return the ResNet-18 of the chapter: 11,176,970 weights for 10 classes.

    Takes float images of shape (n, in_channels, height, width), of any size.
    Returns logits of shape (n, num_classes). The first stage has
    `num_channels` channels; each stage has twice as many as the one before it.
    """
    c = num_channels
    layers = [
        ("conv", nn.Conv2d(in_channels, c, kernel_size=3, padding=1)),
        ("bn", nn.BatchNorm2d(c, eps=1e-5, momentum=0.1)),
        ("relu", nn.ReLU()),  # (n, c, h, w)
        ("resnet_block1", resnet_block(c, c, 2, first_block=True)),
        ("resnet_block2", resnet_block(c, 2 * c, 2)),  # (n, 2c, h/2, w/2)
        ("resnet_block3", resnet_block(2 * c, 4 * c, 2)),  # (n, 4c, h/4, w/4)
        ("resnet_block4", resnet_block(4 * c, 8 * c, 2)),  # (n, 8c, h/8, w/8)
        ("global_avg_pool", nn.AdaptiveAvgPool2d((1, 1))),
        ("flatten", nn.Flatten()),  # (n, 8c)
        ("fc", nn.Linear(8 * c, num_classes)),
    ]
    return nn.Sequential(OrderedDict(layers))


def init_cnn(module):
    """Initialize weights for CNNs: Xavier-uniform, with zero biases.

    Differs: PyTorch's own biases are random; MXNet's and Keras' are zero.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
