"""`--resume`: options that may change, refusals in one line, and the line about a changed machine or version."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import load_or_skip, write_competition
from killed_runs import results
from PIL import Image
from test_run import refused

import run
from common.commands import checkpoints, kaggle, resume, session
from common.config import TrainConfig
from common.errors import UserNotice
from common.weights.canonical import LAST_LAYER, initial_weights
from common.weights.checkpoint import load_checkpoint, save_checkpoint
from common.weights.safetensors import load_weights

SMALL = ["--image-size", 8, "--batch-size", 8, "--lr", 0.001]
Command = Callable[..., tuple[int, str, str]]
FLIP = "flip-seed-0"


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """Small networks, a checkpoint after each epoch, and no pictures of augmentations."""
    weights = partial(initial_weights, num_channels=4)
    with (
        mock.patch.object(session, "initial_weights", weights),
        mock.patch.object(kaggle, "initial_weights", weights),
        mock.patch.object(checkpoints, "SHARE", float("inf")),
        mock.patch("common.commands.train.show"),
        mock.patch("common.commands.kaggle.save_augmented"),
    ):
        yield


@pytest.fixture(scope="module")
def made(small_folder, tmp_path_factory) -> Path:
    """A folder with finished runs of PyTorch, and their data."""
    load_or_skip("pytorch")
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(small_folder, folder / "images")
    write_competition(folder / "bright")
    own = ["--backend", "pytorch", *SMALL, "--epochs", 2, "--output"]
    data = ["--data", folder / "images", "--cache-dir", folder / "data"]
    for words in (
        [*own, folder / "train", *data],
        [*own, folder / "constant", *data, "--lr-end-factor", 1],
        [*own, folder / "compare", *data, "--compare-augmentation", "--seeds", 1],
        ["kaggle", *own, folder / "kaggle", "--data-dir", folder / "bright"],
    ):
        assert run.main([str(word) for word in words]) == 0
    return folder


@pytest.fixture
def command(capsys) -> Command:
    """Run a command in this process; return the exit code and both outputs."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy of the finished run."""
    return copy(made / "train", tmp_path / "run")


