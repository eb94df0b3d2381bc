"""The chapters' settings, which all peers share."""

from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.timing import timed
from common.augmentation.operations import CIFAR10_NORMALIZE

JITTER = 0.5
CROP, CROP_SCALE, CROP_RATIO = 32, (0.1, 1.0), (0.5, 2.0)
ENLARGED, KAGGLE_SCALE, KAGGLE_RATIO = 40, (0.64, 1.0), (1.0, 1.0)
MEAN, STD = CIFAR10_NORMALIZE.mean, CIFAR10_NORMALIZE.std
WORKERS = 4  # the book's


def epoch(batches: Iterable[Any], wait: Callable[[Any], object], images: int) -> Any:
    """Return a measure that fetches an epoch of batches and waits for each."""

    def run() -> None:
        for batch in batches:
            wait(batch)

    return lambda: timed(run, images=images)
