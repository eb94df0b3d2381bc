"""Exit codes, and processes that end when this one does."""

import io
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from typing import Any

from common.errors import UserError, UserNotice
from common.system.interrupts import reraise_lost_ctrl_c

# On a terminal, Ctrl-C reaches the child too. A child that has not ended after so long is sent the signal.
SECONDS_TO_END = 3.0
INTERRUPTED = 130  # what run.py ends with after Ctrl-C
CLOSED_PIPE = 141  # as a shell reports a program that ended of SIGPIPE


def run_process(words: Sequence[str]) -> int:
    """Run a command that writes where this process writes, and return its exit code, -N for signal N.

    The child ends before this process does, unless this one is killed. Raises KeyboardInterrupt if the child was
    interrupted.
    """
    return _exit_code_of(lambda: subprocess.Popen(words))


def call_in_process(function: Callable[..., int], *arguments: Any) -> int:
    """Call ``function`` in a new process and return the exit code that it returns, -N if signal N ended the process.

    The function is one of a module, and the new process imports that module first. Otherwise as `run_process`.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_exit_with, args=(function, *arguments)
    )

    def start() -> BaseProcess:
        process.start()
        return process

    return _exit_code_of(start)


def how_it_ended(code: int) -> str:
    """Return in words how a process with such an exit code ended; -N is signal N."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a signal without a name, such as a real-time one
        return f"was killed by signal {-code}"


def _exit_code_of(start: "Callable[[], subprocess.Popen[bytes] | BaseProcess]") -> int:
    sys.stdout.flush()
    with _termination_as_exit():
        process = start()
        try:
            code = _wait(process)
        except KeyboardInterrupt:
            # The child keeps what it has. A second Ctrl-C ends the waiting, and kills it.
            if _wait(process, SECONDS_TO_END) is None and process.pid and sys.platform != "win32":
                os.kill(process.pid, signal.SIGINT)
            _wait(process)
            raise
        finally:
            if _wait(process, 0) is None:
                process.kill()
                _wait(process)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code or 0


def _wait(
    process: "subprocess.Popen[bytes] | BaseProcess", seconds: float | None = None
) -> int | None:
    """Return the exit code of a process when it has ended, None if it has not after ``seconds``."""
    if isinstance(process, subprocess.Popen):
        with suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
        return None
    process.join(seconds)
    return process.exitcode


def _exit_with(function: Callable[..., int], *arguments: Any) -> None:
    use_default_start_method()
    sys.exit(exit_code(function, *arguments))


def use_default_start_method() -> None:
    """Undo "spawn", which a spawned process takes for its own children: MXNet's loaders need forks."""
    multiprocessing.set_start_method(None, force=True)


def exit_code(function: Callable[..., int], *arguments: Any) -> int:
    """Call ``function`` as a program runs it, and return the exit code that it returns.

    It is 2 after a UserError, which is printed as one line, 130 after Ctrl-C, and 141 if whoever reads the output has
    closed it, as `head` does. Notices are one line each.
    """
    warnings.formatwarning = _format
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be anything
    try:
        with reraise_lost_ctrl_c(), _all_printed():
            return function(*arguments)
    except BrokenPipeError:
        if not _closed_by_reader():  # another pipe broke, such as one to a worker
            raise
        return CLOSED_PIPE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def _all_printed() -> Iterator[None]:
    """Print at the end of the block what is still to be printed: an error at Python's own end cannot be handled."""
    try:
        yield
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _closed_by_reader() -> bool:
    """Return whether the reader of standard output has closed it; if so, what is left to print goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors are told without being asked for
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


_format_warning = warnings.formatwarning


def _format(message, category, *arguments):  # type: ignore[no-untyped-def]
    """Show a notice as one line, and any other warning as Python does."""
    if category is UserNotice:
        return f"note: {message}\n"
    return _format_warning(message, category, *arguments)


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Let SIGTERM end this process as an exit does, which stops a child on its way."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
