"""The clock and the noise images that all measures share."""

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_CLASSES = 10


def noise(num_images: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return noise images, uint8 (n, 32, 32, 3), and labels of ten classes, int64 (n,)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
    return images, np.arange(num_images, dtype=np.int64) % NUM_CLASSES


def timed(run: Callable[[], Any], **counts: float) -> dict[str, Any]:
    """Return the seconds of one run, together with its counts."""
    gc.collect()
    began = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - began, **counts}
