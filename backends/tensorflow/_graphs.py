"""Compile the functions of this tab to TensorFlow's graphs.

A plain `@tf.function` would keep every network and optimizer that it was
called with until the process ends. Here each network keeps its own graphs,
which are freed with it.
"""

import functools

import keras
import tensorflow as tf


def graph(function):
    """Compile a function of a network with tf.function.

    It is traced once for each network, and again for a new shape, loss or
    optimizer among its other arguments.
    """

    @functools.wraps(function)
    def compiled(net, *args, **kwargs):
        if not net.built:
            net(args[0])  # which makes the weights
        for trainer in (*args, *kwargs.values()):
            if isinstance(trainer, keras.Optimizer) and not trainer.built:
                _build(trainer, net)
        graphs = vars(net).setdefault("_graphs", {})
        if function.__name__ not in graphs:
            graphs[function.__name__] = tf.function(
                functools.partial(function, net),
                jit_compile=vars(net).get("_xla", False),
                autograph=False,
            )
        with tf.device(vars(net).get("_device")):
            return graphs[function.__name__](*args, **kwargs)

    return compiled


def _build(trainer, net):
    """Make the variables of an optimizer before its step is traced."""
    try:
        with net.distribute_strategy.scope():
            trainer.build(net.trainable_variables)
    except RuntimeError as error:  # "Mixing different ... Strategy objects"
        raise ValueError(
            "the optimizer is not on the network's devices: make it inside "
            "`with net.distribute_strategy.scope():`"
        ) from error


def forget_graphs(net, xla):
    """Drop the graphs of a network; the next ones use XLA or not."""
    vars(net).update(_graphs={}, _xla=xla)
