"""Printed text has no control characters, and a closed or full output ends a program in one line."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from common.drawing.progress import progress_bar
from common.errors import UserError, UserNotice
from common.system.console import PlainConsole

ROOT = Path(__file__).parents[2]
RED = "\x1b[31mred\x1b]0;title\x07\r\n\x9b2J\u202eend"
ESCAPED = r"\x1b[31mred\x1b]0;title\x07\r\n\x9b2J\u202eend"

names = st.text(
    st.characters(exclude_categories=()), min_size=1
)  # with surrogates, as for undecodable bytes


def is_plain(line: str) -> bool:
    """Return whether a line has nothing that a terminal obeys."""
    return line.isprintable()


@given(names)
def test_an_error_and_a_notice_are_one_plain_line_for_every_name(name):
    assert is_plain(str(UserError(f"there is no {name}: check it")))
    assert is_plain(str(UserNotice(f"left out: {name}")))


@given(names)
def test_a_plain_name_stays_as_it_is(name):
    if name.isprintable():
        assert str(UserError(name)) == name


def test_an_error_of_several_lines_has_only_those():
    assert str(UserError("2 faults", f"  {RED}", "  b")) == f"2 faults\n  {ESCAPED}\n  b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(print_with) -> str:
    """Return what a console prints."""
    console = PlainConsole()
    console.file, console.width = io.StringIO(), 200
    print_with(console)
    return console.file.getvalue()


@given(names)
def test_a_console_prints_every_string_as_one_plain_line(name):
    lines = printed(lambda console: console.print(f"output {name}", soft_wrap=True))
    assert is_plain(lines.removesuffix("\n"))


def test_a_console_escapes_the_cells_and_titles_of_tables_and_fits_their_width():
    table = Table(RED, title=RED, box=None)
    table.add_row(RED)
    table.add_row("a" * len(ESCAPED))
    lines = [line.strip() for line in printed(lambda console: console.print(table)).splitlines()]
    assert lines == [ESCAPED, ESCAPED, ESCAPED, "a" * len(ESCAPED)]


def test_a_progress_bar_escapes_its_title(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with progress_bar(f"decoding {RED}", 2) as advance:
        advance(1)
    shown = sys.stderr.getvalue()
    assert f"decoding {ESCAPED}" in shown
    assert "\x1b[31mred" not in shown
    assert "\x07" not in shown


# --- Programs --------------------------------------------------------------------------------------------------------

PROGRAM = f"""
import sys, warnings
sys.path.insert(0, {str(ROOT)!r})
from common.errors import UserError, UserNotice
from common.system.console import PlainConsole
from common.system.processes import exit_code
from common.system.terminal import print_error

RED = {RED!r}

def run(how):
    if how == "error":
        raise UserError(RED)
    if how == "notice":
        warnings.warn(UserNotice(RED))
    elif how == "warning":
        warnings.warn(RED)
    elif how == "traceback":
        raise ValueError(RED)
    elif how == "interrupt":
        raise KeyboardInterrupt(RED)
    elif how == "another pipe":
        raise BrokenPipeError("a worker has gone")
    elif how == "another disk":
        raise OSError(28, "No space left on device")
    elif how == "file":
        print(open(sys.argv[0] if len(sys.argv) < 3 else sys.argv[2]).fileno(), file=sys.stderr)
    else:
        write = PlainConsole().print if "rich" in how else print
        for line in range(100_000 if "many" in how else 1):
            write(how)
    return 0

