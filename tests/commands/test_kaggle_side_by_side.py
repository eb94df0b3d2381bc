"""The comparison of several backends' submissions: the numbers, the output and the pictures."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from conftest import write_competition
from PIL import Image
from rich.console import Console
from test_all_backends import everything, finish, start  # noqa: F401 - a fixture
from test_kaggle_chapter import SETTINGS

import backends
from common import cli
from common.commands import kaggle_side_by_side
from common.commands.kaggle_side_by_side import agreements, disagreements, share_all_agree
from common.commands.run_folder import RunFolder
from common.datasets.kaggle import reorg_cifar10_data
from common.datasets.submission import check_submission, read_submission, write_submission
from common.interface import Framework
from common.metrics import Confusion, KaggleSummary

NAMES = list(backends.FRAMEWORKS)
LABELS = {
    "a": {"1": "cat", "2": "dog", "3": "cat", "10": "cow"},
    "b": {"1": "cat", "2": "cat", "3": "cat", "10": "dog"},
    "c": {"1": "cat", "2": "dog", "3": "dog", "10": "cat"},
}


def test_agreement_is_the_share_of_equal_labels_for_each_pair():
    assert agreements(LABELS) == {("a", "b"): 0.5, ("a", "c"): 0.5, ("b", "c"): 0.25}
    assert share_all_agree(LABELS) == 0.25


def test_images_with_most_different_labels_come_first():
    assert disagreements(LABELS) == ["10", "2", "3"]


def test_a_share_below_one_is_never_printed_as_1_000():
    assert [kaggle_side_by_side._written(share) for share in (0, 0.0016, 0.9996, 1)] == [
        "0.000", "0.002", "0.999", "1.000",
    ]  # fmt: skip


def test_equal_submissions_agree_on_all():
    same = dict.fromkeys("abc", LABELS["a"])
    assert disagreements(same) == []
    assert share_all_agree(same) == 1
    assert set(agreements(same).values()) == {1}


def test_the_confusion_matrix_counts_labels_and_predictions():
    labels, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 2, 1, 0])
    confusion = Confusion.of(labels, predicted, ("ant", "bee", "cow"))
    np.testing.assert_array_equal(confusion.counts, [[2, 0, 1], [1, 1, 0], [0, 0, 0]])
    assert confusion.accuracy == 0.6
    assert confusion.plain()["per_class"] == {"ant": 2 / 3, "bee": 0.5, "cow": None}
    with pytest.raises(ValueError, match="5"):
        Confusion.of(labels, predicted[:4], ("ant", "bee", "cow"))


def leave_run(folder: Path, name: str, ids: list[str], wrong: int) -> None:
    """Write the files of a backend's run; ``wrong`` of its validation and of its test images are wrong."""
    folder.mkdir(parents=True)
    labels = np.arange(8) % 2
    confusion = Confusion.of(labels, np.where(np.arange(8) < wrong, 1 - labels, labels), "xy")
    summary = KaggleSummary(0.25, 0.75, confusion.accuracy, 100, 2.0, 4.0, "cpu")
    content = {
        "validation": asdict(summary) | confusion.plain(),
        "training": asdict(summary),
        "test": {"images": len(ids), "seconds": 1.0},
        "startup_seconds": 1.5,
        "peak_memory_mib": None,
    }
    (folder / "summary.json").write_text(json.dumps(content))
    config = {"versions": {name: "1.2"}, "description": {"device": "cpu: slow"}}
    (folder / "config.json").write_text(json.dumps(config))
    epoch = {"split": "train", "train_loss": 1.0, "train_acc": 0.5, "valid_acc": 0.5}
    lines = [epoch, {**epoch, "split": "train_valid"}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = ["bright" if i < wrong else "dark" for i in range(len(ids))]
    write_submission(folder / "submission.csv", ids, found, ["bright", "dark"])


@pytest.fixture
def reported(tmp_path, monkeypatch) -> tuple[Path, str]:
    """The folder of a report on three made-up runs, and its output."""
    data_dir = write_competition(tmp_path / "bright")
    reorg_cifar10_data(data_dir, 0.1)
    ids = [str(7 * i) for i in range(1, 22)]
    folder = RunFolder(tmp_path / "out", "")
    for number, name in enumerate("abc"):
        leave_run(folder.path / name, name, ids, number)
    _, config = cli.parse(
        ["kaggle", "--backend", "all", "--data-dir", str(data_dir)], backends.FRAMEWORKS
    )
    out = io.StringIO()
    frameworks = {name: Framework(name, name, (name,)) for name in "abc"}
    console = Console(file=out, width=120)
    kaggle_side_by_side.report(console, config, frameworks, folder, ["--seed", "0"])
    return folder.path, out.getvalue()


def test_the_table_has_validation_classes_and_agreement(reported):
    lines = [" ".join(line.split()) for line in reported[1].splitlines()]
    for line in (
        "after 20 epochs a b c",
        "version 1.2 1.2 1.2",
        "valid accuracy 1.000 0.875 0.750",
        "x 1.000 0.750 0.750",
        "y 1.000 1.000 0.750",
        "on all labelled images, train accuracy 0.750 0.750 0.750",
        "same label a b c",
        "a 1.000 0.952 0.905",
        "b 0.952 1.000 0.952",
        "all agree on 19 of 21 test images, 0.905",
    ):
        assert line in lines
    unknown = ("score", "peak memory")  # unknown in all three runs
    assert not [line for line in lines if line.startswith(unknown)]
    assert "the same augmentation of each image" in reported[1]


def test_the_json_file_lists_every_image_on_which_they_disagree(reported):
    content = json.loads((reported[0] / "comparison.json").read_text())
    assert content["disagreements"] == [
        {"id": "7", "a": "dark", "b": "bright", "c": "bright"},
        {"id": "14", "a": "dark", "b": "dark", "c": "bright"},
    ]
    assert content["agreement"]["a, c"] == pytest.approx(19 / 21)
    assert content["all_agree"] == pytest.approx(19 / 21)
    assert content["arguments"] == ["--seed", "0"]


def test_the_pictures_are_drawn(reported):
    for name in ("backends.png", "disagreements.png"):
        with Image.open(reported[0] / name) as picture:
            picture.load()
            assert min(picture.size) > 100


def test_the_picture_of_disagreements_shows_each_image_with_its_id_and_the_labels_in_order(
    tmp_path, monkeypatch
):
    data_dir = write_competition(tmp_path / "bright")
    reorg_cifar10_data(data_dir, 0.1)
    sheets = []
    monkeypatch.setattr(
        kaggle_side_by_side.image_grid, "save_sheet", lambda *a, **k: sheets.append((a, k))
    )
    labels = {"a": {"14": "cat", "7": "dog"}, "b": {"14": "cow", "7": "cat"}}
    kaggle_side_by_side._draw_disagreements(tmp_path / "d.png", data_dir, labels, ["14", "7"])
    (((_, images, rows, columns, title), options),) = sheets
    for name, image in zip(["14", "7"], images, strict=True):
        with Image.open(data_dir / "test" / f"{name}.png") as whole:
            np.testing.assert_array_equal(image, whole.resize((64, 64), Image.Resampling.BILINEAR))
    assert options["names"] == ["id 14\ncat\ncow", "id 7\ndog\ncat"]
    assert (rows, columns, title) == (1, 8, "2 of 2 test images with more than one label: a, b")


def test_the_curves_are_those_of_the_validated_training(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        kaggle_side_by_side.plots,
        "save_backends",
        lambda path, curves, styles, title: drawn.append(curves),
    )
    epoch = {"split": "train", "train_loss": 2.0, "train_acc": 0.25, "valid_acc": 0.5}
    later = {"split": "train_valid", "train_loss": 1.0, "train_acc": 0.75}
    _, config = cli.parse(["kaggle", "--backend", "all"], backends.FRAMEWORKS)
    kaggle_side_by_side._draw_curves(tmp_path, {"a": {"epochs": [epoch, later]}}, {}, "d", config)
    assert drawn == [
        {"a": {"train loss": [2.0], "train accuracy": [0.25], "valid accuracy": [0.5]}}
    ]


@pytest.mark.slow
def test_all_backends_submit_from_the_same_files_weights_and_batches(everything, tmp_path):  # noqa: F811
    data_dir, folder = write_competition(tmp_path / "bright"), tmp_path / "out"
    arguments = ["kaggle", "--backend", "all", "--data-dir", data_dir, *SETTINGS]
    code, out, err = finish(start(*arguments, "--output", folder), timeout=300)
    assert code == 0, err
    for name in NAMES:
        assert check_submission(folder / name / "submission.csv", data_dir).rows == 21
    content = json.loads((folder / "comparison.json").read_text())
    assert list(content["backends"]) == NAMES
    configs = [json.loads((folder / name / "config.json").read_text())["config"] for name in NAMES]
    assert [config.pop("backend") for config in configs] == NAMES
    assert [config.pop("output") for config in configs] == [str(folder / name) for name in NAMES]
    assert configs == [configs[0]] * len(NAMES)
    found = {name: read_submission(folder / name / "submission.csv") for name in NAMES}
    assert content["all_agree"] == share_all_agree(found) >= 0.8
    assert "same label" in out
    assert {path.name for path in folder.iterdir()} >= {*NAMES, "comparison.json", "backends.png"}
