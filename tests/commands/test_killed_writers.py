"""A training that is killed while it writes a checkpoint goes on from the newest or the one before."""

import random
import signal
import subprocess
import sys
import time
import warnings
from itertools import count
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from common.commands import checkpoints
from common.commands.checkpoints import Checkpoints
from common.metrics import Epoch
from common.reference import State
from common.system import temporary
from common.system.temporary import PREFIX
from common.weights.canonical import initial_weights, is_buffer
from common.weights.checkpoint import ADAM, Checkpoint
from common.weights.files import BEST
from common.weights.safetensors import load_weights

ROOT = Path(__file__).parents[2]


ALONE = SimpleNamespace(rank=lambda: 0, num_processes=lambda: 1, total=lambda values: values)


def checkpoints_of(run: Path, num_channels: int, processes=ALONE) -> Checkpoints:
    """Return the checkpoints of a training that changes nothing, of a network of this width with Adam."""
    weights = initial_weights(2, num_channels=num_channels)
    trained = {name: weight for name, weight in weights.items() if not is_buffer(name)}
    backend = SimpleNamespace(
        processes=processes,
        weights=SimpleNamespace(
            get_weights=lambda net: weights, set_weights=lambda net, weights: None
        ),
        trainer=SimpleNamespace(
            get_state=lambda net, trainer: State(1, dict.fromkeys(ADAM, trained)),
            set_state=lambda net, trainer, state: None,
        ),
    )
    keeps = processes.rank() == 0
    return Checkpoints(run, "flip-seed-0", backend, None, None, ADAM, keeps=keeps)


def write_for_ever(run: Path, num_channels: int) -> None:
    """Go on with a training that only writes checkpoints; print the number of each that is on the disk."""
    own = checkpoints_of(run, num_channels)
    for epoch in count(own.start(True, 10**6) + 1):
        own.add(Epoch(epoch, 0.5, 0.5, None, None, 8, 1.0, 1.0), True, {})
        print(epoch - 1, flush=True)  # `add` has waited for it


def kill_again_and_again(run: Path, kills: int, num_channels: int, longest: float) -> dict:
    """Kill the writer at random moments, check what is left, and return how often what was found."""
    found = {"kills": 0, "while writing": 0, "newest": 0}
    delays = random.Random(0)
    script = "import sys; from pathlib import Path; from test_killed_writers import *; "
    script += f"write_for_ever(Path({str(run)!r}), {num_channels})"
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        ) as process:
            first = process.stdout.readline()
            time.sleep(delays.uniform(0, longest))
            process.send_signal(signal.SIGKILL)
            written = [int(line) for line in (first + process.stdout.read()).split()]
        assert process.returncode == -signal.SIGKILL
        files = sorted(path.name for path in run.glob("checkpoints/*"))
        left = [name for name in files if name.startswith(PREFIX)]
        assert len(left) <= 1  # the writer has removed what the killed one before it left
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the newest file can be read
            number = checkpoints_of(run, num_channels).start(True, 10**6)
        assert number >= max(written)
        assert f"flip-seed-0-{number:04}.safetensors" in [
            *files[-1:],
            "flip-seed-0-0000.safetensors",
        ]
        found["kills"] += 1
        found["while writing"] += len(left)
        found["newest"] = number
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_writer_killed_at_any_moment_leaves_a_checkpoint_to_go_on_from(tmp_path, monkeypatch):
    found = kill_again_and_again(tmp_path, kills=20, num_channels=8, longest=0.2)
    assert found["while writing"] >= 1  # measured: 63 of 100
    monkeypatch.setattr(temporary, "_swept", set())  # as in a new process
    with checkpoints_of(tmp_path, 8) as last:
        number = last.start(True, 10**6) + 1
        last.add(Epoch(number, 0.5, 0.5, None, None, 8, 1.0, 1.0), True, {})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [
        f"flip-seed-0-{number:04}.safetensors"
    ]


def test_a_better_epoch_during_a_write_is_saved_with_the_next_checkpoint(tmp_path, monkeypatch):
    save, may_write = checkpoints.save_checkpoint, Event()

    def late(path: Path, checkpoint: Checkpoint) -> None:
        may_write.wait(60)
        save(path, checkpoint)

    def epoch(number: int, accuracy: float) -> Epoch:
        return Epoch(number, 0.5, 0.5, accuracy, None, 8, 1.0, 1.0)

    monkeypatch.setattr(checkpoints, "save_checkpoint", late)
    with checkpoints_of(tmp_path, 4) as one:
        one.add(epoch(1, 0.5), False, {})
        one.cost = float("inf")
        one.add(epoch(2, 0.7), False, {})
        may_write.set()
        one.add(epoch(3, 0.6), True, {})
    assert load_weights(tmp_path / BEST)[1]["epoch"] == "2"
    assert one.unsaved_best is None
