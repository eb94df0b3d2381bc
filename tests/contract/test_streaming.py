"""The native loader reads a folder's images from their files: the same batches as from an array, and broken files."""

from pathlib import Path

import numpy as np
import pytest
from conftest import random_dataset
from PIL import Image

from common.augmentation.operations import parse_augmentations
from common.datasets import Data
from common.datasets.folder import load_folder
from common.errors import UserError

AUGS = parse_augmentations("flip,crop", (8, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, each with 10 training images and 3 test images of 10 x 10."""
    root = tmp_path_factory.mktemp("data") / "animals"
    images = np.asarray(random_dataset(26, size=10).images)
    for split, numbers in (("train", range(20)), ("test", range(20, 26))):
        for number in numbers:
            path = root / split / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number]).save(path)
    return root


@pytest.fixture
def broken(folder: Path):
    """The same folder while one of its training images is broken."""
    path = folder / "train/dog/13.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    yield folder
    path.write_bytes(whole)


def load(root: Path, stream: bool) -> Data:
    return load_folder(root, root.parent / "cache", image_size=8, progress=False, stream=stream)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_from_files_are_those_from_the_array(backend, folder, num_workers):
    epochs = []
    for stream in (True, False):
        batches = backend.loaders.load_native(
            load(folder, stream).train, AUGS, 8, True, 3, num_workers
        )
        assert len(batches) == 3
        to_numpy = backend.devices.to_numpy
        epochs.append([(to_numpy(X), to_numpy(y)) for _ in range(2) for X, y in batches])
    for (X, y), (X_array, y_array) in zip(*epochs, strict=True):
        np.testing.assert_array_equal(X, X_array)
        np.testing.assert_array_equal(y, y_array)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_file_ends_the_epoch_with_one_line_that_names_it(backend, broken, num_workers):
    batches = backend.loaders.load_native(load(broken, True).train, (), 8, True, 3, num_workers)
    with pytest.raises(UserError) as caught:
        list(batches)
    text = str(caught.value)
    assert text.startswith(f"cannot read the image {broken / 'train/dog/13.png'} (")
    assert text.endswith("): replace or remove it, or leave it out with --skip-broken")
    assert "\n" not in text
