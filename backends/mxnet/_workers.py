"""Gluon's DataLoader with worker processes that may be killed."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor

from mxnet import context
from mxnet.gluon.data import DataLoader, dataloader

from common.system.interrupts import deferred_interrupts


class ForkingDataLoader(DataLoader):
    """Gluon's DataLoader, with forks that concurrent.futures watches.

    Differs: Gluon's own pool starts another worker for a killed one. The batch
    is lost, and perhaps a lock: the loader waits for two minutes or for ever.
    """

    def __init__(self, dataset, batch_sampler, num_workers, **pinned):
        super().__init__(dataset, batch_sampler=batch_sampler, **pinned)
        self.batches_ahead = 2 * num_workers
        self.executor = ProcessPoolExecutor(
            num_workers,
            multiprocessing.get_context("fork"),
            initializer=_start,
            initargs=(dataset,),
        )
        # It forks at the first task. As in Gluon, this is before a training.
        with deferred_interrupts():
            self.executor.submit(os.getpid)

    def _prefetch_iter(self):
        pending: deque = deque()
        try:
            for indices in self._batch_sampler:
                batch = self.executor.submit(
                    dataloader._worker_fn,
                    indices,
                    dataloader.default_mp_batchify_fn,
                )
                pending.append(batch)
                if len(pending) > self.batches_ahead:
                    yield self._received(pending.popleft())
            while pending:
                yield self._received(pending.popleft())
        finally:
            for batch in pending:
                batch.cancel()

    def _received(self, batch):
        received = pickle.loads(batch.result())
        if not self._pin_memory:
            return received
        pinned = context.cpu_pinned(self._pin_device_id)
        return dataloader._as_in_context(received, pinned)


def _start(dataset):
    """Prepare a worker. It ends with its parent, also if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    dataloader._worker_initializer(dataset, True, True)


def _end_with_parent():
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    parent.join()
    os._exit(1)
