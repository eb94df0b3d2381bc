"""The book's ResNet-18 for small images, in Gluon.

Every convolution has a bias and pads 1 on both sides, also at stride 2; a
shortcut is a 1 x 1 convolution without BatchNorm; there is no first pooling.
The layers know their input channels, so all weights exist as soon as the
network does; the book's are deferred to the first batch.
"""

import numpy as onp
from mxnet import init
from mxnet.gluon import nn

# NumPy has no such type; MXNet knows it by this name.
BFLOAT16 = onp.dtype([("bfloat16", onp.uint16)])


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
        # Differs: the running statistics move in the backward pass, and the
        # running variance is biased.
        self.bn1 = nn.BatchNorm(in_channels=num_channels)
        self.bn2 = nn.BatchNorm(in_channels=num_channels)

    def hybrid_forward(self, F, X):
        Y = _relu(F, self.bn1(self.conv1(X)))  # (n, channels, h/strides, ...)
        Y = self.bn2(self.conv2(Y))
        if self.conv3 is not None:
            X = self.conv3(X)
        return _relu(F, _add(F, Y, X))


# npx.relu and + are the same functions, but not oneDNN's: around each of them
# a batch is copied from oneDNN's layout and back.
def _relu(F, X):
    return F.npx.activation(X, act_type="relu")


def _add(F, X, Y):
    return F.elemwise_add(X.as_nd_ndarray(), Y.as_nd_ndarray()).as_np_ndarray()


def resnet_block(in_channels, num_channels, num_residuals, first_block=False):
    """Return a stage of residual blocks; all but the first halve the size."""
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


def resnet18(num_classes, in_channels=3):
    """Return the ResNet-18 of the chapter: 11,176,970 weights for 10 classes.

    Takes images of shape (n, in_channels, height, width), float, of any size;
    returns logits of shape (n, num_classes).
    """
    net = _Network()
    net.add(
        nn.Conv2D(64, kernel_size=3, padding=1, in_channels=in_channels),
        nn.BatchNorm(in_channels=64),
        nn.Activation("relu"),  # (n, 64, h, w)
        resnet_block(64, 64, 2, first_block=True),
        resnet_block(64, 128, 2),  # (n, 128, h/2, w/2)
        resnet_block(128, 256, 2),  # (n, 256, h/4, w/4)
        resnet_block(256, 512, 2),  # (n, 512, h/8, w/8)
        nn.GlobalAvgPool2D(),  # (n, 512, 1, 1)
        nn.Dense(num_classes, in_units=512),
    )
    net.initialize(init.Xavier())
    return net


UNIFORM = init.Uniform()  # Gluon's default: +-0.07, whatever the layer


class _Network(nn.HybridSequential):
    """Layers in a row that have weights from the start.

    The book's cells initialize their network themselves. Gluon would ignore
    that for weights that exist, and leave them on the CPU.
    """

    def initialize(
        self,
        init=UNIFORM,
        ctx=None,
        verbose=False,
        force_reinit=True,
    ):
        super().initialize(init, ctx, verbose, force_reinit)


def init_cnn(module):
    """Initialize weights for CNNs: Xavier-uniform, with zero biases.

    Differs: Gluon's own weights are uniform in +-0.07, whatever the layer.
    """
    if isinstance(module, nn.Dense | nn.Conv2D):
        devices = module.weight.list_ctx()
        module.initialize(init.Xavier(), devices, force_reinit=True)


def in_bfloat16(net):
    """Compute convolutions and products in bfloat16, from float32 weights.

    What lies between them is bfloat16 too, as each cast copies a batch out of
    oneDNN's layout; BatchNorm's weights and statistics stay float32, and the
    results are float32 again. Upstream's own way, `amp.init`, does nothing
    where the NumPy interface is on.
    """
    in_float32(net)
    net.apply(_cast_weights)
    forward = net.hybrid_forward

    def hybrid_forward(F, x, **weights):
        y = forward(F, _cast(F, x, BFLOAT16), **weights)
        return _cast(F, y, "float32")

    net.hybrid_forward = hybrid_forward


def _cast_weights(module):
    if not isinstance(module, nn.Dense | nn.Conv2D):
        return
    forward = module.hybrid_forward

    def hybrid_forward(F, x, **weights):
        weights = {name: _cast(F, w, BFLOAT16) for name, w in weights.items()}
        return forward(F, x, **weights)

    module.hybrid_forward = hybrid_forward


def in_float32(net):
    """Compute a network as it was made, whatever `in_bfloat16` has done."""
    net.apply(_as_made)


def _as_made(module):
    vars(module).pop("hybrid_forward", None)


def _cast(F, x, dtype):
    # Only the operator of the old interface knows bfloat16.
    return F.amp_cast(x.as_nd_ndarray(), dtype=dtype).as_np_ndarray()
