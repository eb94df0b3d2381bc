"""Planted mistakes in the native pipeline of the NumPy tab, and the checks that must reject each of them."""

from collections.abc import Iterator

from numpy_backend import Edit, by

from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.comparison import CheckResult
from common.parity.native.checks import native_checks
from common.reference import Conventions


def native(backend: Backend) -> Iterator[CheckResult]:
    yield from native_checks(Adapter(backend, "float32"), quick=True)


def counting_by(counters: str) -> Edit:
    """Return an edit of the tab's native loader: other counters for the random numbers of each example."""
    return (
        "loaders",
        "bits = random_bits(seed, NATIVE, epoch, indices)",
        f"bits = random_bits({counters}) + 0 * indices.astype(np.uint64)",
    )


def replacing_augmentation(kind: str, wrong: str) -> Edit:
    """Return an edit of the tab's native transforms: replace augmentations ``aug`` of a kind by an expression."""
    return (
        "transforms",
        "decisions = decide(augs, ",
        f"decisions = decide([{wrong} if type(aug).__name__ == '{kind}' else aug for aug in augs], ",
    )


def replacing_decision(wrong: str) -> Edit:
    """Return an edit of the tab's native transforms: replace each decision ``d`` in ``decisions`` by an expression."""
    return (
        "transforms",
        "X = augment(from_images(image[None], cpu()), decisions)",
        f"X = augment(from_images(image[None], cpu()), [{wrong} for d in decisions])",
    )


def not_augmented_where(condition: str) -> Edit:
    """Return an edit of the tab's native loader: no flips and no colour changes under a condition.

    The condition may use ``place``, the position in the batch.
    """
    still = (
        "type(aug)(**dict.fromkeys(vars(aug), 0.0)) "
        "if hasattr(aug, 'p') or hasattr(aug, 'hue') else aug"
    )
    return (
        "loaders",
        "[transform(*pair) for pair in zip(images, bits, strict=True)]",
        f"[(transforms.native([{still} for aug in augs]) if {condition} else transform)(*pair)\n"
        "             for place, pair in enumerate(zip(images, bits, strict=True))]",
    )


