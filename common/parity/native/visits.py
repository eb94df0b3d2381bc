"""Read images through a backend's native pipeline; record the epoch, batch and position of each."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.augmentation.decisions import epoch_batches
from common.augmentation.operations import Augmentation
from common.config import MAX_SEED
from common.datasets import Dataset
from common.errors import UserNotice, counted
from common.parity.adapter import Adapter
from common.parity.comparison import Array

# The share of fewer draws may be off by 0.42 by chance, so almost any share of a coin would pass.
LEAST = 80
CLASSES = 10  # as in the chapter


@dataclass(frozen=True)
class Plan:
    """How examples are read: number of epochs, batch size, number of workers; from an array, or each from a file."""

    epochs: int = 4
    batch_size: int = 33
    workers: int = 0
    files: bool = False

    def __str__(self) -> str:
        return counted(self.workers, "worker") + (", files" if self.files else "")


@dataclass(frozen=True)
class Amount:
    """How much is drawn: ``count`` images for each plan, ``flips`` images for flips, ``direct`` draws without a loader.

    With ``in_turns``, recipes take turns at the plans: each uses only one. Raise ValueError if the last batches of all
    epochs together have fewer than `LEAST` images, which are too few to compare distributions.
    """

    count: int
    flips: int
    direct: int
    plans: tuple[Plan, ...]
    in_turns: bool = False

    def __post_init__(self) -> None:
        for plan in self.plans:
            for count in (self.count, self.flips):
                last = plan.epochs * (count % plan.batch_size or plan.batch_size)
                if last < LEAST:
                    raise ValueError(f"{last} images in the last batches of {count}, {plan}")


@dataclass(frozen=True)
class Visits:
    """Images X (n, 3, height, width) in the order read, with the index, epoch, batch and position in the batch of each.

    ``in_order`` is true if the batches have the sizes and labels of the expected order, which ``index`` follows.
    """

    X: Array
    index: Array
    epoch: Array
    batch: Array
    place: Array
    in_order: bool = True

    @property
    def last(self) -> Array:
        """Return which visits belong to the last batch of an epoch, bool (n,)."""
        return np.asarray(self.batch == self.batch.max())

    @property
    def batched(self) -> bool:
        """Return whether the images came in batches, as from a loader."""
        return bool(self.place.any())

    def groups(self, least: int = LEAST) -> Mapping[str, Array]:
        """Return masks (n,) of groups that a mistake may affect separately. Groups have at least ``least`` visits."""
        found = {"all": np.ones(len(self.X), bool), "last batches": self.last}
        found |= {f"epoch {epoch}": self.epoch == epoch for epoch in np.unique(self.epoch)}
        found |= {
            f"places {first} to {first + 3}": self.place // 4 == first // 4
            for first in range(0, self.place.max() + 1, 4)
        }
        found |= {"even numbers": self.index % 2 == 0, "odd numbers": self.index % 2 == 1}
        return {name: mask for name, mask in found.items() if mask.sum() >= least}


class Files:
    """Images that a loader must take one by one, as `ImageFiles`; here they are in memory."""

    def __init__(self, images: Array) -> None:
        self.images, self.shape = images, images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Array:
        return self.images[index]


def dataset_of(images: Array, files: bool = False) -> Dataset:
    """Return a data set of images (n, height, width, 3) with random labels."""
    labels = np.random.default_rng(0).integers(CLASSES, size=len(images))
    stored: Any = Files(images) if files else images
    return Dataset(stored, labels, tuple(f"class {label}" for label in range(CLASSES)))


def seed_after(seed: int, number: int = 1) -> int:
    """Return the seed ``number`` seeds after this one; 0 follows the largest seed."""
    return (seed + number) % (MAX_SEED + 1)


def visit(
    adapter: Adapter, images: Array, augs: Sequence[Augmentation], plan: Plan, seed: int
) -> Visits:
    """Read training epochs of images (n, height, width, 3) through the backend's native loader.

    The index of each image is taken from the order that the loader should follow.
    """
    dataset = dataset_of(images, plan.files)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserNotice
        )  # declared differences, or a loader without workers
        batches = adapter.backend.loaders.load_native(
            dataset, augs, plan.batch_size, True, seed, plan.workers
        )
        found = [
            [(adapter.array(X), adapter.array(y)) for X, y in batches] for _ in range(plan.epochs)
        ]
    expected = [
        list(epoch_batches(len(images), plan.batch_size, seed, epoch, True))
        for epoch in range(plan.epochs)
    ]
    in_order = [[(len(X), y.tolist()) for X, y in epoch] for epoch in found] == [
        [(len(indices), dataset.labels[indices].tolist()) for indices in epoch]
        for epoch in expected
    ]
    visits = [
        # A batch of a wrong size is not in order: keep as many images as both have.
        (X[: len(indices)], indices[: len(X)], epoch, batch)
        for epoch in range(plan.epochs)
        for batch, ((X, _), indices) in enumerate(zip(found[epoch], expected[epoch], strict=False))
    ]
    return Visits(
        np.concatenate([X for X, *_ in visits]),
        np.concatenate([indices for _, indices, *_ in visits]),
        np.concatenate([np.full(len(X), epoch) for X, _, epoch, _ in visits]),
        np.concatenate([np.full(len(X), batch) for X, _, _, batch in visits]),
        np.concatenate([np.arange(len(X)) for X, *_ in visits]),
        in_order,
    )


def apply_directly(
    adapter: Adapter, image: Array, augs: Sequence[Augmentation], n: int, seed: int
) -> Visits:
    """Apply the backend's native transforms to an image (height, width, 3) n times, without a loader."""
    adapter.backend.devices.set_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)
        transform = adapter.backend.transforms.native(augs)
    X = adapter.backend.devices.to_numpy
    found = np.stack([X(transform(image)) for _ in range(n)])
    if adapter.backend.devices.image_layout == "NHWC":
        found = np.moveaxis(found, -1, 1)
    numbers = np.arange(n)
    return Visits(found, numbers * 0, numbers * 0, numbers, numbers * 0)


def visited(
    adapter: Adapter,
    images: Array,
    augs: Sequence[Augmentation],
    amount: Amount,
    seed: int,
    turn: int = 0,
) -> Iterator[tuple[str, Visits]]:
    """Yield visits of images for each plan, and draws of the first image without a loader."""
    plans = amount.plans[turn % len(amount.plans) :][:1] if amount.in_turns else amount.plans
    for number, plan in enumerate(plans):
        yield str(plan), visit(adapter, images, augs, plan, seed_after(seed, number))
    yield "applied directly", apply_directly(adapter, images[0], augs, amount.direct, seed)
