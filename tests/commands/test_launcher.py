"""Processes that a launcher ends because their time is over."""

import os
import sys
import time

import pytest

from common.commands.launcher import Started, _wait

WAITS = """
import sys, threading

def waits():
    print("ready", file=sys.stderr)
    threading.Event().wait()

waits()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGABRT")
def test_processes_whose_time_is_over_print_where_they_were(tmp_path, capsys):
    variables = os.environ | {"PYTHONFAULTHANDLER": "1"}
    one = Started("rank 0", [sys.executable, "-c", WAITS], variables, tmp_path)
    try:
        one.reader.start()
        while not one.lines:
            time.sleep(0.01)
        with pytest.raises(TimeoutError, match="rank 0: still running"):
            _wait([one], time.monotonic())
        one.reader.join()
        one.show_last()
    finally:
        one.kill()
    assert 'rank 0:   File "<string>", line 6 in waits' in capsys.readouterr().err
