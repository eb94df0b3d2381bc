"""Exit codes, and processes that end when this one does."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from common.errors import UserError, UserNotice
from common.system.interrupts import no_ctrl_c_is_lost

# On a terminal, Ctrl-C reaches the child too; where it has not ended after so long, it has had no signal of its own.
SECONDS_TO_END = 3.0
INTERRUPTED = 130  # what run.py ends with after Ctrl-C


def run_process(words: Sequence[str]) -> int:
    """Run a command that writes where this process writes, and return its exit code, -N for signal N.

    However this process is stopped, short of being killed, the child ends first. Raises KeyboardInterrupt where the
    child was interrupted, as what started it then is too.
    """
    sys.stdout.flush()
    with _termination_as_exit():
        process = subprocess.Popen(words)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            _interrupt(process)
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Wait until an interrupted child has kept what it has, and see that it was interrupted; a second Ctrl-C kills."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_END)
        return
    if sys.platform != "win32":  # where every process of the console has had it
        process.send_signal(signal.SIGINT)
    process.wait()


def call_in_process(function: Callable[..., int], *arguments: Any) -> int:
    """Call ``function`` in a new process and return the exit code that it returns, -N if signal N ended the process.

    The function is one of a module, and the new process imports that module first. The process ends with this one, as
    in `run_process`. Raises KeyboardInterrupt if it was interrupted.
    """
    sys.stdout.flush()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=_exit_with, args=(function, *arguments))
    with _termination_as_exit():
        try:
            process.start()
            process.join()
        except KeyboardInterrupt:
            process.join(SECONDS_TO_END)
            if process.is_alive() and process.pid and sys.platform != "win32":
                os.kill(process.pid, signal.SIGINT)
            process.join()
            raise
        finally:
            if process.is_alive():
                process.kill()
                process.join()
    if process.exitcode == INTERRUPTED:
        raise KeyboardInterrupt
    return process.exitcode or 0


def _exit_with(function: Callable[..., int], *arguments: Any) -> None:
    use_default_start_method()
    sys.exit(exit_code(function, *arguments))


def use_default_start_method() -> None:
    """Undo "spawn", which a spawned process takes for its own children: MXNet's loaders need forks."""
    multiprocessing.set_start_method(None, force=True)


def exit_code(function: Callable[..., int], *arguments: Any) -> int:
    """Call ``function`` as a program runs it, and return the exit code that it returns.

    It is 2 after a UserError, which is printed as one line, and 130 after Ctrl-C. Notices are one line each.
    """
    warnings.formatwarning = _format
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be anything
    try:
        with no_ctrl_c_is_lost():
            return function(*arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return INTERRUPTED


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
