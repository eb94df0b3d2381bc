"""TensorFlow's and Keras' own operations, with their defaults."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from backends.tensorflow.resnet import resnet18
from backends.tensorflow.weights import get_weights
from common.weights.keras import to_keras


def conv2d(X, weight):
    """Convolve at stride 2 with the padding that keeps the size at stride 1.

    In TensorFlow that padding is called 'SAME'.
    """
    X = X.transpose(0, 2, 3, 1)
    Y = tf.nn.conv2d(X, to_keras(weight), 2, "SAME").numpy()
    return Y.transpose(0, 3, 1, 2)


def batch_norm(X):
    """Return the output of a new BatchNorm layer, and its new running mean and variance."""
    layer = layers.BatchNormalization()
    Y = layer(X.transpose(0, 2, 3, 1), training=True).numpy()
    running = layer.moving_mean, layer.moving_variance
    return Y.transpose(0, 3, 1, 2), *(value.numpy() for value in running)


def loss_gradient(y_hat, y):
    """Return the gradient of the framework's cross-entropy with respect to the logits."""
    y_hat = tf.constant(y_hat)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        tape.watch(y_hat)
        l = loss(y, y_hat)
    return tape.gradient(l, y_hat).numpy()


def updates(name, gradients, rates, momentum=0.0, weight_decay=0.0):
    """Return a weight that starts at 1 after each step of the optimizer "adam" or "sgd"."""
    settings = {"weight_decay": weight_decay or None}
    if name == "adam":
        trainer = keras.optimizers.Adam(rates[0], **settings)
    else:
        trainer = keras.optimizers.SGD(rates[0], momentum, **settings)
    weight, path = keras.Variable(np.ones(1, np.float32)), []
    for gradient, rate in zip(gradients, rates, strict=True):
        trainer.learning_rate = rate
        trainer.apply([tf.fill([1], np.float32(gradient))], [weight])
        path.append(weight.numpy().item())
    return path


def adjust(name, images, factor):
    """Change the "brightness", "contrast", "saturation" or "hue" of uint8 images (n, height, width, 3).

    TensorFlow's operations take floats 0..1 here. Brightness is added: 0.5 for a factor of 1.5.
    """
    operation = getattr(tf.image, f"adjust_{name}")
    X = operation(tf.cast(images, tf.float32) / 255, factor - (name == "brightness"))
    return 255 * tf.clip_by_value(X, 0, 1).numpy()


def resize(images, size):
    """Resize uint8 images (n, height, width, 3) with bilinear interpolation."""
    return tf.image.resize(images, size).numpy()


def initial_weights():
    """Return the default initial weights of ResNet-18's layers, by canonical name."""
    return get_weights(resnet18(10))


def layouts():
    """Return the shapes of weights, and the reaction of a convolution to images in the other layout."""
    images = np.zeros((8, 3, 5, 6), np.float32)  # expected: (8, 5, 6, 3)
    # Padding 'same', because 3 rows are too few for a kernel of 4.
    layer, unsized, dense = (
        layers.Conv2D(7, (4, 2), padding="same"),
        layers.Conv2D(7, (4, 2), padding="same"),
        layers.Dense(10),
    )
    layer.build((None, None, None, 3))
    dense.build((None, 9))
    refusal = ""
    try:
        layer(images)
    except ValueError as error:
        refusal = str(error)
    unsized(images)
    return {
        "kernel": tuple(layer.kernel.shape),
        "dense": tuple(dense.kernel.shape),
        "refusal": refusal,
        "unsized": tuple(unsized.kernel.shape),
    }


def flips(images, batch_size, num_workers, seed):
    """Return uint8 images (n, height, width, 3), in order, flipped by the framework's loader.

    The workers are threads.
    """
    keras.utils.set_random_seed(seed)
    loader = tf.data.Dataset.from_tensor_slices(images).map(
        tf.image.random_flip_left_right, num_parallel_calls=num_workers or None
    )
    return np.concatenate(list(loader.batch(batch_size).as_numpy_iterator()))
