"""One training step of the reference: loss, gradients, optimizer, BatchNorm's statistics."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.reference import layers, resnet
from common.reference.conventions import ALIGNED, Conventions
from common.reference.layers import Array
from common.reference.optimizers import Optimizer, State

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
    weights: Arrays, X: Array, y: Labels, conventions: Conventions = ALIGNED
) -> tuple[dict[str, Array], Array, resnet.Forward]:
    """Return the gradient of the objective for every parameter, the losses (n,) and the forward pass."""
    passed = resnet.forward(weights, X, training=True, conventions=conventions)
    losses, backward = layers.cross_entropy(passed.logits, y)
    share = 1 if conventions.objective == "sum" else len(y)
    (dlogits,) = backward(np.full(len(y), 1 / share, X.dtype))
    return passed.backward(dlogits), losses, passed


def train_step(
    weights: Arrays,
    X: Array,
    y: Labels,
    optimizer: Optimizer,
    conventions: Conventions = ALIGNED,
) -> Step:
    """Train on one batch (n, channels, height, width). This updates the optimizer's state, but not ``weights``."""
    gradient, losses, passed = gradients(weights, X, y, conventions)
    after = optimizer.step(weights, gradient) | resnet.updated_buffers(weights, passed, conventions)
    # In canonical order, as in `weights`.
    after = {name: after[name] for name in weights}
    return Step(float(losses.sum()), resnet.correct(passed.logits, y), after, optimizer.state)
