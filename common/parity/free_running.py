"""Free-running training in float32, with augmentation on, held against the envelope of what rounding alone does.

Two correct runs part: with Adam their losses differ by 1e-3 after a step and by some per cent after five. So a backend
is not asked for the arbiter's losses, but to stay as near to them as the arbiter itself stays when it computes in
float32 from weights that are perturbed by the size of one rounding, of bfloat16 for what computes in that. A difference
in what the network computes leaves that envelope; one that Adam hides, as a factor on the loss, does not, and shows in
the sharp checks alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.augmentation.decisions import decide, epoch_batches
from common.augmentation.operations import gallery
from common.datasets import Dataset
from common.datasets.shapes import draw_shapes
from common.parity.adapter import Batch, Subject
from common.parity.comparison import Array, Arrays, Difference, Outcome, differences
from common.parity.tolerances import UNIT_ROUNDOFF
from common.reference import ALIGNED, Adam, Conventions, train_step, transforms
from common.weights.canonical import Weights, initial_weights

BATCH, LR = 8, 3e-4
RUNS = 6  # perturbed ones
AUGMENTATIONS = gallery((16, 16))["flip, jitter and crop"]
# One rounding of a weight, and what a single step may be off, as a share of the loss.
UNITS = {"float32": 2.0**-24, "bfloat16": UNIT_ROUNDOFF}
FLOORS = {"float32": 1e-6, "bfloat16": UNIT_ROUNDOFF}


@dataclass(frozen=True)
class Envelope:
    """The arbiter's losses in float64, and those of its perturbed runs in float32, step by step.

    ``kind`` is the type whose rounding has perturbed them.
    """

    losses: list[float]
    perturbed: list[list[float]]
    kind: str = "float32"

    def widths(self) -> list[float]:
        """Return how far the perturbed runs have been from the true losses up to each step."""
        apart = np.abs(np.array(self.perturbed) - np.array(self.losses)).max(axis=0)
        floor = FLOORS[self.kind] * np.array(self.losses)
        return np.maximum.accumulate(np.maximum(apart, floor)).tolist()


def envelope(num_steps: int, seed: int = 0, kind: str = "float32") -> Envelope:
    """Train the arbiter in float64, and `RUNS` times in float32 from weights perturbed by roundings of ``kind``."""
    start = initial_weights(10, seed=seed)
    losses = arbiter_losses(num_steps, seed, {n: w.astype(np.float64) for n, w in start.items()})
    runs = [
        arbiter_losses(num_steps, seed, perturbed(start, run, UNITS[kind])) for run in range(RUNS)
    ]
    return Envelope(losses, runs, kind)


def arbiter_losses(
    num_steps: int, seed: int, weights: Weights, conventions: Conventions = ALIGNED
) -> list[float]:
    """Return the arbiter's mean loss of each step from these weights, computed in their type."""
    kind = weights["conv.weight"].dtype
    optimizer = Adam(LR, conventions=conventions)
    losses = []
    for batch in _batches(num_steps, seed, conventions):
        X = batch.X.astype(kind)
        step = train_step(weights, X, batch.y, optimizer, conventions)
        weights = step.weights
        losses.append(step.loss / len(batch.y))
    return losses


def perturbed(weights: Weights, number: int, unit: float = UNITS["float32"]) -> Weights:
    """Return weights with noise of one rounding on each, a share ``unit`` of it, from the draw of that number."""
    rng = np.random.default_rng(number)
    return {
        name: (w * (1 + rng.uniform(-1, 1, w.shape) * unit)).astype(w.dtype)
        for name, w in weights.items()
    }


def images_and_labels(
    indices: NDArray[np.int64], size: tuple[int, int] | None = None
) -> tuple[Array, NDArray[np.int64]]:
    """Return embedded pictures (n, 3, height, width), floats 0..1, and labels; resized to ``size`` if it is given."""
    dataset = draw_shapes(int(indices.max()) + 1)
    X = np.moveaxis(dataset.images[indices] / 255, -1, 1)
    if size is not None:
        whole = np.tile([0, 0, X.shape[2], X.shape[3]], (len(X), 1))
        X = transforms.crop_resize(X, whole, size)
    return X, dataset.labels[indices]


def _batches(num_steps: int, seed: int, conventions: Conventions) -> Iterator[Batch]:
    dataset = _dataset(num_steps)
    size = dataset.images.shape[1], dataset.images.shape[2]
    for indices in epoch_batches(len(dataset), BATCH, seed, 0):
        decisions = decide(AUGMENTATIONS, indices, seed, 0, size)
        X = np.moveaxis(dataset.images[indices] / 255, -1, 1)
        yield Batch(transforms.augment(X, decisions, conventions), dataset.labels[indices])


def _dataset(num_steps: int) -> Dataset:
    """Return as many of the embedded training pictures as are one epoch of ``num_steps``, the last batch smaller."""
    return draw_shapes(num_steps * BATCH - 3)


def free_running(subject: Subject, around: Envelope, seed: int = 0) -> tuple[Outcome, list[float]]:
    """Train the backend through its own loader and optimiser; return the outcome and its losses.

    The differences are in widths of the envelope at their step.
    """
    num_steps = len(around.losses)
    backend, device = subject.backend, subject.devices[0]
    net = subject.network(initial_weights(10, seed=seed))
    trainer = backend.trainer.adam(net, LR)
    batches = backend.loaders.load_batched(
        _dataset(num_steps), AUGMENTATIONS, BATCH, True, seed, device
    )
    losses = []
    for X, y in batches:
        l, _ = backend.trainer.train_batch_ch13(net, X, y, subject.loss, trainer, subject.devices)
        losses.append(float(backend.devices.to_numpy(l)) / len(y))
    got = {f"step {i}": np.array(loss) for i, loss in enumerate(losses, start=1)}

    def wanted(_: Conventions) -> Arrays:
        return {f"step {i}": np.array(loss) for i, loss in enumerate(around.losses, start=1)}

    def in_widths(got: Arrays, wanted: Arrays) -> list[Difference]:
        return differences(got, wanted, dict(zip(wanted, around.widths(), strict=True)))

    # No cause is sought: under another convention chaos takes another course. The sharp checks name it.
    outcome = subject.hold("free training, augmented", got, wanted, in_widths, parts=())
    return outcome, losses
