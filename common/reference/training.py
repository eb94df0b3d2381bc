"""One training step of the reference: loss, gradients, optimizer, BatchNorm's statistics."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.reference import layers, resnet
from common.reference.conventions import ALIGNED, Conventions
from common.reference.layers import Array
from common.reference.optimizers import Optimizer, State
from common.weights.canonical import trained_names

Arrays = Mapping[str, Array]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """The result of a step as in `train_batch_ch13`, and the weights, buffers and optimizer state after it."""

    loss: float  # the sum of the losses of the batch
    correct: int
    weights: dict[str, Array]
    state: State


def gradients(
    weights: Arrays,
    X: Array,
    y: Labels,
    conventions: Conventions = ALIGNED,
    num_examples: int | None = None,
    freeze: bool = False,
) -> tuple[dict[str, Array], Array, resnet.Forward]:
    """Return the gradient of the objective for every trained parameter, the losses (n,) and the forward pass.

    If X is a process's part of a batch, ``num_examples`` is the size of the batch. With ``freeze``, only the last layer
    is trained, and BatchNorm uses its running statistics.
    """
    passed = resnet.forward(weights, X, training=not freeze, conventions=conventions)
    losses, backward = layers.cross_entropy(passed.logits, y)
    share = 1 if conventions.objective == "sum" else num_examples or len(y)
    (dlogits,) = backward(np.full(len(y), 1 / share, X.dtype))
    found = passed.backward(dlogits)
    return {name: found[name] for name in trained_names(weights, freeze)}, losses, passed


def train_step(
    weights: Arrays,
    X: Array,
    y: Labels,
    optimizer: Optimizer,
    conventions: Conventions = ALIGNED,
    num_processes: int = 1,
    freeze: bool = False,
) -> Step:
    """Train on one batch (n, channels, height, width). This updates the optimizer's state, but not ``weights``.

    Each process has a part of the batch. BatchNorm takes the statistics of this part. The step takes the sum of the
    processes' gradients, and the mean of their running statistics. With ``freeze``, it changes only the last layer.
    """
    gradient: dict[str, Array] = {}
    buffers: dict[str, Array] = {}
    loss, right = 0.0, 0
    for part in np.array_split(np.arange(len(y)), num_processes):
        own, losses, passed = gradients(weights, X[part], y[part], conventions, len(y), freeze)
        running = resnet.updated_buffers(weights, passed, conventions)
        gradient = {name: gradient.get(name, 0) + g for name, g in own.items()}
        buffers = {name: buffers.get(name, 0) + b / num_processes for name, b in running.items()}
        loss, right = loss + float(losses.sum()), right + resnet.correct(passed.logits, y[part])
    after = dict(weights) | optimizer.step(weights, gradient) | buffers
    # In canonical order, as in `weights`.
    after = {name: after[name] for name in weights}
    return Step(loss, right, after, optimizer.state)
