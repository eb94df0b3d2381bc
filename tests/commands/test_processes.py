"""Functions called in a new process: exit codes, interrupts and signals; and a closed standard output."""

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
from common.system.processes import call_in_process, how_it_ended

def wait(path, deaf):
    import os, signal
    if deaf:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(path).with_suffix(".new").write_text(str(os.getpid()))
    Path(path).with_suffix(".new").rename(path)
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        return 130
    return 0

if __name__ == "__main__":
    call_in_process(wait, sys.argv[1], len(sys.argv) > 2)
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
            stderr=subprocess.DEVNULL,
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
    assert caller.process.wait(30) == -signal.SIGINT
    assert not alive(child)


def test_ctrl_c_of_the_caller_is_passed_on(caller):
    child = caller.start()
    caller.process.send_signal(signal.SIGINT)
    assert caller.process.wait(30) == -signal.SIGINT
    assert not alive(child)


def test_a_second_ctrl_c_kills_a_function_that_ignores_it(caller):
    child = caller.start("deaf")
    caller.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert alive(child)
    caller.process.send_signal(signal.SIGINT)
    assert caller.process.wait(30) == -signal.SIGINT
    assert not alive(child)


def test_sigterm_ends_the_function_too(caller):
    child = caller.start()
    caller.process.terminate()
    assert caller.process.wait(30) == 128 + signal.SIGTERM
    assert not alive(child)


# --- Closed standard output ------------------------------------------------------------------------------------------

PRINTING = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from common.commands.training import make_console
from common.system.processes import exit_code

def prints(how):
    if how == "another pipe":
        raise BrokenPipeError("a worker has gone")
    write = make_console().print if how == "rich" else print
    for line in range(1 if how == "a line" else 100_000):
        write("line", line)
    return 0

sys.exit(exit_code(prints, sys.argv[1]))
"""


def into_closed_pipe(*words: str) -> tuple[int, str]:
    """Run Python with a closed standard output; return the exit code and standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    return process.returncode, process.stderr


@pytest.mark.parametrize("how", ["a line", "many lines"])
def test_a_closed_output_ends_the_program_without_a_traceback(how):
    assert into_closed_pipe("-c", PRINTING, how) == (141, "")


def test_a_closed_output_of_rich_ends_the_program_without_a_traceback():
    code, errors = into_closed_pipe("-c", PRINTING, "rich")
    assert (code != 0, errors) == (True, "")


def test_the_help_with_a_closed_output_ends_without_a_traceback():
    assert into_closed_pipe("run.py", "--help") == (141, "")


def test_another_broken_pipe_is_an_error_with_a_traceback():
    process = subprocess.run(
        [sys.executable, "-c", PRINTING, "another pipe"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "BrokenPipeError: a worker has gone" in process.stderr
