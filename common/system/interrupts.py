"""Ctrl-C: defer it while a batch is transferred between processes, and do not lose it."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `run.py --help` imports this file; importing NumPy would slow it down
    from common.interface import DataIter, Tensor

RERAISE_DELAY = 0.05  # seconds


class UninterruptedBatches:
    """The batches of a loader; Ctrl-C is deferred while a batch is fetched.

    A worker process sends a batch in several messages. If the reader stops between them, the worker prints a traceback.
    """

    def __init__(self, batches: "DataIter") -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> "Iterator[tuple[Tensor, Tensor]]":
        # Workers that are forked here inherit this. A terminal interrupts them too; they go on until told to stop.
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
    """Defer the KeyboardInterrupt of Ctrl-C until after the block; a second Ctrl-C raises it immediately.

    Do nothing outside the main thread, because only that gets Ctrl-C, or if another handler is installed.
    """
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not in_main_thread:
        yield
        return
    deferred = False

    def defer(number: int, frame: FrameType | None) -> None:
        nonlocal deferred
        if deferred:
            signal.default_int_handler(number, frame)
        deferred = True

    signal.signal(signal.SIGINT, defer)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if deferred:
            raise KeyboardInterrupt


@contextmanager
def reraise_lost_ctrl_c() -> Iterator[None]:
    """Interrupt again if Ctrl-C arrives during a finalizer, where Python only prints the exception and goes on.

    The finalizers of MXNet's arrays are Python code that runs between the operations of a training.
    """
    before = sys.unraisablehook

    def interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
            return
        # After a delay, because an exception in this hook would be lost too.
        threading.Timer(RERAISE_DELAY, _thread.interrupt_main).start()

    sys.unraisablehook = interrupt_again
    try:
        yield
    finally:
        sys.unraisablehook = before
