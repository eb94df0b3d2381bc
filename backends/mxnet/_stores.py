"""The keys of a store of ps-lite. Each key is initialized only once.

Initializing a key again would hang, without a message. The trainers of a
program would do so, because each counts its parameters from 0.
"""

import itertools

import mxnet
import numpy as onp

_BLOCK = 10_000  # more keys than a network has parameters
_trainers = itertools.count(1)
_totals: dict[tuple, int] = {}  # the key of `add_up` for each shape


class TrainerStore(mxnet.kv.KVStoreBase):
    """A store in which a trainer has keys of its own."""

    def __init__(self, store):
        self.store, self.first = store, next(_trainers) * _BLOCK

    def broadcast(self, key, value, out, priority=0):
        """Copy the first process's `value` to `out` in every process."""
        self.store.broadcast(self.first + key, value, out, priority)

    def pushpull(self, key, value, out=None, priority=0):
        """Replace `value` by its sum over all processes."""
        if len(value) == 1 and value[0].dtype == "float64":
            value[0][:] = exact_sum(self.store, value[0].asnumpy())
            return
        self.store.pushpull(self.first + key, value, out, priority)

    @staticmethod
    def is_capable(capability):  # noqa: ARG004
        """Return False: the trainer makes the step, not the server."""
        return False

    @property
    def type(self):
        """Return the type of the store."""
        return self.store.type

    @property
    def rank(self):
        """Return the number of this worker."""
        return self.store.rank

    @property
    def num_workers(self):
        """Return the number of workers."""
        return self.store.num_workers


def add_up(store, array):
    """Replace an array by its sum over all processes."""
    if array.shape not in _totals:
        _totals[array.shape] = len(_totals)
        store.init(_totals[array.shape], mxnet.np.zeros_like(array))
    store.pushpull(_totals[array.shape], array)


def exact_sum(store, array):
    """Return the sum of an array of float64 over all processes.

    From its start on, a server may add in float32, as its mode for mixed
    precision does, although nothing has asked for that mode. So each process
    has rows of its own, to which the others add 0. Three values that float32
    represents make up a number.
    """
    rows = onp.zeros((store.num_workers, 3, array.size))
    rest = array.reshape(-1)
    for row in rows[store.rank]:
        row[:] = rest.astype(onp.float32)
        rest = rest - row
    summed = mxnet.np.array(rows, dtype="float64")
    add_up(store, summed)
    return summed.asnumpy().sum(axis=(0, 1)).reshape(array.shape)
