"""Ctrl-C that breaks off no hand-over between processes and is never lost."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # run.py imports this before NumPy, which --help does not wait for
    from common.interface import DataIter, Tensor

RERAISE_DELAY = 0.05


class UninterruptedBatches:
    """Batches of a loader, none of which Ctrl-C leaves half fetched.

    A worker process hands over a batch in several messages. If its reader stops between them, the worker prints a
    traceback.
    """

    def __init__(self, batches: "DataIter") -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> "Iterator[tuple[Tensor, Tensor]]":
        # Workers that are forked here inherit this: a terminal interrupts them too, and they go on until told to end.
        with deferred_ctrl_c():
            iterator = iter(self.batches)
        while True:
            with deferred_ctrl_c():
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


@contextmanager
def deferred_ctrl_c() -> Iterator[None]:
    """Raise the KeyboardInterrupt of Ctrl-C after the block; a second Ctrl-C raises it at once.

    Do nothing in other threads, which Ctrl-C does not interrupt, or if another handler is installed.
    """
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not in_main_thread:
        yield
        return
    held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal held
        if held:
            signal.default_int_handler(number, frame)
        held = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            raise KeyboardInterrupt


@contextmanager
def reraise_lost_ctrl_c() -> Iterator[None]:
    """Interrupt again if Ctrl-C comes during a finalizer, where Python reports the exception and goes on.

    The finalizers of MXNet's arrays are in Python, and run between the operations of a training.
    """
    before = sys.unraisablehook

    def hear_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
            return
        # Later: an exception in this hook would be reported and forgotten too.
        threading.Timer(RERAISE_DELAY, _thread.interrupt_main).start()

    sys.unraisablehook = hear_again
    try:
        yield
    finally:
        sys.unraisablehook = before
