"""Train in TensorFlow on several devices, each with a copy of the network.

A `tf.distribute` strategy holds the copies, and the network and its optimizer
are made in its scope. A small last batch may leave a device without an
example.
"""

import functools

import keras
import tensorflow as tf

from common.errors import ONE_VALUE_PER_EXAMPLE

from ._layers import default_dtype, layers_of


def replicate(net, devices, workers=None):
    """Return the network with its variables on the devices.

    Returns `net` itself if they are there already. Otherwise returns a copy,
    because a variable's device is fixed when it is made. `workers` is the
    strategy of all processes, if there are several.
    """
    if not net.weights:
        raise ValueError("the network has no weights yet: build it first")
    places = [net.weights[0].value.device]
    if net.distribute_strategy.num_replicas_in_sync > 1:
        places = net.distribute_strategy.extended.worker_devices
    here = workers is None or workers is net.distribute_strategy
    if (
        here
        and len(places) == len(devices)
        and all(
            place.endswith(device.lstrip("/"))
            for place, device in zip(places, devices, strict=True)
        )
    ):
        return net
    strategy = workers or _strategy(tuple(devices))
    with strategy.scope(), default_dtype(net.weights[0].dtype):
        copy = keras.models.clone_model(net)
    copy.set_weights(net.get_weights())
    # Keras does not copy which layers inside of others are frozen.
    for new, old in zip(layers_of(copy), layers_of(net), strict=True):
        new.trainable = old.trainable
    if len(devices) == 1:
        vars(copy)["_device"] = devices[0]  # where its graphs run
    return copy


@functools.cache
def _strategy(devices):
    """Return the same strategy for the same devices: Keras cannot mix two."""
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(devices)


def train_batch(net, X, y, loss, trainer, devices):
    """Do what train_batch_ch13 does, on several devices."""
    strategy = net.distribute_strategy
    alone = strategy.num_replicas_in_sync == 1
    if alone or len(devices) != len(strategy.extended.worker_devices):
        raise ValueError(
            f"the network is not on {devices}: call trainer.prepare for them, "
            "then make the optimizer"
        )
    X_shards, y_shards = _shards(X, devices), _shards(y, devices)

    def replica_step():
        i = _replica()
        X_shard = _some(X_shards[i], X, net)
        y_shard = _some(y_shards[i], y, net)
        with tf.GradientTape() as tape:
            y_hat = net(X_shard, training=True)
            l = loss(y_shard, y_hat)
            if l.shape != y_shard.shape:
                raise ValueError(ONE_VALUE_PER_EXAMPLE)
            if not y_shards[i].shape[0]:
                l, y_hat = 0 * l, y_hat[:0]
            # This device's share of the mean: the optimizer sums the shares.
            objective = tf.reduce_sum(l) / _num_examples(y_shards[i], l.dtype)
        gradients = tape.gradient(objective, net.trainable_variables)
        trainer.apply(gradients, net.trainable_variables)
        correct = tf.argmax(y_hat, axis=1) == tf.cast(y_shards[i], tf.int64)
        return tf.reduce_sum(l), tf.reduce_sum(tf.cast(correct, tf.int64))

    return [
        tf.add_n(strategy.experimental_local_results(result))
        for result in strategy.run(replica_step)
    ]


def predict(net, X, training):
    """Do what predict does, on several devices."""
    strategy = net.distribute_strategy
    shards = _shards(X, strategy.extended.worker_devices)

    def replica_forward():
        return net(_some(shards[_replica()], X, net), training=training)

    results = strategy.experimental_local_results(
        strategy.run(replica_forward)
    )
    pairs = zip(results, shards, strict=True)
    parts = [y_hat[: shard.shape[0]] for y_hat, shard in pairs]
    return tf.concat(parts, axis=0)


def _num_examples(shard, dtype):
    """Return the size of the batch over all devices and processes."""
    replica = tf.distribute.get_replica_context()
    number = tf.constant(shard.shape[0], dtype)
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, number)


def _replica():
    """Return the position of this device among those of the process."""
    context = tf.distribute.get_replica_context()
    number = int(tf.get_static_value(context.replica_id_in_sync_group))
    return number % len(context.strategy.extended.worker_devices)


def _shards(whole, devices):
    """Split a batch into a shard for each device, as evenly as possible."""
    size, larger = divmod(whole.shape[0], len(devices))
    return tf.split(whole, [size + (i < larger) for i in range(len(devices))])


def _some(shard, whole, net):
    """Return a device's shard, or one example that does not count.

    Without an example, BatchNorm would divide by zero, unless it counts those
    of all devices.
    """
    layers = layers_of(net)
    together = any(getattr(layer, "synchronized", False) for layer in layers)
    return shard if shard.shape[0] or together else whole[:1]
