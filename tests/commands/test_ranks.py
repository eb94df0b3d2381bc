"""Several processes with folders of their own: all go on after the same epoch, or all end with an error."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from test_killed_writers import checkpoints_of

from common.commands import checkpoints, train
from common.commands.checkpoints import Checkpoints
from common.commands.processes import interrupted
from common.commands.resume import what_was_kept
from common.commands.run_folder import RunFolder
from common.config import TrainConfig
from common.errors import UserError
from common.metrics import Epoch
from common.weights.checkpoint import load_checkpoint, save_checkpoint


class Ranks:
    """Two threads that add up as the processes of an engine do."""

    def __init__(self) -> None:
        self.barrier, self.given = Barrier(2, timeout=60), [None, None]

    def of(self, rank: int) -> SimpleNamespace:
        return SimpleNamespace(
            rank=lambda: rank, num_processes=lambda: 2, total=partial(self._total, rank)
        )

    def _total(self, rank: int, values: Any) -> Any:
        self.given[rank] = np.asarray(values)
        self.barrier.wait()
        found = self.given[0] + self.given[1]
        self.barrier.wait()
        return found


def of_both(function: Callable[[int, SimpleNamespace], Any]) -> list[Any]:
    """Return what ``function`` returns in two ranks, or the text of its UserError."""
    ranks = Ranks()

    def one(rank: int) -> Any:
        try:
            return function(rank, ranks.of(rank))
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2)))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """The folder of a run with two epochs, and its copy for rank 1."""
    with mock.patch.object(Checkpoints, "_keep"), checkpoints_of(tmp_path / "0", 4) as one:
        for number in (1, 2):
            one.add(Epoch(number, 0.5, 0.5, None, None, 8, 1.0, 1.0), True, {})
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    return [tmp_path / "0", tmp_path / "1"]


def path_of(folder: Path, epoch: int) -> Path:
    return folder / "checkpoints" / f"flip-seed-0-{epoch:04}.safetensors"


def start(folders: list[Path]) -> list[int | str]:
    return of_both(
        lambda rank, processes: checkpoints_of(folders[rank], 4, processes).start(True, 9)
    )


def test_ranks_with_equal_checkpoints_go_on(folders):
    assert start(folders) == [2, 2]


@pytest.mark.parametrize("older", [0, 1])
def test_a_rank_with_an_older_checkpoint_ends_all(folders, older):
    path_of(folders[older], 2).unlink()
    shown = [1 if rank == older else 2 for rank in range(2)]
    assert start(folders) == [
        f"rank 1 and rank 0 differ in the number of finished epochs (here {number}): "
        "all go on with --resume and the same folder: copy that of rank 0"
        for number in shown
    ]


def test_a_rank_without_a_checkpoint_ends_all(folders):
    shutil.rmtree(folders[1] / "checkpoints")
    assert all("finished epochs" in found for found in start(folders))


@pytest.mark.parametrize("part", ["weights", "slots", "steps", "epochs"])
def test_a_rank_with_another_checkpoint_of_the_same_epoch_ends_all(folders, part):
    path = path_of(folders[1], 2)
    found = load_checkpoint(path)
    weights, slots = dict(found.weights), {**found.state.slots}
    if part == "weights":
        weights["conv.weight"] = weights["conv.weight"] + 1
    if part == "slots":
        name = min(slots["first"])
        slots["first"] = {**slots["first"], name: slots["first"][name] + 1}
    state = replace(found.state, slots=slots, steps=found.state.steps + (part == "steps"))
    epochs = [replace(one, train_loss=0.4) if part == "epochs" else one for one in found.epochs]
    save_checkpoint(path, replace(found, weights=weights, state=state, epochs=tuple(epochs)))
    assert all("rank 1 and rank 0 differ in the checkpoint: " in one for one in start(folders))


def test_a_damaged_checkpoint_of_one_rank_ends_all(folders):
    for number in (1, 2):
        path_of(folders[1], number).write_bytes(b"damaged")
    told, own = start(folders)
    assert own.startswith(f"no checkpoint in {folders[1] / 'checkpoints'} can be read")
    assert told == f"rank 1 failed: {own}"


def test_too_little_room_of_the_first_rank_ends_all(folders, monkeypatch):
    monkeypatch.setattr(checkpoints, "disk_usage", lambda path: SimpleNamespace(free=0))
    monkeypatch.setattr(Checkpoints, "_paths", lambda own: [])
    own, told = start(folders)
    assert f"{folders[0]} has 0 MB of free space" in own
    assert told == f"rank 0 failed: {own}"


def test_ranks_with_other_finished_trainings_of_a_comparison_end(monkeypatch):
    monkeypatch.setattr(train, "train", None)
    config = TrainConfig(compare_augmentation=True, seeds=1, num_epochs=1)

    def compare(rank: int, processes: SimpleNamespace) -> None:
        metrics = [{"augment": "none", "seed": 0, "epoch": 1}] * rank
        folder = SimpleNamespace(metrics=metrics)
        backend = SimpleNamespace(processes=processes)
        train.compare(SimpleNamespace(config=config, folder=folder, backend=backend))

    found = of_both(compare)
    assert all("rank 1 and rank 0 differ in the trainings that are left: " in one for one in found)


@pytest.mark.parametrize("command", ["train", "kaggle", "evaluate"])
def test_an_interrupted_rank_names_a_folder_that_stays(command, tmp_path):
    folder = RunFolder(tmp_path / "run", command)
    own, other = (str(interrupted(Ranks().of(rank), command, folder)) for rank in range(2))
    again = "; go on with --resume and the folder of rank 0" if command != "evaluate" else ""
    assert other == f"interrupted{again}"
    assert own == what_was_kept(command, folder)
    assert str(folder.path) in own
