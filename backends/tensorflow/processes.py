"""Several processes in TensorFlow: a strategy that owns the variables.

Each process has the whole network and a part of every batch. The strategy
makes the variables, and the optimizer adds up the gradients of all processes.
"""

import functools

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from . import _replicas

_workers: list = []  # the strategy of this process, once it has joined


def join():
    """Join the other processes of this run, if the engine's variables are set.

    TF_CONFIG names the workers and says which of them this process is. Call
    this before any operation of TensorFlow.
    """
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if not _workers and cluster.cluster_spec().as_dict():
        _wait_longer()
        _workers.append(tf.distribute.MultiWorkerMirroredStrategy())


def strategy():
    """Return the strategy of all processes, None if there is only one."""
    return _workers[0] if num_processes() > 1 else None


def rank():
    """Return the number of this process, from 0."""
    return _workers[0].cluster_resolver.task_id if _workers else 0


def num_processes():
    """Return the number of processes that train together."""
    if not _workers:
        return 1
    return _workers[0].cluster_resolver.cluster_spec().num_tasks("worker")


def replicate(net, devices):
    """Return the network with the same weights in every process.

    A variable belongs to a strategy when it is made, so this is a copy. Its
    weights are those of the first process.
    """
    return _replicas.replicate(net, devices, strategy())


def total(values):
    """Return the sum of a number or an array over all processes.

    The sum is computed in float64.
    """
    if num_processes() == 1:
        return values
    array = np.asarray(values, np.float64)
    summed = _add_up(tf.constant(array.reshape(-1)))
    # Each device of this process has added the values.
    summed, *others = strategy().experimental_local_results(summed)
    return summed.numpy().reshape(array.shape)[()] / (1 + len(others))


def average_buffers(net):
    """Average BatchNorm's running statistics over all processes.

    Differs: the layer itself does so in every step.
    """


def _wait_longer():
    """Let a process be silent for half a minute before it counts as lost.

    TensorFlow's default is ten seconds, too short on a busy machine. It has no
    public setting for this.
    """
    own = context.context()
    own.configure_coordination_service = functools.partial(
        own.configure_coordination_service, heartbeat_timeout_in_ms=30_000
    )


@tf.function(autograph=False, reduce_retracing=True)
def _add_up(tensor):
    def add_up():
        replica = tf.distribute.get_replica_context()
        on_device = tf.identity(tensor)
        return replica.all_reduce(tf.distribute.ReduceOp.SUM, on_device)

    return strategy().run(add_up)
