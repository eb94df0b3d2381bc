"""The effect of each known difference on one operation, on one step and on 30 steps.

Measured on the reference, which computes both ways. Two training runs differ in only one convention: they start from
the same weights, use the same batches, and compute in float64, so rounding is negligible. For scale, the same run is
repeated in float32, from weights that are perturbed by one rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from common.augmentation.decisions import FlipsLeftRight, decide
from common.augmentation.operations import ColorJitter, RandomFlipLeftRight, RandomResizedCrop
from common.parity.adapter import Batch, drawn_weights, random_batch
from common.parity.checks.free_running import AUGMENTATIONS, BATCH, images_and_labels, perturbed
from common.parity.checks.transforms import example_images
from common.parity.comparison import largest, norm
from common.reference import (
    ALIGNED,
    KNOWN_DIFFERENCES,
    SGD,
    Adam,
    Conventions,
    Difference,
    forward,
    train_step,
    transforms,
)
from common.reference.layers import Array, cross_entropy
from common.reference.resnet import before_batch_norm
from common.weights.canonical import Weights, initial_weights, is_buffer
from common.weights.keras import to_keras
from docs.differences.initialization import INITIALISATIONS
from docs.differences.native import LAYOUTS, WORKERS, moves, tinted_images

NUM_STEPS, HELD_OUT, SIZE = 30, 64, (16, 16)


@dataclass(frozen=True)
class Trained:
    """A training run of the reference: weights after the first step, losses, and the loss on held-out images."""

    first: Weights
    losses: list[float]
    held_out: float  # mean loss in evaluation mode after the last step

    @property
    def last_loss(self) -> float:
        """Return the mean training loss of the last ten steps."""
        return float(np.mean(self.losses[-10:]))


@dataclass(frozen=True)
class Effect:
    """The effect of one difference, in numbers.

    ``operation`` is a phrase about one operation. ``step_parameters`` and ``step_statistics`` are the distances of the
    first step from the aligned one, as shares of that step (Euclidean norms). Losses are pairs: aligned, native.
    """

    name: str
    native_to: str
    optimizer: str
    operation: str
    step_parameters: float
    step_statistics: float
    loss: tuple[float, float]
    held_out: tuple[float, float]


Make = Callable[[Conventions], SGD | Adam]
# Adam as in the first chapter. SGD as in the Kaggle chapter, but with a learning rate for batches of 8, which falls to
# a tenth after half of the steps.
OPTIMIZERS: dict[str, Make] = {
    "Adam": lambda conventions: Adam(3e-4, conventions=conventions),
    "SGD": lambda conventions: SGD(0.02, 0.9, 5e-4, conventions),
}
SHOWS_IN_SGD = ("momentum_rate", "weight_decay", "objective")


@dataclass(frozen=True)
class Reading:
    """How batches are read: rounded to uint8, in the wrong layout, or in pairs with the same draws."""

    in_uint8: bool = False
    misread: bool = False
    same_draws: bool = False


@dataclass(frozen=True)
class Case:
    """One difference, its effect on one operation, and the settings of the two training runs."""

    name: str
    native_to: str
    operation: Callable[[], str]
    optimizer: str = "Adam"
    conventions: Conventions = ALIGNED
    start: Callable[[], Weights] | None = None
    reading: Reading = Reading()  # of the native run
    aligned_reading: Reading = Reading()


def cases() -> Iterator[Case]:
    """Yield every difference that is measured, in the order of `NAMES`."""
    for known in KNOWN_DIFFERENCES:
        if known.holds(ALIGNED):
            continue  # the reference's own default; the opposite difference measures it
        # Rounding shows only in uint8, so both runs read uint8.
        reading = Reading(in_uint8=known.field == "rounding")
        yield Case(
            known.name,
            known.native_to,
            partial(_on_one_operation, known),
            "SGD" if known.field in SHOWS_IN_SGD else "Adam",
            known.conventions(),
            reading=reading,
            aligned_reading=reading,
        )
    for name, native_to, _, draw in INITIALISATIONS:
        yield Case(name, native_to, partial(_on_a_start, draw), start=draw)
    images, kernels = LAYOUTS
    yield Case(
        images,
        "a port that reshapes",
        _on_layout,
        reading=Reading(misread=True),
    )
    yield Case(
        kernels,
        "a port that reverses the axes",
        _on_kernels,
        start=lambda: turned_over(initial_weights(10)),
    )
    yield Case(
        WORKERS,
        "MXNet with worker processes",
        _on_draws,
        reading=Reading(same_draws=True),
    )


def effects(
    only: Sequence[str] = (), steps: int = NUM_STEPS, held_out: int = HELD_OUT
) -> Iterator[Effect]:
    """Measure all differences, or those named in ``only``, one after another."""
    train = partial(_train, steps, held_out)

    @cache
    def aligned(optimizer: str, reading: Reading) -> Trained:
        return train(OPTIMIZERS[optimizer], ALIGNED, reading=reading)

    if not only:
        for name, runs in (("Adam", 3), ("SGD", 2)):
            yield from _rounding(train, name, runs, aligned(name, Reading()))
    for case in cases():
        if only and case.name not in only:
            continue
        start = case.start() if case.start else None
        native = train(OPTIMIZERS[case.optimizer], case.conventions, start, reading=case.reading)
        yield _effect(case, aligned(case.optimizer, case.aligned_reading), native)


def _effect(case: Case, aligned: Trained, native: Trained) -> Effect:
    start = initial_weights(10)

    def share(of_buffers: bool) -> float:
        names = [n for n in start if is_buffer(n) == of_buffers and not before_batch_norm(n)]
        apart = sum(norm(native.first[n] - aligned.first[n]) ** 2 for n in names)
        step = sum(norm(aligned.first[n] - start[n]) ** 2 for n in names)
        return float(np.sqrt(apart / step))

    return Effect(
        case.name,
        case.native_to,
        case.optimizer,
        case.operation(),
        share(of_buffers=False),
        share(of_buffers=True),
        loss=(aligned.last_loss, native.last_loss),
        held_out=(aligned.held_out, native.held_out),
    )


def _rounding(
    train: Callable[..., Trained], optimizer: str, runs: int, aligned: Trained
) -> Iterator[Effect]:
    """Yield training runs in float32, from weights perturbed by one rounding."""
    for run in range(runs):
        start = perturbed({n: w.astype(np.float32) for n, w in initial_weights(10).items()}, run)
        native = train(OPTIMIZERS[optimizer], ALIGNED, start, "float32")
        case = Case(
            f"rounding alone, {optimizer}, run {run + 1}",
            "every framework",
            lambda: "off by 1e-7 of a value",
            optimizer,
        )
        yield _effect(case, aligned, native)


# --- Training --------------------------------------------------------------------------------------------------------


def _train(
    steps: int,
    held_out: int,
    make: Make,
    conventions: Conventions,
    start: Weights | None = None,
    kind: str = "float64",
    reading: Reading = Reading(),
) -> Trained:
    """Train the reference on augmented pictures of shapes, then evaluate it on other pictures."""
    weights = {n: w.astype(kind) for n, w in (start or initial_weights(10)).items()}
    optimizer = make(conventions)
    losses: list[float] = []
    first = weights
    for i in range(steps):
        if isinstance(optimizer, SGD) and i == steps // 2:
            optimizer.lr /= 10
        batch = _batch(i, conventions, kind, reading)
        step = train_step(weights, batch.X, batch.y, optimizer, conventions)
        weights = step.weights
        losses.append(step.loss / BATCH)
        first = weights if i == 0 else first
    X, y = images_and_labels(steps * BATCH + np.arange(held_out), SIZE)
    X = misread(X) if reading.misread else X
    y_hat = forward(weights, X.astype(kind), False, conventions).logits
    return Trained(first, losses, float(cross_entropy(y_hat, y)[0].mean()))


def _batch(i: int, conventions: Conventions, kind: str, reading: Reading) -> Batch:
    """Return the i-th batch, flipped, jittered and cropped."""
    indices = i * BATCH + np.arange(BATCH)
    X, y = images_and_labels(indices)
    drawn_for = indices - BATCH * (i % 2) if reading.same_draws else indices
    decisions = decide(AUGMENTATIONS, drawn_for, 0, 0, (X.shape[2], X.shape[3]))
    X = transforms.augment(X, decisions, conventions)
    if reading.in_uint8:
        X = transforms.to_uint8(X, conventions) / 255
    if reading.misread:
        X = misread(X)
    return Batch(X.astype(kind), y)


def misread(X: Array) -> Array:
    """Return images (n, channels, height, width) whose bytes, with channels last, are read as channels first."""
    return np.moveaxis(X, 1, -1).reshape(X.shape)


def turned_over(weights: Weights) -> Weights:
    """Return weights with height and width swapped, as reversing all axes of Keras' layout gives them."""
    return {name: to_keras(w).T if w.ndim == 4 else w for name, w in weights.items()}


