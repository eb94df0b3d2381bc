"""The inputs that checks vary, and cases that contain every pair of values of two dimensions (pairwise testing)."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.augmentation.operations import (
    Augmentation,
    ColorJitter,
    gallery,
    kaggle_test_augs,
    kaggle_train_augs,
    operation,
)
from common.datasets import Dataset
from common.parity.adapter import Batch, random_batch

NUM_CHANNELS = 8  # in the first stage of the cases' networks
NUM_FEATURES = 8 * NUM_CHANNELS  # in their last layer
CLASSES = (1, 2, 10, 37, NUM_FEATURES)
CHANNELS = (1, 3)
SHAPES = ("square", "wide", "high", "odd")
BATCH_SIZES = (1, 2, 3, 5, 7, 8, 16, 33)
RECIPES = ("none", "every operation", "flip, jitter and crop", "Kaggle")
SPLITS = ("training", "test")
WHOLE_BATCHES = (0, 1, 3)  # full batches before the last batch

Option = tuple[Any, ...]  # the values of one dimension in a case, usually one
Row = dict[str, Option]  # dimension: option
Pair = frozenset[tuple[str, Hashable]]  # two values, each with the name of its dimension
FULL = "the last one full"
# The size of an epoch's batches and of its last batch. Both values count as tested; they may be equal.
BATCHES: list[Option] = [
    (most, last, FULL) if most == last else (most, last)
    for last, most in combinations_with_replacement(BATCH_SIZES, 2)
]


def covering(dimensions: Mapping[str, Sequence[Option]], seed: int = 0) -> list[Row]:
    """Return rows that contain every pair of values of two dimensions at least once.

    Greedy: the next row is one with the most pairs that are still missing.
    """
    rows = [dict(zip(dimensions, row, strict=True)) for row in product(*dimensions.values())]
    np.random.default_rng(seed).shuffle(rows)  # type: ignore[arg-type]
    pairs = [set(pairs_of(row)) for row in rows]
    left: set[Pair] = set().union(*pairs)
    found: list[Row] = []
    while left:
        best = max(range(len(rows)), key=lambda i: len(pairs[i] & left))
        found.append(rows[best])
        left -= pairs[best]
    return found


def pairs_of(row: Row) -> Iterator[Pair]:
    """Yield the pairs of values of different dimensions in a row."""
    for one, other in combinations(row, 2):
        for a, b in product(row[one], row[other]):
            yield frozenset(((one, a), (other, b)))


@dataclass(frozen=True)
class NetworkCase:
    """A network, and an epoch of batches of one size with a last batch of another size."""

    num_classes: int
    in_channels: int
    size: tuple[int, int]  # height and width of the images
    batch_size: int
    last_size: int

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"{_number(self.num_classes, 'class', 'classes')}, "
            f"{_number(self.in_channels, 'channel', 'channels')}, {height} x {width}, "
            f"batches of {self.batch_size} and {self.last_size}"
        )

    def batches(self, sizes: Sequence[int], seed: int) -> list[Batch]:
        """Draw batches of these sizes.

        Each contains the pixel values 0 and 1 and the first and last class, if they fit.
        """
        found = []
        for i, n in enumerate(sizes):
            drawn = random_batch(n, self.size, 1000 * seed + i, self.num_classes, self.in_channels)
            drawn.X[0, :, 0, 0], drawn.X[-1, :, -1, -1] = 0, 1
            drawn.y[0], drawn.y[-1] = 0, self.num_classes - 1
            found.append(drawn)
        return found


def network_cases(seed: int, quick: bool = False) -> list[NetworkCase]:
    """Return cases with every pair of values, or with ``quick`` every value; ``seed`` draws the rest."""
    rng = np.random.default_rng(seed)
    dimensions: dict[str, Sequence[Option]] = {
        "batches": BATCHES,
        "classes": [(n,) for n in CLASSES],
        "channels": [(n,) for n in CHANNELS],
        "shape": [(shape,) for shape in SHAPES],
    }
    rows = QUICK_NETWORKS if quick else covering(dimensions, seed)
    found = []
    for row in rows:
        (most, last, *_), (classes,), (channels,), (shape,) = row.values()
        # BatchNorm needs several values per channel, and up to 8 x 8 pixels the last stage has only one position.
        least = 4 if last == 33 else 9
        found.append(NetworkCase(classes, channels, draw_size(shape, least, rng), most, last))
    return found


QUICK_NETWORKS: list[Row] = [
    {"batches": (33, 5), "classes": (NUM_FEATURES,), "channels": (1,), "shape": ("wide",)},
    {"batches": (16, 2), "classes": (2,), "channels": (3,), "shape": ("high",)},
    {"batches": (8, 3), "classes": (10,), "channels": (1,), "shape": ("odd",)},
    {"batches": (7, 1), "classes": (37,), "channels": (3,), "shape": ("wide",)},
    {"batches": (5, 5, FULL), "classes": (1,), "channels": (3,), "shape": ("square",)},
]


@dataclass(frozen=True)
class LoaderCase:
    """A data set and how it is read: ``epochs`` epochs of ``whole`` full batches and a last one, which may be full.

    The first three epochs are read one after another, the others in parallel.
    """

    recipe: str
    split: str
    size: tuple[int, int]
    batch_size: int
    last_size: int
    whole: int
    num_classes: int
    epochs: int = 5

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"{_number(self.num_examples, 'image', 'images')} of {height} x {width} in batches of {self.batch_size}, "
            f"{self.epochs} epochs, {self.split}, {self.recipe}"
        )

    @property
    def num_examples(self) -> int:
        return self.whole * self.batch_size + self.last_size

    @property
    def is_train(self) -> bool:
        return self.split == "training"

    @property
    def augs(self) -> Sequence[Augmentation]:
        """The augmentations of the recipe. Only "every operation" changes the size of images."""
        height, width = self.size
        if self.recipe == "none":
            return ()
        if self.recipe == "Kaggle":
            return kaggle_train_augs(self.size) if self.is_train else kaggle_test_augs()
        if self.recipe == "every operation":
            names = ("flip_top_bottom", "crop", "brightness", "flip", "hue", "jitter")
            other = height + 3, max(width - 2, 1)
            return [*(operation(name, other) for name in names), ColorJitter(0, 0.5, 0.5)]
        return gallery(self.size)[self.recipe]

    def dataset(self, seed: int) -> Dataset:
        """Draw images with the values 0 and 255, and labels with the first and last class, if they fit."""
        rng = np.random.default_rng(seed)
        n, (height, width) = self.num_examples, self.size
        images = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
        images[0, 0, 0], images[-1, -1, -1] = 0, 255
        labels: NDArray[np.int64] = rng.integers(0, self.num_classes, n)
        labels[0], labels[-1] = 0, self.num_classes - 1
        return Dataset(images, labels, tuple(map(str, range(self.num_classes))))


def loader_cases(seed: int, quick: bool = False) -> list[LoaderCase]:
    """Return cases with every pair of values, or with ``quick`` every value; ``seed`` draws the rest."""
    rng = np.random.default_rng(seed)
    dimensions: dict[str, Sequence[Option]] = {
        "batches": BATCHES,
        "recipe": [(recipe,) for recipe in RECIPES],
        "split": [(split,) for split in SPLITS],
        "shape": [(shape,) for shape in SHAPES],
        "whole": [(n,) for n in WHOLE_BATCHES],
    }
    rows = QUICK_LOADERS if quick else covering(dimensions, seed)
    found = []
    for i, row in enumerate(rows):
        (most, last, *_), (recipe,), (split,), (shape,), (whole,) = row.values()
        size, classes = draw_size(shape, 2, rng), CLASSES[i % len(CLASSES)]
        found.append(LoaderCase(recipe, split, size, most, last, whole, classes))
    return [*found, MANY_EPOCHS] if quick else [*found, MANY_EPOCHS, MANY_IMAGES]


def _loader(batches: Option, recipe: str, split: str, shape: str, whole: int) -> Row:
    return {
        "batches": batches,
        "recipe": (recipe,),
        "split": (split,),
        "shape": (shape,),
        "whole": (whole,),
    }


QUICK_LOADERS = [
    _loader((33, 1), "flip, jitter and crop", "training", "wide", 1),
    _loader((16, 2), "Kaggle", "training", "high", 1),
    _loader((8, 5), "every operation", "training", "odd", 3),
    _loader((7, 3), "none", "test", "square", 3),
    _loader((2, 2, FULL), "every operation", "test", "wide", 0),
    _loader((5, 3), "Kaggle", "test", "odd", 0),
]
MANY_EPOCHS = LoaderCase(
    "flip, jitter and crop", "training", (3, 4), 4, 3, whole=1, num_classes=10, epochs=12
)
MANY_IMAGES = LoaderCase(
    "flip, jitter and crop", "training", (3, 4), 33, 16, whole=9, num_classes=37, epochs=3
)


def draw_size(shape: str, least: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the height and width of a shape. Each side has at least ``least`` pixels, and few have more than 16."""
    short, more = int(rng.integers(least, 12)), int(rng.integers(1, 7))
    if shape == "square":
        return short, short
    if shape == "odd":
        sides = 2 * (short // 2) + 1, 2 * (short // 2 + (more + 1) // 2) + 1
        return sides if rng.random() < 0.5 else sides[::-1]
    return (short, short + more) if shape == "wide" else (short + more, short)


def _number(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"
