"""The report on the held-out images: lines by class, the confusion picture, and the sheet of mistakes."""

import io
from unittest import mock

import numpy as np
import pytest
from conftest import random_dataset
from PIL import Image
from rich.console import Console

from common.commands import results
from common.commands.training import Predictions
from common.datasets import Dataset


def data(labels: list[int], classes: tuple[str, ...], names: tuple[str, ...] = ()) -> Dataset:
    images = random_dataset(len(labels), size=8).images
    return Dataset(images, np.array(labels), classes, names)


def predictions(labels: list[int], probabilities: list[float] | None = None) -> Predictions:
    return Predictions(np.array(labels), np.array(probabilities or [0.5] * len(labels)))


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Report on a data set; return the printed lines and the arguments of the sheet of mistakes, None if none."""
    monkeypatch.setattr(results.plots, "save_confusion", mock.Mock())

    def run(dataset: Dataset, found: Predictions, held_out: str = "test"):
        console = Console(file=io.StringIO(), width=200)
        with mock.patch.object(results.image_grid, "save_sheet") as sheet:
            results.report(console, tmp_path, dataset, found, held_out, "photos", "mxnet")
        results.plots.save_confusion.assert_called_once()
        return console.file.getvalue().splitlines(), sheet.call_args

    return run


def test_the_most_confident_mistakes_come_first_and_equal_ones_in_order(report):
    dataset = data([0, 1, 0, 1, 0], ("cat", "dog"), ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"))
    lines, sheet = report(dataset, predictions([1, 0, 0, 0, 1], [0.6, 0.9, 0.99, 0.9, 0.7]))
    assert lines == [
        "  cat  test acc 0.333  1 of 3",
        "  dog  test acc 0.000  0 of 2",
        "4 mistakes on 5 test images, in mistakes.png",
    ]
    np.testing.assert_array_equal(sheet.args[1], dataset.images[[1, 3, 4, 0]])
    assert sheet.kwargs["names"] == ["b.jpg", "d.jpg", "e.jpg", "a.jpg"]
    assert sheet.kwargs["captions"] == [
        *["is dog\n0.900 cat"] * 2,
        "is cat\n0.700 dog",
        "is cat\n0.600 dog",
    ]
    assert sheet.args[4].startswith("4 mistakes on the test images of photos, mxnet\n")


def test_of_many_mistakes_twenty_are_drawn_and_images_without_files_have_numbers(report):
    lines, sheet = report(data([0] * 30, ("cat", "dog")), predictions([1] * 30), "valid")
    assert (
        lines[-1]
        == "30 mistakes on 30 validation images; the 20 most confident are in mistakes.png"
    )
    assert sheet.kwargs["names"] == [f"image {i}" for i in range(20)]
    assert "20 most confident of 30 mistakes on the validation images" in sheet.args[4]
    assert lines[0] == "  cat  valid acc 0.000  0 of 30"
    assert lines[1] == "  1 class has no validation images"


def test_without_a_mistake_there_is_no_sheet_and_an_earlier_one_is_removed(report, tmp_path):
    (tmp_path / "mistakes.png").write_bytes(b"of a shorter training")
    lines, sheet = report(data([0, 1], ("cat", "dog")), predictions([0, 1]))
    assert lines[-1] == "no mistake on 2 test images, so there is no mistakes.png"
    assert sheet is None
    assert not (tmp_path / "mistakes.png").exists()


def test_of_many_classes_the_ten_hardest_are_printed(report):
    classes = tuple(f"class {i:02}" for i in range(25))
    wrong = [24, 3]  # of 25 images, one of each class
    found = [0 if i in wrong else i for i in range(25)]
    lines, _ = report(data(list(range(25)), classes), predictions(found))
    assert lines[0] == "the 10 hardest of 25 classes:"
    assert lines[1:4] == [
        "  class 03  test acc 0.000  0 of 1",
        "  class 24  test acc 0.000  0 of 1",
        "  class 00  test acc 1.000  1 of 1",
    ]
    assert len(lines) == 1 + 10 + 1


def test_the_end_of_a_long_path_and_names_of_any_characters_fit(tmp_path):
    names = (f"test/{'a long folder/' * 9}IMG_1.jpg", "test/日本\n.jpg")
    dataset = data([0, 0], ("class\nname $x_$ " * 9, "другой"), names)
    console = Console(file=io.StringIO())
    found = predictions([1, 1], [0.9, 0.8])
    results.report(console, tmp_path, dataset, found, "test", "photos", "mxnet")
    assert results._end_of(names[0]).startswith("…")
    assert results._end_of(names[0]).endswith("/IMG_1.jpg")
    with Image.open(tmp_path / "mistakes.png") as sheet, Image.open(tmp_path / "confusion.png"):
        # Five cells with their gaps, and two margins.
        assert sheet.width == 5 * round(results.SCALE * 150) + 4 * 8 + 2 * 12
