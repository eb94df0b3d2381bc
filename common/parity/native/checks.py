"""Parity of the native pipeline: `load_native` and `transforms.native`.

This project decides the order of the examples, and some operations are deterministic. Both are compared with the
reference. All other random parameters come from the framework. They must be reproducible with the seed, differ between
images and epochs, and follow the right distribution (`draws`, `crops`, `colours`).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from common.augmentation.decisions import epoch_batches
from common.augmentation.operations import (
    CIFAR10_NORMALIZE,
    Augmentation,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    Resize,
    gallery,
    kaggle_test_augs,
)
from common.config import MAX_SEED
from common.datasets import Dataset
from common.errors import UserNotice
from common.parity.adapter import Adapter
from common.parity.comparison import Array, CheckResult, Difference
from common.parity.native import pictures as known
from common.parity.native.colours import colour_draws
from common.parity.native.crops import crop_draws
from common.parity.native.draws import flip_draws
from common.parity.native.visits import Amount, Plan, dataset_of, seed_after, visit
from common.parity.tolerances import tolerance
from common.reference import transforms

# Four epochs show augmentation that repeats from the third on. Last batches of 32 images are large enough to compare
# distributions, and so are 150 draws without a loader.
QUICK_AMOUNT = Amount(230, 230, 150, (Plan(4, 33), Plan(4, 33, workers=2)), in_turns=True)
FULL_AMOUNT = Amount(428, 1715, 300, (Plan(5, 33), Plan(4, 33, workers=3)))
# Number of images, and how they are read: every number of workers, batches of one image and of all images, from an
# array and from files.
QUICK_ORDERS = (
    (603, Plan(4, 33)),
    (603, Plan(4, 16, workers=2)),
    (5, Plan(4, 8, workers=1)),
    (13, Plan(12, 8)),
    (13, Plan(4, 8, files=True)),
)
FULL_ORDERS = (
    *QUICK_ORDERS,
    (37, Plan(4, 1)),
    (605, Plan(5, 64, workers=1)),
    (602, Plan(5, 7, workers=3)),
    (601, Plan(5, 100, workers=4)),
    (1, Plan(4, 2)),
    (38, Plan(4, 7, workers=2, files=True)),
)
# Even and odd; wide and high.
QUICK_SIZES = (6, 8), (7, 5)
FULL_SIZES = (*QUICK_SIZES, (3, 16), (17, 2))
RECIPE = gallery((12, 10))["flip, jitter and crop"]


def native_checks(adapter: Adapter, quick: bool = False, seed: int = 0) -> Iterator[CheckResult]:
    """Check the native pipeline's order, deterministic operations, reproducibility and draws; with ``quick`` fewer."""
    amount = QUICK_AMOUNT if quick else FULL_AMOUNT
    # Use the largest seeds: some generators take only 31 bits.
    yield order_check(adapter, QUICK_ORDERS if quick else FULL_ORDERS, MAX_SEED - seed)
    yield from deterministic_checks(adapter, QUICK_SIZES if quick else FULL_SIZES, seed)
    yield reproducibility_check(adapter, amount, seed)
    yield from flip_draws(adapter, amount, seed)
    yield from crop_draws(adapter, amount, seed)
    yield from colour_draws(adapter, amount, seed)


# --- Order ---------------------------------------------------------------------------------------------------------


