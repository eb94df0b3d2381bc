"""Ctrl-C and SIGTERM: defer them while a batch is transferred between processes, and do not lose them."""

import _thread
import os
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
# They end a run as Ctrl-C does: `kill`, `docker stop` and job schedulers send SIGTERM, a closed terminal SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

_handled: set[int] = set()  # the signals of ENDING that `ending_signals_interrupt` handles
_received: list[int] = []  # the first of them, once it has come


@contextmanager
def ending_signals_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt in the block, so that they end a run as Ctrl-C does.

    Only the first raises it, because another one would interrupt the saving of results. Do nothing for a signal that
    is ignored, as `nohup` does, or that has another handler, and outside the main thread.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    new = [n for n in ENDING if in_main_thread and signal.getsignal(n) is signal.SIG_DFL]
    if new:
        _received.clear()
    _handled.update(new)
    for number in new:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in new:
            signal.signal(number, signal.SIG_DFL)
        _handled.difference_update(new)


def _interrupt(number: int, _: FrameType | None) -> None:
    if not _received:
        _received.append(number)
        if hasattr(signal, "SIGCHLD"):  # not on Windows
            # PyTorch's handler raises an error for a worker that the signal has ended, too. Not the default instead:
            # Python prints an error if that is set while the signal waits for its handler.
            signal.signal(signal.SIGCHLD, lambda *_: None)
        raise KeyboardInterrupt


def was_interrupted() -> bool:
    """Return whether SIGTERM or SIGHUP has come."""
    return bool(_received)


def interrupted_by() -> int:
    """Return the signal that interrupted the run: SIGTERM, SIGHUP, else SIGINT."""
    return _received[0] if _received else signal.SIGINT


def interrupt_with(code: int) -> None:
    """Raise KeyboardInterrupt if ``code`` is the exit code of a child that one of the signals has interrupted."""
    if code - 128 in ENDING and not _received:
        _received.append(code - 128)
    if code - 128 in (signal.SIGINT, *ENDING):
        raise KeyboardInterrupt


def _default_in_child() -> None:
    """Let the signals end a forked worker, which inherits the handlers: loaders end their workers with SIGTERM."""
    if (
        _received
    ):  # a pool replaces the workers that the signal has ended, and nobody would end the new ones
        os._exit(0)
    for number in _handled:
        signal.signal(number, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_default_in_child)


class UninterruptedBatches:
    """The batches of a loader; Ctrl-C and SIGTERM are deferred while a batch is fetched.

    A worker process sends a batch in several messages. If the reader stops between them, the worker prints a traceback.
    """

    def __init__(self, batches: "DataIter") -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> "Iterator[tuple[Tensor, Tensor]]":
        # Workers that are forked here inherit this. A terminal interrupts them too; they go on until told to stop.
        with deferred_interrupts():
            iterator = iter(self.batches)
        while True:
            with deferred_interrupts():
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Defer the KeyboardInterrupt of Ctrl-C and SIGTERM until after the block; a second Ctrl-C raises it immediately.

    Do nothing outside the main thread, because only that gets signals, or for a signal with another handler.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, *ENDING) if in_main_thread}
    own = {n: h for n, h in handlers.items() if h in (signal.default_int_handler, _interrupt)}
    deferred: list[int] = []

    def defer(number: int, frame: FrameType | None) -> None:
        if number in deferred:
            own[number](number, frame)
        deferred.append(number)

    for number in own:
        signal.signal(number, defer)
    try:
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
        if deferred:
            own[deferred[0]](deferred[0], None)


@contextmanager
def reraise_lost_interrupts() -> Iterator[None]:
    """Interrupt again if Ctrl-C or SIGTERM arrives during a finalizer, where Python only prints the exception.

    The finalizers of MXNet's arrays are Python code that runs between the operations of a training.
    """
    before = sys.unraisablehook

    def interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
            return
        number = _received.pop() if _received else signal.SIGINT
        # After a delay, because an exception in this hook would be lost too.
        threading.Timer(RERAISE_DELAY, _thread.interrupt_main, [number]).start()

    sys.unraisablehook = interrupt_again
    try:
        yield
    finally:
        sys.unraisablehook = before
