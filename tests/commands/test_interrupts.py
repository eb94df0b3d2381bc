"""Ctrl-C is deferred while a batch is transferred between processes, and is never lost."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import load_or_skip

from common.system.interrupts import (
    UninterruptedBatches,
    deferred_interrupts,
    reraise_lost_interrupts,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def ctrl_c_raises():
    # SIGINT is ignored if the tests run in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_is_raised_after_the_block_and_a_second_one_immediately(times):
    steps = []

    def press():
        with deferred_interrupts():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
                steps.append("went on")

    with pytest.raises(KeyboardInterrupt):
        press()
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_ctrl_c_the_block_is_not_affected():
    with deferred_interrupts():
        pass
    with pytest.raises(ValueError, match="its own"), deferred_interrupts():
        raise ValueError("its own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_takes_precedence_over_an_error_in_the_block():
    def fetch():
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("a worker has gone")

    with pytest.raises(KeyboardInterrupt):
        fetch()


def test_another_handler_of_ctrl_c_is_called_immediately():
    calls = []
    signal.signal(signal.SIGINT, lambda *_: calls.append("immediately"))
    with deferred_interrupts():
        signal.raise_signal(signal.SIGINT)
        assert calls == ["immediately"]


def test_batches_can_be_read_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.extend(UninterruptedBatches([(1, 2), (3, 4)])))
    thread.start()
    thread.join()
    assert found == [(1, 2), (3, 4)]


def test_the_batches_are_those_of_the_loader_in_every_epoch():
    batches = UninterruptedBatches([(1, 2), (3, 4)])
    assert len(batches) == 2
    assert list(batches) == list(batches) == [(1, 2), (3, 4)]


def test_a_batch_is_fetched_completely_before_ctrl_c_is_raised():
    fetched = []

    class Loader:
        def __len__(self):
            return 3

        def __iter__(self):
            for number in range(3):
                if number == 1:
                    signal.raise_signal(signal.SIGINT)
                fetched.append(number)
                yield number, number

    with pytest.raises(KeyboardInterrupt):
        list(UninterruptedBatches(Loader()))
    assert fetched == [0, 1]


class Finalized:
    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


def test_ctrl_c_in_a_finalizer_is_raised_again(capsys):
    steps = []

    def work():
        finalized = Finalized(KeyboardInterrupt())
        with reraise_lost_interrupts():
            del finalized
            steps.append("went on")
            for _ in range(3000):
                time.sleep(0.01)
            steps.append("not raised")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["went on"]
    assert "Traceback" not in capsys.readouterr().err


def test_other_errors_in_finalizers_are_reported_by_python(monkeypatch):
    reported = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type)
    )
    finalized = Finalized(OSError())
    with reraise_lost_interrupts():
        del finalized
    assert reported == [OSError]


# Small batches: much of the time goes into transferring them. Without UninterruptedBatches, a third of the interrupts
# of PyTorch's loader leave a traceback.
INTERRUPT_AGAIN_AND_AGAIN = """
import os, random, signal, sys
import numpy as np
import backends
from common.datasets import Dataset
from common.system.interrupts import UninterruptedBatches, reraise_lost_interrupts

loaders = backends.load(sys.argv[1]).loaders
signal.signal(signal.SIGINT, signal.default_int_handler)
# A terminal interrupts the workers too; `kill` interrupts only this process.
interrupt = {"terminal": lambda: os.killpg(0, signal.SIGINT), "kill": lambda: signal.raise_signal(signal.SIGINT)}
signal.signal(signal.SIGALRM, lambda *_: interrupt[sys.argv[2]]())
dataset = Dataset(np.zeros((64, 8, 8, 3), np.uint8), np.zeros(64, np.int64), ("a", "b"))
generator = random.Random(0)
for number in range(30):
    batches = UninterruptedBatches(loaders.load_native(dataset, (), 8, True, 0, 2))
    list(batches)  # the workers have started
    try:
        with reraise_lost_interrupts():
            signal.setitimer(signal.ITIMER_REAL, generator.uniform(0.001, 0.05))
            while True:
                list(batches)
    except KeyboardInterrupt:
        print("interrupted")
    del batches
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no alarms there")
@pytest.mark.parametrize("by", ["terminal", "kill"])
@pytest.mark.parametrize("name", ["pytorch", "mxnet"])
def test_no_worker_prints_a_traceback_after_an_interrupt(name, by):
    load_or_skip(name)
    result = subprocess.run(
        [sys.executable, "-c", INTERRUPT_AGAIN_AND_AGAIN, name, by],
        cwd=ROOT, capture_output=True, text=True, timeout=240, start_new_session=True,
    )  # fmt: skip
    assert result.stdout.split() == ["interrupted"] * 30
    assert "Traceback" not in result.stderr
