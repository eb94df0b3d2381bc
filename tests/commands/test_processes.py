"""Functions called in a new process: exit codes, interrupts and signals."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.system.processes import call_in_process, how_it_ended

ROOT = Path(__file__).parents[2]


def ends(code: int, number: int = 0) -> int:
    """End with an exit code, or by signal ``number`` if it is not 0."""
    if number:
        os.kill(os.getpid(), number)
    return code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((0,), 0), ((3,), 3), ((0, signal.SIGSEGV), -signal.SIGSEGV)],
)
def test_the_exit_code_is_returned_and_a_signal_is_negative(arguments, code):
    assert call_in_process(ends, *arguments) == code


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-50, "was killed by signal 50"),
    ],
)
def test_the_end_of_a_process_is_described_with_the_name_of_its_signal(code, words):
    assert how_it_ended(code) == words


def starts_others_by(method: str) -> int:
    """Return 0 if this process uses that start method."""
    return int(multiprocessing.get_start_method() != method)


def test_the_new_process_uses_the_default_start_method():
    assert call_in_process(starts_others_by, multiprocessing.get_start_method()) == 0


def test_an_interrupted_process_interrupts_its_caller():
    with pytest.raises(KeyboardInterrupt):
        call_in_process(ends, 130)


CALLER = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from common.system import processes
from common.system.processes import call_in_process, exit_code

def wait(path, deaf):
    import os, signal
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(path).with_suffix(".new").write_text(str(os.getpid()))
    Path(path).with_suffix(".new").rename(path)
    time.sleep(100)
    return 0

if __name__ == "__main__":
    processes.SECONDS_TO_TERMINATE = 1.0 if len(sys.argv) > 2 else 60.0
    sys.exit(exit_code(call_in_process, wait, sys.argv[1], len(sys.argv) > 2))
"""


@pytest.fixture
def caller(tmp_path: Path) -> Iterator["Caller"]:
    started = Caller(tmp_path)
    yield started
    started.process.kill()


class Caller:
    """A process in a new session that waits for the function that it has called."""

    def __init__(self, folder: Path) -> None:
        self.script, self.file = folder / "caller.py", folder / "pid"
        self.script.write_text(CALLER)

    def start(self, *more: str) -> int:
        """Start, and return the id of the process that the function runs in."""
        self.process = subprocess.Popen(
            [sys.executable, str(self.script), str(self.file), *more],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        deadline = time.monotonic() + 60
        while not self.file.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return int(self.file.read_text())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_on_the_terminal_ends_both(caller):
    child = caller.start()
    os.killpg(caller.process.pid, signal.SIGINT)
    assert caller.process.wait(30) == 130
    assert not alive(child)


def test_ctrl_c_of_the_caller_is_passed_on(caller):
    child = caller.start()
    caller.process.send_signal(signal.SIGINT)
    assert caller.process.wait(30) == 130
    assert not alive(child)


def test_a_second_ctrl_c_kills_a_function_that_ignores_it(caller):
    child = caller.start("deaf")
    caller.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert alive(child)
    caller.process.send_signal(signal.SIGINT)
    assert caller.process.wait(30) == 130
    assert not alive(child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_all", [False, True])
def test_sigterm_ends_both_as_ctrl_c_does(caller, number, to_all):
    child = caller.start()
    if to_all:  # as systemd does
        os.killpg(caller.process.pid, number)
    else:
        caller.process.send_signal(number)
    assert caller.process.wait(30) == 128 + number
    assert set(caller.process.stderr.read().split()) == {"interrupted"}
    assert not alive(child)


def test_sigterm_kills_a_function_that_does_not_end(caller):
    child = caller.start("deaf")
    caller.process.terminate()
    assert caller.process.wait(30) == 128 + signal.SIGTERM
    assert not alive(child)


def test_sigterm_of_the_child_interrupts_its_caller_with_the_same_code(caller):
    os.kill(caller.start(), signal.SIGTERM)
    assert caller.process.wait(30) == 128 + signal.SIGTERM
