"""Free-running training in float32, with augmentation, compared with an envelope of runs that differ only by rounding.

Two correct runs diverge: with Adam their losses differ by 1e-3 after one step, and by a few percent after five. So a
backend need not have the reference's losses. The reference also trains in float32 from weights that are perturbed by
one rounding (of bfloat16 if the backend computes in bfloat16). The backend must stay as close to the reference as those
runs do.

A difference in the network leaves this envelope. A difference that Adam hides, such as a factor on the loss, does not;
the other checks find it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from common.augmentation.decisions import epoch_batches
from common.augmentation.operations import gallery
from common.datasets import Dataset
from common.datasets.shapes import draw_shapes
from common.parity.adapter import NUM_CHANNELS, Adapter, Batch
from common.parity.comparison import Array, Arrays, CheckResult, Difference, by_place, largest
from common.parity.tolerances import UNIT_ROUNDOFFS
from common.reference import ALIGNED, Adam, Conventions, train_step, transforms
from common.weights.canonical import Weights, initial_weights

BATCH, LR = 8, 3e-4
RUNS = 6  # perturbed runs
AUGMENTATIONS = gallery((16, 16))["flip, jitter and crop"]
# UNITS: one rounding, relative to a weight. FLOORS: the smallest width of the envelope, relative to the loss.
UNITS = {"float32": 2.0**-24, **UNIT_ROUNDOFFS}
FLOORS = {"float32": 1e-6, **UNIT_ROUNDOFFS}


@dataclass(frozen=True)
class Envelope:
    """The reference's losses in float64, and those of its perturbed float32 runs, step by step.

    ``kind`` is the precision whose rounding perturbs the weights.
    """

    losses: list[float]
    perturbed: list[list[float]]
    kind: str = "float32"

    def widths(self) -> list[float]:
        """Return, for each step, the largest difference of a perturbed run from the true losses up to that step."""
        differences = np.abs(np.array(self.perturbed) - np.array(self.losses)).max(axis=0)
        floor = FLOORS[self.kind] * np.array(self.losses)
        return np.maximum.accumulate(np.maximum(differences, floor)).tolist()


@lru_cache(maxsize=2)
def envelope(
    num_steps: int, seed: int = 0, kind: str = "float32", num_channels: int = NUM_CHANNELS
) -> Envelope:
    """Train the reference in float64, and `RUNS` times in float32 from weights perturbed by a rounding of ``kind``."""
    start = initial_weights(10, num_channels=num_channels, seed=seed)
    losses = reference_losses(num_steps, seed, {n: w.astype(np.float64) for n, w in start.items()})
    runs = [
        reference_losses(num_steps, seed, perturbed(start, run, UNITS[kind])) for run in range(RUNS)
    ]
    return Envelope(losses, runs, kind)


def reference_losses(
    num_steps: int, seed: int, weights: Weights, conventions: Conventions = ALIGNED
) -> list[float]:
    """Return the reference's mean loss of each step from these weights, computed in their dtype."""
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
    """Return weights with noise of at most ``unit`` relative to each weight; ``number`` seeds the noise."""
    rng = np.random.default_rng(number)
    return {
        name: (w * (1 + rng.uniform(-1, 1, w.shape) * unit)).astype(w.dtype)
        for name, w in weights.items()
    }


def images_and_labels(
    indices: NDArray[np.int64], size: tuple[int, int] | None = None
) -> tuple[Array, NDArray[np.int64]]:
    """Return embedded pictures (n, 3, height, width), floats 0..1, and labels; resize to ``size`` if given."""
    dataset = draw_shapes(int(indices.max()) + 1)
    X = transforms.from_images(dataset.images[indices])
    if size is not None:
        whole = np.tile([0, 0, X.shape[2], X.shape[3]], (len(X), 1))
        X = transforms.crop_resize(X, whole, size)
    return X, dataset.labels[indices]


def _batches(num_steps: int, seed: int, conventions: Conventions) -> Iterator[Batch]:
    dataset = _dataset(num_steps)
    images = np.asarray(dataset.images)
    for indices in epoch_batches(len(dataset), BATCH, seed, 0):
        X = transforms.augmented(images, AUGMENTATIONS, indices, seed, 0, conventions)
        yield Batch(X, dataset.labels[indices])


def _dataset(num_steps: int) -> Dataset:
    """Return embedded training pictures for one epoch of ``num_steps`` steps; the last batch is smaller."""
    return draw_shapes(num_steps * BATCH - 3)


def free_running(
    adapter: Adapter, envelope: Envelope, seed: int = 0
) -> tuple[CheckResult, list[float]]:
    """Train the backend with its own loader and optimizer; return the result and the losses.

    Differences are divided by the envelope's width at their step.
    """
    num_steps = len(envelope.losses)
    backend, device = adapter.backend, adapter.devices[0]
    net = adapter.network(initial_weights(*adapter.sizes, seed=seed))
    trainer = backend.trainer.adam(net, LR)
    batches = backend.loaders.load_batched(
        _dataset(num_steps), AUGMENTATIONS, BATCH, True, seed, device
    )
    losses = []
    for X, y in batches:
        l, _ = backend.trainer.train_batch_ch13(net, X, y, adapter.loss, trainer, adapter.devices)
        losses.append(float(backend.devices.to_numpy(l)) / len(y))
    got = {f"step {i}": np.array(loss) for i, loss in enumerate(losses, start=1)}

    def expected(_: Conventions) -> Arrays:
        return {f"step {i}": np.array(loss) for i, loss in enumerate(envelope.losses, start=1)}

    def in_widths(got: Arrays, expected: Arrays) -> list[Difference]:
        return by_place(largest, got, expected, dict(zip(expected, envelope.widths(), strict=True)))

    # Do not search for a cause: rounding errors would decide which convention is closest. The other checks name it.
    result = adapter.compare("free-running training, augmented", got, expected, in_widths, parts=())
    return result, losses
