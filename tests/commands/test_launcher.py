"""Processes that a launcher ends because their time is over."""

import os
import sys
import time

import pytest

from common.commands import launcher
from common.commands.launcher import Started, _wait, run_together

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
    one = Started("rank 0", [sys.executable, "-c", WAITS], variables, tmp_path, set())
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


def test_an_interrupt_shows_what_was_written_a_moment_ago(monkeypatch, capsys):
    def interrupted(started, deadline):
        while not all(one.lines for one in started):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt, match="interrupted"):
        run_together({"rank 0": os.environ}, [sys.executable, "-c", WAITS])
    assert capsys.readouterr().err == "rank 0: ready\n"
