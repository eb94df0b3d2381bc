"""The book's ResNet-18 for small images, in Gluon.

Every convolution has a bias and pads 1 on both sides, also at stride 2. A
shortcut is a 1 x 1 convolution without BatchNorm. No pooling follows the first
layer. The layers know their input channels, so all weights exist as soon as
the network does. In the book the first batch creates them.
"""

from mxnet import init
from mxnet.gluon import nn

from ._layers import Network, add, relu


class Residual(nn.HybridBlock):
    """The residual block of ResNet models."""

    def __init__(
        self, in_channels, num_channels, use_1x1conv=False, strides=1
    ):
        super().__init__()
        self.conv1 = nn.Conv2D(
            num_channels,
            kernel_size=3,
            padding=1,
            strides=strides,
            in_channels=in_channels,
        )
        self.conv2 = nn.Conv2D(
            num_channels, kernel_size=3, padding=1, in_channels=num_channels
        )
        self.conv3 = None
        if use_1x1conv:
            self.conv3 = nn.Conv2D(
                num_channels,
                kernel_size=1,
                strides=strides,
                in_channels=in_channels,
            )
        # Differs: the running statistics are updated in the backward pass, and
        # the running variance is biased.
        self.bn1 = nn.BatchNorm(
            epsilon=1e-5, momentum=0.9, in_channels=num_channels
        )
        self.bn2 = nn.BatchNorm(
            epsilon=1e-5, momentum=0.9, in_channels=num_channels
        )

    def hybrid_forward(self, F, X):
        Y = relu(F, self.bn1(self.conv1(X)))  # (n, channels, h/strides, ...)
        Y = self.bn2(self.conv2(Y))
        if self.conv3 is not None:
            X = self.conv3(X)
        return relu(F, add(F, Y, X))


def resnet_block(in_channels, num_channels, num_residuals, first_block=False):
    """Return a stage of blocks; all stages but the first halve the size."""
    blk = nn.HybridSequential()
    for i in range(num_residuals):
        if i == 0 and not first_block:
            blk.add(
                Residual(
                    in_channels, num_channels, use_1x1conv=True, strides=2
                )
            )
        else:
            blk.add(Residual(num_channels, num_channels))
    return blk


def resnet18(num_classes, in_channels=3, num_channels=64):
    """Return the ResNet-18 of the chapter: 11,176,970 weights for 10 classes.

    Takes float images of shape (n, in_channels, height, width), of any size.
    Returns logits of shape (n, num_classes). The first stage has
    `num_channels` channels; each stage has twice as many as the one before it.
    """
    c = num_channels
    net = Network()
    net.add(
        nn.Conv2D(c, kernel_size=3, padding=1, in_channels=in_channels),
        nn.BatchNorm(epsilon=1e-5, momentum=0.9, in_channels=c),
        nn.Activation("relu"),  # (n, c, h, w)
        resnet_block(c, c, 2, first_block=True),
        resnet_block(c, 2 * c, 2),  # (n, 2c, h/2, w/2)
        resnet_block(2 * c, 4 * c, 2),  # (n, 4c, h/4, w/4)
        resnet_block(4 * c, 8 * c, 2),  # (n, 8c, h/8, w/8)
        nn.GlobalAvgPool2D(),  # (n, 8c, 1, 1)
        nn.Dense(num_classes, in_units=8 * c),
    )
    net.initialize(init.Xavier())
    return net


def init_cnn(module):
    """Initialize weights for CNNs: Xavier-uniform, with zero biases.

    Differs: Gluon's own weights are uniform in +-0.07, in every layer.
    """
    if isinstance(module, nn.Dense | nn.Conv2D):
        devices = module.weight.list_ctx()
        module.initialize(init.Xavier(), devices, force_reinit=True)
