"""A full disk: before a training, during it, and at its end. Each test has a small disk of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from shutil import disk_usage

import pytest
from conftest import load_or_skip

import run
from common.commands import checkpoints, session, train
from common.drawing.progress import TrainingProgress
from common.weights.canonical import initial_weights
from common.weights.safetensors import load_weights

ROOT = Path(__file__).parents[2]
EPOCHS = 4
pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root"
)


def on_small_disk(size: str, function: str, small_folder: Path, tmp_path: Path) -> None:
    """Call a function of this file in a process with a disk of this size, or skip where none can be mounted."""
    load_or_skip("pytorch")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs {disk} && exec "$@"'
    call = (
        f"import test_full_disk as t; t.{function}(*map(t.Path, {[str(disk), str(small_folder)]}))"
    )
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", call],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, Path(__file__).parent, ROOT / "tests")))},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"this machine cannot mount: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr


class Training:
    """A command in this process: a narrow network, a checkpoint after each epoch, and a disk that fills when told."""

    def __init__(self, disk: Path, data: Path) -> None:
        self.disk, self.filling = disk, disk / "filling"
        self.words = ["--backend", "pytorch", "--data", str(data), "--image-size", "8"]
        self.words += [
            "--batch-size",
            "8",
            "--epochs",
            str(EPOCHS),
            "--cache-dir",
            str(disk.parent),
        ]
        checkpoints.SHARE = float("inf")
        session.initial_weights = partial(initial_weights, num_channels=8)
        train.show = lambda session: None
        self.before_epoch = {}  # what to do when an epoch ends, before anything of it is saved
        TrainingProgress.on_epoch = self.on_epoch(TrainingProgress.on_epoch)

    def on_epoch(self, before):
        def wrapped(progress, epoch):
            self.before_epoch.get(epoch.epoch, lambda: None)()
            before(progress, epoch)

        return wrapped

    def fill(self) -> None:
        """Leave no room on the disk."""
        with self.filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(disk_usage(self.disk).free or 4096))

    def free(self) -> None:
        self.filling.unlink()

    def __call__(self, *words: object, code: int = 0) -> tuple[str, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            assert run.main([str(word) for word in words]) == code, err.getvalue()
        return out.getvalue(), err.getvalue()

    def new(self, name: str, code: int = 0) -> tuple[str, str]:
        return self(*self.words, "--output", self.disk / name, code=code)


def results(folder: Path) -> tuple[list, dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if "second" not in k} for line in lines]
    weights, _ = load_weights(folder / "weights.safetensors")
    return metrics, {name: weight.tobytes() for name, weight in weights.items()}


def too_small_at_the_start(disk: Path, data: Path) -> None:
    training = Training(disk, data)
    training.before_epoch[1] = lambda: sys.exit("an epoch was trained")
    _, err = training.new("out", code=2)
    assert len(err.splitlines()) == 1
    assert f"{disk / 'out'} has 6 MB of free space" in err
    assert "need 8 MB" in err


def full_for_two_epochs(disk: Path, data: Path) -> None:
    training = Training(disk, data)
    training.new("straight")
    training.before_epoch = {2: training.fill, 4: training.free}
    _, err = training.new("out")
    lines = err.splitlines()
    assert lines
    assert all(
        line.startswith("note: ") and line.endswith("the training goes on") for line in lines
    )
    assert [line for line in lines if "the disk is full" in line and "metrics.jsonl" in line]
    assert [line for line in lines if "no checkpoint of this epoch: the disk is full" in line]
    assert results(disk / "out") == results(disk / "straight")


def full_at_the_end(disk: Path, data: Path) -> None:
    training = Training(disk, data)
    training.new("straight")
    save, out = train.save_weights, disk / "out"

    def save_on_full_disk(*arguments) -> None:
        training.fill()
        save(*arguments)

    train.save_weights = save_on_full_disk
    _, err = training.new("out", code=2)
    assert err.startswith("error: the disk is full: ")
    assert "weights.safetensors was not written" in err
    train.save_weights = save
    training.free()
    training.before_epoch[1] = lambda: sys.exit("an epoch was trained again")
    text, err = training("--resume", out)
    assert "finished before: 4 epochs" in text
    assert err == ""
    assert results(out) == results(disk / "straight")


def full_from_epoch_two_to_the_end(disk: Path, data: Path) -> None:
    training = Training(disk, data)
    training.new("straight")
    out = disk / "out"
    training.before_epoch[2] = training.fill
    _, err = training.new("out", code=2)
    assert err.splitlines()[-1].startswith("error: the disk is full: ")
    assert (out / "checkpoints" / "flip-seed-0-0001.safetensors").exists()
    training.free()
    training.before_epoch.clear()
    text, _ = training("--resume", out)
    assert "goes on after epoch 1 of 4" in text
    assert results(out) == results(disk / "straight")


def too_small_for_a_copy(disk: Path, data: Path) -> None:
    training = Training(disk, data)
    training.new("out")
    training.fill()
    copy = disk.parent / "copy"  # on another disk
    training("--resume", disk / "out", "--output", copy)
    training.free()
    before = results(disk / "out")
    with training.filling.open("wb") as file:
        file.write(bytes(disk_usage(disk).free - 2_000_000))
    _, err = training("--resume", disk / "out", "--output", disk / "copy", code=2)
    assert err.startswith("error: the disk is full: ")
    assert len(err.splitlines()) == 1
    assert not (disk / "copy").exists()
    assert results(disk / "out") == before == results(copy)


@pytest.mark.parametrize(
    ("size", "stage"),
    [
        ("6m", "too_small_at_the_start"),
        ("16m", "full_for_two_epochs"),
        ("16m", "full_at_the_end"),
        ("16m", "full_from_epoch_two_to_the_end"),
        ("16m", "too_small_for_a_copy"),
    ],
)
def test_a_full_disk_loses_nothing_that_was_saved(size, stage, small_folder, tmp_path):
    on_small_disk(size, stage, small_folder, tmp_path)