LEFT_RIGHT = (
    "__import__('common.augmentation.operations', fromlist=['_']).RandomFlipLeftRight(aug.p)"
)
FLIPS, CROPS, COLOURS = (f"native draws: {draws}" for draws in ("flips", "crops", "colours"))
FLIPS_PIXELS, CROPS_PIXELS, COLOURS_PIXELS = (
    f"native draws: pixels of {draws}" for draws in ("flips", "crops", "colours")
)
ORDER, OPERATIONS, RESIZES, REPEATS = (
    f"native {what}" for what in ("order", "operations", "resizes", "reproducibility")
)
ALL = {FLIPS, CROPS, COLOURS}
# A mistake in the native pipeline: the edits that plant it, and the checks that reject it.
NATIVE_MISTAKES: dict[str, tuple[tuple[Edit, ...], set[str]]] = {
    "native: augmentation repeats from the third epoch on": (
        (counting_by("seed, NATIVE, min(epoch, 2), indices"),),
        ALL | {REPEATS},
    ),
    "native: every second epoch has the same augmentation": (
        (counting_by("seed, NATIVE, epoch % 2, indices"),),
        ALL | {REPEATS},
    ),
    "native: the same random numbers for all images": (
        (counting_by("seed, NATIVE, epoch, 0"),),
        ALL | {REPEATS},
    ),
    "native: random numbers depend on the position in the batch": (
        (counting_by("seed, NATIVE, epoch, np.arange(len(indices))"),),
        ALL | {REPEATS},
    ),
    "native: the seed is ignored": ((counting_by("0, NATIVE, epoch, indices"),), {REPEATS}),
    "native: random numbers from the framework's global generator": (
        (counting_by("np.random.randint(2**31), NATIVE, epoch, indices"),),
        {REPEATS},
    ),
    "native: random numbers depend on the number of workers": (
        (counting_by("seed + num_workers, NATIVE, epoch, indices"),),
        {REPEATS},
    ),
    "native: only the first 8 images of a batch are augmented": (
        (not_augmented_where("place >= 8"),),
        ALL | {REPEATS},
    ),
    "native: the last batch is not augmented": (
        (not_augmented_where("len(indices) < batch_size"),),
        ALL | {OPERATIONS},
    ),
    "native: the last batch is not augmented with workers": (
        (not_augmented_where("num_workers and len(indices) < batch_size"),),
        {FLIPS, COLOURS, REPEATS},
    ),
    "native: the first epoch is not augmented": (
        (not_augmented_where("epoch == 0"),),
        ALL | {OPERATIONS, REPEATS},
    ),
    "native: every second image is not augmented": (
        (not_augmented_where("indices[place] % 2"),),
        ALL | {OPERATIONS},
    ),
    "native: every epoch has the order of the first": (
        (
            (
                "loaders",
                "self.batch_size, self.seed, epoch, self.is_train",
                "self.batch_size, self.seed, 0, self.is_train",
            ),
        ),
        ALL | {ORDER, FLIPS_PIXELS},
    ),
    "native: the last batch is dropped": (
        (
            (
                "loaders",
                "            yield self.load",
                "            if len(indices) < min(self.batch_size, len(self.labels)):\n"
                "                continue\n"
                "            yield self.load",
            ),
        ),
        ALL | {ORDER, OPERATIONS, RESIZES, REPEATS},
    ),
    "native: no augmentation": (
        (("loaders", "transforms.native(augs)", "transforms.native(())"),),
        ALL | {OPERATIONS, RESIZES, REPEATS, CROPS_PIXELS},
    ),
    "native: the test set is shuffled": (
        (
            (
                "loaders",
                "self.batch_size, self.seed, epoch, self.is_train",
                "self.batch_size, self.seed, epoch, True",
            ),
        ),
        {ORDER, OPERATIONS, RESIZES},
    ),
    "native: a wrong number of batches": (
        (("loaders", "return -(-len(self.labels) // self.batch_size)", "return 1"),),
        {ORDER},
    ),
    "native: labels shifted by one image": (
        (("loaders", "self.labels[indices]\n", "np.roll(self.labels[indices], 1)\n"),),
        ALL | {ORDER},
    ),
    "native: flips with p = 0.35 instead of 0.5": (
        (
            replacing_augmentation(
                "RandomFlipLeftRight", "type(aug)(0.35 if aug.p == 0.5 else aug.p)"
            ),
        ),
        {FLIPS, CROPS},
    ),
    "native: flips with p = 0.5, whatever p is": (
        (replacing_augmentation("RandomFlipTopBottom", "type(aug)(0.5)"),),
        {FLIPS, OPERATIONS},
    ),
    "native: left-right flips instead of top-bottom": (
        (replacing_augmentation("RandomFlipTopBottom", LEFT_RIGHT),),
        {FLIPS, OPERATIONS},
    ),
    "native: both flips or none": (
        (
            replacing_decision(
                "type(d)(decisions[0].flips) if hasattr(d, 'flips') "
                "and hasattr(decisions[0], 'flips') else d"
            ),
        ),
        {FLIPS},
    ),
    "native: square crops": (
        (
            replacing_augmentation(
                "RandomResizedCrop", "type(aug)(aug.size, aug.scale, (1.0, 1.0))"
            ),
        ),
        {CROPS},
    ),
    "native: crops with the default scale": (
        (replacing_augmentation("RandomResizedCrop", "type(aug)(aug.size, ratio=aug.ratio)"),),
        {CROPS},
    ),
    "native: the smallest crop area is 0.1 too large": (
        (
            replacing_augmentation(
                "RandomResizedCrop", "type(aug)(aug.size, (aug.scale[0] + 0.1, 1.0), aug.ratio)"
            ),
        ),
        {CROPS},
    ),
    "native: crops never reach the right edge": (
        (
            (
                "transforms",
                "image = as_rgb(image)",
                "image = as_rgb(image)[:, : -1 if any(hasattr(a, 'scale') for a in augs) else None]",
            ),
        ),
        {CROPS, CROPS_PIXELS},
    ),
    "native: no antialiasing": (tuple(by(Conventions(antialias=False))), {CROPS_PIXELS, RESIZES}),
    "native: jitter without hue": (
        (
            replacing_augmentation(
                "ColorJitter", "type(aug)(aug.brightness, aug.contrast, aug.saturation)"
            ),
        ),
        {COLOURS},
    ),
    "native: jitter strengths 20% too small": (
        (
            replacing_augmentation(
                "ColorJitter", "type(aug)(*(0.8 * x for x in vars(aug).values()))"
            ),
        ),
        {COLOURS},
    ),
    "native: brightness and contrast swapped": (
        (
            replacing_augmentation(
                "ColorJitter",
                "type(aug)(aug.contrast, aug.brightness, aug.saturation, aug.hue)",
            ),
        ),
        {COLOURS, COLOURS_PIXELS},
    ),
    "native: one factor for brightness and contrast": (
        (
            replacing_decision(
                "type(d)(d.factors[:, [0, 0, 2, 3]], d.order) "
                "if hasattr(d, 'order') and d.order.shape[1] == 4 else d"
            ),
        ),
        {COLOURS},
    ),
    "native: hue shifts in one direction only": (
        (replacing_decision("type(d)(abs(d.factors), d.order) if hasattr(d, 'factors') else d"),),
        {COLOURS},
    ),
    "native: contrast by channel": (tuple(by(Conventions(contrast="channel"))), {COLOURS_PIXELS}),
    "native: saturation of HSV": (tuple(by(Conventions(saturation="hsv"))), {COLOURS_PIXELS}),
}