def copy(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def rewrite(folder: Path, *place: str, value: Any) -> None:
    """Change a value in ``config.json``."""
    content = json.loads((folder / "config.json").read_text())
    inner = content
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (folder / "config.json").write_text(json.dumps(content))


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_is_not_trained_again(folder, made, command, monkeypatch):
    (folder / "weights.safetensors").unlink()
    monkeypatch.setattr("common.commands.train._train", None)
    code, out, err = command("--resume", folder)
    assert code == 0, err
    assert "finished before: 2 epochs" in out
    assert results(folder) == results(made / "train")


# --- What may be given with it ---------------------------------------------------------------------------------------


def test_with_more_epochs_a_run_ends_as_one_that_had_them_from_the_start(
    made, tmp_path, command, small_folder
):
    folder = copy(made / "constant", tmp_path / "run")
    code, out, err = command("--resume", folder, "--epochs", 4)
    assert code == 0, err
    assert f" resume  {folder}, bit for bit\n" in out
    options = ["--data", made / "images", "--cache-dir", made / "data", "--lr-end-factor", 1]
    code, _, err = command(
        *("--backend", "pytorch", *SMALL, *options, "--epochs", 4, "--output", tmp_path / "four")
    )
    assert code == 0, err
    assert results(folder) == results(tmp_path / "four")


def test_kaggle_with_more_epochs_ends_as_one_that_had_them_from_the_start(made, tmp_path, command):
    folder = copy(made / "kaggle", tmp_path / "run")
    code, _, err = command("kaggle", "--resume", folder, "--epochs", 3)
    assert code == 0, err
    own = ["--backend", "pytorch", *SMALL, "--data-dir", made / "bright", "--epochs", 3]
    code, _, err = command("kaggle", *own, "--output", tmp_path / "three")
    assert code == 0, err
    assert results(folder) == results(tmp_path / "three")


def test_a_rate_that_falls_over_more_epochs_is_said(folder, command):
    code, out, _ = command("--resume", folder, "--epochs", 3)
    assert code == 0
    assert f"{folder}, not bit for bit: the learning rate falls over more epochs\n" in out
    rates = [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([0.001, 0.001 * 0.6**4, 0.001 * 0.6**4])


def test_with_an_output_the_folder_is_copied_and_stays_as_it_was(folder, made, tmp_path, command):
    before = content(folder)
    (folder / ".three-tabs-killed" / "new").mkdir(parents=True)
    code, out, err = command("--resume", folder, "--output", tmp_path / "copy", "--epochs", 3)
    assert code == 0, err
    assert content(folder) == before
    assert len(results(tmp_path / "copy")["metrics"]) == 3
    assert f"results in {tmp_path / 'copy'}\n" in out
    assert not list((tmp_path / "copy").glob(".*"))


@pytest.mark.parametrize("below", ["copy", "checkpoints/copy"])
def test_a_copy_into_the_folder_itself_is_refused(folder, command, below):
    refused(command("--resume", folder, "--output", folder / below), "choose another --output")
    assert not (folder / below).exists()


def test_a_run_goes_on_in_another_framework(folder, command):
    load_or_skip("mxnet")
    code, out, err = command("--resume", folder, "--epochs", 3, "--backend", "mxnet")
    assert code == 0, err
    assert f" resume  {folder}, not bit for bit: backend mxnet" in out
    assert [line["epoch"] for line in results(folder)["metrics"]] == [1, 2, 3]
    assert load_weights(folder / "weights.safetensors")[1]["backend"] == "mxnet"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("description", "threads"), "64", ", before 64"),
        (("description", "device"), "cuda:0: one", ", before cuda:0: one"),
        (("description", "backend"), "pytorch (torch 1.0)", ", before pytorch (torch 1.0)"),
        (("description", "instructions"), "AVX9", ", before AVX9"),
        (("versions", "numpy"), "1.0", ", before 1.0"),
    ],
)
def test_another_machine_or_version_is_said_in_one_line(folder, command, place, value, words):
    rewrite(folder, *place, value=value)
    code, out, err = command("--resume", folder)
    assert code == 0, err
    (line,) = (line for line in out.splitlines() if "bit for bit" in line)
    assert line.strip().startswith(f"resume  {folder}, not bit for bit: {place[-1]} ")
    assert line.endswith(words)


@pytest.mark.parametrize(
    ("processes", "device", "line"),
    [
        (2, "cpu: one", "runs/x, bit for bit"),
        (3, "cpu: one", "not bit for bit: more than two processes add in another order"),
        (1, "cuda:0: one", "not bit for bit: a GPU may add in another order"),
        (2, "gpu(0), gpu(1)", "not bit for bit: a GPU may add in another order"),
    ],
)
def test_sums_in_no_fixed_order_are_not_bit_for_bit(processes, device, line, monkeypatch):
    record = {
        "description": {"device": device},
        "config": {"processes": processes, "num_epochs": 2},
        "versions": {},
    }
    monkeypatch.setattr(resume, "read_config", lambda folder: record)
    found = resume.describe_resume(TrainConfig(resume=Path("runs/x")), record)
    assert found["resume"].endswith(line)


def test_the_variables_of_an_engine_say_how_many_processes_go_on(folder, command, monkeypatch):
    rewrite(folder, "config", "processes", value=2)
    own = {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, text in own.items():
        monkeypatch.setenv(name, text)
    code, out, err = command("--resume", folder)
    assert (code, err) == (0, "")
    assert "processes 1, before 2" in out
    refused(
        command("--resume", folder, "--processes", 2),
        "--processes 2: the environment variable WORLD_SIZE starts 1",
    )


# --- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--batch-size", 4],
        ["--data", "shapes"],
        ["--limit", 20],
        ["--augment", "none"],
        ["--lr", 1],
        ["--seed", 1],
        ["--precision", "fp32"],
        ["--pipeline", "native"],
        ["--compare-augmentation"],
        ["--preset", "book"],
        ["--weights", "w.safetensors"],
    ],
)
def test_another_option_is_refused_by_name(folder, command, words):
    before = content(folder)
    refused(command("--resume", folder, *words), "takes the options of", f"leave out {words[0]}")
    assert content(folder) == before


def test_fewer_epochs_are_refused(folder, command):
    refused(command("--resume", folder, "--epochs", 1), "less than the 2")


