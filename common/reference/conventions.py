"""Where the frameworks differ, as settings of the reference, and the list of the known differences.

The reference computes by `Conventions`. The defaults are those that this project aligns every backend to. A known
difference is one field with the value that some framework has by default. The list has three uses: the parity command
tries each difference to name the cause of a failure, tests plant each one in a backend that must then be rejected, and
docs/differences.md shows the effect of each one on a training.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Conventions:
    """How the reference computes where correct frameworks disagree. The defaults are the aligned meaning."""

    # The network. At stride 2, "both" pads both sides of an axis, "end" only its end, as 'same' does on even sizes.
    padding: str = "both"
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9  # the share of a running statistic that a step keeps
    bn_variance: str = "unbiased"  # the running variance divides by n - 1, or by n: "biased"
    # The objective and the optimizers.
    objective: str = "mean"  # of the losses of a batch: "mean" or "sum"
    adam_epsilon: float = 1e-8
    # Epsilon is added after the bias correction (Kingma and Ba 2015, algorithm 1), or before it: "inside".
    adam_epsilon_place: str = "outside"
    momentum_rate: str = (
        "outside"  # the momentum buffer is free of the learning rate, or has it: "inside"
    )
    weight_decay: str = (
        "coupled"  # added to the gradient, or subtracted from the weight: "decoupled"
    )
    # The transforms.
    brightness: str = "multiply"  # or "add"
    contrast: str = (
        "grey"  # blend with the mean grey of the image, or with the mean of each "channel"
    )
    saturation: str = (
        "grey"  # blend with the pixel's grey, scale S of "hsv", or blend with 0.114 of "blue"
    )
    hue: str = "exact"  # or in Pillow's "8-bit" HSV
    antialias: bool = True  # when a crop is resized to fewer pixels
    rounding: str = "nearest"  # of uint8 values, or "down"
    # The box of a random crop has a uniform area and a log-uniform ratio, or a uniform ratio and "height".
    crop_box: str = "area"


ALIGNED = Conventions()
# Where each field has an effect: in the outputs of the network, in the state after a training step, or in images.
PARTS = {
    "network": ("padding", "bn_epsilon", "objective"),
    "training": (
        "bn_momentum",
        "bn_variance",
        "adam_epsilon",
        "adam_epsilon_place",
        "momentum_rate",
        "weight_decay",
    ),
    "transforms": (
        "brightness",
        "contrast",
        "saturation",
        "hue",
        "antialias",
        "rounding",
        "crop_box",
    ),
}


@dataclass(frozen=True)
class Difference:
    """One known difference: the field and its value, whose default that is, and what it means."""

    name: str
    field: str
    value: Any
    native_to: str
    meaning: str

    @property
    def part(self) -> str:
        """Return where the difference has an effect: "network", "training" or "transforms"."""
        return next(part for part, names in PARTS.items() if self.field in names)

    def conventions(self, base: Conventions = ALIGNED) -> Conventions:
        """Return ``base`` with this difference."""
        return replace(base, **{self.field: self.value})

    def holds(self, conventions: Conventions) -> bool:
        """Return whether ``conventions`` have this difference."""
        return bool(getattr(conventions, self.field) == self.value)


KNOWN_DIFFERENCES = (
    Difference(
        "padding",
        "padding",
        "end",
        "TensorFlow (padding='same')",
        "at stride 2 pads the end of each axis alone, which shifts the grid by one pixel",
    ),
    Difference(
        "BatchNorm's epsilon",
        "bn_epsilon",
        1e-3,
        "Keras",
        "1e-3, where the others take 1e-5",
    ),
    Difference(
        "BatchNorm's momentum",
        "bn_momentum",
        0.99,
        "Keras",
        "a step keeps .99 of the running statistics, where the others keep .9",
    ),
    Difference(
        "BatchNorm's momentum swapped",
        "bn_momentum",
        0.1,
        "a port that copies the number",
        "PyTorch's momentum is the share of the new batch, one minus that of the others",
    ),
    Difference(
        "biased running variance",
        "bn_variance",
        "biased",
        "MXNet on the CPU, Keras",
        "keeps the variance of the batch as it is, where PyTorch corrects it by n / (n - 1)",
    ),
    Difference(
        "unbiased running variance",
        "bn_variance",
        "unbiased",
        "PyTorch, TensorFlow's fused operator",
        "corrects the variance of the batch by n / (n - 1), where MXNet and Keras keep it as it is",
    ),
    Difference(
        "sum of losses",
        "objective",
        "sum",
        "the book's PyTorch tab",
        "minimises the sum of the losses of a batch, where the MXNet tab minimises the mean",
    ),
    Difference(
        "Adam's epsilon",
        "adam_epsilon",
        1e-7,
        "Keras",
        "1e-7, where the others take 1e-8",
    ),
    Difference(
        "Adam's epsilon inside",
        "adam_epsilon_place",
        "inside",
        "MXNet, Keras",
        "adds epsilon before the second moment is corrected for its bias, where PyTorch adds it after",
    ),
    Difference(
        "Adam's epsilon outside",
        "adam_epsilon_place",
        "outside",
        "PyTorch",
        "adds epsilon after the second moment is corrected for its bias, where the others add it before",
    ),
    Difference(
        "learning rate inside the momentum",
        "momentum_rate",
        "inside",
        "MXNet, Keras",
        "bakes the learning rate into the momentum buffer, so a new rate takes hold only slowly",
    ),
    Difference(
        "decoupled weight decay",
        "weight_decay",
        "decoupled",
        "Keras (weight_decay=)",
        "takes the decay from the weight itself, past the momentum or Adam's moments",
    ),
    Difference(
        "brightness added",
        "brightness",
        "add",
        "TensorFlow",
        "adds factor - 1 to every pixel, where the others multiply by the factor",
    ),
    Difference(
        "contrast by channel",
        "contrast",
        "channel",
        "TensorFlow",
        "blends with the mean of each channel, where the others blend with the mean grey",
    ),
    Difference(
        "saturation of HSV",
        "saturation",
        "hsv",
        "TensorFlow",
        "scales the S of HSV, where PyTorch blends with the pixel's grey",
    ),
    Difference(
        "saturation with wrong grey",
        "saturation",
        "blue",
        "MXNet",
        "takes 0.114 of blue alone for the grey: a bug upstream",
    ),
    Difference(
        "hue in 8 bits",
        "hue",
        "8-bit",
        "PyTorch on PIL images",
        "turns the hue in Pillow's 8-bit HSV, where the others keep fractions",
    ),
    Difference(
        "no antialiasing",
        "antialias",
        False,
        "MXNet, TensorFlow",
        "interpolates between four pixels however much a crop shrinks, and skips the others",
    ),
    Difference(
        "uint8 values rounded down",
        "rounding",
        "down",
        "MXNet, PyTorch on brightness",
        "cuts the fraction of a level off, where rounding to the nearest is unbiased",
    ),
)
