"""Layers and functions that the network needs and Keras lacks."""

from contextlib import contextmanager

import keras
import tensorflow as tf
from keras import layers

# Registered, so that Keras can copy and load a network of these layers.
registered = keras.saving.register_keras_serializable("three_tabs")


@registered
class BatchNorm(layers.BatchNormalization):
    """Keras' BatchNorm as one fused operator instead of a dozen.

    Differs: the running variance is unbiased, as in PyTorch. In Keras' own
    layer it is biased, as in MXNet. With `synchronized`, the statistics are
    those of all devices and processes.
    """

    def __init__(self, **settings):
        # Without autocast, its weights stay float32 even if X is bfloat16.
        super().__init__(**settings | {"autocast": False})

    def call(self, X, training=None):
        training = bool(training) and self.trainable
        operator = _in_float64 if X.dtype == tf.float64 else _fused
        several = training and _several_devices()
        if several and self.synchronized:
            operator = _synchronised
        Y, mean, variance = operator(
            X,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            tf.convert_to_tensor(self.moving_mean),
            tf.convert_to_tensor(self.moving_variance),
            self.epsilon,
            training,
        )
        if training:
            # Differs: PyTorch keeps the statistics of the first device.
            if several and not self.synchronized:
                mean, variance = _all_reduce("MEAN", [mean, variance])
            keep = self.momentum
            for running, new in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                running.assign(running * keep + new * (1 - keep))
        return Y


def _fused(X, gamma, beta, mean, variance, epsilon, training):
    """Return the result, and the mean and unbiased variance of the batch."""
    Y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=X,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=training,
    )
    return Y, mean, variance


def _in_float64(X, gamma, beta, mean, variance, epsilon, training):
    """Do what `_fused` does, in float64, which its operator lacks."""
    if training:
        mean, variance = tf.nn.moments(X, [0, 1, 2])
    Y = tf.nn.batch_normalization(X, mean, variance, beta, gamma, epsilon)
    count = tf.cast(tf.size(X[..., 0]), X.dtype)
    return Y, mean, variance * count / (count - 1)


def _synchronised(X, gamma, beta, _mean, _variance, epsilon, _training):
    """Do what `_fused` does in training, over all devices and processes.

    Every value counts once, also if they have different numbers of examples.
    """
    dtype, X = X.dtype, tf.cast(X, gamma.dtype)  # it may be bfloat16
    own_sum, own_count = tf.reduce_sum(X, [0, 1, 2]), tf.size(X[..., 0])
    count = _all_reduce("SUM", tf.cast(own_count, X.dtype))
    mean = _all_reduce("SUM", own_sum) / count
    squares = tf.reduce_sum((X - mean) ** 2, [0, 1, 2])
    variance = _all_reduce("SUM", squares) / count
    Y = tf.nn.batch_normalization(X, mean, variance, beta, gamma, epsilon)
    return tf.cast(Y, dtype), mean, variance * count / (count - 1)


def _several_devices():
    replica = tf.distribute.get_replica_context()
    return replica is not None and replica.num_replicas_in_sync > 1


def _all_reduce(operation, tensors):
    replica = tf.distribute.get_replica_context()
    return replica.all_reduce(operation, tensors)


@contextmanager
def default_dtype(dtype):
    """Make new layers of this type in the block, also those inside others."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def layers_of(module):
    """Return all layers of a network or layer, itself included."""
    # Keras has no public function for this: `layers` does not enter custom
    # layers.
    return list(module._flatten_layers())


@registered
def in_float32(X):
    """Cast a tensor to float32: the last activation of bf16 networks."""
    return tf.cast(X, tf.float32)
