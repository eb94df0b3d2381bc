"""Worker processes of PyTorch's DataLoader that end if they cannot send."""

import errno
import os
from multiprocessing.queues import Queue


def end_on_send_error(worker_id):  # noqa: ARG001 - as worker_init_fn
    """Make a worker end if it cannot send a batch, such as without memory.

    Python's queue would print the error and drop the batch, for which the
    loader would wait for ever. It notices a worker that has ended.
    """
    Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error, batch):  # noqa: ARG001 - as the method
    full = os.strerror(errno.ENOSPC) in str(error)
    os._exit(errno.ENOSPC if full else 1)
