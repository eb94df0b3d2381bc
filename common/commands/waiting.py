"""Several processes wait for each other: say who has not come, and end if one is lost.

Without this, MXNet waits forever, without a message. PyTorch waits for half an hour if a cable is pulled.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError, printable
from common.interface import DataIter, Engine, Framework, Tensor
from common.system import environment
from common.system.processes import end_program, skip_finalizers
from common.system.terminal import print_error

SECONDS_TO_SAY = 60.0  # without a step, until a note says so
SECONDS_TO_GIVE_UP = 300.0  # without a step, until this process ends
SECONDS_TO_START = 1800.0  # until it ends before the first step; PyTorch's default too
LONGER = 3  # times the longest pause so far: only then is a pause too long


class SharedError(UserError):
    """An error that all processes know of, so that they end together."""


class Watch(threading.Thread):
    """Say after a minute without a step what this process may be waiting for, and end it after five minutes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(daemon=True)
        self.engine = engine
        self.how_to_resume = ""
        self.joined = False
        self.joining: subprocess.Popen[bytes] | None = None
        self.steps, self.longest, self.last = 0, 0.0, time.monotonic()
        self.stopped = threading.Event()

    def before_joining(self) -> None:
        """Start a process that says after a minute who is missing. TensorFlow joins with all threads stopped."""
        own = [str(SECONDS_TO_SAY), str(os.getpid()), self.engine.reachable]
        self.joining = subprocess.Popen(
            [sys.executable, "-m", __name__, *own, *self.engine.addresses(os.environ)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
        )

    def after_joining(self) -> None:
        """End that process."""
        if self.joining is not None:
            self.joining.kill()
            self.joining.wait()

    def step(self) -> None:
        """Note that a batch is done."""
        self.longest = max(self.longest, time.monotonic() - self.last)
        self.steps, self.last = self.steps + 1, time.monotonic()

    def run(self) -> None:
        """Look at the time since the last step, once a second."""
        said = 0.0
        while not self.stopped.wait(min(SECONDS_TO_SAY, 1.0)):
            last, allowed = self.last, LONGER * self.longest
            pause = time.monotonic() - last
            if said != last and pause > max(SECONDS_TO_SAY, allowed):
                print_error(f"note: {self._why(pause)}")
                said = last
            if pause > max(SECONDS_TO_GIVE_UP if self.steps > 1 else SECONDS_TO_START, allowed):
                print_error(f"error: no step for {pause:.0f} s: {self.lost()}")
                # The main thread waits in the engine, where no signal or exception reaches it.
                skip_finalizers()
                end_program(2)

    def _why(self, pause: float) -> str:
        reached = ", ".join(map(_reached, self.engine.addresses(os.environ)))
        if not self.steps:
            return f"no step yet after {pause:.0f} s: rank 0 may still prepare the data ({reached})"
        return f"no step for {pause:.0f} s: another process may be lost ({reached})"

    def lost(self, why: str = "") -> str:
        """Return the message for a process that has lost another one."""
        return f"a process or the network was lost{why}{self.how_to_resume}"


_watch: Watch | None = None  # of this process, if there are others


@contextmanager
def watching(framework: Framework, launched: bool) -> Iterator[None]:
    """Watch for lost processes in the block, if this process joins others there and no launcher watches.

    Raises UserError for an error with which the engine reports that another process is lost.
    """
    global _watch
    engine = environment.joined_engine(framework)
    if engine is None:
        yield
        return
    if engine.skips_finalizers:
        skip_finalizers()
    watch = Watch(engine)
    try:
        if not launched:
            _watch = watch
            watch.before_joining()
        yield
    except BaseException as error:
        if not isinstance(error, SharedError):
            skip_finalizers()  # in which MXNet waits for the other processes
        if launched or not isinstance(error, Exception) or isinstance(error, UserError):
            raise
        if (message := _what_failed(watch, error)) is None:
            raise
        raise UserError(message) from error
    finally:
        watch.stopped.set()
        if watch.is_alive():
            watch.join()
        watch.after_joining()
        _watch = None


def all_joined(num_processes: int) -> None:
    """Note that all processes have come."""
    if _watch is not None:
        _watch.after_joining()
        _watch.joined, _watch.last = True, time.monotonic()
        if num_processes > 1:
            _watch.start()


def resume_with(how_to_resume: str) -> None:
    """Note the end of the message after a loss: how to go on with the run of this process."""
    if _watch is not None:
        _watch.how_to_resume = how_to_resume


class WatchedBatches:
    """The batches of a loader; each is noted as a step."""

    def __init__(self, batches: DataIter) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            if _watch is not None:
                _watch.step()
            yield batch


def _what_failed(watch: Watch, error: Exception) -> str | None:
    """Return the message for an error of the engine, None for any other error."""
    lines = str(error).strip().split("\n")
    if not watch.joined:
        return _absent(_short(lines[-1]), watch.engine.reachable)
    for line in lines:
        if any(words in line for words in watch.engine.lost):
            return watch.lost(f" ({_short(line)})")
    return None


def _absent(why: str, reachable: str) -> str:
    """Return the message for a process that cannot join others."""
    return f"this process has not joined the others ({why}): start them all, with a free port; if they run, {reachable}"


def _short(line: str) -> str:
    """Return the first sentence of a line of an engine's error, without the place in its source code."""
    return printable(re.sub(r"^\[[^]]*\] ", "", line.strip()).split(". ")[0], 160)


def _reached(address: str) -> str:
    """Return whether a program answers at an address such as "10.0.0.1:29500"."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=3).close()
    except (OSError, ValueError) as error:
        return f"{address} does not answer: {getattr(error, 'strerror', None) or error}"
    return f"{address} answers"


def say_who_is_missing(seconds: str, process: str, reachable: str, *addresses: str) -> None:
    """Wait some seconds, and then say which addresses do not answer, unless the waiting process has ended before."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    time.sleep(float(seconds))
    if os.getppid() == int(process):
        reached = ", ".join(map(_reached, addresses))
        print_error(f"note: after {float(seconds):.0f} s, {_absent(reached, reachable)}")


if __name__ == "__main__":
    say_who_is_missing(*sys.argv[1:])
