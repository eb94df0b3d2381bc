"""Parity of the native pipeline's random crops: areas, aspect ratios and positions of their boxes, and their pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from common.augmentation.operations import (
    CIFAR10_NORMALIZE,
    Augmentation,
    RandomFlipLeftRight,
    RandomResizedCrop,
    kaggle_train_augs,
    operation,
)
from common.parity import chance
from common.parity.adapter import Adapter
from common.parity.comparison import Array, CheckResult
from common.parity.native import pictures as known
from common.parity.native.draws import (
    Draws,
    Found,
    independent,
    pixel_difference,
    prefixed,
    share_by_group,
    uniform_and_independent,
)
from common.parity.native.visits import Amount, Visits, visited
from common.reference import Conventions, transforms
from common.reference.boxes import draw_boxes

OPPOSITE = {"top": "bottom", "left": "right"}


@dataclass(frozen=True)
class CropRecipe:
    """A list of augmentations with one crop, the size of the images, and the size that the crop is cut from."""

    augs: Sequence[Augmentation]
    size: tuple[int, int]
    cut_from: tuple[int, int]

    @property
    def crop(self) -> RandomResizedCrop:
        return next(aug for aug in self.augs if isinstance(aug, RandomResizedCrop))

    @property
    def flips(self) -> bool:
        return any(isinstance(aug, RandomFlipLeftRight) for aug in self.augs)


CROPS = {
    "crop": CropRecipe([operation("crop", (12, 12))], (32, 32), (32, 32)),
    "wide crop": CropRecipe([RandomResizedCrop((16, 13))], (24, 40), (24, 40)),
    "Kaggle crop": CropRecipe(kaggle_train_augs((32, 32)), (32, 32), (40, 40)),
}


def crop_draws(adapter: Adapter, amount: Amount, seed: int) -> Iterator[CheckResult]:
    """Check areas, aspect ratios and positions of the boxes of random crops, and the pixels of each crop."""
    draws = Draws("crops")
    conventions = adapter.backend.probes.NATIVE
    for number, (name, recipe) in enumerate(CROPS.items()):
        picture = known.ramps(recipe.size, seed)
        copies = np.repeat(picture[None], amount.count, axis=0)
        for how, visits in visited(adapter, copies, recipe.augs, amount, seed, number):
            X = visits.X
            if recipe.augs[-1] == CIFAR10_NORMALIZE:
                X = X * _per_channel(CIFAR10_NORMALIZE.std) + _per_channel(CIFAR10_NORMALIZE.mean)
            boxes, mirrored = known.boxes_of(X, recipe.size, recipe.cut_from)
            X = np.where(mirrored[:, None, None, None], X[..., ::-1], X)
            found = _crops(boxes, mirrored, recipe, visits, conventions, seed)
            pixels = _crop_difference(X, boxes, recipe, picture, conventions)
            draws.add(f"{name}, {how}", visits, found, pixels)
    yield from draws.results()


def _crops(
    boxes: Array,
    mirrored: Array,
    recipe: CropRecipe,
    visits: Visits,
    conventions: Conventions,
    seed: int,
) -> Found:
    found: Found = {}
    if recipe.flips:
        found = prefixed("flips", share_by_group(mirrored, visits) | independent(mirrored, visits))
    else:
        found["mirrored"] = chance.must_hold(not mirrored.any())
    sample = sample_boxes(recipe.crop, recipe.cut_from, conventions)
    for group, mask in visits.groups().items():
        for what, of in (("area", areas), ("ratio", ratios)):
            found[f"{what}, {group}"] = chance.same_distribution(
                of(boxes[mask]), np.sort(of(sample))
            )
    found["ends of the area"] = chance.reaches_sample_ends(areas(boxes), areas(sample))
    found["ends of the ratio"] = chance.reaches_sample_ends(ratios(boxes), ratios(sample))
    found["boxes are allowed"] = chance.must_hold(
        allowed(boxes, recipe.crop, recipe.cut_from).all()
    )
    rng = np.random.default_rng(seed)
    places = {}
    for axis, (start, length, full) in {
        "top": (boxes[:, 0], boxes[:, 2], recipe.cut_from[0]),
        "left": (boxes[:, 1], boxes[:, 3], recipe.cut_from[1]),
    }.items():
        room = full - length
        # Uniform on 0..1 if all positions are equally probable.
        places[axis] = (start + rng.random(len(start))) / (room + 1)
        found |= prefixed(f"place from the {axis}", uniform_and_independent(places[axis], visits))
        free = room > 0
        for edge, touches in ((axis, start == 0), (OPPOSITE[axis], start == room)):
            found[f"boxes at the {edge}"] = chance.none_happened(
                touches[free], 1 / (room[free] + 1)
            )
    same_half = (places["top"] < 0.5) == (places["left"] < 0.5)
    return found | {"top and left agree": chance.share(same_half, 0.5)}


def _crop_difference(
    X: Array, boxes: Array, recipe: CropRecipe, picture: Array, conventions: Conventions
) -> float:
    """Return the largest difference from the reference's crops, in 0..255; inf if a box leaves the image."""
    top, left, height, width = boxes.T
    if boxes.min() < 0 or height.min() < 1 or width.min() < 1:
        return np.inf
    if (top + height).max() > recipe.cut_from[0] or (left + width).max() > recipe.cut_from[1]:
        return np.inf
    whole = np.array([[0, 0, *recipe.size]])
    image = transforms.crop_resize(
        transforms.from_images(picture[None]), whole, recipe.cut_from, conventions
    )
    different, which = np.unique(boxes, axis=0, return_inverse=True)
    images = np.repeat(image, len(different), axis=0)
    expected = transforms.crop_resize(images, different, recipe.crop.size, conventions)
    return pixel_difference(X, expected[which.ravel()])


def areas(boxes: Array) -> Array:
    """Return the areas of boxes (n, 4) in pixels."""
    return np.asarray(boxes[:, 2] * boxes[:, 3])


def ratios(boxes: Array) -> Array:
    """Return the aspect ratios, width / height, of boxes (n, 4)."""
    return np.asarray(boxes[:, 3] / boxes[:, 2])


def allowed(boxes: Array, crop: RandomResizedCrop, size: tuple[int, int]) -> Array:
    """Return which boxes (n, 4) have an allowed area and aspect ratio before rounding, or are the central box."""
    height, width = boxes[:, 2], boxes[:, 3]
    least, most = (share * size[0] * size[1] for share in crop.scale)
    by_area = ((height + 0.5) * (width + 0.5) >= least) & ((height - 0.5) * (width - 0.5) <= most)
    narrow, wide = (width - 0.5) / (height + 0.5), (width + 0.5) / (height - 0.5)
    by_ratio = (wide >= crop.ratio[0]) & (narrow <= crop.ratio[1])
    full = (height == size[0]) | (width == size[1])
    return np.asarray(by_ratio & (by_area | full))


@lru_cache
def sample_boxes(crop: RandomResizedCrop, size: tuple[int, int], conventions: Conventions) -> Array:
    """Return boxes (n, 4) drawn by the reference."""
    return draw_boxes(crop, chance.SAMPLE, size, np.random.default_rng(0), conventions)


def _per_channel(values: tuple[float, float, float]) -> Array:
    return np.array(values)[:, None, None]
