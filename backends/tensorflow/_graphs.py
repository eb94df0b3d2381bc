"""What lies between the book's functions and TensorFlow's graphs and devices.

A step is traced once for each network, loss, optimizer and input shape; and
on several devices, a network's variables are made by a tf.distribute
strategy, which Keras networks remember.
"""

import functools

import keras
import tensorflow as tf


def graph(net, kind, make, *parts):
    """Return what `make` makes as a tf.function, made once for these parts.

    The latest of each kind is kept with the network, and goes with it.
    """
    graphs = vars(net).setdefault("_graphs", {})
    if kind not in graphs or graphs[kind][0] != parts:
        function = make(net, *parts)
        xla = vars(net).get("_xla", False)
        compiled = tf.function(function, jit_compile=xla, autograph=False)
        graphs[kind] = parts, compiled
    return graphs[kind][1]


def forget_graphs(net, xla):
    """Have the graphs of a network traced anew, compiled by XLA or not."""
    vars(net).update(_graphs={}, _xla=xla)


def replicate(net, devices):
    """Return the network with its variables on the devices.

    That is `net` itself where they are there already, else a copy: the place
    of a variable is settled when it is made.
    """
    if not net.weights:
        raise ValueError("the network has no weights yet: build it first")
    places = [net.weights[0].value.device]
    if net.distribute_strategy.num_replicas_in_sync > 1:
        places = net.distribute_strategy.extended.worker_devices
    if len(places) == len(devices) and all(
        place.endswith(device.lstrip("/"))
        for place, device in zip(places, devices, strict=True)
    ):
        return net
    strategy = _strategy(tuple(devices))
    with strategy.scope():
        copy = keras.models.clone_model(net)
    copy.set_weights(net.get_weights())
    return copy


@functools.cache
def _strategy(devices):
    """Return the one strategy of these devices: two would mix their sums."""
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(devices)


def per_replica(strategy, parts):
    """Return one tensor per device as the value that differs by replica."""
    if len(parts) == 1:
        return parts[0]
    return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )
