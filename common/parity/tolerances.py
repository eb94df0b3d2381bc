"""The tolerance of each check: the largest measured difference, a margin, and the reason.

Measured with torch 2.15, MXNet 1.9.1 and TensorFlow 2.21 on two cores of an AMD EPYC, with several seeds, at 8, 16 and
32 pixels per side. The margins allow for other processors and seeds. Unless the reason gives a unit, a difference is
relative to the largest value of its tensor: an activation, a gradient, or the change of a weight in a step.
"""

from common.parity.comparison import Tolerance

SUMS = "sums are computed in another order"
MXNET_FLOATS = "MXNet's operators take momentum, learning rate and betas as 32-bit floats"
MXNET_SHARE = "MXNet multiplies gradients by 1 / batch size, a 32-bit float: exact for 8 or 16 examples, not 5 or 33"
RELU_FLIPS = (
    "a norm: in float32, a ReLU whose input is within rounding of 0 passes its gradient on in one framework and not "
    "in the other"
)
CHAOS = "rounding errors grow from step to step"
GRAIN = "a norm: each layer rounds weights, inputs, results and gradients to 8 bits, by up to 2e-3"
FEW = f"{GRAIN}; gradients of few channels average out the least of it"
SIGNS = "Adam turns a gradient smaller than its rounding error into a full step of either sign"
IN_FLOAT32 = "weights and optimizers stay in float32: one rounding of a weight that hardly changes"

# The largest relative error of one rounding to bfloat16, which has 8 bits of mantissa.
UNIT_ROUNDOFF = 2.0**-9
# TF32 has three more bits, so a rounding is an eighth of the size. A GPU may truncate instead, which doubles that.
TF32_SHARE = 2.0**-2
UNIT_ROUNDOFFS = {"bfloat16": UNIT_ROUNDOFF, "tf32": UNIT_ROUNDOFF * TF32_SHARE}

EXACT = Tolerance(0.0, 1.0, "no computation rounds")
ROUNDED_RATE = "the log keeps seven digits of the learning rate"
# Whole runs, by run and part. In "batches", normalized images are in standard deviations, about a fifth of 0..1.
RUNS = {
    "train_ch13, SGD": {
        "batches": Tolerance(7.7e-7, 5, "as batches, training"),
        "losses": Tolerance(1.6e-14, 20, CHAOS),
        "metrics": EXACT,
        "weights": Tolerance(2.7e-13, 20, CHAOS),
        "buffers": Tolerance(2.4e-7, 4, MXNET_FLOATS),
        "state": Tolerance(2.4e-13, 20, CHAOS),
        "summary": EXACT,
        "resumed": Tolerance(1.7e-7, 4, MXNET_FLOATS),
    },
    "train_ch13, Adam": {
        "batches": Tolerance(2.5e-7, 2, "each step is rounded once"),
        "losses": Tolerance(3.5e-8, 10, f"{MXNET_FLOATS}; {CHAOS}"),
        "metrics": EXACT,
        "weights": Tolerance(7.9e-6, 10, f"{MXNET_FLOATS}; {CHAOS}"),
        "buffers": Tolerance(2.9e-7, 4, MXNET_FLOATS),
        "state": Tolerance(4.0e-8, 10, f"{MXNET_FLOATS}; {CHAOS}"),
        "summary": EXACT,
        "resumed": Tolerance(9.6e-8, 4, MXNET_FLOATS),
    },
    "kaggle.train, with validation": {
        "batches": Tolerance(1.2e-6, 4, "as Kaggle batches, training"),
        "losses": Tolerance(5.2e-9, 10, f"{MXNET_FLOATS}; {CHAOS}"),
        "metrics": Tolerance(1.1e-7, 5, ROUNDED_RATE),
        "weights": Tolerance(5.1e-8, 10, f"{MXNET_FLOATS}; {CHAOS}"),
        "buffers": Tolerance(2.8e-7, 4, MXNET_FLOATS),
        "summary": EXACT,
        "resumed": Tolerance(8.2e-8, 4, MXNET_FLOATS),
        "predictions": EXACT,
    },
}
RUNS["kaggle.train, all images"] = RUNS["kaggle.train, with validation"] | {
    "batches": Tolerance(2.5e-7, 2, "each step is rounded once")
}
# Two processes on an engine. The largest differences are MXNet's: with 1 / 5 as a float, see `MXNET_SHARE`.
RUNS["2 processes, train_ch13"] = {
    "batches": Tolerance(7.7e-7, 5, "as batches, training"),
    "losses": Tolerance(1.5e-9, 10, f"{MXNET_SHARE}; {CHAOS}"),
    "metrics": EXACT,
    "weights": Tolerance(2.4e-8, 10, f"{MXNET_SHARE}; {CHAOS}"),
    "buffers": Tolerance(2.4e-7, 4, MXNET_FLOATS),
    "state": Tolerance(6.0e-8, 10, f"{MXNET_SHARE}; {CHAOS}"),
    "summary": EXACT,
    "equal ranks": EXACT,
}
RUNS["2 processes, kaggle.train"] = RUNS["2 processes, train_ch13"] | {
    "batches": Tolerance(1.2e-6, 4, "as Kaggle batches, training"),
    "metrics": Tolerance(1.1e-7, 5, ROUNDED_RATE),
}
RUNS["2 processes, train_ch13, synchronised"] = RUNS["2 processes, train_ch13"] | {
    "losses": Tolerance(6.4e-15, 20, CHAOS),
    "weights": Tolerance(1.7e-13, 20, CHAOS),
    "buffers": Tolerance(2.3e-14, 20, CHAOS),
    "state": Tolerance(6.9e-14, 20, CHAOS),
}

