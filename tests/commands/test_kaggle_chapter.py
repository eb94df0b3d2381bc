"""The whole Kaggle chapter in real processes on a small competition, from its files to a checked submission."""

import csv
import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import load_or_skip, write_competition
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

import backends
from common import cli
from common.augmentation.operations import kaggle_test_augs, kaggle_train_augs
from common.commands import kaggle, kaggle_session
from common.commands.kaggle_session import chunk_size
from common.config import KAGGLE_PRESETS, KaggleConfig, plain
from common.errors import UserError
from common.metrics import KaggleSummary
from common.weights.canonical import initial_weights

SMALL = {"--epochs": 4, "--batch-size": 8, "--lr": 0.005, "--image-size": 8, "--device": "cpu"}
SETTINGS = [word for option, value in SMALL.items() for word in (option, str(value))]


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition(tmp_path_factory.mktemp("competition") / "bright")


def run(arguments: list[str]) -> None:
    _, config = cli.parse(arguments, backends.FRAMEWORKS)
    assert kaggle.run(config, backends) == 0


@pytest.fixture(scope="module", params=list(backends.FRAMEWORKS))
def finished(request, competition, tmp_path_factory) -> tuple[str, Path]:
    """The backend's name and its finished run."""
    load_or_skip(request.param)
    out = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["--backend", request.param, "--data-dir", str(competition), "--output", str(out)]
    run(["kaggle", *arguments, *SETTINGS])
    return request.param, out


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_a_run_folder_has_the_configuration_pictures_weights_and_submission(finished):
    _, out = finished
    assert {path.name for path in out.iterdir()} - {"mistakes.png"} == {
        "augmented-images.png",
        "best.safetensors",
        "checkpoints",
        "config.json",
        "curves-train.png",
        "curves-train_valid.png",
        "metrics.jsonl",
        "predictions.png",
        "submission.csv",
        "summary.json",
        "validation.png",
        "weights.safetensors",
    }


def test_the_submission_has_the_ids_of_the_files_in_numeric_order(finished):
    """The book assigns the ids 1, 2, 3, ... by position, whatever the names of the files."""
    rows = rows_of(finished[1] / "submission.csv")
    assert rows[0] == ["id", "label"]
    assert [int(name) for name, _ in rows[1:]] == [7 * i for i in range(1, 22)]


def test_the_predictions_come_from_the_trained_network(finished, competition):
    submission = dict(rows_of(finished[1] / "submission.csv")[1:])
    answers = dict(rows_of(competition / "testLabels.csv")[1:])
    right = [submission[name] == label for name, label in answers.items()]
    summary = json.loads((finished[1] / "summary.json").read_text())
    assert summary["test"]["score"] == pytest.approx(np.mean(right))
    assert np.mean(right) >= 0.9


def test_every_validation_image_is_counted_in_its_class(finished):
    validation = json.loads((finished[1] / "summary.json").read_text())["validation"]
    confusion = np.array(validation["confusion"])
    # A tenth of the smallest class's 40 images, from each of the two classes.
    np.testing.assert_array_equal(confusion.sum(axis=1), [4, 4])
    assert list(validation["per_class"]) == ["bright", "dark"]
    assert validation["accuracy"] == pytest.approx(np.trace(confusion) / 8)
    assert validation["valid_acc"] == pytest.approx(validation["accuracy"])


def test_each_epoch_of_both_trainings_has_a_line_with_its_learning_rate(finished):
    lines = [json.loads(line) for line in (finished[1] / "metrics.jsonl").read_text().splitlines()]
    assert [(m["split"], m["epoch"]) for m in lines] == [
        (split, epoch) for split in ("train", "train_valid") for epoch in (1, 2, 3, 4)
    ]
    assert [m["lr"] for m in lines[:4]] == [0.005] * 4
    assert all("valid_acc" in m for m in lines[:4])
    assert not any("valid_acc" in m for m in lines[4:])


def test_both_trainings_use_all_of_their_images_in_each_epoch(finished):
    summary = json.loads((finished[1] / "summary.json").read_text())
    assert summary["validation"]["examples"] == 4 * 72
    assert summary["training"]["examples"] == 4 * 80


def test_the_weights_file_has_the_metadata_for_classifying_images(finished):
    path = finished[1] / "weights.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert json.loads(metadata["classes"]) == ["bright", "dark"]
    assert metadata["image_size"] == "8"
    mean, std = json.loads(metadata["normalize"])
    assert mean == [0.4914, 0.4822, 0.4465]
    assert std == [0.2023, 0.1994, 0.2010]
    assert load_file(path)["fc.weight"].shape[0] == 2


