"""`run.py --processes`: start a command several times, with the variables of the framework's own engine.

The engines do not end the other processes if one is lost: MXNet's wait for ever, without a message. Here the first
failure ends all of them.
"""

import ctypes
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from common.commands.resume import how_to_resume, what_was_kept, with_options
from common.commands.run_folder import RunFolder
from common.config import RunConfig
from common.errors import UserError
from common.interface import Framework
from common.system import environment
from common.system.interrupts import deferred_interrupts, ending_signals_interrupt
from common.system.processes import CLOSED_PIPE, SECONDS_TO_TERMINATE, how_it_ended
from common.system.temporary import temporary_folder
from common.system.terminal import OutputError, print_error

SECONDS_TO_FAIL = 1.0  # in which one failure makes other processes fail
SECONDS_TO_SHOW = 3.0  # until a line is shown: by then, a process that fails with it has ended
SECONDS_TO_SERVE = 10.0  # for servers, after the last worker has ended
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
LAUNCHER = "THREE_TABS_LAUNCHER"  # the variable with the folder in which processes leave notes for the launcher


def run(framework: Framework, config: RunConfig, script: Path, arguments: Sequence[str]) -> int:
    """Run ``script`` with ``arguments`` in several processes on this machine, and return the exit code.

    Print the variables of each process. If one fails, end all, and return its exit code.
    """
    if framework.engine is None:
        raise UserError(f"--processes: {framework.title} trains in one process")
    threads = dict.fromkeys(THREADS, str(max(environment.cores() // config.processes, 1)))
    gpus = environment.gpu_of_each(config.device, config.processes)
    roles = framework.engine.roles(config.processes, free_port, gpus)
    if any(environment.VISIBLE_GPUS in role.variables for role in roles):
        arguments = with_options(arguments, ["--device", "gpu"])  # the only one that a process sees
    for role in roles:
        print(f"{role.name}: {_shell(role.variables)}", flush=True)  # noqa: T201
    return run_together(
        {role.name: threads | dict(os.environ) | dict(role.variables) for role in roles},
        [sys.executable, str(script), *arguments],
    )


def _shell(variables: Mapping[str, str]) -> str:
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())


def free_port() -> int:
    """Return the number of a port that no program uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_together(
    environments: Mapping[str, Mapping[str, str]],
    words: Sequence[str],
    seconds: float = math.inf,
) -> int:
    """Run a command once in each environment, and return 0, or the exit code of the process that failed.

    The keys are the names of the processes. Lines on standard error get the name in front. After a failure, or when
    this process is interrupted, every process is sent SIGTERM, and is killed if it has not ended after eight seconds.
    Raises TimeoutError after ``seconds``; with PYTHONFAULTHANDLER in its environment, a process prints where it was.
    """
    started: dict[str, Started] = {}
    errors: set[str] = set()
    with ending_signals_interrupt(), temporary_folder() as folder:
        try:
            for name, variables in environments.items():
                with deferred_interrupts():
                    own = {**variables, LAUNCHER: str(folder)}
                    started[name] = Started(name, words, own, folder, errors)
            for one in started.values():
                one.reader.start()
            failed = _wait(started.values(), time.monotonic() + seconds)
        except KeyboardInterrupt as interrupt:
            for one in started.values():
                one.show(math.inf)
            _end(started.values())
            raise KeyboardInterrupt(_interrupted(folder)) from interrupt
        finally:
            _end(started.values())
        if failed is None:
            return 0
        code = failed.process.returncode
        if code == CLOSED_PIPE:
            raise OutputError from BrokenPipeError()
        if code != 2:  # the message for the user says all
            print_error(
                f"error: {failed.name} was lost: it {how_it_ended(code)}; the others have been ended"
                f"{_resume_after_loss(folder)}"
            )
    return code if code > 0 else 128 - code


def _announced(folder: Path) -> tuple[str, Path] | None:
    """Return the command and the run folder that the first process has announced to the launcher, None before that."""
    try:
        command, run = json.loads((folder / "run").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return command, Path(run)


def _interrupted(folder: Path) -> str:
    announced = _announced(folder)
    if announced is None:
        return "interrupted"
    command, run = announced
    return what_was_kept(command, RunFolder.reopen(run))


def _resume_after_loss(folder: Path) -> str:
    announced = _announced(folder)
    return how_to_resume(*announced) if announced and _has_epochs(announced[1]) else ""


def _has_epochs(run: Path) -> bool:
    """Return whether a run has something to go on from. A comparison keeps only the metrics of a finished training."""
    return any(run.glob("checkpoints/*.safetensors")) or (run / "metrics.jsonl").exists()


class Started:
    """A process in a session of its own, and the lines of its standard error that have not been shown.

    ``errors`` are those that have been shown, of all processes.
    """

    def __init__(
        self,
        role: str,
        words: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        errors: set[str],
    ) -> None:
        self.role, self.folder, self.errors = role, folder, errors
        self.process = subprocess.Popen(
            words,
            env=variables,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C reaches the launcher only, which can end everything in the session.
            start_new_session=True,
            preexec_fn=_end_with_parent if _prctl else None,
        )
        self.lines: deque[tuple[float, str]] = deque()
        self.reader = threading.Thread(target=self._read, daemon=True)

    @property
    def name(self) -> str:
        """The rank, or the role until it is known: MXNet's scheduler numbers its workers in any order."""
        with suppress(FileNotFoundError):
            number = (self.folder / str(self.process.pid)).read_text(encoding="utf-8")
            return f"rank {number}"
        return self.role

    @property
    def serves(self) -> bool:
        """Whether this process serves the others, and does not train."""
        return not self.role.startswith(("rank", "worker"))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    def show(self, until: float) -> None:
        """Print the lines that arrived before ``until``, with the name in front. Equal errors are printed once."""
        while self.lines and self.lines[0][0] < until:
            line = self.lines.popleft()[1]
            if line.startswith("error: ") and line in self.errors:
                continue
            if line.startswith("error: "):
                self.errors.add(line)
            sys.stderr.write(f"{self.name}: {line}")
            sys.stderr.flush()

    def show_last(self) -> None:
        """Print all lines of a process that has ended, or is about to."""
        self.reader.join(SECONDS_TO_FAIL)
        self.show(math.inf)

    def abort(self) -> None:
        """Send SIGABRT, at which Python's faulthandler prints the stacks of all threads. Windows has no such signal."""
        if sys.platform != "win32":
            self.process.send_signal(signal.SIGABRT)

    def terminate(self) -> None:
        """Send SIGTERM, as `kill` does."""
        if self.process.poll() is None:
            self.process.terminate()

    def kill(self) -> None:
        """Kill this process and all that it has started, such as the workers of a loader."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()


# Found here: between fork and exec, it might wait for ever for a lock that another thread held, such as the loader's.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """Make Linux kill this process if the launcher is killed."""
    assert _prctl is not None
    set_parent_death_signal = 1
    _prctl(set_parent_death_signal, signal.SIGKILL)


def _wait(started: Collection[Started], deadline: float) -> Started | None:
    """Wait for all processes, and return the one that failed, None if all succeeded.

    When a process fails, others fail too, because their connections break, and may even end earlier. So lines are
    shown only after some seconds, and then only those of the process to blame.
    """
    gives_up = math.inf  # when servers that have no workers any more are ended
    while not (failed := _failed(started)):
        running = [one for one in started if one.process.poll() is None]
        if all(one.serves for one in running):
            gives_up = min(gives_up, time.monotonic() + SECONDS_TO_SERVE)
        if not running or time.monotonic() > gives_up:
            break
        if time.monotonic() > deadline:
            names = ", ".join(one.name for one in running)
            for one in running:
                one.abort()
            for one in running:
                one.show_last()
            raise TimeoutError(
                f"{names}: still running; the machine is too slow for the time, or they wait for each other"
            )
        for one in started:
            one.show(time.monotonic() - SECONDS_TO_SHOW)
        time.sleep(0.05)
    if failed:
        time.sleep(SECONDS_TO_FAIL)
        failed = sorted([*failed, *_failed(started)], key=_blame)
    for one in failed[:1] or started:
        one.show_last()
    return failed[0] if failed else None


def _failed(started: Collection[Started]) -> list[Started]:
    return [one for one in started if one.process.poll()]


def _blame(failed: Started) -> int:
    """Return a smaller number for a process that did not fail because of another one.

    First are those with an error for the user, then the killed ones. TensorFlow aborts if another process is lost.
    """
    code = failed.process.returncode
    if code == 2:
        return 0
    return 1 if code < 0 and code != -signal.SIGABRT else 2


def _end(started: Collection[Started]) -> None:
    """End all processes, and all that they have started: SIGTERM, and SIGKILL after eight seconds."""
    training = [one for one in started if not one.serves]
    with deferred_interrupts():
        try:
            for one in training:
                one.terminate()
            deadline = time.monotonic() + SECONDS_TO_TERMINATE
            for one in training:
                with suppress(subprocess.TimeoutExpired):
                    one.process.wait(max(deadline - time.monotonic(), 0))
        finally:  # also after a second Ctrl-C
            for one in started:
                one.kill()
