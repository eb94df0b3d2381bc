"""The random decisions of the batched pipeline, as pure functions of (seed, epoch, index).

There is no generator with a hidden state: each random number is a hash of its seed and counters. So the same seed
gives the same batches and the same augmented pixels in every backend, for any batch size and any number of workers.
Any single example can be drawn again, such as example 4711 of epoch 3. The hash is the finaliser of SplitMix64 (Steele,
Lea and Flood 2014, "Fast splittable pseudorandom number generators"), chained over the counters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.augmentation.operations import (
    Augmentation,
    ColorJitter,
    Normalize,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
    split_normalize,
)
from common.augmentation.resampling import box_weights

Bits = NDArray[np.uint64]
Indices = NDArray[np.int64]
Uniform = NDArray[np.float64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio, odd
ORDER, AUGMENT, NATIVE = (
    1,
    2,
    3,
)  # the first counter, by purpose, so that no two purposes share random numbers
CROP_ATTEMPTS = 10  # as in torchvision and MXNet; then they use a central crop

# Positions in the last axis of `Jitters.factors`, and the values of `Jitters.order`.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
PROPERTIES = ("brightness", "contrast", "saturation", "hue")


def _mix(z: Bits) -> Bits:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_bits(seed: int, *counters: ArrayLike) -> Bits:
    """Return 64 random bits for every element of the broadcast ``counters`` (integers >= 0)."""
    with np.errstate(over="ignore"):  # the arithmetic is meant to be modulo 2**64
        state = _mix(np.asarray(seed % 2**64, np.uint64) + GOLDEN)
        for counter in counters:
            state = _mix((state ^ np.asarray(counter).astype(np.uint64)) * GOLDEN + GOLDEN)
    return np.asarray(state, np.uint64)


def uniform(seed: int, *counters: ArrayLike) -> Uniform:
    """Return uniform numbers in [0, 1), multiples of 2**-53, with the shape of the broadcast ``counters``."""
    return np.asarray((random_bits(seed, *counters) >> np.uint64(11)) * 2.0**-53)


def epoch_order(num_examples: int, seed: int, epoch: int, shuffle: bool = True) -> Indices:
    """Return the order of the examples in an epoch: a permutation, int64 of shape (num_examples,)."""
    if not shuffle:
        return np.arange(num_examples)
    keys = random_bits(seed, ORDER, epoch, np.arange(num_examples))
    return np.argsort(keys, kind="stable")


def epoch_batches(
    num_examples: int,
    batch_size: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Indices]:
    """Yield the indices of each batch of an epoch, int64 of shape (batch_size,); the last batch may be smaller.

    ``part`` is (rank, number of processes): yield this process's part of each batch. Parts differ by at most one
    example. The first processes have the larger ones. A part without examples is left out.
    """
    order = epoch_order(num_examples, seed, epoch, shuffle)
    rank, num_processes = part
    for start in range(0, num_examples, batch_size):
        batch = order[start : start + batch_size]
        own = np.array_split(batch, num_processes)[rank]
        if len(own):
            yield own


@dataclass(frozen=True)
class FlipsLeftRight:
    """``flips``: bool (n,), true for the images to mirror left and right."""

    flips: NDArray[np.bool_]

    def caption(self, i: int) -> list[str]:
        """Return the caption of image ``i``: a list of lines. Every decision has this method.

        A line that begins with "not " means that nothing changed. Short captions are cut before " at ".
        """
        return ["mirrored" if self.flips[i] else "not mirrored"]


@dataclass(frozen=True)
class FlipsTopBottom:
    """``flips``: bool (n,), true for the images to flip upside down."""

    flips: NDArray[np.bool_]

    def caption(self, i: int) -> list[str]:
        return ["upside down" if self.flips[i] else "not upside down"]


@dataclass(frozen=True)
class Crops:
    """Boxes int64 (n, 4), each (top, left, height, width) in pixels, and the matrices that crop and resize them.

    ``rows`` is float32 (n, out_height, in_height), ``columns`` float32 (n, out_width, in_width): see
    `common.augmentation.resampling`.
    """

    boxes: Indices
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]

    def caption(self, i: int) -> list[str]:
        """Return the box, height × width at (top, left) in pixels; no line if all boxes are the whole image."""
        if (self.boxes == (0, 0, self.rows.shape[-1], self.columns.shape[-1])).all():
            return []
        top, left, height, width = self.boxes[i]
        return [f"box {height} × {width} at ({top}, {left})"]


@dataclass(frozen=True)
class Jitters:
    """Colour changes of n images.

    ``factors`` is float32 (n, 4): factors for BRIGHTNESS, CONTRAST and SATURATION, where 1 changes nothing, and turns
    for HUE, where 0 changes nothing. ``order`` is int64 (n, k): the k properties that change, in order of application.
    """

    factors: NDArray[np.float32]
    order: Indices

    def caption(self, i: int) -> list[str]:
        """Return the changes in the order of application."""
        return [
            f"hue {self.factors[i, HUE]:+z.2f} turns"
            if property == HUE
            else f"{PROPERTIES[property]} × {self.factors[i, property]:.2f}"
            for property in self.order[i]
        ]


@dataclass(frozen=True)
class Normalizes:
    """``mean`` to subtract from each channel and ``std`` to divide by: float32 (3,), the same for all images."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def caption(self, i: int) -> list[str]:  # noqa: ARG002 - the same for all images
        return []


