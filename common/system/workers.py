"""Worker processes that make batches: the shared memory they need, and an error that says why there are no more."""

import errno
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from common.system.processes import how_it_ended, skip_finalizers

if TYPE_CHECKING:
    from common.interface import DataIter, Tensor

SHARED_MEMORY = Path("/dev/shm")
AHEAD = 2  # batches that a worker makes ahead, in PyTorch and in Gluon
FEWER = "use fewer --workers or --pipeline batched"
MORE_MEMORY = "give the container more shared memory (docker run --shm-size=1g)"
FULL = f"{SHARED_MEMORY} is full: {FEWER}, or {MORE_MEMORY}"
# The sockets of a process close before its exit code is there, on a busy machine by seconds.
SECONDS_TO_CODE = 5.0


def check_shared_memory(
    num_examples: int, image_size: tuple[int, int], batch_size: int, num_workers: int
) -> None:
    """Raise UserError if /dev/shm has too little space for the float32 batches that workers make ahead.

    Each worker makes two ahead, and the program holds two. A full /dev/shm would kill a worker later.
    """
    if not num_workers or not SHARED_MEMORY.is_dir():  # without workers, or not Linux
        return
    batch_bytes = min(batch_size, num_examples) * (3 * 4 * math.prod(image_size) + 8)
    batches = math.ceil(num_examples / batch_size)
    needed = min(AHEAD * num_workers + 2, batches) * batch_bytes + 2**20  # and locks
    system = os.statvfs(SHARED_MEMORY)
    free = system.f_bavail * system.f_frsize
    if free >= needed:
        return
    most = max(((free - 2**20) // batch_bytes - 2) // AHEAD, 0)
    height, width = image_size
    raise UserError(
        f"{SHARED_MEMORY} has {free / 2**20:,.0f} MiB free, and --workers {num_workers} needs "
        f"{needed / 2**20:,.0f} MiB for batches of {min(batch_size, num_examples)} images of {height} x {width}: "
        f"use --workers {most} or --pipeline batched, or {MORE_MEMORY}"
    )


class WorkerBatches:
    """The batches of a loader with worker processes. Raise UserError if a worker ends or shared memory is full."""

    def __init__(self, loader: "DataIter") -> None:
        self.loader = loader
        self.workers: set[BaseProcess] = set()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> "Iterator[tuple[Tensor, Tensor]]":
        with _explained(self.workers), _unchanged_sigchld():
            iterator = iter(self.loader)
        # Some loaders start their workers once, others now. One that has ended is no child any more.
        self.workers.update(multiprocessing.active_children())
        while True:
            with _explained(self.workers):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


@contextmanager
def _unchanged_sigchld() -> Iterator[None]:
    """Keep the handler of SIGCHLD.

    PyTorch's would raise anywhere in the program as soon as a worker ends. Without it, the loader notices that within
    five seconds, and only while it waits for a batch.
    """
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    yield
    if before is not None and signal.getsignal(signal.SIGCHLD) is not before:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def _explained(workers: set[BaseProcess]) -> Iterator[None]:
    """Convert an error of a loader into a UserError, if a worker has ended or a resource has run out.

    The program then ends without finalizers: those of a loader may wait for a lock that the worker held.
    """
    try:
        yield
    except UserError as error:
        raise UserError(_own_text(error)) from None
    except Exception as error:  # loaders raise almost any exception if a worker has ended
        if why := _shortage(error) or _death(workers):
            skip_finalizers()
            raise UserError(why) from error
        raise


def _own_text(error: UserError) -> str:
    """Return the message of a worker's error without PyTorch's text around it, a traceback."""
    name = f"{UserError.__module__}.{UserError.__qualname__}: "
    return str(error).rpartition(name)[2].removesuffix("\\n")


def _shortage(error: Exception) -> str:
    """Return what has run out and what to do, '' if nothing has. A worker's error may be text in another error."""
    text = str(error)
    if os.strerror(errno.ENOSPC) in text:
        return FULL
    if os.strerror(errno.EMFILE) in text or "items of ancdata" in text:
        return f"the worker processes need more open files than allowed: {FEWER}, or raise the limit (ulimit -n 4096)"
    return ""


def _death(workers: set[BaseProcess]) -> str:
    """Return how a worker has ended and what to do, '' if all are alive.

    A worker without shared memory is killed by SIGBUS, or ends with ENOSPC as its exit code.
    """
    deadline = time.monotonic() + SECONDS_TO_CODE
    while not (codes := _exit_codes(workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if not codes:
        return ""
    # After one worker has ended, the loader ends the others with SIGTERM.
    code = next((c for c in codes if c != -signal.SIGTERM), -signal.SIGTERM)
    ended = how_it_ended(code)
    if code == errno.ENOSPC or ended.endswith("SIGBUS"):
        return FULL
    if ended.endswith("SIGKILL"):
        ended += ", perhaps because memory ran out"
    return f"a worker process {ended}: {FEWER}"


def _exit_codes(workers: set[BaseProcess]) -> set[int]:
    return {code for worker in workers if (code := worker.exitcode)}
