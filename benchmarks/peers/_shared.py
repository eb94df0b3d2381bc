"""What the peers' recipes share: the chapters' numbers, and the clock."""

import gc
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

JITTER = 0.5
CROP, CROP_SCALE, CROP_RATIO = 32, (0.1, 1.0), (0.5, 2.0)
ENLARGED, KAGGLE_SCALE, KAGGLE_RATIO = 40, (0.64, 1.0), (1.0, 1.0)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
WORKERS = 4  # the book's


def noise(num_images: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images of noise, uint8 (n, 32, 32, 3), and labels of ten classes, int64 (n,)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
    return images, np.arange(num_images, dtype=np.int64) % 10


def timed(run: Callable[[], Any], images: int) -> dict[str, float]:
    """Return the seconds of one run, and its images."""
    gc.collect()
    began = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - began, "images": images}


def epoch(batches: Iterable[Any], wait: Callable[[Any], object], images: int) -> Any:
    """Return the measuring of an epoch of batches, each waited for."""

    def run() -> None:
        for batch in batches:
            wait(batch)

    return lambda: timed(run, images)