@dataclass(frozen=True)
class Resamples:
    """The combined matrices of several crops and flips, as in `Crops`; see `merged`."""

    rows: NDArray[np.float32]
    columns: NDArray[np.float32]


Decision = FlipsLeftRight | FlipsTopBottom | Crops | Jitters | Normalizes


def decide(
    augmentations: Sequence[Augmentation],
    indices: Indices,
    seed: int,
    epoch: int,
    image_size: tuple[int, int],
) -> list[Decision]:
    """Draw the parameters of every augmentation for the examples ``indices`` of one epoch.

    ``image_size`` is (height, width) in pixels before the first augmentation. Returns one decision
    per augmentation, in the same order, with the examples along the first axis. Raises ValueError
    if a Normalize is not the last augmentation.
    """
    split_normalize(augmentations)
    decisions: list[Decision] = []
    for position, augmentation in enumerate(augmentations):
        counters = (AUGMENT, epoch, indices, position)
        match augmentation:
            case RandomFlipLeftRight(p):
                decisions.append(FlipsLeftRight(uniform(seed, *counters) < p))
            case RandomFlipTopBottom(p):
                decisions.append(FlipsTopBottom(uniform(seed, *counters) < p))
            case RandomResizedCrop(size):
                boxes = _crop_boxes(augmentation, seed, counters, image_size)
                decisions.append(crops(boxes, image_size, size))
                image_size = size
            case ColorJitter():
                decisions.append(_jitters(augmentation, seed, counters))
            case Resize(size):
                n, whole = len(indices), np.array([[0, 0, *image_size]])
                alike = crops(whole, image_size, size)
                rows, columns = (
                    np.repeat(alike.rows, n, axis=0),
                    np.repeat(alike.columns, n, axis=0),
                )
                decisions.append(Crops(np.repeat(whole, n, axis=0), rows, columns))
                image_size = size
            case Normalize(mean, std):
                decisions.append(Normalizes(np.array(mean, np.float32), np.array(std, np.float32)))
            case _:
                assert_never(augmentation)
    return decisions


def crops(boxes: Indices, image_size: tuple[int, int], out_size: tuple[int, int]) -> Crops:
    """Return the decision that crops images to ``boxes`` (n, 4) and resizes them to ``out_size``."""
    top, left, height, width = boxes.T
    rows = box_weights(top, height, image_size[0], out_size[0])
    columns = box_weights(left, width, image_size[1], out_size[1])
    return Crops(boxes, rows, columns)


