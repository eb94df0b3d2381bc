"""`python run.py differences`: what each known difference does to one operation, to one step and to thirty.

Measured on the arbiter, which computes both ways: two trainings that differ in one convention alone, from the same
weights, on the same batches, in float64. So what is seen is the difference, not rounding, and the yardstick for it is
what rounding does: the same training in float32 from perturbed weights. docs/differences.md is written by this.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.cli import Differences
from common.errors import UserError
from common.files import write_text
from common.parity.data_checks import example_images, operation_decisions
from common.parity.free_running import AUGMENTATIONS, BATCH, images_and_labels, perturbed
from common.parity.outcome import largest, norm
from common.parity.subject import Batch, random_batch, weights_at_work
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
from common.running import make_console
from common.sampling import decide
from common.weights import Weights, initial_weights, is_buffer, weight_shapes

NUM_STEPS, HELD_OUT, SIZE = 30, 64, (16, 16)


@dataclass(frozen=True)
class Trained:
    """What a training of the arbiter left: weights after the first step, losses, and the loss on held-out images."""

    first: Weights
    losses: list[float]
    held_out: float  # mean loss in evaluation mode after the last step

    @property
    def last_loss(self) -> float:
        """Return the mean training loss of the last ten steps."""
        return float(np.mean(self.losses[-10:]))


@dataclass(frozen=True)
class Effect:
    """What one difference does, in numbers.

    ``operation`` says it of one operation. ``step`` is how far the first step ends from the aligned one, as a share of
    that step (a Euclidean norm, over parameters and over running statistics). Losses are pairs: aligned, native.
    """

    name: str
    native_to: str
    meaning: str
    optimizer: str
    operation: str
    step_parameters: float
    step_statistics: float
    loss: tuple[float, float]
    held_out: tuple[float, float]


Make = Callable[[Conventions], SGD | Adam]
# The optimiser in which a difference shows; Adam, as in the chapter, for all others. SGD's numbers are the Kaggle
# chapter's, but for a learning rate that suits the mean loss of 8 images; it falls to a tenth half way.
OPTIMIZERS: dict[str, Make] = {
    "Adam": lambda conventions: Adam(3e-4, conventions=conventions),
    "SGD": lambda conventions: SGD(0.02, 0.9, 5e-4, conventions),
}
SHOWS_IN_SGD = ("momentum_rate", "weight_decay", "objective")


def effects(only: Sequence[str] = ()) -> Iterator[Effect]:
    """Measure the known differences, or those of these names, one after another: some ten seconds each."""
    aligned = {name: _train(make, ALIGNED) for name, make in OPTIMIZERS.items()}
    if not only:
        for name, runs in (("Adam", 3), ("SGD", 2)):
            yield from _rounding(name, runs, aligned[name])
    for known in KNOWN_DIFFERENCES:
        if known.name not in (only or NAMES):
            continue
        optimizer = "SGD" if known.field in SHOWS_IN_SGD else "Adam"
        make = OPTIMIZERS[optimizer]
        in_levels = (
            known.field == "rounding"
        )  # which shows in levels alone, so both are rounded to them
        native = _train(make, known.conventions(), in_levels=in_levels)
        base = _train(make, ALIGNED, in_levels=True) if in_levels else aligned[optimizer]
        yield _effect(
            known.name,
            known.native_to,
            known.meaning,
            optimizer,
            _on_one_operation(known),
            base,
            native,
        )
    for name, native_to, meaning, draw in INITIALISATIONS:
        if only and name not in only:
            continue
        native = _train(OPTIMIZERS["Adam"], ALIGNED, draw())
        operation = f"first convolution's standard deviation {draw()['conv.weight'].std():.3f}, "
        operation += f"where Xavier's is {initial_weights(10)['conv.weight'].std():.3f}"
        yield _effect(name, native_to, meaning, "Adam", operation, aligned["Adam"], native)


def _effect(
    name: str,
    native_to: str,
    meaning: str,
    optimizer: str,
    operation: str,
    aligned: Trained,
    native: Trained,
) -> Effect:
    start = initial_weights(10)

    def share(of_buffers: bool) -> float:
        names = [n for n in start if is_buffer(n) == of_buffers and not before_batch_norm(n)]
        apart = sum(norm(native.first[n] - aligned.first[n]) ** 2 for n in names)
        step = sum(norm(aligned.first[n] - start[n]) ** 2 for n in names)
        return float(np.sqrt(apart / step))

    return Effect(
        name,
        native_to,
        meaning,
        optimizer,
        operation,
        share(of_buffers=False),
        share(of_buffers=True),
        loss=(aligned.last_loss, native.last_loss),
        held_out=(aligned.held_out, native.held_out),
    )


def _rounding(optimizer: str, runs: int, aligned: Trained) -> Iterator[Effect]:
    """Yield the yardstick: trainings in float32, from weights perturbed by one rounding."""
    for run in range(runs):
        start = perturbed({n: w.astype(np.float32) for n, w in initial_weights(10).items()}, run)
        native = _train(OPTIMIZERS[optimizer], ALIGNED, start, "float32")
        what = f"rounding alone, {optimizer}, run {run + 1}"
        meaning = "no difference: float32, from weights perturbed by one rounding"
        yield _effect(what, "every framework", meaning, optimizer, "1e-7", aligned, native)


# --- Training --------------------------------------------------------------------------------------------------------


def _train(
    make: Make,
    conventions: Conventions,
    start: Weights | None = None,
    kind: str = "float64",
    in_levels: bool = False,
) -> Trained:
    """Train the arbiter on augmented pictures of shapes, then evaluate it on others."""
    weights = {n: w.astype(kind) for n, w in (start or initial_weights(10)).items()}
    optimizer = make(conventions)
    losses: list[float] = []
    first = weights
    for i in range(NUM_STEPS):
        if isinstance(optimizer, SGD) and i == NUM_STEPS // 2:
            optimizer.lr /= 10
        batch = _batch(i, conventions, kind, in_levels)
        step = train_step(weights, batch.X, batch.y, optimizer, conventions)
        weights = step.weights
        losses.append(step.loss / BATCH)
        first = weights if i == 0 else first
    X, y = images_and_labels(NUM_STEPS * BATCH + np.arange(HELD_OUT), SIZE)
    y_hat = forward(weights, X.astype(kind), False, conventions).logits
    return Trained(first, losses, float(cross_entropy(y_hat, y)[0].mean()))


def _batch(i: int, conventions: Conventions, kind: str, in_levels: bool) -> Batch:
    """Return the i-th batch, flipped, jittered and cropped, and rounded to levels if that is asked for."""
    indices = i * BATCH + np.arange(BATCH)
    X, y = images_and_labels(indices)
    decisions = decide(AUGMENTATIONS, indices, 0, 0, (X.shape[2], X.shape[3]))
    X = transforms.augment(X, decisions, conventions)
    if in_levels:
        X = transforms.to_levels(X, conventions) / 255
    return Batch(X.astype(kind), y)


# --- One operation ---------------------------------------------------------------------------------------------------


def _on_one_operation(known: Difference) -> str:
    """Say in numbers what the difference does to the first operation that it touches."""
    conventions = known.conventions()
    if known.part == "transforms":
        return _on_images(conventions)
    if known.field in ("padding", "bn_epsilon"):
        return _on_activations(conventions)
    if known.field in ("bn_momentum", "bn_variance"):
        return _on_statistics(conventions)
    return _on_updates(known, conventions)


def _on_images(conventions: Conventions) -> str:
    """Compare the levels of example images after the operation that differs most."""
    images = example_images(*SIZE, seed=0)
    found = {}
    for name, decisions in operation_decisions(SIZE, (12, 10)).items():
        aligned, native = (
            255.0 * transforms.augment(images / 255, decisions, c) for c in (ALIGNED, conventions)
        )
        if conventions.rounding != ALIGNED.rounding:
            aligned, native = np.rint(aligned), np.floor(native)
        found[name] = np.abs(native - aligned)
    name = max(found, key=lambda name: found[name].mean())
    return f"{name}: {found[name].mean():.1f} levels on average, {found[name].max():.0f} at most"


def _on_activations(conventions: Conventions) -> str:
    """Compare the first layer that differs, in evaluation mode."""
    weights, batch = weights_at_work(), random_batch(BATCH, SIZE[0])
    aligned, native = (forward(weights, batch.X, False, c) for c in (ALIGNED, conventions))
    for name, activation in aligned.activations.items():
        share = largest(native.activations[name] - activation) / largest(activation)
        if share:
            return f"{name}: {share:.1%} of its largest output"
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
        small = [
            _one_weight(Adam(0.1, conventions=c), [0.1], 1e-7)[0] for c in (ALIGNED, conventions)
        ]
        return f"first step with a gradient of 1e-7 and rate .1: {1 - small[0]:.4f} to {1 - small[1]:.4f}"
    decay = 0.1 if known.field == "weight_decay" else 0.0
    rates = [0.1, 0.1, 0.01, 0.01]
    paths = [_one_weight(SGD(0.1, 0.9, decay, c), rates, 1.0) for c in (ALIGNED, conventions)]
    texts = [" ".join(f"{w:.4f}" for w in path) for path in paths]
    return f"a weight of 1, gradient 1, rates .1 .1 .01 .01, momentum .9: {texts[0]} to {texts[1]}"


def _one_weight(optimizer: SGD | Adam, rates: Sequence[float], gradient: float) -> list[float]:
    weights: dict[str, Array] = {"w": np.array([1.0])}
    path = []
    for rate in rates:
        optimizer.lr = rate
        weights = optimizer.step(weights, {"w": np.array([gradient])})
        path.append(float(weights["w"][0]))
    return path


# --- Initialisation --------------------------------------------------------------------------------------------------


def pytorch_start() -> Weights:
    """Draw what PyTorch's layers start from: weights and biases uniform in 1 / sqrt(fan in)."""
    rng = np.random.default_rng(0)
    shapes = weight_shapes(10)
    weights = dict(initial_weights(10))
    for name, shape in shapes.items():
        kernel = shapes.get(name.replace("bias", "weight"), ())
        if len(kernel) > 1 and not is_buffer(name):
            bound = 1 / np.sqrt(np.prod(kernel[1:]))
            weights[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return weights


def gluon_start() -> Weights:
    """Draw what Gluon's layers start from: weights uniform in +-.07, biases zero."""
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(-0.07, 0.07, weight.shape).astype(np.float32)
        if weight.ndim > 1
        else weight
        for name, weight in initial_weights(10).items()
    }


