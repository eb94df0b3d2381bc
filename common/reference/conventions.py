"""How the frameworks differ: settings of the reference, and the list of known differences.

`Conventions` are the settings of the reference. The defaults are the ones that this project aligns every backend with.
A known difference is one field with the default value of some framework. The list has three uses:

- The parity command tries each difference to find the cause of a failure.
- Tests plant each one in a backend, which the checks must then reject.
- docs/differences.md shows the effect of each one on training.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Conventions:
    """The settings of the reference for which correct frameworks disagree. The defaults are the aligned settings."""

    # The network. At stride 2, "both" pads both sides of an axis; "end" pads only its end, like 'same' for even sizes.
    padding: str = "both"
    bn_epsilon: float = 1e-5
    bn_momentum: float = 0.9  # the share of a running statistic that a step keeps
    bn_variance: str = "unbiased"  # the running variance divides by n - 1; "biased": by n
    # The objective and the optimizers.
    objective: str = "mean"  # the mean of a batch's losses, or "sum"
    adam_epsilon: float = 1e-8
    # Epsilon is added after the bias correction (Kingma and Ba 2015, algorithm 1); "inside": before it.
    adam_epsilon_place: str = "outside"
    momentum_rate: str = (
        "outside"  # the momentum buffer does not contain the learning rate; "inside": it does
    )
    weight_decay: str = "coupled"  # added to the gradient; "decoupled": subtracted from the weight
    # The transforms.
    brightness: str = "multiply"  # or "add"
    contrast: str = (
        "grey"  # blend with the mean grey of the image; "channel": with the mean of each channel
    )
    saturation: str = "grey"  # blend with the pixel's grey; "hsv": scale S of HSV; "blue": blend with 0.114 * blue
    hue: str = "exact"  # or in Pillow's "8-bit" HSV
    antialias: bool = True  # when a crop is downsampled
    rounding: str = "nearest"  # of uint8 values, or "down"
    # The box of a random crop has a uniform area and a log-uniform ratio; "height": a uniform ratio and height.
    crop_box: str = "area"


ALIGNED = Conventions()
# Where each field has an effect: on the outputs of the network, on the state after a training step, or on images.
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
    """A known difference: a field, its value, the framework whose default that is, and an explanation."""

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
        "at stride 2, pads only the end of each axis, which shifts the grid by one pixel",
    ),
    Difference(
        "BatchNorm's epsilon",
        "bn_epsilon",
        1e-3,
        "Keras",
        "uses 1e-3; the others use 1e-5",
    ),
    Difference(
        "BatchNorm's momentum",
        "bn_momentum",
        0.99,
        "Keras",
        "a step keeps 0.99 of the running statistics; the others keep 0.9",
    ),
    Difference(
        "BatchNorm's momentum swapped",
        "bn_momentum",
        0.1,
        "a port that copies the number",
        "PyTorch's momentum is the weight of the new batch, one minus the momentum of the others",
    ),
    Difference(
        "biased running variance",
        "bn_variance",
        "biased",
        "MXNet on the CPU, Keras",
        "uses the variance of the batch as it is; PyTorch multiplies it by n / (n - 1)",
    ),
    Difference(
        "unbiased running variance",
        "bn_variance",
        "unbiased",
        "PyTorch, TensorFlow's fused operator",
        "multiplies the variance of the batch by n / (n - 1); MXNet and Keras use it as it is",
    ),
    Difference(
        "sum of losses",
        "objective",
        "sum",
        "the book's PyTorch tab",
        "minimizes the sum of the losses of a batch; the MXNet tab minimizes the mean",
    ),
    Difference(
        "Adam's epsilon",
        "adam_epsilon",
        1e-7,
        "Keras",
        "uses 1e-7; the others use 1e-8",
    ),
    Difference(
        "Adam's epsilon inside",
        "adam_epsilon_place",
        "inside",
        "MXNet, Keras",
        "adds epsilon before the bias correction of the second moment; PyTorch adds it after",
    ),
    Difference(
        "Adam's epsilon outside",
        "adam_epsilon_place",
        "outside",
        "PyTorch",
        "adds epsilon after the bias correction of the second moment; the others add it before",
    ),
    Difference(
        "learning rate inside the momentum",
        "momentum_rate",
        "inside",
        "MXNet, Keras",
        "puts the learning rate into the momentum buffer, so a new rate takes effect only gradually",
    ),
    Difference(
        "decoupled weight decay",
        "weight_decay",
        "decoupled",
        "Keras (weight_decay=)",
        "subtracts the decay from the weight directly; it does not enter the momentum or Adam's moments",
    ),
    Difference(
        "brightness added",
        "brightness",
        "add",
        "TensorFlow",
        "adds factor - 1 to every pixel; the others multiply by the factor",
    ),
    Difference(
        "contrast by channel",
        "contrast",
        "channel",
        "TensorFlow",
        "blends with the mean of each channel; the others blend with the mean grey",
    ),
    Difference(
        "saturation of HSV",
        "saturation",
        "hsv",
        "TensorFlow",
        "scales S of HSV; PyTorch blends with the pixel's grey",
    ),
    Difference(
        "saturation with wrong grey",
        "saturation",
        "blue",
        "MXNet",
        "uses 0.114 * blue as the grey, an upstream bug",
    ),
    Difference(
        "hue in 8 bits",
        "hue",
        "8-bit",
        "PyTorch on PIL images",
        "shifts the hue in Pillow's 8-bit HSV; the others keep fractions",
    ),
    Difference(
        "no antialiasing",
        "antialias",
        False,
        "MXNet, TensorFlow",
        "interpolates between four pixels, however much a crop is downsampled, and skips the others",
    ),
    Difference(
        "uint8 values rounded down",
        "rounding",
        "down",
        "MXNet, PyTorch on brightness",
        "truncates uint8 values; rounding to the nearest is unbiased",
    ),
)