def merged(decisions: Sequence[Decision]) -> list[Decision | Resamples]:
    """Return equivalent decisions in fewer steps.

    A run of crops, and of flips after a crop, becomes one product. The results differ only by
    rounding, because no decision rounds to uint8 between two others.
    """
    steps: list[Decision | Resamples] = []
    for decision in decisions:
        match steps[-1:], decision:
            case [Resamples(rows, columns)], Crops():
                steps[-1] = Resamples(decision.rows @ rows, decision.columns @ columns)
            case [Resamples(rows, columns)], FlipsLeftRight(flips):
                steps[-1] = Resamples(rows, _upside_down(columns, flips))
            case [Resamples(rows, columns)], FlipsTopBottom(flips):
                steps[-1] = Resamples(_upside_down(rows, flips), columns)
            case _, Crops(_, rows, columns):
                steps.append(Resamples(rows, columns))
            case _:
                steps.append(decision)
    return steps


def _upside_down(matrices: NDArray[np.float32], flips: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return matrices (n, out, in) with the order of their rows reversed where ``flips`` (n,) is true."""
    turned = matrices.copy()
    turned[flips] = matrices[flips, ::-1]
    return turned


def _crop_boxes(
    crop: RandomResizedCrop,
    seed: int,
    counters: tuple[ArrayLike, ...],
    image_size: tuple[int, int],
) -> Indices:
    """Return the first of ten attempts that fits, or if none does, the largest central box with an allowed ratio.

    Each box has at least one pixel.
    """
    image_height, image_width = image_size
    draws = _draws(seed, counters, (CROP_ATTEMPTS, 4))  # (n, attempt, 4)
    area = image_height * image_width * _between(draws[..., 0], *crop.scale)
    ratio = np.exp(_between(draws[..., 1], np.log(crop.ratio[0]), np.log(crop.ratio[1])))
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)  # (n, attempt)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= image_width) & (height > 0) & (height <= image_height)
    top = np.floor(draws[..., 2] * (image_height - height + 1)).astype(np.int64)
    left = np.floor(draws[..., 3] * (image_width - width + 1)).astype(np.int64)
    boxes = np.stack([top, left, height, width], axis=-1)  # (n, attempt, 4)
    first = boxes[np.arange(len(boxes)), fits.argmax(axis=1)]  # (n, 4)
    return np.where(fits.any(axis=1)[:, None], first, _central_box(image_size, crop.ratio))


def _central_box(image_size: tuple[int, int], ratio: tuple[float, float]) -> Indices:
    height, width = image_size
    if width / height < ratio[0]:
        height = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        width = max(1, round(height * ratio[1]))
    return np.array([(image_size[0] - height) // 2, (image_size[1] - width) // 2, height, width])


def _jitters(jitter: ColorJitter, seed: int, counters: tuple[ArrayLike, ...]) -> Jitters:
    draws = _draws(seed, counters, (2, 4))  # (n, factor or order, property)
    strength = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    low, high = np.maximum(0.0, 1.0 - strength), 1.0 + strength
    low[HUE], high[HUE] = -strength[HUE], strength[HUE]
    factors = _between(draws[:, 0], low, high).astype(np.float32)
    active = np.flatnonzero(strength)
    order = active[np.argsort(draws[:, 1][:, active], axis=1, kind="stable")]
    return Jitters(factors, order)


def _draws(seed: int, counters: tuple[ArrayLike, ...], shape: tuple[int, int]) -> Uniform:
    """Return uniform numbers of shape (n, *shape); one of the ``counters`` is the array of the n indices."""
    spread = [np.asarray(counter)[..., None, None] for counter in counters]
    return uniform(seed, *spread, np.arange(shape[0] * shape[1]).reshape(shape))


def _between(u: Uniform, low: ArrayLike, high: ArrayLike) -> Uniform:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return low + (high - low) * u