def test_more_epochs_for_a_comparison_are_refused(made, command):
    refused(command("--resume", made / "compare", "--epochs", 3), "cannot be prolonged")


def test_each_command_names_the_other_for_its_run(made, command):
    kaggle, train = made / "kaggle", made / "train"
    refused(command("--resume", kaggle), f"python run.py kaggle --resume {kaggle}")
    refused(command("kaggle", "--resume", train), f"python run.py --resume {train}")


@pytest.mark.parametrize("backend", ["all", "mxnet,pytorch"])
def test_a_run_of_one_framework_does_not_go_on_in_several(folder, command, backend):
    refused(command("--resume", folder, "--backend", backend), "one framework")


def test_changed_images_are_refused(made, folder, tmp_path, command):
    images = copy(made / "images", tmp_path / "images")
    rewrite(folder, "config", "data", "name", value=str(images))
    assert command("--resume", folder)[0] == 0  # the same images elsewhere
    picture = sorted(images.glob("test/*/*.png"))[0]
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    before = content(folder)
    refused(command("--resume", folder), "the images of that run were others than now")
    assert content(folder) == before


def test_other_random_decisions_are_refused(folder, command, monkeypatch):
    real = resume.decide
    monkeypatch.setattr(resume, "decide", lambda augs, order, *rest: real(augs, order + 1, *rest))
    refused(command("--resume", folder), "the random decisions of that run were others")


def test_what_is_not_a_run_is_refused(tmp_path, folder, command):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for path in (
        tmp_path / "empty",
        tmp_path / "file",
        tmp_path / "missing",
        tmp_path / ("x" * 300),
    ):
        refused(command("--resume", path), "cannot read", "runs/NAME")
    rewrite(folder, "command", value="evaluate")
    refused(command("--resume", folder), "a run of evaluate cannot be resumed")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1, 2]",
        b"null",
        b"7",
        b"[" * 100_000,
        b'{"command": "train"}',
        b'{"command": ["train"], "config": {}}',
        b'{"command": "train", "config": []}',
        b'{"command": "train", "config": {}, "description": {}, "versions": {}, "digests": []}',
        b'{"command": "train", "config": {}, "description": {}, "versions": {}, "digests": {}}',
        b'{"command": "train", "config": {}, "backends": 3, "arguments": []}',
    ],
)
def test_a_damaged_config_is_refused(folder, command, text):
    (folder / "config.json").write_bytes(text)
    refused(command("--resume", folder), "config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", -1),
        ("num_epochs", 2.5),
        ("num_epochs", True),
        ("num_epochs", None),
        ("num_epochs", "2"),
        ("batch_size", 0),
        ("batch_size", 2**63),
        ("pipeline", "other"),
        ("precision", "fp8"),
        ("preset", "mine"),
        ("backend", "../pytorch"),
        ("backend", ["pytorch"]),
        ("augment", "flip,\n\x1b[2J"),
        ("seed", 2**40),
        ("workers", -1),
        ("weights", 3),
        ("weights", "a\0b"),
        ("image", "a\0b"),
        ("adam", None),
        ("adam", {"lr": 0.1}),
        ("data", []),
    ],
)
def test_a_config_with_values_that_no_run_has_is_refused(folder, command, name, value):
    rewrite(folder, "config", name, value=value)
    refused(command("--resume", folder))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", float("nan")),
        pytest.param("lr", 10**400, id="lr-huge"),
        ("lr", "0.1"),
        ("betas", [2.0, 2.0]),
        ("betas", [0.9]),
        ("betas", 0.9),
        ("eps", 1.0),
    ],
)
def test_an_optimizer_that_no_run_has_is_refused(folder, command, name, value):
    rewrite(folder, "config", "adam", name, value=value)
    refused(command("--resume", folder))


def test_damaged_metrics_are_refused_and_come_back_from_the_checkpoint(folder, made, command):
    for text in (b"{", b"\xff", b"3\n", b"[" * 100_000):
        (folder / "metrics.jsonl").write_bytes(text)
        refused(command("--resume", folder), "metrics.jsonl is damaged: remove it")
    (folder / "metrics.jsonl").unlink()
    assert command("--resume", folder)[0] == 0
    assert results(folder) == results(made / "train")


