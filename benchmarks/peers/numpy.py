"""Peers without a framework: plain NumPy on batches, and albumentations one image at a time."""

from typing import Any

import numpy as np

from benchmarks.timing import noise, timed

from ._shared import (
    CROP,
    CROP_RATIO,
    CROP_SCALE,
    ENLARGED,
    JITTER,
    KAGGLE_RATIO,
    KAGGLE_SCALE,
    MEAN,
    STD,
)


def albumentations(recipe: str) -> Any:
    """Return the chapters' transforms in albumentations, for an image, uint8 (height, width, 3)."""
    import albumentations as A

    flip, to_float = A.HorizontalFlip(p=0.5), A.ToFloat(max_value=255)
    return A.Compose(
        {
            "flip": [flip, to_float],
            "kaggle": [
                A.Resize(ENLARGED, ENLARGED),
                A.RandomResizedCrop((CROP, CROP), KAGGLE_SCALE, KAGGLE_RATIO),
                flip,
                A.Normalize(MEAN, STD),
            ],
            "jitter": [
                flip,
                A.ColorJitter(
                    (1 - JITTER, 1 + JITTER),
                    (1 - JITTER, 1 + JITTER),
                    (1 - JITTER, 1 + JITTER),
                    (-JITTER, JITTER),
                    p=1,
                ),
                A.RandomResizedCrop((CROP, CROP), CROP_SCALE, CROP_RATIO),
                to_float,
            ],
        }[recipe]
    )


def loader(pipeline: str, recipe: str, num_images: int, batch_size: int) -> Any:
    """Measure an epoch of batches in one process: 'NumPy', which has only the flip, or 'albumentations'."""
    images, labels = noise(num_images)
    rng = np.random.default_rng(0)
    transform = albumentations(recipe) if pipeline == "albumentations" else None
    if transform is None and (pipeline, recipe) != ("NumPy", "flip"):
        raise ValueError(f"{pipeline} {recipe}")

    def batch(chosen: Any) -> Any:
        if transform is not None:
            return np.stack([transform(image=images[i])["image"] for i in chosen])
        X = images[chosen]
        flips = rng.random(len(X)) < 0.5
        X[flips] = X[flips, :, ::-1]
        return X.astype(np.float32) / 255

    def run() -> None:
        order = rng.permutation(num_images)
        for start in range(0, num_images, batch_size):
            chosen = order[start : start + batch_size]
            batch(chosen), labels[chosen]

    return lambda: timed(run, images=num_images)