@dataclass
class Short:
    """One epoch in PyTorch: the run folder, the output, and the weights that its networks were given."""

    out: Path
    printed: str
    given: list[dict[str, np.ndarray]]


def one_epoch(competition: Path, out: Path) -> Short:
    backend, given, printed = load_or_skip("pytorch"), [], io.StringIO()
    set_weights = backend.weights.set_weights

    def keep(net, weights):
        given.append({name: weight.copy() for name, weight in weights.items()})
        set_weights(net, weights)

    arguments = ["--backend", "pytorch", "--data-dir", str(competition), *SETTINGS, "--seed", "3"]
    with mock.patch.object(backend.weights, "set_weights", keep), redirect_stdout(printed):
        run(["kaggle", *arguments, "--epochs", "1", "--output", str(out)])
    return Short(out, printed.getvalue(), given)


@pytest.fixture(scope="module")
def short(competition, tmp_path_factory) -> Short:
    return one_epoch(competition, tmp_path_factory.mktemp("short") / "out")


def test_the_output_names_the_steps_and_the_classes(short):
    for words in (
        "chapter  Kaggle CIFAR-10",
        "72 to train on, 8 to validate (4 of each class)",
        "preset  demo, with changes",
        "1. train on 72 images, validate on the rest",
        "  bright  valid acc ",
        " of 4\n",
        "2. train again on all 80 labelled images",
        "3. predict 21 test images",
        "21 rows",
        "on the 21 test images whose labels are known",
        f"results in {short.out}",
    ):
        assert words in short.printed


def test_both_trainings_start_from_the_initial_weights_of_the_seed(short):
    assert len(short.given) == 2
    for name, weight in initial_weights(2, seed=3).items():
        np.testing.assert_array_equal(short.given[0][name], weight)
        np.testing.assert_array_equal(short.given[1][name], weight)


def test_the_same_seed_gives_the_same_submission_and_metrics(short, competition, tmp_path):
    again = one_epoch(competition, tmp_path / "again")
    found = []
    for out in (short.out, again.out):
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses = [m["train_loss"] for m in metrics]
        found.append((losses, (out / "submission.csv").read_bytes()))
    assert found[0] == found[1]


def test_each_step_uses_its_images_its_augmentations_and_the_settings_of_the_run(
    competition, tmp_path, monkeypatch
):
    """Only training images are shuffled and augmented; all images are normalized."""
    backend, loaded, trained, sheets = load_or_skip("pytorch"), [], [], {}
    load_batched = backend.loaders.load_batched

    def load(dataset, augs, batch_size, is_train, seed, *rest):
        loaded.append((len(dataset), tuple(augs), batch_size, is_train, seed))
        return load_batched(dataset, augs, batch_size, is_train, seed, *rest)

    def train(net, train_iter, valid_iter, *settings):
        trained.append(
            (valid_iter is None, settings[:6])
        )  # without animator, trainer and first epoch
        return KaggleSummary(0.5, 0.5, None, 1, 1.0, 1.0, "cpu")

    def predict_labels(net, test_iter):
        return np.arange(sum(len(y) for _, y in test_iter)) % 2

    def sheet(path, images, rows, columns, title, scale, names=None, captions=None):
        sheets[path.name] = (images, names)

    monkeypatch.setattr(backend.loaders, "load_batched", load)
    monkeypatch.setattr(backend.kaggle, "train", train)
    monkeypatch.setattr(backend.kaggle, "predict_labels", predict_labels)
    monkeypatch.setattr(kaggle.image_grid, "save_sheet", sheet)
    arguments = ["--backend", "pytorch", "--data-dir", str(competition), *SETTINGS, "--seed", "5"]
    settings = ["--wd", "0.25", "--lr-period", "3", "--lr-decay", "0.125"]
    run(["kaggle", *arguments, *settings, "--output", str(tmp_path / "out")])
    augmented, plain_augs = kaggle_train_augs((8, 8)), kaggle_test_augs()
    assert sorted(loaded) == sorted(
        [
            (72, augmented, 8, True, 5),
            (8, plain_augs, 8, False, 5),  # for the accuracy after each epoch
            (8, plain_augs, 8, False, 5),  # for the accuracy of each class
            (80, augmented, 8, True, 5),
            (21, plain_augs, 8, False, 5),
        ]
    )
    expected = (4, 0.005, 0.25, [backend.devices.cpu()], 3, 0.125)
    assert trained == [(False, expected), (True, expected)]
    images, names = sheets["predictions.png"]
    assert names == (["bright", "dark"] * 11)[:21]
    assert names == [label for _, label in rows_of(tmp_path / "out" / "submission.csv")[1:]]
    for i, image in enumerate(images, start=1):
        with Image.open(competition / "test" / f"{7 * i}.png") as whole:
            np.testing.assert_array_equal(image, np.asarray(whole))
    images, names = sheets["mistakes.png"]  # of a network that was not trained
    for image, name in zip(images, names, strict=True):
        with Image.open(competition / name) as whole:
            np.testing.assert_array_equal(image, np.asarray(whole))


