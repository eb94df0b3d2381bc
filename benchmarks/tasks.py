"""The tasks of a backend of this project. Each is prepared once; then each call returns the time of a run.

A rate is ``images`` (or ``flop``) divided by ``seconds``. The clock stops only after all asynchronous work is done.
"""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import backends
from benchmarks.timing import NUM_CLASSES, noise, timed
from common.augmentation.operations import Augmentation, kaggle_train_augs, parse_augmentations
from common.commands.checkpoints import Checkpoints
from common.commands.training import make_network
from common.datasets import Dataset
from common.interface import Backend, Device, Net
from common.metrics import Epoch, Listener
from common.system import environment
from common.weights.canonical import initial_weights
from common.weights.checkpoint import ADAM

Measure = Callable[[], dict[str, Any]]

SIZE = (32, 32)  # CIFAR-10's, in pixels
# The training augmentations of the first and second chapter, and the first chapter's slowest example.
RECIPES: dict[str, tuple[Augmentation, ...]] = {
    "flip": parse_augmentations("flip", SIZE),
    "kaggle": kaggle_train_augs(SIZE),
    "jitter": parse_augmentations("flip,jitter,crop", SIZE),
}


def dataset_of(num_images: int) -> Dataset:
    """Return noise images: the results do not depend on the content."""
    return Dataset(*noise(num_images), tuple("abcdefghij"))


def tasks_of(name: str) -> dict[str, Callable[..., Measure]]:
    """Load a backend and return its tasks by name."""
    backend = backends.load(name, "bf16")  # some tasks compute in bf16, others in fp32
    peers = import_module(f"benchmarks.peers.{name}")
    return {
        "product": partial(product, peers.product),
        "step": partial(step, backend, peers.wait),
        "train": partial(train, backend),
        "checkpoints": partial(checkpoints, backend),
        "loader": partial(loader, backend),
        "memory": partial(memory, backend),
        "conditions": partial(conditions, backend),
    }


def conditions(backend: Backend, precision: str = "fp32") -> Measure:
    """Return the conditions in this process: settings, threads, instructions, versions."""
    devices = backend.devices.get_devices("auto")
    found = {
        **backend.devices.describe(devices, precision),
        **environment.in_force(backend.framework),
        "versions": environment.versions(backend.packages),
    }
    return lambda: found | {"memory": environment.peak_memory_mib()}


def product(
    make: Callable[[str, int], Callable[[], None]], precision: str, size: int, seconds: float
) -> Measure:
    """Multiply two square matrices for about this many seconds, at least once."""
    multiply = make(precision, size)
    multiply()
    times = max(1, round(seconds / timed(multiply)["seconds"]))

    def run() -> None:
        for _ in range(times):
            multiply()

    return lambda: timed(run, flop=2.0 * size**3 * times)


def network(backend: Backend, devices: list[Device], precision: str, compile: bool = False) -> Net:
    """Return the book's ResNet-18 as run.py prepares it."""
    return make_network(backend, devices, initial_weights(NUM_CLASSES), precision, compile)


def step(
    backend: Backend,
    wait_for_all: Callable[[], None],
    precision: str,
    batch_size: int,
    steps: int,
    compile: bool = False,
) -> Measure:
    """Train on one batch that is already on the device."""
    devices = backend.devices.get_devices("auto")
    net = network(backend, devices, precision, compile)
    trainer, loss = backend.trainer.adam(net), backend.trainer.cross_entropy()
    batches = backend.loaders.load_batched(
        dataset_of(batch_size), (), batch_size, True, 0, devices[0]
    )
    X, y = next(iter(batches))

    def run() -> None:
        for _ in range(steps):
            l, _ = backend.trainer.train_batch_ch13(net, X, y, loss, trainer, devices)
        float(l)
        wait_for_all()

    return lambda: timed(run, images=batch_size * steps)


