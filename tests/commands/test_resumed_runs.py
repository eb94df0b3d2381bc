"""Real runs that are killed or interrupted, and resumed, end as one that ran through, bit for bit."""

import json
import random
import shutil
import signal
from pathlib import Path

import pytest
from conftest import skip_unless_installed, write_competition
from killed_runs import Runs, results, without_times

import backends

TRAIN = [
    "--image-size",
    8,
    "--batch-size",
    4,
    "--lr",
    0.001,
    "--epochs",
    3,
    "--augment",
    "flip,crop",
]
KAGGLE = [
    *("--image-size", 8, "--batch-size", 8, "--lr", 0.001, "--epochs", 3),
    *("--lr-period", 1, "--lr-decay", 0.6, "--device", "cpu"),
]  # fmt: skip
NATIVE = ["--pipeline", "native", "--workers", 2]
NAMES = list(backends.FRAMEWORKS)
pytestmark = pytest.mark.timeout(1800)  # a test starts up to five processes, one after another


@pytest.fixture(autouse=True)
def removed(tmp_path):
    """Remove the runs of a test, since pytest keeps its folders."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def competition(tmp_path_factory) -> Path:
    return write_competition(tmp_path_factory.mktemp("competition") / "bright")


def chapter_one(folder: Path, small_folder: Path, *options: object) -> Runs:
    return Runs(folder, "--data", small_folder, *TRAIN, "--cache-dir", folder / "data", *options)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_training_that_was_killed_once_or_interrupted_twice_ends_as_one_that_ran_through(
    name, small_folder, tmp_path
):
    """With the native pipeline; Kaggle's has the batched one, and contract/test_resume.py has all four pairs."""
    skip_unless_installed(name)
    runs = chapter_one(tmp_path, small_folder, "--backend", name, *NATIVE)
    straight = results(runs.new("straight"))
    once, twice = tmp_path / "once", tmp_path / "twice"
    runs.killed("once flip,crop-seed-0 2", signal.SIGKILL, once)
    assert not (once / "summary.json").exists()
    shutil.copytree(once, twice)
    out, _ = runs.resume(once)
    assert f" resume  {once}, bit for bit\n" in out
    assert "goes on after epoch 1 of 3\n" in out
    assert results(once) == straight
    err = runs.killed("twice flip,crop-seed-0 3", signal.SIGINT, twice)
    assert f"go on with: python run.py --resume {twice}" in err
    runs.resume(twice)
    assert results(twice) == straight


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_kaggle_run_killed_in_both_trainings_and_in_the_prediction_ends_as_one_that_ran_through(
    name, competition, tmp_path
):
    skip_unless_installed(name)
    data = ["--data-dir", competition, "--backend", name]
    runs = Runs(tmp_path, "kaggle", *data, *KAGGLE)
    straight = results(runs.new("straight"))
    out = tmp_path / "out"
    runs.killed("out train 2", signal.SIGKILL, out)
    err = runs.killed("out train_valid 2", signal.SIGTERM, out)
    assert f"go on with: python run.py kaggle --resume {out}" in err
    runs.killed("submission", signal.SIGKILL, out)
    text, _ = runs.resume(out)
    assert text.count("finished before: 3 epochs") == 2
    assert results(out) == straight


@pytest.mark.slow
def test_a_training_killed_five_times_at_random_moments_ends_as_one_that_ran_through(
    small_folder, tmp_path
):
    skip_unless_installed("pytorch")
    runs = chapter_one(tmp_path, small_folder, "--backend", "pytorch", "--epochs", 12)
    straight, moments = results(runs.new("straight")), random.Random(0)
    killed = [runs.killed_at_random(moments.uniform(0, 0.5), tmp_path / "out") for _ in range(5)]
    assert killed[0]
    runs.resume(tmp_path / "out")
    assert results(tmp_path / "out") == straight


@pytest.mark.slow
@pytest.mark.parametrize("place", ["flip-seed-0 2", "none-seed-1 2"])
def test_a_comparison_that_was_killed_skips_what_is_finished(place, small_folder, tmp_path):
    skip_unless_installed("pytorch")
    options = ["--backend", "pytorch", "--compare-augmentation", "--seeds", 2, "--augment", "flip"]
    runs = chapter_one(tmp_path, small_folder, *options)
    straight = results(runs.new("straight"))
    runs.killed(f"out {place}", signal.SIGKILL, tmp_path / "out")
    out, _ = runs.resume(tmp_path / "out")
    first = ["none, seed 0:", "flip, seed 0:", "none, seed 1:", "flip, seed 1:"]
    first = first[first.index(f"{place[:4]}, seed {place[10]}:") :]
    trained = [line.partition(" epoch ")[0] for line in out.splitlines() if " epoch 3/3 " in line]
    assert trained == first
    assert f"{first[0]} goes on after epoch 1 of 3\n" in out
    assert results(tmp_path / "out") == straight


@pytest.mark.slow
def test_two_backends_that_were_killed_skip_what_is_finished(small_folder, tmp_path):
    for name in ("mxnet", "pytorch"):
        skip_unless_installed(name)
    runs = chapter_one(tmp_path, small_folder, "--backend", "mxnet,pytorch")
    straight = runs.new("straight")
    out = tmp_path / "out"
    runs.killed("pytorch flip,crop-seed-0 2", signal.SIGTERM, out)
    text, _ = runs.resume(out)
    assert "mxnet, 1 of 2\nfinished before\n" in text
    assert "goes on after epoch 1 of 3\n" in text
    for name in ("mxnet", "pytorch"):
        assert results(out / name) == results(straight / name)
    one, other = (
        without_times(json.loads((folder / "comparison.json").read_text())["backends"])
        for folder in (out, straight)
    )
    assert one == other
