"""Fixtures of all tests. Tests of a backend that is not installed are skipped, unless it is required.

With ``REQUIRE_BACKENDS=pytorch`` (names joined by commas, or ``all``), a missing backend is a failure; CI sets it. A
framework that is installed and fails to import is always a failure. ``REQUIRE_SITE`` requires the packages that build
and show the site.
"""

import contextlib
import ctypes
import gc
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

import backends
from common.datasets import Data, Dataset
from common.interface import Backend
from common.metrics import Epoch, Listener, Report
from common.weights.canonical import Weights, initial_weights

mpl.use("Agg")

# A program in the background of a shell, or under nohup, ignores these signals, and its children inherit that.
for number, handler in {
    signal.SIGINT: signal.default_int_handler,
    getattr(signal, "SIGHUP", signal.SIGTERM): signal.SIG_DFL,
}.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def required() -> set[str]:
    names = os.environ.get("REQUIRE_BACKENDS", "")
    return set(backends.FRAMEWORKS) if names == "all" else set(filter(None, names.split(",")))


def skip_unless_installed(name: str) -> None:
    """Skip a test whose processes import this framework, if it is not installed; this process need not import it."""
    if not backends.installed(name):
        missing = f"{', '.join(backends.missing_packages(name))} is not installed"
        why = backends.obstacle(name) or missing
        if name in required():
            pytest.fail(f"backend {name} is required: {why}")
        pytest.skip(why)


def load_or_skip(name: str) -> Backend:
    skip_unless_installed(name)
    return backends.load(name)


def needs(*packages: str, programs: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Skip a test if packages or programs of the site are missing; if they are required, let it fail."""
    missing = [name for name in packages if find_spec(name) is None]
    missing += [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(
        bool(missing) and not os.environ.get("REQUIRE_SITE"),
        reason=f"not installed: {', '.join(missing)}",
    )


class ByFramework(LoadScopeScheduling):
    """Run all tests of a framework in one process, so that others need not import it.

    A test belongs to the framework whose name is in its id. Tests with no name, or several, are grouped by file.
    """

    def _split_scope(self, nodeid: str) -> str:
        found = {*re.split(r"[\W_]+", nodeid)} & {*backends.FRAMEWORKS}
        return found.pop() if len(found) == 1 else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFramework:
    return ByFramework(config, log)


def resident_mib() -> int:
    """Return this process's memory in MiB, or 0 if the system is not Linux."""
    pages = Path("/proc/self/statm")
    return (
        int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
        if pages.exists()
        else 0
    )


@pytest.fixture(scope="session")
def after_collection() -> list[int]:
    """The memory of this process after the last garbage collection, in MiB."""
    return [0]


@pytest.fixture(autouse=True)
def memory_is_given_back(after_collection: list[int]) -> Iterator[None]:
    """Keep a process that runs many tests small.

    A network is a cycle of a few Python objects with 45 MB, and Python seldom collects cycles. A step that TensorFlow
    has traced would stay forever with its network and optimizer. Keras' optimizers sum gradients through a
    tf.custom_gradient, and TensorFlow never removes one that is registered in a graph.
    """
    yield
    if "tensorflow" in sys.modules:
        registry = sys.modules["tensorflow.python.framework.ops"].gradient_registry._registry
        for name in [name for name in registry if name.startswith("CustomGradient-")]:
            del registry[name]
    if resident_mib() > after_collection[0] + 200:
        gc.collect()
        if platform.libc_ver()[0] == "glibc":  # it keeps freed memory: see environment.prepare
            ctypes.CDLL(None).malloc_trim(0)
        after_collection[0] = resident_mib()


@pytest.fixture(params=list(backends.FRAMEWORKS), scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn."""
    return load_or_skip(request.param)


@pytest.fixture(scope="session")
def loaded() -> dict[str, Backend]:
    """All backends in one process, imported in the order that a process allows."""
    return {name: load_or_skip(name) for name in backends.FRAMEWORKS}


@pytest.fixture(scope="session")
def pytorch() -> ModuleType:
    """PyTorch itself."""
    load_or_skip("pytorch")
    import torch

    return torch


@pytest.fixture(scope="session")
def mxnet() -> ModuleType:
    """MXNet itself."""
    load_or_skip("mxnet")
    import mxnet

    return mxnet


@pytest.fixture(scope="session")
def tensorflow() -> ModuleType:
    """TensorFlow itself; its backend has imported PyTorch's Triton first."""
    load_or_skip("tensorflow")
    import tensorflow

    return tensorflow


def python(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a new process, which imports a framework afresh."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        env=os.environ | env,
        check=False,
    )


def without_tracing(backend_name: str) -> contextlib.AbstractContextManager[None]:
    """Run a backend's functions eagerly: tracing takes seconds for every new network. For no name, do nothing."""
    if not backend_name:
        return contextlib.nullcontext()
    return backends.load(backend_name).probes.without_tracing()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2024)


class Recorder(Listener):
    """Record the calls of a training log."""

    def __init__(self) -> None:
        self.images: list[int] = []
        self.reports: list[Report] = []
        self.epochs: list[Epoch] = []

    def on_batch(self, epoch: int, images: int, seconds: float) -> None:  # noqa: ARG002
        self.images.append(images)

    def on_report(self, report: Report) -> None:
        self.reports.append(report)

    def on_epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)

    def figures(self) -> list[tuple[float | None, ...]]:
        """The losses and accuracies of all reports and epochs."""
        return [(r.loss, r.acc) for r in self.reports] + [
            (e.train_loss, e.train_acc, e.held_out_acc, e.learning_rate) for e in self.epochs
        ]


