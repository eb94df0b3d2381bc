"""The chapters' training loops in NumPy, on given batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.reference.conventions import ALIGNED, Conventions
from common.reference.layers import Array
from common.reference.optimizers import SGD, Optimizer, State
from common.reference.resnet import correct, forward
from common.reference.training import Arrays, Labels, train_step

# Pairs (X, y): images (n, channels, height, width) and labels (n,).
Batches = Sequence[tuple[Array, Labels]]


@dataclass(frozen=True)
class TrainedEpoch:
    """The metrics and the state of the reference after an epoch.

    ``losses`` and ``accuracies`` are running means over the first ``images`` of the epoch, one value after each batch.
    The last values are those of the epoch. ``held_out_acc`` is the accuracy on the held-out images, or None without
    them. ``weights`` are parameters and buffers by canonical name.
    """

    images: list[int]
    losses: list[float]
    accuracies: list[float]
    held_out_acc: float | None
    learning_rate: float
    weights: dict[str, Array]
    state: State


def train_ch13(
    weights: Arrays,
    epochs: Sequence[Batches],
    test_batches: Batches,
    optimizer: Optimizer,
    conventions: Conventions = ALIGNED,
    num_processes: int = 1,
) -> list[TrainedEpoch]:
    """Train on the batches of each epoch, and evaluate after each epoch (chapter 13)."""
    given = optimizer, conventions, num_processes
    found: list[TrainedEpoch] = []
    for batches in epochs:
        found.append(_train_epoch(weights, batches, test_batches, *given))
        weights = found[-1].weights
    return found


def train(
    weights: Arrays,
    epochs: Sequence[Batches],
    valid_batches: Batches | None,
    lr: float,
    wd: float,
    lr_period: int,
    lr_decay: float,
    conventions: Conventions = ALIGNED,
    num_processes: int = 1,
) -> list[TrainedEpoch]:
    """Train as the Kaggle chapter does, with a learning rate that drops in steps (14.13.5)."""
    optimizer = SGD(lr, momentum=0.9, weight_decay=wd, conventions=conventions)
    given = optimizer, conventions, num_processes
    found: list[TrainedEpoch] = []
    for epoch, batches in enumerate(epochs):
        optimizer.lr = lr * lr_decay ** (epoch // lr_period)
        found.append(_train_epoch(weights, batches, valid_batches, *given))
        weights = found[-1].weights
    return found


def _train_epoch(
    weights: Arrays,
    batches: Batches,
    held_out: Batches | None,
    optimizer: Optimizer,
    conventions: Conventions,
    num_processes: int,
) -> TrainedEpoch:
    loss, right, n = 0.0, 0, 0
    images: list[int] = []
    losses: list[float] = []
    accuracies: list[float] = []
    for X, y in batches:
        step = train_step(weights, X, y, optimizer, conventions, num_processes)
        weights = step.weights
        loss, right, n = loss + step.loss, right + step.correct, n + len(y)
        images.append(n)
        losses.append(loss / n)
        accuracies.append(right / n)
    acc = None if held_out is None else evaluate_accuracy(weights, held_out, conventions)
    return TrainedEpoch(
        images, losses, accuracies, acc, optimizer.lr, dict(weights), optimizer.state
    )


def evaluate_accuracy(
    weights: Arrays, batches: Batches, conventions: Conventions = ALIGNED
) -> float:
    """Return the share of correctly classified images, in evaluation mode."""
    right = [correct(forward(weights, X, False, conventions).logits, y) for X, y in batches]
    return sum(right) / sum(len(y) for _, y in batches)


def predict_labels(
    weights: Arrays, batches: Batches, conventions: Conventions = ALIGNED
) -> NDArray[np.int64]:
    """Return the most probable label of each image, int64 (n,), in evaluation mode."""
    labels = [forward(weights, X, False, conventions).logits.argmax(axis=1) for X, _ in batches]
    return np.concatenate(labels)