INITIALISATIONS = (
    (
        "PyTorch's initial weights",
        "PyTorch",
        "Kaiming-uniform with a = sqrt 5, and random biases, where Xavier and zero are aligned",
        pytorch_start,
    ),
    (
        "Gluon's initial weights",
        "MXNet",
        "uniform in +-.07 whatever the layer, where Xavier is aligned",
        gluon_start,
    ),
)


# What is measured: what the arbiter does by default is measured from the other side.
NAMES = (
    *(known.name for known in KNOWN_DIFFERENCES if not known.holds(ALIGNED)),
    *(name for name, *_ in INITIALISATIONS),
)


# --- The page --------------------------------------------------------------------------------------------------------

INTRODUCTION = """# Differences, measured

What PyTorch, MXNet and TensorFlow do otherwise than each other when they are left to themselves, one difference at a
time. *Aligned* is what this project makes every backend do, as far as `CONVENTIONS` in its `probes.py` does not
declare otherwise; *native* is what the framework in the first column does.

Written by `python run.py differences --output docs/differences.md`. Measured on the arbiter, in NumPy and float64,
which computes both ways: ResNet-18 on 16 x 16 crops of the embedded shapes, flipped and jittered, 30 batches of 8, with
Adam at 3e-4, or where only SGD shows the difference with SGD at .02, momentum .9 and decay 5e-4 (the rate falls to a
tenth half way). That each native way is the framework's own is proved by tests/test_differences.py; the sum of losses
is the book's code.

- *First step*: how far the first step ends from the aligned one, as a share of that step: in the parameters, and in
  BatchNorm's running statistics.
- *Loss*: the mean of the last ten of thirty training steps, aligned and native.
- *Held out*: the loss on 64 other pictures in evaluation mode after thirty steps, aligned and native.

The first rows are the yardstick: no difference at all but float32 and its rounding. After thirty steps, a difference
that stays within them has been drowned by chaos; step by step it can still be proved, with `python run.py parity`.
"""