# --- One operation ---------------------------------------------------------------------------------------------------


def _on_one_operation(known: Difference) -> str:
    """Describe in numbers the effect on the first operation that the difference changes."""
    conventions = known.conventions()
    if known.part == "transforms":
        return _on_images(known, conventions)
    if known.field in ("padding", "bn_epsilon"):
        return _on_activations(conventions)
    if known.field in ("bn_momentum", "bn_variance"):
        return _on_statistics(conventions)
    return _on_updates(known, conventions)


def _on_images(known: Difference, conventions: Conventions) -> str:
    """Compare tinted images after the operation itself; brightness shows how uint8 is rounded."""
    colour = "brightness" if known.field == "rounding" else known.field
    name, augmentation = (
        ("random resized crop", RandomResizedCrop((12, 10), (0.1, 1.0), (0.5, 2.0)))
        if known.field == "antialias"
        else (colour, ColorJitter(**{colour: 0.5}))
    )
    X = np.moveaxis(tinted_images(), -1, 1) / 255
    decisions = decide([augmentation], np.arange(len(X)), 0, 0, SIZE)
    aligned, native = (255 * transforms.augment(X, decisions, c) for c in (ALIGNED, conventions))
    if known.field == "rounding":
        aligned, native = np.rint(aligned), np.floor(native)
    apart = np.abs(native - aligned)
    return f"{name}: off by {apart.mean():.1f} of 255 on average, {apart.max():.0f} at most"


