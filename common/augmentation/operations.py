"""The chapters' augmentations as plain, framework-free values.

A backend turns each value into its framework's own transform (`transforms.native`), or into operations on whole batches
whose random parameters `common.augmentation` has already drawn (`transforms.augment`). The definitions are the book's:
brightness multiplies, contrast blends with the mean grey of the image, saturation with the grey of the pixel, and hue
rotates the colour circle. ``str()`` of an augmentation describes it with its numbers, for the titles of pictures.

Each constructor raises ValueError for a value outside its range, and TypeError for one of another type. The frameworks
do not: some would draw wrong pixels without a word.
"""

from collections.abc import Callable, Sequence
from ctypes import c_float
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

from common.errors import UserError


def _check(
    owner: object,
    words: str,
    value: Any,
    holds: Callable[..., bool],
    kind: type = Real,
    length: int | None = None,
) -> None:
    """Check a value of an augmentation: one number, or a tuple or list of ``length`` numbers.

    Raises TypeError unless all are of the ``kind``, ValueError unless the value ``holds``. ``words`` say what is valid.
    """
    problem = f"{type(owner).__name__} needs {words}, not {value!r}"
    numbers = (value,) if length is None else value
    if not isinstance(numbers, tuple | list) or not all(isinstance(n, kind) for n in numbers):
        raise TypeError(problem)
    if len(numbers) != (length or 1) or not holds(*numbers):
        raise ValueError(problem)


def _check_p(owner: object, p: float) -> None:
    _check(owner, "a probability p from 0 to 1", p, lambda p: 0 <= p <= 1)


def _check_size(owner: object, size: tuple[int, int]) -> None:
    words = "a size (height, width) of whole numbers from 1"
    _check(owner, words, size, lambda *sides: min(sides) >= 1, kind=Integral, length=2)


def _float32(number: float) -> float:
    """Return the number as the backends compute with it: a tiny one is 0, a huge one is infinite."""
    return c_float(number).value


@dataclass(frozen=True)
class RandomFlipLeftRight:
    """Mirror left and right with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_p(self, self.p)

    def __str__(self) -> str:
        return f"left-right flip, {_how_often(self.p)}"


@dataclass(frozen=True)
class RandomFlipTopBottom:
    """Flip upside down with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_p(self, self.p)

    def __str__(self) -> str:
        return f"top-bottom flip, {_how_often(self.p)}"


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crop a random box and resize it to ``size`` = (height, width) pixels.

    The box's share of the image area is drawn uniformly from ``scale``; its ratio of width to height is drawn
    log-uniformly from ``ratio`` (Szegedy et al. 2015, section 6).
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check_size(self, self.size)
        scale = "a scale (least, most) with 0 < least <= most <= 1"
        _check(self, scale, self.scale, lambda least, most: 0 < least <= most <= 1, length=2)
        ratio = "a ratio (narrowest, widest) with 0 < narrowest <= widest"
        _check(self, ratio, self.ratio, lambda low, high: 0 < low <= high < inf, length=2)

    def __str__(self) -> str:
        (height, width), (least, most) = self.size, self.scale
        area = f"{100 * least:g} to {100 * most:g} % of the area"
        return f"random resized crop to {height} × {width}: {area}, {_ratio(*self.ratio)}"


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue, in an order drawn for each image.

    For a value x, the factor is drawn uniformly from [max(0, 1 - x), 1 + x]. For a hue x, 0 to 0.5, the shift is drawn
    from [-x, x] turns of the colour circle. Zero does not change the property.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            words = f"a {name} of 0 or more"
            _check(self, words, getattr(self, name), lambda x: 0 <= _float32(x) < inf)
        _check(self, "a hue from 0 to 0.5", self.hue, lambda x: 0 <= x <= 0.5)

    @property
    def arguments(self) -> str:
        """The arguments that are not zero."""
        return ", ".join(
            f"{name} {strength:g}" for name, strength in vars(self).items() if strength
        )

    def __str__(self) -> str:
        changed = {name: strength for name, strength in vars(self).items() if strength}
        factors = [name for name in changed if name != "hue"]
        ranges = []
        for strength, group in groupby(factors, key=changed.__getitem__):
            names = list(group)
            what = "a factor" if len(names) == 1 else "factors"
            low, high = max(0.0, 1 - strength), 1 + strength
            ranges.append(f"{', '.join(names)}: {what} from {low:g} to {high:g}")
        if self.hue:
            turns = "half a turn" if self.hue == 0.5 else f"{self.hue:g} turns"
            ranges.append(f"hue: up to {turns} either way")
        order = "\nin an order drawn for each image" if len(changed) > 1 else ""
        return "; ".join(ranges) + order


@dataclass(frozen=True)
class Resize:
    """Resize the whole image to ``size`` = (height, width) pixels: bilinear, antialiased."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size(self, self.size)

    def __str__(self) -> str:
        return f"resize to {self.size[0]} × {self.size[1]}"


@dataclass(frozen=True)
class Normalize:
    """Subtract ``mean`` from each channel (red, green, blue, in 0..1) and divide by ``std``.

    Must be the last of a list, because the result is not an image any more.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        means, stds = "three finite means", "three finite standard deviations above 0"
        _check(self, means, self.mean, lambda *m: all(map(isfinite, map(_float32, m))), length=3)
        _check(self, stds, self.std, lambda *s: all(0 < _float32(x) < inf for x in s), length=3)

    def __str__(self) -> str:
        return "normalize each channel"


