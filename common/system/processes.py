"""Exit codes, and child processes that end with this process."""

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

# On a terminal, Ctrl-C also reaches the child. If it has not ended after this time, it is sent SIGINT.
SECONDS_TO_END = 3.0
INTERRUPTED = 130  # exit code of run.py after Ctrl-C
CLOSED_PIPE = 141  # a shell's exit code for a program that was ended by SIGPIPE


def run_process(words: Sequence[str]) -> int:
    """Run a command with the output of this process, and return its exit code, or -N for signal N.

    The child ends before this process does, unless this process is killed. Raises KeyboardInterrupt if the child was
    interrupted.
    """
    return _exit_code_of(lambda: subprocess.Popen(words))


def call_in_process(function: Callable[..., int], *arguments: Any) -> int:
    """Call ``function`` in a new process and return its exit code, or -N if signal N ended the process.

    The function must be defined in a module, which the new process imports. Everything else is as in `run_process`.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_exit_with, args=(function, *arguments)
    )

    def start() -> BaseProcess:
        process.start()
        return process

    return _exit_code_of(start)


def how_it_ended(code: int) -> str:
    """Return a description of an exit code, where -N is signal N."""
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
            # Give the child time to save its results. A second Ctrl-C kills it.
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
    """Wait for a process and return its exit code, or None if it still runs after ``seconds``."""
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
    """Reset the start method, because a spawned process uses "spawn" for its children and MXNet's loaders must fork."""
    multiprocessing.set_start_method(None, force=True)


def exit_code(function: Callable[..., int], *arguments: Any) -> int:
    """Call ``function`` as the main function of a program, and return the exit code.

    A UserError is printed as one line, and the code is 2. It is 130 after Ctrl-C, and 141 if the reader of the output
    has closed it, as `head` does. Notices are printed as one line each.
    """
    warnings.formatwarning = _format
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may have any bytes
    try:
        with reraise_lost_ctrl_c(), _all_printed():
            return function(*arguments)
    except BrokenPipeError:
        if not _closed_by_reader():  # it was another pipe, such as one to a worker
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
    """Flush standard output after the block, because an error while Python exits cannot be handled."""
    try:
        yield
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()


def _closed_by_reader() -> bool:
    """Return whether the reader of standard output has closed it; if so, discard the remaining output."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors are always reported
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


_format_warning = warnings.formatwarning


def _format(message, category, *arguments):  # type: ignore[no-untyped-def]
    """Format a notice as one line, and any other warning as Python does."""
    if category is UserNotice:
        return f"note: {message}\n"
    return _format_warning(message, category, *arguments)


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Make SIGTERM raise SystemExit, so that a running child is stopped too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