def train(backend: Backend, precision: str, batch_size: int, batches: int) -> Measure:
    """Train for an epoch as run.py does, with flips: `train_ch13` on the batched pipeline, by the wall clock.

    Evaluates a single image, because the step that this is compared with has no evaluation.
    """
    devices = backend.devices.get_devices("auto")
    net = network(backend, devices, precision)
    trainer, loss = backend.trainer.adam(net), backend.trainer.cross_entropy()
    images = batch_size * batches
    load = backend.loaders.load_batched
    train_iter = load(dataset_of(images), RECIPES["flip"], batch_size, True, 0, devices[0])
    test_iter = load(dataset_of(1), (), 1, False, 0, devices[0])

    def run() -> None:
        backend.trainer.train_ch13(
            net, train_iter, test_iter, loss, trainer, 1, devices, Listener()
        )

    return lambda: timed(run, images=images)


class Saving(Listener):
    """Saves checkpoints as run.py does. The accuracy rises, so the best weights are saved after each epoch."""

    def __init__(self, kept: Checkpoints, num_epochs: int) -> None:
        self.kept, self.num_epochs = kept, num_epochs

    def on_epoch(self, epoch: Epoch) -> None:
        """Save the training after this epoch."""
        rising = replace(epoch, held_out_acc=epoch.epoch / self.num_epochs)
        self.kept.add(rising, epoch.epoch == self.num_epochs, {})


def checkpoints(
    backend: Backend,
    images: tuple[int, int],
    batch_size: int,
    epochs: int,
    saved: bool,
) -> Measure:
    """Train for some epochs with flips, and evaluate, with or without checkpoints, until the last one is written.

    ``images`` are the numbers of training and test images.
    """
    devices = backend.devices.get_devices("auto")
    net = network(backend, devices, "fp32")
    trainer, loss = backend.trainer.adam(net), backend.trainer.cross_entropy()
    load, (train_images, test_images) = backend.loaders.load_batched, images
    train_iter = load(dataset_of(train_images), RECIPES["flip"], batch_size, True, 0, devices[0])
    test_iter = load(dataset_of(test_images), (), batch_size, False, 0, devices[0])

    def run(folder: Path) -> None:
        opened = Checkpoints(folder, "run", backend, net, trainer, ADAM) if saved else None
        with opened or nullcontext():
            listener = Saving(opened, epochs) if opened else Listener()
            backend.trainer.train_ch13(
                net, train_iter, test_iter, loss, trainer, epochs, devices, listener
            )

    def measure() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return timed(partial(run, Path(folder)), images=train_images * epochs)

    return measure


def loader(
    backend: Backend,
    pipeline: str,
    recipe: str,
    num_images: int,
    batch_size: int,
    workers: int = 0,
) -> Measure:
    """Fetch an epoch of batches and wait for each, like a training that takes no time."""
    augs, dataset = RECIPES[recipe], dataset_of(num_images)
    (device, *_) = backend.devices.get_devices("auto")
    if pipeline == "native":
        batches = backend.loaders.load_native(dataset, augs, batch_size, True, 0, workers)
    else:
        batches = backend.loaders.load_batched(dataset, augs, batch_size, True, 0, device)

    def run() -> None:
        for X, _ in batches:
            wait(X)

    return lambda: timed(run, images=num_images)


def wait(X: Any) -> None:
    """Wait until a batch is ready; in every framework, reading one value does that."""
    float(X[-1, -1, -1, -1])


def memory(backend: Backend, num_images: int, batch_size: int) -> Measure:
    """Return the peak memory of a training on this many uint8 images, in MiB.

    Trains on the first batch and fetches the rest of an epoch. The images take ``data`` MiB. Only they grow with the
    number of images, not the framework, the network or its activations.
    """
    devices = backend.devices.get_devices("auto")
    net = network(backend, devices, "fp32")
    trainer, loss = backend.trainer.adam(net), backend.trainer.cross_entropy()
    dataset = dataset_of(num_images)
    batches = iter(
        backend.loaders.load_batched(dataset, RECIPES["flip"], batch_size, True, 0, devices[0])
    )
    X, y = next(batches)
    float(backend.trainer.train_batch_ch13(net, X, y, loss, trainer, devices)[0])
    for X, _ in batches:
        wait(X)
    found = {
        "peak": environment.peak_memory_mib(),
        "data": np.asarray(dataset.images).nbytes / 2**20,
    }
    return lambda: found
