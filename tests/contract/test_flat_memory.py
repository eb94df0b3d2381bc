"""Loading from a large memory-mapped array takes no memory of its own for each image."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.datasets import array_file
from common.datasets.array_file import images_at

ROOT = Path(__file__).parents[2]
# 2,000 images of 224 x 224 are 301 MB. The file has no blocks on the disk.
LOADED = """
import sys
import numpy as np
import backends
from common.augmentation.operations import parse_augmentations
from common.datasets import Dataset

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

name, load, path = sys.argv[1:]
backend = backends.load(name)
backend.loaders.MOST_COPIED = 0  # TensorFlow's: as for an array above that size
images = np.asarray(np.memmap(path, np.uint8, "c", shape=(2000, 224, 224, 3)))
dataset = Dataset(images, np.arange(2000) % 2, ("a", "b"))
flip = parse_augmentations("flip", (224, 224))

def growth(dataset):
    before = anonymous()
    highest = 0
    for X, _ in getattr(backend.loaders, load)(dataset, flip, 16, True):
        backend.devices.to_numpy(X)
        highest = max(highest, anonymous())
    return highest - before

few = Dataset(images[:320], dataset.labels[:320], dataset.classes)
growth(few)  # the framework's own memory
print(growth(dataset))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("load", ["load_batched", "load_native"])
def test_memory_does_not_grow_with_the_number_of_images(backend, load, tmp_path):
    path = tmp_path / "images"
    with path.open("wb") as file:
        file.truncate(2000 * 224 * 224 * 3)
    result = subprocess.run(
        [sys.executable, "-c", LOADED, backend.name, load, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.split()[-1]) < 100  # MiB; a copy of the images has 287


def test_the_images_of_a_large_array_are_those_at_the_indices(tmp_path, monkeypatch):
    monkeypatch.setattr(array_file, "LARGE", 0)
    expected = np.random.default_rng(0).integers(0, 256, (50, 40, 40, 3), dtype=np.uint8)
    expected.tofile(tmp_path / "images")
    mapped = np.asarray(np.memmap(tmp_path / "images", np.uint8, "c", shape=expected.shape))
    for indices in (np.array([49, 0, 7, 7]), np.array([], np.int64), np.arange(50)):
        np.testing.assert_array_equal(images_at(mapped, indices), expected[indices])
        np.testing.assert_array_equal(images_at(expected, indices), expected[indices])
