"""Images that stay in their files: the same indices as an array, a digest without decoding, and unreadable files."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import random_dataset, write_folder

from common.commands.resume import digests
from common.commands.training import predict_all
from common.config import TrainConfig
from common.datasets import Data, Dataset, decoding, image_files, load_data
from common.datasets.folder import load_folder
from common.datasets.image_files import ImageFiles
from common.errors import UserError
from common.system.workers import WorkerBatches

SHAPES = Data("noise", random_dataset(30, size=10), random_dataset(20, 1, size=10))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with 30 training images of 10 x 10 in ten classes."""
    return write_folder(tmp_path / "noise", SHAPES)


def load(root: Path, stream: bool = True) -> Dataset:
    cache = root.parent / "cache"
    return load_folder(root, cache, image_size=8, progress=False, stream=stream).train


def files_of(dataset: Dataset) -> ImageFiles:
    assert isinstance(dataset.images, ImageFiles)
    return dataset.images


@pytest.fixture
def undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding fails the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded")

    for module in (decoding, image_files):
        monkeypatch.setattr(module, "decode_into", refuse)


def test_files_have_the_shape_labels_and_indices_of_the_array(root: Path):
    array, dataset = np.asarray(load(root, stream=False).images), load(root)
    files = files_of(dataset)
    assert files.shape == array.shape == (30, 8, 8, 3)
    assert len(files) == len(dataset) == 30
    np.testing.assert_array_equal(dataset.labels, load(root, stream=False).labels)
    for index in (0, 29, -1, np.int64(7), np.array([3, 29, 3, -2]), np.array([], np.int64)):
        got = files[index]
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, array[index])
    for part in (slice(5), slice(-3, None), slice(2, 20, 7)):
        assert isinstance(files[part], ImageFiles)
        np.testing.assert_array_equal(np.asarray(files[part]), array[part])
    np.testing.assert_array_equal(np.asarray(files, np.float32), array.astype(np.float32))
    np.testing.assert_array_equal(list(files), array)  # type: ignore[call-overload]
    with pytest.raises(IndexError):
        files[30]


@pytest.mark.usefixtures("undecodable")
def test_loading_slicing_and_digests_decode_and_write_nothing(root: Path):
    data = load_data(str(root), data_dir=root.parent / "data", image_size=8, stream=True)
    assert files_of(data.train)[3:7].shape == (4, 8, 8, 3)
    digests((data.train, data.test), (), 0)
    assert not (root.parent / "data").exists()


@pytest.mark.parametrize("stream", [True, False])
def test_the_parts_of_several_processes_are_predicted_where_they_belong(root: Path, stream: bool):
    """A backend whose label is the first value of an image; each of three processes adds the others' zeros."""
    dataset, total = load(root, stream), np.zeros(30, np.int64)
    expected = np.asarray(dataset.images)[:, 0, 0, 0]

    def load_native(own: Dataset, *_: object) -> list[tuple[np.ndarray, None]]:
        return [(own.images[i : i + 1], None) for i in range(len(own))]

    def logits_of_first_values(_: object, X: Any) -> np.ndarray:
        return -np.abs(np.arange(256.0) - np.asarray(X)[:, :1, 0, 0])

    for rank in range(3):
        processes = mock.Mock()
        processes.rank.return_value, processes.num_processes.return_value = rank, 3
        processes.total.side_effect = lambda array: array
        backend: Any = SimpleNamespace(
            processes=processes,
            loaders=SimpleNamespace(load_native=load_native),
            trainer=SimpleNamespace(predict=logits_of_first_values),
            devices=SimpleNamespace(to_numpy=np.asarray),
        )
        config = TrainConfig(pipeline="native", workers=0)
        total += predict_all(backend, config, None, dataset, (), None).labels
    np.testing.assert_array_equal(total, expected)


def digest(dataset: Dataset) -> str:
    return digests((dataset,), (), 0)["data"]


def test_the_digest_changes_with_a_name_a_size_and_a_label_but_not_with_a_copy(root: Path):
    before = digest(load(root))
    root.rename(root.with_name("copy"))
    root = root.with_name("copy")
    for path in root.glob("train/*/*"):
        os.utime(path, ns=(1, 1))
    assert digest(load(root)) == before
    image = root / "train/a/0000.png"
    image.write_bytes(image.read_bytes() + b"x")
    longer = digest(load(root))
    image.rename(image.with_name("0001.png"))
    renamed = digest(load(root))
    image.with_name("0001.png").rename(root / "train/b/0000.png")
    moved = digest(load(root))
    assert len({before, longer, renamed, moved}) == 4


def test_an_unreadable_file_is_named_with_the_reason(root: Path):
    path = root / "train/a/0010.png"
    path.write_bytes(b"no image")
    files = files_of(load(root))
    with pytest.raises(UserError) as caught:
        files[1]
    reason = "not an image, or damaged, or in another format"
    assert (
        str(caught.value)
        == f"cannot read the image {path} ({reason}): replace or remove it, or leave it out with --skip-broken"
    )
    with pytest.raises(UserError, match=r"0010\.png \("):
        files[np.arange(3)]


def test_a_workers_error_in_pytorchs_words_is_the_workers_line():
    """PyTorch raises the error of a worker again, with a traceback as its text."""
    line = "cannot read the image a/b.png (truncated): replace or remove it, or leave it out with --skip-broken"
    words = f"Caught UserError in DataLoader worker process 1.\nOriginal Traceback\n{UserError.__module__}."

    class Loader:
        def __len__(self) -> int:
            return 1

        def __iter__(self):
            raise UserError(f"{words}UserError: {line}\n")

    with pytest.raises(UserError) as caught:
        list(WorkerBatches(Loader()))
    assert str(caught.value) == line
