"""What a backend's native pipeline yields, and where in its epochs and batches."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.augmentation.operations import Augmentation
from common.datasets import Dataset
from common.errors import UserNotice
from common.parity.adapter import Adapter
from common.parity.comparison import Array


@dataclass(frozen=True)
class Plan:
    """How examples are visited: how many epochs, in batches of which size, read by how many workers."""

    epochs: int = 4
    batch_size: int = 33
    workers: int = 0

    def __str__(self) -> str:
        return f"{self.workers} workers"


@dataclass(frozen=True)
class Amount:
    """How much is drawn: ``count`` images by each of the plans, for flips ``flips``, without a loader ``alone``.

    With ``in_turns`` each recipe takes one of the plans, in turns.
    """

    count: int
    flips: int
    alone: int
    plans: tuple[Plan, ...]
    in_turns: bool = False


@dataclass(frozen=True)
class Visits:
    """Images X (n, 3, height, width), as they came, with the index of each, its epoch, batch and place in the batch."""

    X: Array
    index: Array
    epoch: Array
    batch: Array
    place: Array

    def groups(self, least: int) -> Mapping[str, Array]:
        """Return masks (n,) of visits that a mistake may concern alone, of those groups that have ``least`` visits."""
        last = self.batch == self.batch.max()
        found = {"all": np.ones(len(self.X), bool), "last batches": last}
        found |= {f"epoch {epoch}": self.epoch == epoch for epoch in np.unique(self.epoch)}
        found |= {
            f"places {first} to {first + 3}": self.place // 4 == first // 4
            for first in range(0, self.place.max() + 1, 4)
        }
        found |= {"even numbers": self.index % 2 == 0, "odd numbers": self.index % 2 == 1}
        return {name: mask for name, mask in found.items() if mask.sum() >= least}


def dataset_of(images: Array) -> Dataset:
    """Return a data set of images (n, height, width, 3) in which the label of an image is its index."""
    return Dataset(images, np.arange(len(images)), ("any",) * len(images))


def visit(
    adapter: Adapter, images: Array, augs: Sequence[Augmentation], plan: Plan, seed: int
) -> Visits:
    """Read training epochs of images (n, height, width, 3) through the backend's native loader."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)  # of what is declared, or has no workers
        batches = adapter.backend.loaders.load_native(
            dataset_of(images), augs, plan.batch_size, True, seed, plan.workers
        )
        found = [
            (adapter.array(X), adapter.array(y), epoch, batch)
            for epoch in range(plan.epochs)
            for batch, (X, y) in enumerate(batches)
        ]
    return Visits(
        np.concatenate([X for X, *_ in found]),
        np.concatenate([y for _, y, *_ in found]),
        np.concatenate([np.full(len(X), epoch) for X, _, epoch, _ in found]),
        np.concatenate([np.full(len(X), batch) for X, _, _, batch in found]),
        np.concatenate([np.arange(len(X)) for X, *_ in found]),
    )


def alone(
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
    """Yield visits of images by each plan, and what the transforms make of the first image without a loader."""
    plans = amount.plans[turn % len(amount.plans) :][:1] if amount.in_turns else amount.plans
    for number, plan in enumerate(plans):
        yield str(plan), visit(adapter, images, augs, plan, seed + number)
    yield "alone", alone(adapter, images[0], augs, amount.alone, seed)
