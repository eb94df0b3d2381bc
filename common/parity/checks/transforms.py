"""Parity of the transforms on batches: how a backend applies given decisions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import numpy as np

from common.augmentation.decisions import (
    Decision,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
    Normalizes,
    crops,
    decide,
)
from common.augmentation.operations import (
    CIFAR10_NORMALIZE,
    OPERATIONS,
    Augmentation,
    ColorJitter,
    Resize,
    gallery,
    kaggle_train_augs,
    operation,
)
from common.parity.adapter import Adapter
from common.parity.comparison import (
    Array,
    Arrays,
    CheckResult,
    absolute,
    largest,
    mean,
)
from common.reference import Conventions, transforms

PARTS = ("transforms",)
Case = tuple[Array, list[Decision]]  # uint8 images (n, 3, height, width) and decisions to apply
# Absolute differences: of 0..1, or of 0..255 for uint8 images.
largest_difference, mean_difference = absolute(largest), absolute(mean)


def transform_checks(adapter: Adapter, seed: int = 0) -> Iterator[CheckResult]:
    """Check each operation on floats, from uint8 images to floats, and normalization; random and extreme parameters."""
    found = cases(seed)
    got: dict[str, Array] = {}
    for name, (images, decisions) in found.items():
        X = adapter.tensor(images, "uint8")
        got[name] = _augmented(adapter, images, decisions)
        Y = adapter.backend.transforms.augment_to_float(X, decisions)
        got[f"{name}, to floats"] = adapter.array(Y)
    normalized = [name for name, (_, decisions) in found.items() if is_normalized(decisions)]
    for name in normalized:
        got[f"{name}, from uint8"] = _augmented(adapter, *found[name], as_uint8=True)

    def expected(conventions: Conventions) -> Arrays:
        floats = {
            name: transforms.augment(images / 255, decisions, conventions)
            for name, (images, decisions) in found.items()
        }
        return (
            floats
            | {f"{name}, to floats": result for name, result in floats.items()}
            | {f"{name}, from uint8": floats[name] for name in normalized}
        )

    yield adapter.compare("transforms", got, expected, largest_difference, PARTS)


def uint8_checks(adapter: Adapter, seed: int = 0) -> Iterator[CheckResult]:
    """Check each operation from uint8 to uint8 images: no value differs by more than 1, and few differ at all."""
    found = {name: case for name, case in cases(seed).items() if not is_normalized(case[1])}
    got = {
        name: _augmented(adapter, images, decisions, as_uint8=True)
        for name, (images, decisions) in found.items()
    }

    def expected(conventions: Conventions) -> Arrays:
        return {
            name: transforms.to_uint8(
                transforms.augment(images / 255, decisions, conventions), conventions
            )
            for name, (images, decisions) in found.items()
        }

    for name, distance in (("largest", largest_difference), ("mean", mean_difference)):
        yield adapter.compare(f"transforms of uint8 images, {name}", got, expected, distance, PARTS)


def is_normalized(decisions: Sequence[Decision]) -> bool:
    """Return whether these decisions normalize, so that the result is not an image in 0..1."""
    return any(isinstance(decision, Normalizes) for decision in decisions)


def _augmented(
    adapter: Adapter, images: Array, decisions: list[Decision], as_uint8: bool = False
) -> Array:
    """Apply decisions to uint8 images in the backend; return floats 0..1, or uint8 images with ``as_uint8``."""
    augment, to_float = adapter.backend.transforms.augment, adapter.backend.transforms.to_float
    X = adapter.tensor(images, "uint8")
    return adapter.array(augment(X if as_uint8 else to_float(X), decisions))


def cases(seed: int) -> dict[str, Case]:
    """Return images and decisions by name: the chapter's random parameters, then extreme ones."""
    images = example_images(16, 16, seed)
    drawn = operation_decisions((16, 16), (12, 10), seed)
    found = {name: (images, decisions) for name, decisions in drawn.items()}
    return found | _kaggle(seed) | _edges(seed)


def _kaggle(seed: int) -> dict[str, Case]:
    """Return the Kaggle chapter's operations, and its recipe on images of its size."""
    images, large = example_images(16, 16, seed), example_images(32, 32, seed)
    indices = np.arange(8)
    return {
        "resize": (images, decide([Resize((20, 13))], indices, seed, 0, (16, 16))),
        "normalize": (images, decide([CIFAR10_NORMALIZE], indices, seed, 0, (16, 16))),
        "Kaggle recipe": (
            large,
            decide(kaggle_train_augs((32, 32)), indices, seed, 0, (32, 32)),
        ),
    }


