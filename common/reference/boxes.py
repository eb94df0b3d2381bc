"""The boxes of random resized crops, drawn from NumPy's generator as the frameworks' sources do.

This code is independent of `common.augmentation.decisions`, which draws the boxes of the batched pipeline.
"""

import numpy as np
from numpy.typing import NDArray

from common.augmentation.operations import RandomResizedCrop
from common.reference.conventions import ALIGNED, Conventions

Boxes = NDArray[np.int64]  # (n, 4): top, left, height, width
ATTEMPTS = 10  # in PyTorch and MXNet; TensorFlow makes 100


def draw_boxes(
    crop: RandomResizedCrop,
    n: int,
    image_size: tuple[int, int],
    rng: np.random.Generator,
    conventions: Conventions = ALIGNED,
) -> Boxes:
    """Draw n boxes in an image of ``image_size`` (height, width)."""
    draw = _sizes_by_area if conventions.crop_box == "area" else _sizes_by_height
    height, width, drawn = draw(crop, n, image_size, rng)
    room = np.stack([image_size[0] - height, image_size[1] - width])  # (2, n)
    places = rng.integers(0, room + 1)
    # If no attempt has drawn a box, it is in the centre.
    top, left = np.where(drawn, places, room // 2)
    return np.stack([top, left, height, width], axis=1)


def _sizes_by_area(
    crop: RandomResizedCrop, n: int, image_size: tuple[int, int], rng: np.random.Generator
) -> tuple[Boxes, Boxes, NDArray[np.bool_]]:
    """Draw a uniform area and a log-uniform ratio until the box fits; after ten attempts use the largest box."""
    full_height, full_width = image_size
    height, width = np.zeros((2, n), np.int64)
    todo = np.arange(n)
    for _ in range(ATTEMPTS):
        area = full_height * full_width * rng.uniform(*crop.scale, len(todo))
        ratio = np.exp(rng.uniform(np.log(crop.ratio[0]), np.log(crop.ratio[1]), len(todo)))
        w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (w > 0) & (w <= full_width) & (h > 0) & (h <= full_height)
        height[todo[fits]], width[todo[fits]] = h[fits], w[fits]
        todo = todo[~fits]
    least, most = crop.ratio
    height[todo] = min(full_height, max(1, round(full_width / least)))
    width[todo] = min(full_width, max(1, round(full_height * most)))
    return height, width, ~np.isin(np.arange(n), todo)


def _sizes_by_height(
    crop: RandomResizedCrop, n: int, image_size: tuple[int, int], rng: np.random.Generator
) -> tuple[Boxes, Boxes, NDArray[np.bool_]]:
    """Draw a uniform ratio, then a uniform height in the allowed range; after 100 attempts use the whole image.

    TensorFlow does this in core/kernels/image/sample_distorted_bounding_box_op.cc, GenerateRandomCrop.
    """
    full_height, full_width = image_size
    least_area, most_area = (full_height * full_width * share for share in crop.scale)
    height, width = np.full(n, full_height), np.full(n, full_width)
    todo = np.arange(n)
    for _ in range(10 * ATTEMPTS):
        ratio = rng.uniform(*crop.ratio, len(todo))
        most = np.rint(np.sqrt(most_area / ratio))
        most = np.where(np.rint(most * ratio) > full_width, (full_width + 0.5) // ratio, most)
        most = np.minimum(most, full_height).astype(np.int64)
        least = np.minimum(np.rint(np.sqrt(least_area / ratio)).astype(np.int64), most)
        h = rng.integers(least, most + 1)
        w = np.rint(h * ratio).astype(np.int64)
        # Rounding may leave the range of areas by one row.
        h = h + (h * w < least_area)
        w = np.rint(h * ratio).astype(np.int64)
        h = h - (h * w > most_area)
        w = np.rint(h * ratio).astype(np.int64)
        fits = (least_area <= h * w) & (h * w <= most_area)
        fits &= (w > 0) & (w <= full_width) & (h > 0) & (h <= full_height)
        height[todo[fits]], width[todo[fits]] = h[fits], w[fits]
        todo = todo[~fits]
        if not len(todo):
            break
    return height, width, ~np.isin(np.arange(n), todo)