def run(command: Differences) -> None:
    """Measure and print, and write the page where one is asked for. Raises UserError for a name that is not known."""
    if unknown := [name for name in command.only if name not in NAMES]:
        raise UserError(
            f"no known difference is called '{unknown[0]}': choose from {', '.join(NAMES)}"
        )
    if command.only and command.output:
        raise UserError("--output writes the whole page: leave out --only")
    console = make_console()
    found = []
    for effect in effects(command.only):
        found.append(effect)
        console.print(f"{effect.name} ({effect.native_to}: {effect.meaning})", soft_wrap=True)
        console.print(f"  one operation: {effect.operation}", soft_wrap=True)
        console.print(
            f"  first step, {effect.optimizer}: {effect.step_parameters:.1e} of the step in the parameters, "
            f"{effect.step_statistics:.1e} in the running statistics",
            soft_wrap=True,
        )
        console.print(
            f"  thirty steps: loss {effect.loss[0]:.3f} aligned, {effect.loss[1]:.3f} native; "
            f"held out {effect.held_out[0]:.3f}, {effect.held_out[1]:.3f}",
            soft_wrap=True,
        )
    if command.output:
        write_text(command.output, markdown(found))
        console.print(f"written to {command.output}", soft_wrap=True)


def markdown(found: Sequence[Effect]) -> str:
    """Return the page of these effects."""
    head = (
        "| difference, native to | what it means | one operation | in | first step: parameters, statistics | "
        "loss | held out |"
    )
    rows = [head, "|---|---|---|---|---|---|---|"]
    for e in found:
        first = f"{e.step_parameters:.1e}, {e.step_statistics:.1e}"
        rows.append(
            f"| **{e.name}**: {e.native_to} | {e.meaning} | {e.operation} | {e.optimizer} | {first} | "
            f"{e.loss[0]:.3f}, {e.loss[1]:.3f} | {e.held_out[0]:.3f}, {e.held_out[1]:.3f} |"
        )
    return INTRODUCTION + "\n" + "\n".join(rows) + "\n"
