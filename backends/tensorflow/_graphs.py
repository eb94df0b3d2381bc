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

    The functions are kept with the network, and go with it.
    """
    graphs = vars(net).setdefault("_graphs", {})
    key = kind, *parts
    if key not in graphs:
        function = make(net, *parts)
        xla = vars(net).get("_xla", False)
        graphs[key] = tf.function(function, jit_compile=xla, autograph=False)
    return graphs[key]


def forget_graphs(net, xla):
    """Have the graphs of a network traced anew, compiled by XLA or not."""
    vars(net).update(_graphs={}, _xla=xla)


def replicate(net, devices):
    """Return the network with its variables on the devices.

    That is `net` itself where they are there already, else a copy: the place
    of a variable is settled when it is made.
    """
    place = net.weights[0].value.device
    if len(devices) == 1 and place.endswith(devices[0].lstrip("/")):
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
