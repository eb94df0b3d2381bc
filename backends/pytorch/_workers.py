"""Worker processes of PyTorch's DataLoader that may end at any moment."""

import copy
import errno
import multiprocessing
import os
from functools import partial
from multiprocessing.queues import Queue


def without_locks():
    """Return a context for a DataLoader, with an event that has no lock.

    Python's event has one. A worker that is killed while it asks whether the
    event is set keeps the lock, and the loader would wait for it for ever.
    """
    context = copy.copy(multiprocessing.get_context())
    vars(context)["Event"] = partial(_Flag, context)
    return context


class _Flag:
    """The part of an event that a DataLoader uses."""

    def __init__(self, context):
        self.byte = context.RawValue("b", 0)

    def set(self):
        self.byte.value = 1

    def is_set(self):
        return self.byte.value == 1


def end_on_send_error(worker_id):  # noqa: ARG001 - as worker_init_fn
    """Make a worker end if it cannot send a batch, such as without memory.

    Python's queue would print the error and drop the batch, for which the
    loader would wait for ever. It notices a worker that has ended.
    """
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error, batch):  # noqa: ARG001 - as the method
    full = os.strerror(errno.ENOSPC) in str(error)
    os._exit(errno.ENOSPC if full else 1)