def operation_decisions(
    size: tuple[int, int], crop_size: tuple[int, int], seed: int = 0
) -> dict[str, list[Decision]]:
    """Return the random decisions of the chapter's operations for `example_images` of this size, by operation."""
    return {
        name: decide(augmentations, np.arange(8), seed, 0, size)
        for name, augmentations in _operations(crop_size).items()
    }


def _operations(crop_size: tuple[int, int]) -> Mapping[str, Sequence[Augmentation]]:
    """Return the operations that the chapter shows, contrast and saturation (parts of its jitter), and all others."""
    shown: Mapping[str, Sequence[Augmentation]] = {
        **gallery(crop_size),
        "contrast": [ColorJitter(contrast=0.5)],
        "saturation": [ColorJitter(saturation=0.5)],
    }
    others = {name: [operation(name, crop_size)] for name in OPERATIONS}
    return {**shown, **{n: augs for n, augs in others.items() if augs not in shown.values()}}


def _edges(seed: int) -> dict[str, Case]:
    """Return edge cases: odd sizes, one image, all or none, factors 0 and 2, tiny boxes."""
    images = example_images(7, 5, seed)
    n = len(images)
    all_of_them, none = np.ones(n, bool), np.zeros(n, bool)
    found: dict[str, Case] = {
        "flip of all, odd size": (
            images,
            [FlipsLeftRight(all_of_them), FlipsTopBottom(all_of_them)],
        ),
        "flip of none": (images, [FlipsLeftRight(none), FlipsTopBottom(none)]),
        "one image": (images[:1], [FlipsLeftRight(all_of_them[:1])]),
    }
    for name, box, size in (
        ("crop of the whole image", (0, 0, 7, 5), (7, 5)),
        ("crop of one pixel, enlarged", (6, 4, 1, 1), (4, 4)),
        ("crop to one pixel", (0, 0, 7, 5), (1, 1)),
        ("crop of one row, shrunk", (3, 0, 1, 5), (2, 2)),
    ):
        boxes = np.tile(np.array(box), (n, 1))
        found[name] = images, [crops(boxes, (7, 5), size)]
    for kind, (name, factors) in enumerate(
        {
            "brightness 0 and 2": (0, 2),
            "contrast 0 and 2": (0, 2),
            "saturation 0 and 2": (0, 2),
            "hue of half a turn": (-0.5, 0.5),
        }.items()
    ):
        table = np.ones((n, 4), np.float32)
        table[:, 3] = 0
        table[:, kind] = np.resize(np.array(factors, np.float32), n)
        found[name] = images, [Jitters(table, np.full((n, 1), kind))]
    return found


def example_images(height: int, width: int, seed: int) -> Array:
    """Return uint8 images (8, 3, height, width): noise, ramps, and pure colours."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (8, 3, height, width), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    images[2] = (rows * 255 // max(height - 1, 1)).astype(np.uint8)  # a grey ramp, without hue
    images[3, 0], images[3, 1] = columns * 255 // max(width - 1, 1), 128  # two channels cross
    images[4], images[5] = 0, 255
    corners = rng.integers(0, 2, (3, height, width)) * 255
    images[6] = corners  # pure colours, black and white: many pixels have equal channels
    images[7, 1] = images[7, 0]  # red and green equal
    return images


def operation_pictures(adapter: Adapter) -> dict[str, Array]:
    """Apply the backend's operations to one photograph; return floats 0..1, (3, height, width), by operation.

    Operations that normalize are left out, because their results are not pictures.
    """
    image, found = _photograph()
    return {name: _augmented(adapter, image, decisions)[0] for name, decisions in found.items()}


def reference_pictures() -> dict[str, Array]:
    """Return the reference's pictures of the same operations."""
    image, found = _photograph()
    return {
        name: transforms.augment(image / 255, decisions)[0] for name, decisions in found.items()
    }


def _photograph() -> tuple[Array, dict[str, list[Decision]]]:
    """Return a photograph, uint8 (1, 3, 100, 100), and decisions that change it, by operation."""
    import skimage.data

    cat = skimage.data.chelsea()[:300:3, 60:360:3]  # type: ignore[no-untyped-call]
    image = np.moveaxis(np.ascontiguousarray(cat), -1, 0)[None]
    operations = {**_operations((80, 80)), "resize": [Resize((80, 80))]}
    return image, {name: _visible(image, augs) for name, augs in operations.items()}


def _visible(image: Array, augs: Sequence[Augmentation]) -> list[Decision]:
    """Return the decisions of the first example, starting at number 2, that change the image."""
    for number in count(2):
        decisions = decide(augs, np.array([number]), 0, 0, (100, 100))
        changed = transforms.augment(image / 255, decisions)
        if changed.shape != image.shape or np.abs(changed - image / 255).max() > 0.1:
            return decisions
    raise AssertionError  # count() has no end