sys.exit(exit_code(run, sys.argv[1]))
"""


def program(*words: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python, in a shell with these redirections."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {shell}', "sh", sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("how", "code", "end"),
    [
        ("error", 2, f"error: {ESCAPED}"),
        ("notice", 0, f"note: {ESCAPED}"),
        ("interrupt", 130, ESCAPED),
    ],
)
def test_a_message_of_a_program_is_one_plain_line(how, code, end):
    result = program("-c", PROGRAM, how)
    assert result.returncode == code
    (line,) = result.stderr.splitlines()
    assert line.endswith(end)


@pytest.mark.parametrize(("how", "code"), [("warning", 0), ("traceback", 1)])
def test_other_warnings_and_tracebacks_have_no_control_characters(how, code):
    result = program("-c", PROGRAM, how)
    assert result.returncode == code
    assert r"\x1b[31mred\x1b]0;title\x07\r" in result.stderr
    assert all(map(is_plain, result.stderr.rstrip("\n").split("\n")))


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


@pytest.mark.parametrize("buffered", ["-X utf8", "-u"])
@pytest.mark.parametrize("how", ["a line", "many lines", "rich", "many rich"])
def test_a_closed_pipe_ends_the_program_quietly_as_sigpipe_does(how, buffered):
    assert into_closed_pipe(*buffered.split(), "-c", PROGRAM, how) == (141, "")


@pytest.mark.parametrize("words", ["--help", "train --help", "--version"])
def test_the_help_into_a_closed_pipe_ends_quietly(words):
    assert into_closed_pipe("run.py", *words.split()) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("buffered", ["-X utf8", "-u"])
@pytest.mark.parametrize("how", ["a line", "many lines", "rich", "many rich"])
def test_a_full_disk_under_the_output_is_one_line(how, buffered):
    result = program(*buffered.split(), "-c", PROGRAM, how, shell="> /dev/full")
    expected = (
        "error: cannot write to standard output (No space left on device): send it somewhere else\n"
    )
    assert (result.returncode, result.stderr) == (2, expected)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", ["--help", "train --help", "--version"])
def test_the_help_onto_a_full_disk_is_one_line(words):
    result = program("run.py", *words.split(), shell="> /dev/full")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("shell", "how", "code"),
    [
        (">&-", "rich", 0),
        (">&-", "a line", 0),
        ("<&- >&- 2>&-", "rich", 0),
        ("<&- >&- 2>&-", "error", 2),
        ("2>&-", "error", 2),
        ("2>&-", "notice", 0),
        ("2>&-", "traceback", 1),
        ("2> /dev/full", "error", 2),
        ("2> /dev/full", "notice", 0),
    ],
)
def test_a_program_goes_on_without_a_stream_that_was_closed_at_the_start(shell, how, code):
    result = program("-c", PROGRAM, how, shell=shell)
    assert (result.returncode, result.stdout, result.stderr) == (code, "", "")


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path):
    (tmp_path / "file").touch()
    result = program("-c", PROGRAM, "file", str(tmp_path / "file"), shell="<&- >&-")
    assert int(result.stderr) > 2


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("another pipe", "BrokenPipeError: a worker has gone"),
        ("another disk", "OSError: [Errno 28]"),
    ],
)
def test_an_error_of_another_pipe_or_file_keeps_its_traceback(how, error):
    result = program("-c", PROGRAM, how)
    assert result.returncode == 1
    assert error in result.stderr


# --- run.py ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("NAME",),
        ("--backend", "NAME"),
        ("--backend", "pytorch", "--NAME"),
        ("--backend", "pytorch", "--epochs", "NAME"),
        ("evaluate", "--backend", "mxnet", "--weights", "NAME.safetensors"),
        ("predict", "--backend", "tensorflow", "--weights", "NAME.weights.h5", "x.png"),
        ("convert", "NAME.foo", "b.pt"),
        ("convert", "NAME.safetensors", "b.pt"),
        ("check-submission", "NAME.csv", "--data-dir", "NAME"),
        ("parity", "--backend", "NAME"),
    ],
)
def test_no_command_prints_a_name_that_a_terminal_obeys(words):
    result = program("run.py", *(word.replace("NAME", RED) for word in words))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert is_plain(line)
    assert "red" in line


def test_on_a_terminal_colours_are_the_console_s_own():
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", PROGRAM, f"rich {RED}"], stdout=theirs, check=True, timeout=60
    )
    os.close(theirs)
    assert os.read(ours, 1000).decode() == f"rich {ESCAPED}\r\n"
    os.close(ours)