Augmentation = (
    RandomFlipLeftRight | RandomFlipTopBottom | RandomResizedCrop | ColorJitter | Resize | Normalize
)


def split_normalize(
    augmentations: Sequence[Augmentation],
) -> tuple[tuple[Augmentation, ...], tuple[Normalize, ...]]:
    """Split off the trailing Normalize, if any; everything before it maps images to images.

    Raises ValueError for a Normalize before the end, because its result is not an image.
    """
    normalize = tuple(aug for aug in augmentations if isinstance(aug, Normalize))
    images = tuple(augmentations[: len(augmentations) - len(normalize)])
    if len(normalize) > 1 or any(isinstance(aug, Normalize) for aug in images):
        raise ValueError(
            "Normalize must be the last augmentation and occur once: its result is not an image"
        )
    return images, normalize


def output_size(augmentations: Sequence[Augmentation], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the images that augmentations make of images of ``size``, both (height, width)."""
    for aug in augmentations:
        if isinstance(aug, Resize | RandomResizedCrop):
            size = aug.size
    return size


# The operations of the chapter with the book's numbers, by their names in --augment, in the book's order. The argument
# is the size to which crops are resized.
OPERATIONS: dict[str, Callable[[tuple[int, int]], Augmentation]] = {
    "flip": lambda _: RandomFlipLeftRight(),
    "flip_top_bottom": lambda _: RandomFlipTopBottom(),
    "crop": lambda size: RandomResizedCrop(size, scale=(0.1, 1.0), ratio=(0.5, 2.0)),
    "brightness": lambda _: ColorJitter(brightness=0.5),
    "hue": lambda _: ColorJitter(hue=0.5),
    "jitter": lambda _: ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5),
}


def operation(name: str, crop_size: tuple[int, int]) -> Augmentation:
    """Return the operation called ``name``. Raises UserError for an unknown name."""
    if name not in OPERATIONS:
        names = ", ".join(OPERATIONS)
        raise UserError(
            f"unknown augmentation '{name}': choose none, or a comma-separated list from {names}"
        )
    return OPERATIONS[name](crop_size)


def parse_augmentations(text: str, crop_size: tuple[int, int]) -> tuple[Augmentation, ...]:
    """Parse ``--augment``: 'none', or names of `OPERATIONS` separated by commas, applied in that order."""
    if text == "none":
        return ()
    return tuple(operation(name.strip(), crop_size) for name in text.split(","))


def gallery(crop_size: tuple[int, int] = (200, 200)) -> dict[str, Sequence[Augmentation]]:
    """Return the augmentations that the chapter shows on its example image, by title, in the chapter's order."""
    flip, upside_down, crop, brightness, hue, jitter = (
        operation(name, crop_size)
        for name in ("flip", "flip_top_bottom", "crop", "brightness", "hue", "jitter")
    )
    return {
        "left-right flip": [flip],
        "top-bottom flip": [upside_down],
        "random resized crop": [crop],
        "brightness": [brightness],
        "hue": [hue],
        "colour jitter": [jitter],
        "flip, jitter and crop": [flip, jitter, crop],
    }


# Mean and standard deviation of CIFAR-10's channels, as in the chapter (14.13.2) and in many programs. The deviations
# are close to the mean of the deviations within each image, and smaller than those over all pixels. Measured on JPEG
# copies of the 50,000 training images: .200, .199, .201 within images; .245, .243, .261 over all pixels; means .491,
# .482, .446.
CIFAR10_NORMALIZE = Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def kaggle_train_augs(size: tuple[int, int]) -> tuple[Augmentation, ...]:
    """Return the Kaggle chapter's augmentations (14.13.2) for images of ``size``.

    Enlarge the image by a quarter (from 32 to 40 pixels in the book) and crop a square of 64 to 100 % of its area.
    Resize that to ``size``, mirror it one time in two, and normalize.
    """
    height, width = size
    return (
        Resize((round(1.25 * height), round(1.25 * width))),
        RandomResizedCrop(size, scale=(0.64, 1.0), ratio=(1.0, 1.0)),
        RandomFlipLeftRight(),
        CIFAR10_NORMALIZE,
    )


def kaggle_test_augs() -> tuple[Augmentation, ...]:
    """Return the Kaggle chapter's transforms for validation and test images: normalize."""
    return (CIFAR10_NORMALIZE,)


def _how_often(p: float) -> str:
    return "one time in two" if p == 0.5 else f"with probability {p:g}"


def _ratio(narrowest: float, widest: float) -> str:
    low, high = (Fraction(ratio).limit_denominator(100) for ratio in (narrowest, widest))
    if low == high:
        return "square" if low == 1 else f"ratio {low}"
    return f"ratio {low} to {high}"