def random_dataset(n: int, seed: int = 0, size: int = 32) -> Dataset:
    """Return n noise images in ten classes: nothing to learn, but no two images are equal."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return Dataset(images, np.arange(n) % 10, tuple("abcdefghij"))


def bright_dataset(n: int, seed: int = 0, size: int = 8) -> Dataset:
    """Return n noise images of two classes, dark and bright, which are learnt in a few steps, also at 8 x 8."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    images = rng.integers(0, 100, (n, size, size, 3)) + 150 * labels[:, None, None, None]
    return Dataset(images.astype(np.uint8), labels, ("bright", "dark"))


def write_folder(root: Path, data: Data) -> Path:
    """Write a dataset as PNG files in class folders."""
    for split, dataset in (("train", data.train), ("test", data.test)):
        for i, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
            folder = root / split / dataset.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:04}.png")
    return root


def write_competition(root: Path, num_train: int = 80, num_test: int = 21) -> Path:
    """Write a competition: images of two classes, ids with gaps, and the answers."""
    train, test = bright_dataset(num_train, 0), bright_dataset(num_test, 1)
    for split, dataset, csv_name, step in (
        ("train", train, "trainLabels.csv", 3),
        ("test", test, "testLabels.csv", 7),
    ):
        (root / split).mkdir(parents=True)
        rows = ["id,label"]
        for i, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True), 1):
            Image.fromarray(image).save(root / split / f"{step * i}.png")
            rows.append(f"{step * i},{dataset.classes[label]}")
        (root / csv_name).write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8 x 8 images in two classes, 40 to train on and 20 to test."""
    data = Data("bright", bright_dataset(40, 0), bright_dataset(20, 1))
    return write_folder(tmp_path_factory.mktemp("small"), data)


def filled_weights(
    num_classes: int = 3, in_channels: int = 3, seed: int = 0, num_channels: int = 64
) -> Weights:
    """Return weights and buffers, all different, and small enough that no unit is dead in all images."""
    rng = np.random.default_rng(seed)
    weights = initial_weights(num_classes, in_channels, num_channels, seed)
    for name, weight in weights.items():
        noise = rng.standard_normal(weight.shape).astype(np.float32)
        if name.endswith("running_var"):
            weights[name] = np.exp(noise / 2)
        elif weight.ndim == 1:
            weights[name] = weight + noise / 10
    return weights


@pytest.fixture(scope="session")
def weights() -> Weights:
    """The filled weights of a narrow network for three classes."""
    return filled_weights(num_channels=8)
