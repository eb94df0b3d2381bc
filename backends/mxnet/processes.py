"""Several processes in MXNet: servers that hold the sums.

Each worker has the whole network and a part of every batch. It pushes its
gradients to the servers of ps-lite and pulls their sum.
"""

import atexit
import os

import mxnet
import numpy as onp

from . import _replicas
from ._layers import updated_statistics
from ._stores import TrainerStore, exact_sum

_stores: list = []  # the store of this process, once it has joined


def join():
    """Join the other processes of this run, if the engine's variables are set.

    They are DMLC_ROLE, DMLC_NUM_WORKER, DMLC_NUM_SERVER, DMLC_PS_ROOT_URI and
    DMLC_PS_ROOT_PORT. With the role of a scheduler or a server, the import of
    MXNet serves the workers and then ends the program.
    """
    if os.environ.get("DMLC_ROLE") == "worker" and not _stores:
        _stores.append(mxnet.kv.create("dist_sync"))
        atexit.register(_leave)


def _leave():
    # Python may never free a store that a trainer still holds; then ps-lite
    # would abort the program at its end.
    store = _stores.pop()
    store.__del__()
    store.handle = None  # or `__del__` would free it again


def rank():
    """Return the number of this process, from 0."""
    return _stores[0].rank if _stores else 0


def num_processes():
    """Return the number of processes that train together."""
    return _stores[0].num_workers if _stores else 1


def store():
    """Return the arguments with which gluon.Trainer adds up the gradients.

    The servers only add. Each worker makes the step itself, because only then
    may the divisor change for a smaller last batch.
    """
    if num_processes() == 1:
        return {}
    return {"kvstore": TrainerStore(_stores[0]), "update_on_kvstore": False}


def replicate(net, devices):  # noqa: ARG001
    """Return the network with the same weights in every process.

    Differs: in MXNet the trainer sends the weights of the first process to the
    others, before the first step.
    """
    return net


def total(values):
    """Return the sum of a number or an array over all processes.

    The sum is computed in float64.
    """
    if num_processes() == 1:
        return values
    array = onp.asarray(values, onp.float64)
    return exact_sum(_stores[0], array)[()]


def average_buffers(net):
    """Average BatchNorm's running statistics over all processes."""
    if len(_replicas.devices_of(net)) > 1:
        _replicas.average_buffers(net)
    if num_processes() == 1:
        return
    mxnet.npx.waitall()  # as in weights.get_weights
    for parameter in updated_statistics(net):
        for array in parameter.list_data():
            array[:] = total(array.asnumpy()) / num_processes()
