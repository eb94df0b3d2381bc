"""Standard output and standard error: errors, notices and tracebacks are printed here, other lines by console.py.

Both print control characters as escapes, so a name from a file cannot send commands to the terminal. A failing output
raises OutputError, which cannot be confused with a failing file.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from common.errors import UserNotice, printable


class OutputError(Exception):
    """Standard output cannot be written. The cause is a BrokenPipeError if its reader has closed it, as `head` does."""


class _Output:
    """Standard output, whose errors are `OutputError`s."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _output_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with _output_errors():
            self._stream.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prepare the streams for the main function of a program, and flush standard output after the block.

    Output to a stream that was closed at the start is discarded. Raises OutputError if standard output cannot be
    written.
    """
    _open_closed_streams()
    before = sys.stdout
    if hasattr(before, "reconfigure"):
        before.reconfigure(errors="backslashreplace")  # file names may have any bytes
    sys.stdout = _Output(before)
    warnings.formatwarning = _format
    try:
        yield
    finally:
        try:
            # Here, because an error while Python exits cannot be handled.
            sys.stdout.flush()
        finally:
            sys.stdout = before


def _open_closed_streams() -> None:
    """Open the null device for each closed stream. Otherwise the next file would get its number, and its output."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - until the end


def discard_output() -> None:
    """Discard the remaining output, which Python would otherwise try to write when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def print_error(message: object) -> None:
    """Print the lines of a message on standard error; control characters in them become escapes."""
    lines = (printable(line, max_length=None) for line in str(message).split("\n"))
    with suppress(OSError):  # nobody can be told
        print(*lines, sep="\n", file=sys.stderr, flush=True)


def print_traceback(error: BaseException) -> None:
    """Print a traceback on standard error."""
    print_error("".join(traceback.format_exception(error)).rstrip())


_format_warning = warnings.formatwarning


def _format(message, category, *arguments):  # type: ignore[no-untyped-def]
    """Format a notice as one line, and any other warning as Python does, without control characters."""
    if category is UserNotice:
        return f"note: {message}\n"
    text = _format_warning(message, category, *arguments)
    return "\n".join(printable(line, max_length=None) for line in text.split("\n"))