def _on_activations(conventions: Conventions) -> str:
    """Compare the first layer that differs, in evaluation mode."""
    weights, batch = drawn_weights(), random_batch(BATCH, SIZE[0])
    aligned, native = (forward(weights, batch.X, False, c) for c in (ALIGNED, conventions))
    for name, activation in aligned.activations.items():
        share = largest(native.activations[name] - activation) / largest(activation)
        if share:
            return f"{name}: off by {share:.1%} of its largest output"
    raise AssertionError(f"{conventions} change nothing")


def _on_statistics(conventions: Conventions) -> str:
    """Compare the running variance of the last layer after one step from 1."""
    weights, batch = initial_weights(10), random_batch(BATCH, SIZE[0])
    aligned, native = (
        train_step(weights, batch.X, batch.y, Adam(), c).weights["resnet_block4.1.bn2.running_var"]
        for c in (ALIGNED, conventions)
    )
    return (
        f"running variance after one step, last layer: {aligned.mean():.3f} to {native.mean():.3f}"
    )


def _on_updates(known: Difference, conventions: Conventions) -> str:
    """Compare one weight of 1 after four steps with gradient 1; the learning rate falls from .1 to .01 after two."""
    if known.field == "objective":
        return f"the gradient of {BATCH} images: {BATCH} times as large"
    if known.field in ("adam_epsilon", "adam_epsilon_place"):
        small = [moves(Adam(conventions=c), [1e-7], [0.1])[0] for c in (ALIGNED, conventions)]
        return f"first step with a gradient of 1e-7 and rate .1: {small[0]:.4f} to {small[1]:.4f}"
    decay = 0.1 if known.field == "weight_decay" else 0.0
    rates = [0.1, 0.1, 0.01, 0.01]
    paths = [1 - moves(SGD(0.1, 0.9, decay, c), [1.0] * 4, rates) for c in (ALIGNED, conventions)]
    texts = [" ".join(f"{w:.4f}" for w in path) for path in paths]
    given = "momentum .9, decay .1" if decay else "momentum .9"
    return f"a weight of 1, gradient 1, rates .1 .1 .01 .01, {given}: {texts[0]} to {texts[1]}"


def _on_a_start(draw: Callable[[], Weights]) -> str:
    native, xavier = draw()["conv.weight"].std(), initial_weights(10)["conv.weight"].std()
    return f"first convolution's standard deviation {native:.3f}, where Xavier's is {xavier:.3f}"


def _on_layout() -> str:
    """Compare example images with the misread ones."""
    images = example_images(*SIZE, seed=0).astype(np.float64)
    apart = np.abs(misread(images) - images)
    wrong = (apart > 0).mean()
    return f"reading images: {wrong:.0%} of the values are wrong, off by {apart.mean():.1f} of 255 on average"


def _on_kernels() -> str:
    """Compare the first convolution and the logits, in evaluation mode."""
    weights, X = drawn_weights(), random_batch(BATCH, SIZE[0]).X
    aligned, native = (forward(w, X, False) for w in (weights, turned_over(weights)))
    parts = []
    for name, wanted, got in (
        ("conv", aligned.activations["conv"], native.activations["conv"]),
        ("logits", aligned.logits, native.logits),
    ):
        parts.append(f"{name}: off by {largest(got - wanted) / largest(wanted):.1%}")
    return f"{', '.join(parts)} of the largest output"


def _on_draws() -> str:
    """Compare the flips of two batches."""
    parts = [
        decide([RandomFlipLeftRight()], part, 0, 0, (4, 4))
        for part in np.arange(256).reshape(2, 128)
    ]
    first, second = (d.flips for part in parts for d in part if isinstance(d, FlipsLeftRight))
    return f"flips of two batches of 128: all equal; {(first == second).mean():.0%} if drawn for each image"


# The names of the cases.
NAMES = tuple(case.name for case in cases())
