"""The book's ResNet-18 for small images, in Keras.

Every convolution has a bias and pads 1 on both sides, also at stride 2. A
shortcut is a 1 x 1 convolution without BatchNorm. No pooling follows the first
layer. `resnet18` declares its input, so all weights exist as soon as the
network does.
"""

import keras
import tensorflow as tf
from keras import layers

from ._layers import BatchNorm, layers_of, registered


@registered
class Residual(layers.Layer):
    """The residual block of ResNet models."""

    def __init__(
        self,
        in_channels,
        num_channels,
        use_1x1conv=False,
        strides=1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "in_channels": in_channels,
            "num_channels": num_channels,
            "use_1x1conv": use_1x1conv,
            "strides": strides,
        }
        self.input_spec = keras.InputSpec(ndim=4, axes={-1: in_channels})
        # Differs: at stride 2, padding='same' pads even sizes only on the
        # right and at the bottom, which shifts the grid.
        self.pad = layers.ZeroPadding2D(1)
        self.conv1 = layers.Conv2D(
            num_channels, kernel_size=3, strides=strides, name="conv1"
        )
        self.conv2 = layers.Conv2D(
            num_channels, kernel_size=3, padding="same", name="conv2"
        )
        self.conv3 = None
        if use_1x1conv:
            self.conv3 = layers.Conv2D(
                num_channels, kernel_size=1, strides=strides, name="conv3"
            )
        # Differs: Keras' own epsilon is 1e-3 and its momentum 0.99.
        self.bn1 = BatchNorm(epsilon=1e-5, momentum=0.9, name="bn1")
        self.bn2 = BatchNorm(epsilon=1e-5, momentum=0.9, name="bn2")

    def build(self, input_shape):
        padded = self.pad.compute_output_shape(input_shape)
        self.conv1.build(padded)
        shape = self.conv1.compute_output_shape(padded)
        for layer in (self.bn1, self.conv2, self.bn2):
            layer.build(shape)
        if self.conv3 is not None:
            self.conv3.build(input_shape)

    def call(self, X, training=None):
        Y = self.conv1(self.pad(X))  # (n, h/strides, w/strides, channels)
        Y = tf.nn.relu(self.bn1(Y, training=training))
        Y = self.bn2(self.conv2(Y), training=training)
        if self.conv3 is not None:
            X = self.conv3(X)
        return tf.nn.relu(Y + X)

    def get_config(self):
        return super().get_config() | self.settings


def resnet_block(
    in_channels, num_channels, num_residuals, first_block=False, name=None
):
    """Return a stage of blocks; all stages but the first halve the size."""
    blk = keras.Sequential(name=name)
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

    Takes float images of shape (n, height, width, in_channels), of any size.
    Returns logits of shape (n, num_classes). The first stage has
    `num_channels` channels; each stage has twice as many as the one before it.
    """
    c = num_channels
    return keras.Sequential(
        [
            keras.Input((None, None, in_channels)),
            layers.Conv2D(c, kernel_size=3, padding="same", name="conv"),
            BatchNorm(epsilon=1e-5, momentum=0.9, name="bn"),
            layers.ReLU(),  # (n, h, w, c)
            resnet_block(c, c, 2, first_block=True, name="resnet_block1"),
            resnet_block(c, 2 * c, 2, name="resnet_block2"),
            resnet_block(2 * c, 4 * c, 2, name="resnet_block3"),
            resnet_block(4 * c, 8 * c, 2, name="resnet_block4"),
            layers.GlobalAveragePooling2D(),  # (n, 8c)
            layers.Dense(num_classes, name="fc"),
        ]
    )


def init_cnn(module):
    """Initialize weights for CNNs: Xavier-uniform, with zero biases.

    Draws new weights as Keras does by default. `module` is a layer or a
    network; in a network, all layers are initialized.
    """
    for layer in layers_of(module):
        if isinstance(layer, layers.Dense | layers.Conv2D):
            # A reused initializer draws the same weights for the same shape.
            xavier = keras.initializers.GlorotUniform()
            layer.kernel.assign(xavier(layer.kernel.shape))
            if layer.use_bias:
                layer.bias.assign(tf.zeros_like(layer.bias))