def order_check(adapter: Adapter, orders: Sequence[tuple[int, Plan]], seed: int = 0) -> CheckResult:
    """Check the images, labels and dtypes of each batch of each epoch. Test sets must not be shuffled.

    The third epoch stops after its first batch.
    """
    found = []
    for count, plan in orders:
        images = known.noise(count, (4, 6), seed)
        for is_train in (True, False):
            kind = "training" if is_train else "test"
            dataset = dataset_of(images, plan.files)
            batches = _load(adapter, dataset, (), plan, is_train, seed)
            place = f"{count} images, {kind}, batches of {plan.batch_size}, {plan}"
            number = -(-count // plan.batch_size)
            found.append(Difference(f"{place}: number of batches", abs(len(batches) - number)))
            for epoch in range(plan.epochs):
                order = list(epoch_batches(count, plan.batch_size, seed, epoch, is_train))
                stop = 1 if epoch == 2 else None
                value = _epoch_difference(adapter, batches, dataset, order, stop)
                found.append(Difference(f"{place}, epoch {epoch}", value))
    return CheckResult(
        "native order", "float32", tuple(found), tolerance("native order", "float32")
    )


def _epoch_difference(
    adapter: Adapter, batches: Any, dataset: Dataset, order: list[Array], stop: int | None
) -> float:
    """Return the largest difference of an epoch's batches from the expected ones; inf if a label or shape is wrong."""
    largest = 0.0
    number = 0
    for number, (X, y) in enumerate(batches, start=1):
        if number > len(order):
            return np.inf
        indices = order[number - 1]
        x, labels = adapter.array(X), adapter.array(y)
        expected = transforms.from_images(dataset.images[indices])
        if x.shape != expected.shape or x.dtype != np.float32 or labels.dtype != np.int64:
            return np.inf
        if not np.array_equal(labels, dataset.labels[indices]):
            return np.inf
        largest = max(largest, float(np.abs(x - expected).max()))
        if number == stop:
            return largest
    return largest if number == len(order) else np.inf


def _load(
    adapter: Adapter,
    dataset: Dataset,
    augs: Sequence[Augmentation],
    plan: Plan,
    is_train: bool,
    seed: int,
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)
        return adapter.backend.loaders.load_native(
            dataset, augs, plan.batch_size, is_train, seed, plan.workers
        )


# --- Deterministic operations --------------------------------------------------------------------------------------


def deterministic_checks(
    adapter: Adapter, sizes: Sequence[tuple[int, int]], seed: int = 0
) -> Iterator[CheckResult]:
    """Check deterministic native operations pixel by pixel, on images of several sizes (height, width)."""
    exact: Mapping[str, Sequence[Augmentation]] = {
        "nothing": (),
        "left-right flip of all": [RandomFlipLeftRight(1.0)],
        "top-bottom flip of all": [RandomFlipTopBottom(1.0)],
        "both flips of all": [RandomFlipTopBottom(1.0), RandomFlipLeftRight(1.0)],
        "flip of none": [RandomFlipLeftRight(0.0), RandomFlipTopBottom(0.0)],
        "normalize": [CIFAR10_NORMALIZE],
        "flip and normalize": [RandomFlipLeftRight(1.0), CIFAR10_NORMALIZE],
        "Kaggle test recipe": kaggle_test_augs(),
    }
    yield _deterministic(adapter, "native operations", exact, sizes, 1.0, seed)
    resizes = {f"resize to {size}": [Resize(size)] for size in ((12, 17), (3, 4), (5, 19), (11, 2))}
    yield _deterministic(adapter, "native resizes", resizes, sizes, 255.0, seed)


def _deterministic(
    adapter: Adapter,
    check: str,
    recipes: Mapping[str, Sequence[Augmentation]],
    sizes: Sequence[tuple[int, int]],
    scale: float,
    seed: int,
) -> CheckResult:
    """Compare recipes with the reference. Differences are multiplied by ``scale``."""
    found = []
    for size in sizes:
        images = known.noise(5, size, seed)
        for name, augs in recipes.items():
            batches = _load(adapter, dataset_of(images), augs, Plan(1, 3), False, seed)
            got = np.concatenate([adapter.array(X) for X, _ in batches])
            conventions = adapter.backend.probes.NATIVE
            every = np.arange(len(images))
            expected = transforms.augmented(images, augs, every, seed, 0, conventions)
            value = np.abs(got - expected).max() if got.shape == expected.shape else np.inf
            found.append(Difference(f"{name}, {size[0]} × {size[1]}", float(scale * value)))
    return CheckResult(check, "float32", tuple(found), tolerance(check, "float32"))


# --- Reproducibility -----------------------------------------------------------------------------------------------


def reproducibility_check(adapter: Adapter, amount: Amount, seed: int = 0) -> CheckResult:
    """Check that draws depend only on seed, epoch and image, not on the number of workers.

    All images show the same picture, so only the draws differ. The framework's global generators are seeded differently
    each time, which must have no effect. One percent of the images that should differ may be equal. A correct backend
    exceeds that with a probability below 1e-6.
    """
    picture = known.noise(1, (16, 16), seed)
    images = np.repeat(picture, amount.count // 2, axis=0)
    slow = max(amount.plans, key=lambda plan: plan.workers)
    plans = [Plan(slow.epochs, slow.batch_size, workers) for workers in (0, 0, slow.workers)]
    first, *others = (
        _by_example(adapter, images, plan, seed, number) for number, plan in enumerate(plans)
    )
    found = [
        Difference(
            f"same seed, {plan}, epoch {epoch}: differ", 1 - _same(first, other, epoch, epoch)
        )
        for plan, other in zip(plans[1:], others, strict=True)
        for epoch in range(plan.epochs)
    ]
    reseeded = _by_example(adapter, images, plans[0], seed_after(seed), 0)
    shared = {
        f"another seed, epoch {epoch}": _same(first, reseeded, epoch, epoch)
        for epoch in range(slow.epochs)
    }
    for plan, X in zip((plans[0], plans[2]), (first, others[1]), strict=True):
        for one, two in combinations(range(plan.epochs), 2):
            shared[f"epochs {one} and {two}, {plan}"] = _same(X, X, one, two)
        for epoch in range(plan.epochs):
            different = len({x.tobytes() for x in X[epoch]})
            shared[f"images of epoch {epoch}, {plan}"] = 1 - different / len(X[epoch])
    found += [
        Difference(f"{place}: agree", value if value > 0.01 else 0.0)
        for place, value in shared.items()
    ]
    return CheckResult(
        "native reproducibility",
        "float32",
        tuple(found),
        tolerance("native reproducibility", "float32"),
    )


def _by_example(adapter: Adapter, images: Array, plan: Plan, seed: int, global_seed: int) -> Array:
    """Return each epoch's version of each image, (epochs, n, ...).

    ``global_seed`` is the seed of the framework's global generators.
    """
    adapter.backend.devices.set_seed(global_seed)
    visits = visit(adapter, images, RECIPE, plan, seed)
    found = np.zeros((plan.epochs, len(images), *visits.X.shape[1:]), np.float32)
    found[visits.epoch, visits.index] = visits.X
    return found


def _same(first: Array, second: Array, epoch: int, other: int) -> float:
    """Return the share of images that are equal in an epoch of ``first`` and an epoch of ``second``."""
    return float((first[epoch] == second[other]).all(axis=(1, 2, 3)).mean())
