"""Parity of each operation on batches, called directly: batches and images of many sizes, float32 and uint8."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from common.augmentation.decisions import FlipsLeftRight, Jitters, Normalizes, crops
from common.augmentation.operations import CIFAR10_NORMALIZE
from common.interface import Tensor, Transforms
from common.parity.adapter import Adapter
from common.parity.checks.cases import BATCH_SIZES, SHAPES, draw_size
from common.parity.comparison import Array, Arrays, CheckResult, absolute, difference, mean
from common.reference import Conventions
from common.reference import transforms as reference

# An operation: the backend's function, and the reference's function of floats 0..1.
Operation = tuple[Callable[[Tensor], Tensor], Callable[[Array, Conventions], Array]]
# Name of the call: the operation, and uint8 images (n, 3, height, width).
Calls = dict[str, tuple[Operation, Array]]


def operation_checks(
    single: Adapter, uint8: Adapter, quick: bool = False, seed: int = 0
) -> Iterator[CheckResult]:
    """Check every function of the `Transforms` protocol except `native`; ``uint8`` is the adapter of kind "uint8".

    No cause is searched for, because one function may follow a convention and another may not.
    """
    calls = _calls(single.backend.transforms, quick, seed)
    yield _floats(single, calls, seed)
    yield _conversions(single, calls, seed)
    own = {place: call for place, call in calls.items() if "normalize" not in place}
    yield from _uint8(uint8, own)


def _calls(transforms: Transforms, quick: bool, seed: int) -> Calls:
    """Return the operations on batches of all sizes and images of all shapes."""
    rng = np.random.default_rng(seed)
    found: Calls = {}
    for i, n in enumerate(BATCH_SIZES[::3] if quick else BATCH_SIZES):
        height, width = draw_size(SHAPES[i % len(SHAPES)], 5, rng)
        images = rng.integers(0, 256, (n, 3, height, width), dtype=np.uint8)
        images[0, :, 0, 0], images[-1, :, -1, -1] = 0, 255
        for name, operation in _operations(transforms, n, (height, width), rng).items():
            found[f"{name}, {n} of {height} x {width}"] = operation, images
    return found


def _operations(
    transforms: Transforms, n: int, size: tuple[int, int], rng: np.random.Generator
) -> dict[str, Operation]:
    """Return each operation with random parameters for n images, and extreme ones for the first and the last."""
    height, width = size
    factors = rng.uniform(0, 2, (n, 4)).astype(np.float32)
    factors[:, 3] = rng.uniform(-0.5, 0.5, n)
    factors[0], factors[-1] = (0, 0, 0, -0.5), (2, 2, 2, 0.5)
    order = rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1)
    flips = rng.random(n) < 0.5
    flips[-1] = True
    tops, lefts = rng.integers(0, height, n), rng.integers(0, width, n)
    heights, widths = rng.integers(1, height - tops + 1), rng.integers(1, width - lefts + 1)
    box = crops(np.stack([tops, lefts, heights, widths], axis=1), size, (width, height + 2))
    norm_mean, std = (np.array(values, np.float32) for values in vars(CIFAR10_NORMALIZE).values())
    flipped, normalized = FlipsLeftRight(flips), Normalizes(norm_mean, std)
    found: dict[str, Operation] = {
        "augment": (
            lambda X: transforms.augment(X, [flipped, Jitters(factors, order)]),
            lambda X, c: reference.augment(X, [flipped, Jitters(factors, order)], c),
        ),
        "normalize, by augment": (
            lambda X: transforms.augment(X, [flipped, normalized]),
            lambda X, c: reference.augment(X, [flipped, normalized], c),
        ),
        "crop_resize": (
            lambda X: transforms.crop_resize(X, box.rows, box.columns),
            # The backend receives the antialiased matrices, whatever its own crops do.
            lambda X, _: reference.crop_resize(X, box.boxes, (width, height + 2)),
        ),
        "color_jitter": (
            lambda X: transforms.color_jitter(X, factors, order),
            lambda X, c: reference.color_jitter(X, factors, order, c),
        ),
        "normalize": (
            lambda X: transforms.normalize(X, norm_mean, std),
            lambda X, _: reference.normalize(X, norm_mean, std),
        ),
    }
    for name in ("flip_left_right", "flip_top_bottom"):
        found[name] = _named(name, transforms, flips)
    for k, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        found[f"adjust_{name}"] = _named(f"adjust_{name}", transforms, factors[:, k])
    return found


def _named(name: str, transforms: Transforms, parameters: Array) -> Operation:
    """Return an operation with one parameter for each image."""
    own, true = getattr(transforms, name), getattr(reference, name)
    takes_conventions = name.startswith("adjust")
    return (
        lambda X: own(X, parameters),
        lambda X, c: true(X, parameters, *([c] if takes_conventions else [])),
    )


def _floats(adapter: Adapter, calls: Calls, seed: int) -> CheckResult:
    """Check operations on floats, and normalization of uint8 images too."""
    rng = np.random.default_rng(seed)
    # Also values between two integers of 0..255, as earlier operations return them.
    floats = {
        place: ((images + rng.uniform(-0.4, 0.4, images.shape)) / 255).clip(0, 1).astype(np.float32)
        for place, (_, images) in calls.items()
    }
    got = {
        place: adapter.array(own(adapter.tensor(floats[place])))
        for place, ((own, _), _) in calls.items()
    }
    normalized = {f"{p}, of uint8": call for p, call in calls.items() if p.startswith("normalize")}
    for place, ((own, _), images) in normalized.items():
        got[place] = adapter.array(own(adapter.tensor(images, "uint8")))

    def expected(conventions: Conventions) -> Arrays:
        found = {
            place: true(floats[place].astype(np.float64), conventions)
            for place, ((_, true), _) in calls.items()
        }
        return found | {
            place: true(images / 255, conventions)
            for place, ((_, true), images) in normalized.items()
        }

    return adapter.compare("operations", got, expected, difference, parts=())


def _conversions(adapter: Adapter, calls: Calls, seed: int) -> CheckResult:
    """Check `from_images`, `to_images` and `to_float`, and that operations return the dtype that they receive."""
    transforms, rng = adapter.backend.transforms, np.random.default_rng(seed)
    got: dict[str, Array] = {}
    found: dict[str, Array] = {}
    rounded: dict[str, Array] = {}  # place: floats that are converted to uint8
    for place, ((own, _), levels) in calls.items():
        for kind in ("uint8", "float32"):
            Y = own(adapter.tensor(levels if kind == "uint8" else levels / 255, kind))
            is_float = kind == "float32" or place.startswith("normalize")
            expected_kind = "float32" if is_float else "uint8"
            got[f"{place}, {kind}: type"] = np.array(float(expected_kind in str(Y.dtype)))
            found[f"{place}, {kind}: type"] = np.array(1.0)
    for place, (_, levels) in calls.items():
        if not place.startswith("normalize"):
            continue
        images, size = np.moveaxis(levels, 1, -1), place.partition(",")[2]
        # Floats that round to these images.
        floats = ((levels + rng.uniform(-0.4, 0.4, levels.shape)) / 255).clip(0, 1)
        rounded[f"to_images, of floats,{size}"] = floats
        X = transforms.from_images(np.ascontiguousarray(images), adapter.devices[0])
        pairs: dict[str, tuple[Any, Array]] = {
            "from_images": (adapter.array(X), levels),
            "to_images": (transforms.to_images(X), images),
            "to_images, of floats": (transforms.to_images(adapter.tensor(floats)), images),
            "to_float": (adapter.array(transforms.to_float(X)), levels / np.float32(255)),
            "to_float, of floats": (
                adapter.array(transforms.to_float(adapter.tensor(floats))),
                floats.astype(np.float32),
            ),
        }
        for name, (own_result, true_result) in pairs.items():
            got[f"{name},{size}"], found[f"{name},{size}"] = own_result, true_result
            got[f"{name},{size}: type"] = np.array(float(own_result.dtype == true_result.dtype))
            found[f"{name},{size}: type"] = np.array(1.0)

    def expected(conventions: Conventions) -> Arrays:
        return found | {
            place: np.moveaxis(reference.to_uint8(floats, conventions), 1, -1)
            for place, floats in rounded.items()
        }

    return adapter.compare("conversions", got, expected, difference, parts=())


def _uint8(adapter: Adapter, calls: Calls) -> Iterator[CheckResult]:
    """Check operations from uint8 to uint8: no value differs by more than 1, and few differ at all."""
    got = {
        place: adapter.array(own(adapter.tensor(images, "uint8")))
        for place, ((own, _), images) in calls.items()
    }

    def expected(conventions: Conventions) -> Arrays:
        return {
            place: reference.to_uint8(true(images / 255, conventions), conventions)
            for place, ((_, true), images) in calls.items()
        }

    yield adapter.compare(
        "operations on uint8 images, largest", got, expected, difference, parts=()
    )
    yield adapter.compare(
        "operations on uint8 images, mean",
        _joined(got),
        lambda conventions: _joined(expected(conventions)),
        absolute(mean),
        parts=(),
    )


def _joined(found: Arrays) -> Arrays:
    """Join the values of each operation on all batches: in a small array, one value would dominate the mean."""
    names = dict.fromkeys(place.partition(",")[0] for place in found)
    return {
        name: np.concatenate(
            [array.ravel() for place, array in found.items() if place.startswith(f"{name},")]
        )
        for name in names
    }