@pytest.mark.parametrize(
    "name",
    [
        name if name == "pytorch" else pytest.param(name, marks=pytest.mark.slow)
        for name in backends.FRAMEWORKS
    ],
)
def test_the_chapter_runs_with_the_native_pipeline(name, competition, tmp_path):
    load_or_skip(name)
    out = tmp_path / "out"
    arguments = ["--backend", name, "--data-dir", str(competition), *SETTINGS, "--epochs", "1"]
    native = ["--pipeline", "native", "--workers", "1"]
    run(["kaggle", *arguments, *native, "--output", str(out)])
    assert len(rows_of(out / "submission.csv")) == 22


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("test/14.png", "no image", r"14\.png .*put complete copies into test/"),
        ("train/9.png", "no image", r"9\.png .*put complete copies into train/"),
        ("testLabels.csv", "id,label\n8,bright\n", r"testLabels\.csv has no label for any image"),
        ("testLabels.csv", "id,label\n7\n", r"testLabels\.csv has rows that are not id,label"),
    ],
)
def test_bad_files_are_reported_before_anything_is_written(
    competition, tmp_path, file, content, words
):
    load_or_skip("pytorch")
    root = tmp_path / "spoilt"
    shutil.copytree(competition, root)
    (root / file).write_text(content)
    out = ["--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=words):
        run(["kaggle", "--backend", "pytorch", "--data-dir", str(root), *SETTINGS, *out])
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_in_its_last_step_is_an_error(competition, tmp_path):
    """The loss of that step is still finite, but the network would predict one class for all images."""
    load_or_skip("pytorch")
    arguments = ["--backend", "pytorch", "--data-dir", str(competition), *SETTINGS]
    one_step = ["--epochs", "1", "--batch-size", "72", "--lr", "1e30"]
    with pytest.raises(UserError, match=r"the logits of .* are not finite: .* try a smaller --lr"):
        run(["kaggle", *arguments, *one_step, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    assert not (tmp_path / "out" / "validation.png").exists()


def test_the_data_name_is_the_folder_s_also_for_a_dot_and_curves_show_the_learning_rate(
    competition, tmp_path, monkeypatch
):
    backend, rates = load_or_skip("pytorch"), []
    train_batch = backend.kaggle.train_batch_ch13

    def keep(net, X, y, loss, trainer, devices):
        rates.append(trainer.param_groups[0]["lr"])
        return train_batch(net, X, y, loss, trainer, devices)

    monkeypatch.setattr(backend.kaggle, "train_batch_ch13", keep)
    monkeypatch.chdir(competition)
    falling = ["--epochs", "3", "--lr-period", "1", "--lr-decay", "0.5"]
    arguments = ["--backend", "pytorch", "--data-dir", ".", *SETTINGS, *falling]
    run(["kaggle", *arguments, "--output", str(tmp_path / "out")])
    with safe_open(tmp_path / "out" / "weights.safetensors", framework="numpy") as file:
        assert file.metadata()["data"] == competition.name
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert [m["lr"] for m in lines] == [0.005, 0.0025, 0.00125] * 2
    assert rates == [lr for n in (9, 10) for lr in (0.005, 0.0025, 0.00125) for _ in range(n)]


def test_predictions_do_not_depend_on_the_chunk_size(finished, competition, tmp_path):
    """Also: the time of the prediction does not include drawing its picture, which may take longer."""
    name, out = finished
    backend, events = load_or_skip(name), []
    shown = tmp_path / "again"

    class Clock(kaggle.Timer):
        def stop(self):
            events.append("stop")
            return super().stop()

    draw = kaggle._draw_predictions

    def drawn(session, labels):
        events.append("draw")
        draw(session, labels)

    def trained(session):
        net = backend.resnet.resnet18(2)
        backend.weights.set_weights(net, load_file(out / "weights.safetensors"))
        net = backend.trainer.prepare(net, session.devices)
        summary = KaggleSummary(0.1, 0.9, None, 1, 1.0, 1.0, "cpu")
        return net, summary

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kaggle_session, "CHUNK_IMAGES", 8)
        patch.setattr(kaggle, "Timer", Clock)
        patch.setattr(kaggle, "_draw_predictions", drawn)
        patch.setattr(kaggle, "_validate", lambda session: {})
        patch.setattr(kaggle, "_retrain", trained)
        arguments = ["--backend", name, "--data-dir", str(competition), *SETTINGS]
        run(["kaggle", *arguments, "--output", str(shown)])
    assert (shown / "submission.csv").read_bytes() == (out / "submission.csv").read_bytes()
    assert events == ["stop", "draw"]


def test_ctrl_c_keeps_the_epochs_and_the_validation_so_far_and_says_where(
    competition, tmp_path, monkeypatch
):
    load_or_skip("pytorch")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(kaggle, "_retrain", interrupted)
    out = tmp_path / "out"
    arguments = ["--backend", "pytorch", "--data-dir", str(competition), *SETTINGS]
    with pytest.raises(KeyboardInterrupt, match=f"1 finished epoch, kept in {out}"):
        run(["kaggle", *arguments, "--epochs", "1", "--output", str(out)])
    assert (out / "metrics.jsonl").exists()
    assert "per_class" in json.loads((out / "summary.json").read_text())["validation"]
    assert not (out / "submission.csv").exists()


# --- Settings --------------------------------------------------------------------------------------------------------


def config_of(text: str) -> KaggleConfig:
    return cli.parse(["kaggle", *text.split()], backends.FRAMEWORKS)[1]


def test_the_demo_preset_has_the_book_s_settings():
    config = config_of("--backend pytorch --data-dir d")
    assert config.preset == "demo"
    assert (config.num_epochs, config.batch_size, config.valid_ratio) == (20, 32, 0.1)
    assert (config.lr, config.wd, config.lr_period, config.lr_decay) == (0.02, 5e-4, 4, 0.9)


def test_the_book_preset_has_the_settings_of_the_exercise():
    config = config_of("--backend pytorch --data-dir d --preset book")
    assert (config.num_epochs, config.batch_size) == (100, 128)
    assert (config.lr, config.wd, config.lr_period, config.lr_decay) == (0.1, 5e-4, 50, 0.1)


@pytest.mark.parametrize(
    ("size", "batch", "n"), [(32, 32, 1024), (32, 96, 960), (512, 16, 80), (4096, 7, 7)]
)
def test_chunks_are_whole_batches_and_smaller_for_large_images(size, batch, n):
    config = config_of(f"--backend pytorch --data-dir d --image-size {size} --batch-size {batch}")
    assert chunk_size(config) == n


def test_every_hyperparameter_is_an_option():
    config = config_of(
        "--backend pytorch --data-dir d --valid-ratio 0.25 --image-size 48 --epochs 3 --lr 0.5 --lr-period 2 "
        "--lr-decay 0.5 --wd 0.001 --batch-size 8 --precision bf16 --compile --pipeline native --workers 0 "
        "--device cpu --processes 2 --sync-batch-norm --output o --seed 7"
    )
    assert plain(config) == {
        "backend": "pytorch",
        "preset": "demo",
        "data_dir": "d",
        "valid_ratio": 0.25,
        "image_size": 48,
        "num_epochs": 3,
        "lr": 0.5,
        "lr_period": 2,
        "lr_decay": 0.5,
        "wd": 0.001,
        "batch_size": 8,
        "precision": "bf16",
        "compile": True,
        "pipeline": "native",
        "workers": 0,
        "processes": 2,
        "sync_batch_norm": True,
        "device": "cpu",
        "output": "o",
        "resume": None,
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--valid-ratio 1", "--valid-ratio 1"),
        ("--lr 0", "--lr 0"),
        ("--wd -1", "--wd -1"),
        ("--lr-period 0", "--lr-period 0"),
        ("--lr-decay 0", "--lr-decay 0"),
        ("--lr-decay 2", "--lr-decay 2"),
        ("--image-size 4", "--image-size 4: must be from 8 to 4096 pixels"),
        ("--image-size 4097", "--image-size 4097: must be from 8 to 4096 pixels"),
        ("--batch-size 0", "--batch-size 0"),
        ("--preset none", "--preset"),
        ("--augment flip", "--augment"),
    ],
)
def test_an_invalid_option_raises_one_line_that_names_it(options, message):
    with pytest.raises(UserError) as error:
        config_of(f"--backend pytorch --data-dir d {options}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_batch_larger_than_the_images_is_refused_before_anything_is_written(
    competition, tmp_path
):
    load_or_skip("pytorch")
    arguments = ["--backend", "pytorch", "--data-dir", str(competition), *SETTINGS]
    with pytest.raises(UserError, match="--batch-size 73 is larger than the 72 training images"):
        run(["kaggle", *arguments, "--batch-size", "73", "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_each_kaggle_preset_has_its_own_name():
    assert {name: config.preset for name, config in KAGGLE_PRESETS.items()} == {
        name: name for name in KAGGLE_PRESETS
    }
