"""Shared by all tests: the backends, which are skipped where absent unless they are required.

``REQUIRE_BACKENDS=pytorch`` (names joined by commas, or ``all``) makes a missing backend a failure; CI sets it. A
framework that is installed and does not import is always a failure.
"""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import backends
from common.datasets import Data, Dataset
from common.interface import Backend

mpl.use("Agg")


def required() -> set[str]:
    names = os.environ.get("REQUIRE_BACKENDS", "")
    return set(backends.FRAMEWORKS) if names == "all" else set(filter(None, names.split(",")))


def load_or_skip(name: str) -> Backend:
    if not backends.installed(name):
        missing = ", ".join(backends.missing_packages(name))
        if name in required():
            pytest.fail(f"backend {name} is required, and {missing} is missing")
        pytest.skip(f"{missing} is not installed")
    return backends.load(name)


@pytest.fixture(params=list(backends.FRAMEWORKS), scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn."""
    return load_or_skip(request.param)


def python(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own: a framework is imported once in each."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        env=os.environ | env,
        check=False,
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)


def random_dataset(n: int, seed: int = 0, size: int = 32) -> Dataset:
    """n noise images, two to a class at least; nothing to learn, everything to tell apart."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return Dataset(images, np.arange(n) % 10, tuple("abcdefghij"))


def bright_dataset(n: int, seed: int = 0, size: int = 8) -> Dataset:
    """n noise images of two classes, dark and bright: learnt in a few steps, also at 8 x 8."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    levels = rng.integers(0, 100, (n, size, size, 3)) + 150 * labels[:, None, None, None]
    return Dataset(levels.astype(np.uint8), labels, ("bright", "dark"))


def write_folder(root: Path, data: Data) -> Path:
    """Write a dataset as PNG files in class folders."""
    for split, dataset in (("train", data.train), ("test", data.test)):
        for i, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
            folder = root / split / dataset.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:04}.png")
    return root


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8 x 8 images in two classes, 40 to train on and 20 to test."""
    data = Data("bright", bright_dataset(40, 0), bright_dataset(20, 1))
    return write_folder(tmp_path_factory.mktemp("small"), data)