# --- Checkpoints that do not fit -------------------------------------------------------------------------------------


def after(folder: Path, epoch: int, name: str = FLIP) -> Path:
    return folder / "checkpoints" / f"{name}-{epoch:04}.safetensors"


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(folder, made, tmp_path, command):
    with mock.patch.object(checkpoints.Checkpoints, "_keep"):  # all of them
        own = ["--data", made / "images", "--cache-dir", made / "data", "--backend", "pytorch"]
        assert command(*own, *SMALL, "--epochs", 2, "--output", tmp_path / "two")[0] == 0
    two = tmp_path / "two"
    damaged = bytearray(after(two, 2).read_bytes())
    damaged[-1] ^= 1
    after(two, 2).write_bytes(damaged)
    with pytest.warns(UserNotice) as notices:
        code, out, err = command("--resume", two)
    assert code == 0, err
    (notice,) = (str(notice.message) for notice in notices)
    assert notice.startswith(f"{after(two, 2)} is damaged, or was changed")
    assert notice.endswith(f"; the training goes on from {after(two, 1).name}")
    assert "goes on after epoch 1 of 2" in out
    assert results(two) == results(made / "train")


def test_if_no_checkpoint_can_be_read_nothing_is_removed(folder, command):
    """It may be from a newer version, and training from the start would replace it."""
    after(folder, 2).write_bytes(b"from another version")
    before = after(folder, 2).read_bytes()
    refused(command("--resume", folder), "no checkpoint in", "remove that folder to train from the")
    assert after(folder, 2).read_bytes() == before


def test_a_run_without_a_checkpoint_starts_again(folder, made, command):
    shutil.rmtree(folder / "checkpoints")
    code, out, err = command("--resume", folder)
    assert code == 0, err
    assert "epoch 1/2" in out
    assert results(folder) == results(made / "train")


def test_files_with_other_names_are_not_read(folder, made, command):
    for name in (
        f"{FLIP}-copy.safetensors",
        f"{FLIP}-²²²².safetensors",
        "flip-seed-1-0009.safetensors",
    ):
        (folder / "checkpoints" / name).write_bytes(b"mine")
    code, _, err = command("--resume", folder)
    assert (code, err) == (0, "")
    assert len(list((folder / "checkpoints").iterdir())) == 4


def test_a_checkpoint_of_another_training_is_refused(folder, made, command):
    own = load_checkpoint(after(folder, 2))
    after(folder, 2).unlink()
    save_checkpoint(after(folder, 3), own)
    refused(command("--resume", folder), "is a checkpoint after epoch 2")
    after(folder, 3).unlink()
    sgd = load_checkpoint(after(made / "kaggle", 2, "train"))
    save_checkpoint(after(folder, 2), sgd)
    refused(command("--resume", folder), "is a checkpoint of another optimizer")
    slots = {slot: {n: arrays[n] for n in LAST_LAYER} for slot, arrays in own.state.slots.items()}
    frozen = replace(own, state=replace(own.state, slots=slots))  # only the last layer was trained
    save_checkpoint(after(folder, 2), frozen)
    refused(command("--resume", folder), "is a checkpoint of another optimizer")
    with mock.patch.object(session, "initial_weights", partial(initial_weights, num_channels=8)):
        refused(command("--resume", folder), "is a checkpoint of another network")


# --- Several backends ------------------------------------------------------------------------------------------------


def test_a_run_with_more_epochs_is_not_finished_because_it_was_before(folder, command):
    config = TrainConfig(num_epochs=2)
    assert resume.is_finished(folder, config)
    with mock.patch("common.commands.train._train", side_effect=KeyboardInterrupt):
        assert command("--resume", folder, "--epochs", 3)[0] == 130
    assert not resume.is_finished(folder, replace(config, num_epochs=3))
    assert command("--resume", folder)[0] == 0
    assert resume.is_finished(folder, replace(config, num_epochs=3))


@pytest.mark.parametrize("text", ["", "[", "3", "[1]", "null"])
def test_a_run_with_a_damaged_summary_is_not_finished(folder, text):
    (folder / "summary.json").write_text(text)
    assert not resume.is_finished(folder, TrainConfig(num_epochs=2))
