"""Which images a loader flips with two workers: do the workers draw the same random numbers?"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.augmentation.operations import RandomFlipLeftRight
from common.datasets import Dataset
from common.interface import Backend
from common.parity.comparison import Array

BATCHES, BATCH_SIZE, NUM_WORKERS = 16, 64, 2


@dataclass(frozen=True)
class Draws:
    """Shares of equal flips; independent draws give about a half.

    ``any_two``: the largest share between any two batches of an epoch, with two workers. ``again``: between two epochs
    with the same seed and two workers. ``without``: between an epoch with two workers and one without, same seed.
    """

    any_two: float
    again: float
    without: float


def own_draws(own: Any) -> Draws:
    """Return which images the framework's own loader flips by default."""
    images = _asymmetric_images()

    def flips(num_workers: int) -> Array:
        return flipped(own.flips(images, BATCH_SIZE, num_workers, 0), images)

    return draws(flips)


def draws_here(backend: Backend) -> Draws:
    """Return which images this project's native loader flips."""
    images = _asymmetric_images()
    dataset = Dataset(images, np.zeros(len(images), np.int64), ("a", "b"))

    def flips(num_workers: int) -> Array:
        augs = [RandomFlipLeftRight()]
        batches = backend.loaders.load_native(dataset, augs, BATCH_SIZE, False, 0, num_workers)
        X = np.concatenate([backend.devices.to_numpy(X) for X, _ in batches])
        if backend.devices.image_layout == "NCHW":
            X = np.moveaxis(X, 1, -1)
        return flipped(np.rint(255 * X).astype(np.uint8), images)

    return draws(flips)


def draws(flips: Callable[[int], Array]) -> Draws:
    """Compare epochs of ``flips``: bool (n,) for a number of workers, always from one seed."""
    first, second, alone = flips(NUM_WORKERS), flips(NUM_WORKERS), flips(0)
    batches = first.reshape(BATCHES, BATCH_SIZE)
    return Draws(
        max(float((a == b).mean()) for a, b in combinations(batches, 2)),
        float((first == second).mean()),
        float((first == alone).mean()),
    )


def flipped(loaded: Array, images: Array) -> Array:
    """Return which of the images (n, height, width, 3) are mirrored. Raises ValueError for any other image."""
    same = (loaded == images).all(axis=(1, 2, 3))
    mirrored = (loaded == images[:, :, ::-1]).all(axis=(1, 2, 3))
    if not (same ^ mirrored).all():
        raise ValueError("the loader returned other images, or another order")
    return mirrored


def _asymmetric_images() -> NDArray[np.uint8]:
    """Return uint8 images (n, 4, 4, 3) of noise."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (BATCHES * BATCH_SIZE, 4, 4, 3), dtype=np.uint8)
