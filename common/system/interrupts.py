"""Ctrl-C, where an interrupt would break off what another process waits for."""

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

SECONDS_UNTIL_HEARD = 0.05


class WholeBatches:
    """Batches of a loader, none of which Ctrl-C leaves half fetched.

    A worker process hands over a batch in several messages: where they are broken off, it prints a traceback of its
    own, that its reader has gone.
    """

    def __init__(self, batches: "DataIter") -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> "Iterator[tuple[Tensor, Tensor]]":
        # Workers that are forked here inherit it: where a terminal interrupts them too, they stay until they are told.
        with ctrl_c_held_back():
            iterator = iter(self.batches)
        while True:
            with ctrl_c_held_back():
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


@contextmanager
def ctrl_c_held_back() -> Iterator[None]:
    """Raise the KeyboardInterrupt of Ctrl-C when the block has ended; a second Ctrl-C is not held back.

    Only the main thread can be interrupted, and where somebody else listens to Ctrl-C, it is theirs: there the block
    runs as it is.
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
def no_ctrl_c_is_lost() -> Iterator[None]:
    """Hear a Ctrl-C again that falls into a finalizer, where Python reports an exception and goes on.

    The finalizers of MXNet's arrays are in Python, and run between the operations of a training.
    """
    before = sys.unraisablehook

    def hear_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
            return
        # Later, and not here: in this hook too it would be reported and forgotten.
        threading.Timer(SECONDS_UNTIL_HEARD, _thread.interrupt_main).start()

    sys.unraisablehook = hear_again
    try:
        yield
    finally:
        sys.unraisablehook = before
