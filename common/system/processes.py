"""Exit codes, and child processes that end with this process."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from common.errors import UserError, printable
from common.system.interrupts import (
    deferred_interrupts,
    ending_signals_interrupt,
    interrupt_with,
    interrupted_by,
    reraise_lost_interrupts,
    was_interrupted,
)
from common.system.terminal import (
    OutputError,
    discard_output,
    print_error,
    print_traceback,
    standard_streams,
)

# On a terminal, Ctrl-C also reaches the child. If it has not ended after this time, it is sent SIGINT.
SECONDS_TO_END = 3.0
# SIGTERM is passed on. A child that has not ended after this time is killed; `docker stop` kills all after ten seconds.
SECONDS_TO_TERMINATE = 8.0
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
    process = None
    with ending_signals_interrupt():
        try:
            with deferred_interrupts():
                process = start()
            code = _wait(process)
        except KeyboardInterrupt:
            if process:
                _interrupt(process)
            raise
        finally:
            if process and _wait(process, 0) is None:
                process.kill()
                _wait(process)
    interrupt_with(code or 0)
    if code == CLOSED_PIPE:
        raise OutputError from BrokenPipeError()
    return code or 0


def _interrupt(process: "subprocess.Popen[bytes] | BaseProcess") -> None:
    """Interrupt a child as this process was, and give it time to save its results. A second Ctrl-C kills it."""
    number = interrupted_by()
    if number == signal.SIGINT and _wait(process, SECONDS_TO_END) is not None:
        return
    if process.pid and sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
    _wait(process, None if number == signal.SIGINT else SECONDS_TO_TERMINATE)


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
    end_program(exit_code(function, *arguments))


def use_default_start_method() -> None:
    """Reset the start method, because a spawned process uses "spawn" for its children and MXNet's loaders must fork."""
    multiprocessing.set_start_method(None, force=True)


def exit_code(function: Callable[..., int], *arguments: Any) -> int:
    """Call ``function`` as the main function of a program, and return the exit code.

    The code is 2 for a UserError, which is printed as one line, and for an output that cannot be written. It is 130
    after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, and 141 if the reader of the output has closed it, as `head`
    does. Any other exception is printed with its traceback, and the code is 1. Notices are printed as one line each.
    """
    try:
        with ending_signals_interrupt(), reraise_lost_interrupts(), standard_streams():
            return function(*arguments)
    except OutputError as error:
        discard_output()
        if isinstance(error.__cause__, BrokenPipeError):
            return CLOSED_PIPE
        why = getattr(error.__cause__, "strerror", "")
        print_error(f"error: cannot write to standard output ({why}): send it somewhere else")
        return 2
    except KeyboardInterrupt as interrupt:
        print_error(printable(str(interrupt), None) or "interrupted")
        _kept.append(interrupt)
        return 128 + interrupted_by()
    except Exception as error:
        if was_interrupted() or _without_finalizers:
            _kept.append(error)
        if was_interrupted():  # the signal may have ended a worker, too, and its loader then fails
            print_error("interrupted")
            return 128 + interrupted_by()
        if isinstance(error, UserError):
            print_error(f"error: {error}")
            return 2
        print_traceback(error)
        return 1


# Keeps the frames of a run that was interrupted or has lost a worker, and so its loaders, from being finalized before
# `end_program`.
_kept: list[BaseException] = []


_without_finalizers: list[bool] = []


def skip_finalizers() -> None:
    """Let `end_program` end this process without finalizers."""
    _without_finalizers.append(True)


def end_program(code: int) -> NoReturn:
    """End this process with the exit code of `exit_code`.

    After SIGTERM, without finalizers: `timeout` and job schedulers send it to the workers, too. The finalizers of a
    loader then may wait for ever, for a lock that a worker held. So may those of an engine; see `skip_finalizers`.
    """
    if was_interrupted() or _without_finalizers:
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(code)
    sys.exit(code)