BY_CHANCE = Tolerance(1.0, 1.0, "in statistical bounds, exceeded at most twice in 1e13 comparisons")
# For jitter factors that are recovered from the changed pixels.
FACTORS = Tolerance(
    1.11e-2, 1.5, "two pixels that differ by 90 of 255 are rounded by up to 1 together"
)
TOLERANCES = {
    ("names and shapes", "float32"): EXACT,
    ("names and shapes", "float64"): EXACT,
    ("weights round trip", "float32"): EXACT,
    ("weights round trip", "float64"): EXACT,
    ("evaluation accuracy", "float32"): EXACT,
    ("evaluation accuracy", "float64"): EXACT,
    # Before the network.
    ("devices", "float32"): EXACT,
    ("transforms", "float32"): Tolerance(
        8.7e-7, 4, "in 0..1; rounding in float32, times 6 in hue and times 5 in normalization"
    ),
    ("transforms of uint8 images, largest", "uint8"): Tolerance(
        1, 1, "a value halfway between two integers is rounded up or down"
    ),
    ("transforms of uint8 images, mean", "uint8"): Tolerance(
        9.1e-3, 5, "in 0..255; crops to a few pixels have many values halfway between two integers"
    ),
    ("operations", "float32"): Tolerance(
        3.8e-6, 4, "in 0..1; factors up to 2 and normalization multiply the rounding of float32"
    ),
    ("conversions", "float32"): EXACT,
    ("operations on uint8 images, largest", "uint8"): Tolerance(
        1, 1, "a value halfway between two integers is rounded up or down"
    ),
    ("operations on uint8 images, mean", "uint8"): Tolerance(
        3.2e-2, 3, "in 0..255; crops to a few pixels have many values halfway between two integers"
    ),
    ("batches, not augmented", "float32"): Tolerance(
        3.0e-8, 2, "in 0..1; a uint8 value divided by 255 is rounded once"
    ),
    ("batches, augmented", "float32"): Tolerance(
        2.2e-6, 4, "in 0..1; as operations, several in sequence"
    ),
    ("Kaggle batches, training", "float32"): Tolerance(
        1.1e-6, 4, "in standard deviations, about a fifth of 0..1; as transforms"
    ),
    ("Kaggle batches, test", "float32"): Tolerance(
        2.5e-7, 2, "in standard deviations, about a fifth of 0..1; each step is rounded once"
    ),
    ("initial weights", "float32"): Tolerance(
        1, 1, "in statistical bounds, exceeded once in 1e13 layers"
    ),
    ("native order", "float32"): Tolerance(3.0e-8, 2, "as batches of the test set"),
    ("native operations", "float32"): Tolerance(
        2.5e-7, 2, "in 0..1, or in standard deviations, as Kaggle batches of the test set"
    ),
    ("native resizes", "float32"): Tolerance(
        1.0, 1.5, "in 0..255; rounded to uint8 after rows and after columns"
    ),
    ("native reproducibility", "float32"): EXACT,
    **{(f"native draws: {draws}", "float32"): BY_CHANCE for draws in ("flips", "crops", "colours")},
    ("native draws: pixels of flips", "float32"): Tolerance(
        7.6e-6, 4, "in 0..255; a uint8 value divided by 255 is rounded once"
    ),
    ("native draws: pixels of crops", "float32"): Tolerance(
        1.85,
        1.5,
        "in 0..255; rounded to uint8 after rows and after columns, twice in Kaggle crops",
    ),
    ("native draws: pixels of colours", "float32"): Tolerance(
        3.05, 1.5, "in 0..255; the reference uses the factor recovered from rounded pixels"
    ),
    # The network.
    ("logits, evaluation", "float64"): Tolerance(4.2e-15, 20, SUMS),
    ("logits, training", "float64"): Tolerance(1.2e-14, 20, SUMS),
    ("activations, evaluation", "float64"): Tolerance(5.4e-15, 20, SUMS),
    ("activations, training", "float64"): Tolerance(4.8e-14, 20, SUMS),
    ("loss", "float64"): Tolerance(
        1.1e-16, 10, "no difference was measured; room for one rounding"
    ),
    ("gradients", "float64"): Tolerance(4.4e-14, 20, SUMS),
    ("logits, evaluation", "float32"): Tolerance(3.4e-6, 5, SUMS),
    ("logits, training", "float32"): Tolerance(5.4e-6, 5, SUMS),
    ("activations, evaluation", "float32"): Tolerance(3.5e-6, 5, SUMS),
    ("activations, training", "float32"): Tolerance(2.6e-5, 5, SUMS),
    ("loss", "float32"): Tolerance(8.7e-8, 5, SUMS),
    ("gradients", "float32"): Tolerance(1.9e-2, 3, RELU_FLIPS),
    # Networks and batches of many sizes. With one image of 9 x 9 pixels, BatchNorm divides by the standard deviation
    # of four values, which amplifies rounding errors.
    ("cases: weights round trip", "float64"): EXACT,
    ("cases: logits", "float64"): Tolerance(1.8e-13, 20, SUMS),
    ("cases: activations", "float64"): Tolerance(1.6e-13, 20, SUMS),
    ("cases: gradients", "float64"): Tolerance(5.5e-13, 20, SUMS),
    ("cases: loss", "float64"): Tolerance(1.1e-16, 10, "room for one rounding"),
    ("cases: training losses", "float64"): Tolerance(1.9e-11, 20, f"{MXNET_SHARE}; {CHAOS}"),
    ("cases: training metrics", "float64"): EXACT,
    ("cases: weights after training", "float64"): Tolerance(
        1.8e-6, 15, f"{MXNET_SHARE}; {CHAOS}; 3.0e-10 in the others"
    ),
    ("cases: buffers after training", "float64"): Tolerance(7.5e-7, 10, f"{MXNET_FLOATS}; {CHAOS}"),
    ("cases: files", "float32"): EXACT,
    ("cases: logits from a file", "float32"): Tolerance(2.6e-6, 5, SUMS),
    # Steps from the reference's state.
    ("locked SGD: loss", "float64"): Tolerance(3.1e-15, 20, SUMS),
    ("locked SGD: weights", "float64"): Tolerance(4.8e-12, 15, SUMS),
    ("locked SGD: buffers", "float64"): Tolerance(2.4e-7, 4, MXNET_FLOATS),
    ("locked Adam: loss", "float64"): Tolerance(3.8e-15, 20, SUMS),
    ("locked Adam: weights", "float64"): Tolerance(
        7.0e-8, 20, f"Adam divides by gradients near its epsilon, and {MXNET_FLOATS}"
    ),
    ("locked Adam: buffers", "float64"): Tolerance(2.4e-7, 4, MXNET_FLOATS),
    ("locked SGD: loss", "float32"): Tolerance(1.9e-6, 5, SUMS),
    ("locked SGD: weights", "float32"): Tolerance(5.8e-2, 3, RELU_FLIPS),
    ("locked SGD: buffers", "float32"): Tolerance(6.9e-6, 5, SUMS),
    ("locked Adam: loss", "float32"): Tolerance(3.0e-6, 5, SUMS),
    ("locked Adam: weights", "float32"): Tolerance(
        0.25, 2, f"{RELU_FLIPS}, and Adam turns the smallest gradient into a full step"
    ),
    ("locked Adam: buffers", "float32"): Tolerance(6.9e-6, 5, SUMS),
    ("locked SGD: state", "float64"): Tolerance(2.9e-13, 20, SUMS),
    ("locked Adam: state", "float64"): Tolerance(5.2e-13, 20, SUMS),
    ("locked SGD: state", "float32"): Tolerance(5.8e-2, 3, RELU_FLIPS),
    ("locked Adam: state", "float32"): Tolerance(2.3e-2, 3, RELU_FLIPS),
    ("locked SGD: update", "float64"): Tolerance(
        1e-12,
        10,
        "no difference was measured; room for one rounding of a weight that hardly changes",
    ),
    ("locked Adam: update", "float64"): Tolerance(7.0e-8, 10, MXNET_FLOATS),
    ("locked SGD: update", "float32"): Tolerance(
        1.4e-3, 4, "one rounding of a weight that hardly changes"
    ),
    ("locked Adam: update", "float32"): Tolerance(
        6.2e-4, 4, "one rounding of a weight that hardly changes"
    ),
    # Steps that train only the last layer.
    ("frozen SGD: last layer", "float64"): Tolerance(4.4e-15, 20, SUMS),
    ("frozen SGD: other weights", "float64"): EXACT,
    ("frozen Adam: last layer", "float64"): Tolerance(6.4e-9, 20, MXNET_FLOATS),
    ("frozen Adam: other weights", "float64"): EXACT,
    # Whole runs: each step starts from the state after the previous one.
    **{
        (f"{run}: {part}", "float64"): limit
        for run, limits in RUNS.items()
        for part, limit in limits.items()
    },
    ("free-running training, augmented", "float32"): Tolerance(
        1.9, 2, "in widths of the envelope of the reference's perturbed runs"
    ),
    # The same in bfloat16, at 16 and 32 pixels per side, with three seeds (PyTorch and MXNet: seven). Norms over many
    # roundings hardly vary, so their margins are small. A missing gradient would differ by 1.
    ("names and shapes", "bfloat16"): EXACT,
    ("weights round trip", "bfloat16"): EXACT,
    ("evaluation accuracy", "bfloat16"): EXACT,
    ("logits dtype", "bfloat16"): EXACT,
    ("loss", "bfloat16"): Tolerance(8.7e-8, 5, "computed in float32"),
    ("logits, evaluation", "bfloat16"): Tolerance(1.1e-2, 1.5, GRAIN),
    ("logits, training", "bfloat16"): Tolerance(6.6e-3, 1.5, GRAIN),
    ("activations, evaluation", "bfloat16"): Tolerance(1.6e-2, 1.5, GRAIN),
    ("activations, training", "bfloat16"): Tolerance(8.1e-3, 1.5, GRAIN),
    ("gradients", "bfloat16"): Tolerance(0.27, 2, FEW),
    ("gradients, overall", "bfloat16"): Tolerance(6.9e-2, 1.5, GRAIN),
    ("precision in use", "bfloat16"): Tolerance(
        0.88,
        3,
        "one rounding divided by the difference from the reference; in the hundreds for float32",
    ),
    ("locked SGD: logits dtype", "bfloat16"): EXACT,
    ("locked SGD: loss", "bfloat16"): Tolerance(3.5e-3, 2, GRAIN),
    ("locked SGD: weights", "bfloat16"): Tolerance(0.22, 2, FEW),
    ("locked SGD: buffers", "bfloat16"): Tolerance(6.2e-3, 1.5, GRAIN),
    ("locked SGD: state", "bfloat16"): Tolerance(0.22, 2, FEW),
    ("locked SGD: update", "bfloat16"): Tolerance(1.1e-2, 4, IN_FLOAT32),
    ("locked Adam: logits dtype", "bfloat16"): EXACT,
    ("locked Adam: loss", "bfloat16"): Tolerance(4.0e-3, 2, GRAIN),
    ("locked Adam: weights", "bfloat16"): Tolerance(0.67, 1.4, SIGNS),
    ("locked Adam: buffers", "bfloat16"): Tolerance(4.2e-3, 1.5, GRAIN),
    ("locked Adam: state", "bfloat16"): Tolerance(0.64, 1.5, f"{FEW}; squares double it"),
    ("locked Adam: update", "bfloat16"): Tolerance(1.1e-3, 4, IN_FLOAT32),
    ("free-running training, augmented", "bfloat16"): Tolerance(
        2.8, 2, "in widths of the envelope of the reference's perturbed runs"
    ),
}


def _of_tf32(rounded: Tolerance) -> Tolerance:
    """Return a check's TF32 tolerance, derived from bfloat16's. No TF32 tolerance was measured on a GPU.

    Differences caused by rounding shrink with the size of a rounding. Flipped signs do not: one flip among 64 gradients
    is a difference of a quarter. All else is computed in float32.
    """
    if not rounded.reason.startswith(GRAIN):
        return rounded
    reason = f"derived from bfloat16's, not measured: {rounded.reason}"
    return Tolerance(rounded.measured * TF32_SHARE, rounded.margin, reason)


TOLERANCES |= {
    (check, "tf32"): _of_tf32(found)
    for (check, kind), found in TOLERANCES.items()
    if kind == "bfloat16"
}


def tolerance(check: str, kind: str) -> Tolerance:
    """Return the tolerance of a check for a kind: "uint8", "float32", "float64", "bfloat16" or "tf32"."""
    return TOLERANCES[check, kind]
