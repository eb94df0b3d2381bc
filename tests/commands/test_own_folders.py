"""Folders of one's own images on the command line: what the header says, few images, held-out images."""

import contextlib
import inspect
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import bright_dataset, load_or_skip
from PIL import Image

import backends
import run
from common.commands.session import session_of
from common.config import DataConfig, TrainConfig, plain, restored
from common.datasets import load_data
from common.errors import UserError, UserNotice
from common.interface import Backend, Framework
from common.weights.canonical import initial_weights
from common.weights.safetensors import save_weights


def write(root: Path, count: int) -> Path:
    """Write class folders with ``count`` images of 8 x 8 in all."""
    images = bright_dataset(count, 0)
    for i, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
        folder = root / images.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return root


@pytest.fixture
def frameworks() -> mock.Mock:
    """The registry of one backend that computes nothing."""
    protocols = inspect.get_annotations(Backend, eval_str=True)
    files = {
        name: mock.create_autospec(protocol, instance=True)
        for name, protocol in protocols.items()
        if name != "framework"
    }
    backend = Backend(Framework("notes", "Notes", ()), **files)
    backend.processes.rank.return_value = 0
    backend.processes.num_processes.return_value = 1
    backend.processes.total.side_effect = lambda values: values
    backend.devices.get_devices.return_value = ["cpu"]
    backend.devices.num_gpus.return_value = 0
    backend.devices.describe.return_value = {"device": "a device"}
    loaded = mock.Mock(FRAMEWORKS={}, **{"load.return_value": backend})
    loaded.load_several.return_value = {"notes": backend}
    return loaded


def config_of(folder: Path, tmp_path: Path, **options: object) -> TrainConfig:
    data = DataConfig(name=str(folder), cache_dir=tmp_path, image_size=16)
    return TrainConfig(
        backend="notes", batch_size=16, data=data, output=tmp_path / "run", **options
    )


@pytest.mark.parametrize(
    ("count", "batch", "line"),
    [
        (12, 10, "batch 10 (all training images; the preset's 16 are more), "),
        (22, 16, "batch 16, "),
    ],
)
def test_fewer_images_than_a_batch_are_one_batch(
    frameworks, tmp_path, capsys, count: int, batch: int, line: str
):
    config = config_of(write(tmp_path / "photos", count), tmp_path)
    with session_of("train", config, frameworks) as session:
        assert session.config == replace(config, batch_size=batch)
        assert plain(session.config) == plain(restored(TrainConfig, plain(session.config)))
    assert f"training  ResNet-18, {line}" in capsys.readouterr().out
    recorded = json.loads((tmp_path / "run/config.json").read_text())
    assert recorded["config"]["batch_size"] == batch


def test_a_larger_batch_that_was_asked_for_is_an_error(frameworks, tmp_path):
    config = replace(config_of(write(tmp_path / "photos", 12), tmp_path), batch_size=11)
    with (
        pytest.raises(UserError, match="--batch-size 11 is larger than the 10 training images"),
        session_of("train", config, frameworks),
    ):
        pass


def test_the_header_says_where_validation_images_come_from(frameworks, tmp_path, capsys):
    folder = write(tmp_path / "photos", 20)
    data = replace(config_of(folder, tmp_path).data, valid_ratio=0.3)
    config = replace(config_of(folder, tmp_path), data=data, seed=4)
    with session_of("train", config, frameworks):
        pass
    expected = (
        f"data  {folder}: 14 training images, 6 validation images (0.3 of each class, drawn with seed 4), "
        "16 x 16, 2 classes"
    )
    assert expected in capsys.readouterr().out


def test_an_evaluation_uses_the_test_images_and_a_training_the_validation_images(
    frameworks, tmp_path, capsys
):
    for split, count in (("train", 20), ("val", 6), ("test", 4)):
        write(tmp_path / "photos" / split, count)
    save_weights(tmp_path / "w.safetensors", initial_weights(2), {})
    expected = {
        "train": ("valid", 6, "6 validation images (val/; test/ is for evaluate), "),
        "evaluate": ("test", 4, "4 test images, "),
    }
    for command, (held_out, count, words) in expected.items():
        config = config_of(tmp_path / "photos", tmp_path, weights=tmp_path / "w.safetensors")
        config = replace(config, output=tmp_path / command)
        with session_of(command, config, frameworks) as session:
            assert (session.data.held_out, len(session.data.test)) == (held_out, count)
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("change", ["", "seed", "one image more", "another ratio"])
def test_an_evaluation_on_images_that_were_trained_on_is_refused(frameworks, tmp_path, change: str):
    """A draw of other images, from the same folder or from one that has grown."""
    folder = write(tmp_path / "photos", 20)
    held_out = None if change != "another ratio" else 0.5
    trained = load_data(str(folder), data_dir=tmp_path, valid_ratio=held_out)
    about = {"data": "photos", "train_files": trained.train_files}
    save_weights(tmp_path / "w.safetensors", initial_weights(2), about)
    if change == "one image more":
        shutil.copy(next((folder / "dark").iterdir()), folder / "dark/one-more.png")
    seed = int(change == "seed")
    config = config_of(folder, tmp_path, weights=tmp_path / "w.safetensors", seed=seed)
    message = "were trained on other images of photos"
    refused = pytest.raises(UserError, match=message) if change else contextlib.nullcontext()
    with refused, session_of("evaluate", config, frameworks):
        pass
    told = pytest.warns(UserNotice, match=message) if change else contextlib.nullcontext()
    with told, session_of("train", replace(config, output=tmp_path / "trained"), frameworks):
        pass


# TensorFlow traces the network for both sizes of a batch.
SLOW = {"tensorflow": [pytest.mark.slow]}


@pytest.fixture(params=[pytest.param(n, marks=SLOW.get(n, [])) for n in backends.FRAMEWORKS])
def name(request: pytest.FixtureRequest) -> str:
    load_or_skip(request.param)
    return request.param


def test_twenty_images_without_a_split_train_in_two_batches_the_last_of_one_image(name, tmp_path):
    """The defaults but for the size and the epochs: 21 images, 17 to train on, in batches of 16."""
    folder, output = write(tmp_path / "photos", 20), tmp_path / "run"
    (folder / "dark/more").mkdir()
    extra = Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    extra.save(folder / "dark/more/x.png")
    words = ["--backend", name, "--data", folder, "--image-size", 16, "--epochs", 1]
    words += ["--cache-dir", tmp_path / "data", "--output", output]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run.main([str(word) for word in words]) == 0
    assert "17 training images, 4 validation images (0.2 of each class, dr" in out.getvalue()
    (line,) = (output / "metrics.jsonl").read_text().splitlines()
    assert np.isfinite(json.loads(line)["train_loss"])
