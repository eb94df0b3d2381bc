"""Parity of short training runs on varied inputs: two epochs of `train_ch13`, then `predict_labels`.

Metrics, summary, weights and buffers are compared with the reference's own run.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from common.errors import UserError
from common.interface import Tensor
from common.parity.adapter import Adapter
from common.parity.checks.cases import BATCH_SIZES, NetworkCase
from common.parity.checks.chapter_runs import RunRecorder
from common.parity.checks.chapters import labels_and_type
from common.parity.checks.network import all_classes_predicted
from common.parity.checks.steps import PARTS, change_since, sgd
from common.parity.comparison import Array, Arrays, CheckResult, difference, relative_difference
from common.reference import Conventions, chapters
from common.reference.chapters import TrainedEpoch
from common.reference.training import Labels
from common.weights.canonical import Weights, is_buffer

NUM_EPOCHS = 2
Batches = list[tuple[Array, Labels]]


def training_checks(
    adapter: Adapter, case: NetworkCase, number: int, seed: int
) -> Iterator[CheckResult]:
    """Check two epochs of `train_ch13` with SGD (metrics, summary, weights, buffers), then `predict_labels`."""
    backend = adapter.backend
    train = [
        (batch.X, batch.y) for batch in case.batches((case.batch_size, case.last_size), seed + 1)
    ]
    weights, test = _held_out(adapter, case, number, seed)
    recipe = sgd(drop=NUM_EPOCHS * len(train))

    @cache
    def run(conventions: Conventions) -> list[TrainedEpoch]:
        optimizer = recipe.optimizer(conventions)
        return chapters.train_ch13(weights, [train] * NUM_EPOCHS, test, optimizer, conventions)

    net = adapter.network(weights)
    recorder = RunRecorder(adapter, net, None)
    train_iter, test_iter = (
        [_tensors(adapter, *pair) for pair in pairs] for pairs in (train, test)
    )
    with contextlib.redirect_stdout(io.StringIO()):  # the closing lines
        summary = backend.trainer.train_ch13(
            net,
            train_iter,
            test_iter,
            adapter.loss,
            recipe.trainer(adapter, net),
            NUM_EPOCHS,
            adapter.devices,
            recorder,
        )
    after = backend.weights.get_weights(net)
    # After training, the network may predict one class for all images: change the last bias.
    X = np.concatenate([X for X, _ in test])
    spread = all_classes_predicted(after, X, adapter.conventions)
    backend.weights.set_weights(net, spread)
    try:
        labels = backend.kaggle.predict_labels(net, test_iter)
    except UserError:  # its logits are not finite: no label is right
        labels = np.full(len(X), -1)
    losses = [*(epoch.train_loss for epoch in recorder.epochs), summary.loss]
    counts = [_counts(e.train_acc, e.held_out_acc, e.images) for e in recorder.epochs]
    counts.append(_counts(summary.train_acc, summary.test_acc, summary.examples))
    counts.append(labels_and_type(labels))

    def expected_losses(conventions: Conventions) -> Arrays:
        found = [epoch.losses[-1] for epoch in run(conventions)]
        return _numbered([{"loss": np.array(loss)} for loss in (*found, found[-1])])

    def expected_metrics(conventions: Conventions) -> Arrays:
        found = [_counts(e.accuracies[-1], e.held_out_acc, e.images[-1]) for e in run(conventions)]
        found.append(found[-1] | {"images": NUM_EPOCHS * found[-1]["images"]})
        true = chapters.predict_labels(spread, test, conventions)
        found.append(labels_and_type(true))
        return _numbered(found)

    def changed(is_part: Callable[[str], bool]) -> Callable[[Conventions], Arrays]:
        return lambda conventions: _chosen(run(conventions)[-1].weights, is_part)

    got = _numbered([{"loss": np.array(loss)} for loss in losses])
    yield adapter.compare(
        "cases: training losses", got, expected_losses, relative_difference, PARTS
    )
    yield adapter.compare(
        "cases: training metrics", _numbered(counts), expected_metrics, difference, PARTS
    )
    distance = change_since(weights, adapter.kind)
    for part, is_part in (("weights", lambda name: not is_buffer(name)), ("buffers", is_buffer)):
        yield adapter.compare(
            f"cases: {part} after training",
            _chosen(after, is_part),
            changed(is_part),
            distance,
            PARTS,
        )


def _held_out(
    adapter: Adapter, case: NetworkCase, number: int, seed: int
) -> tuple[Weights, Batches]:
    """Return weights that predict several classes, and test batches. About half of the labels match the predictions.

    The cases take turns at the sizes of test batches.
    """
    first, last = BATCH_SIZES[2 * number % len(BATCH_SIZES) :][:2]
    batches = case.batches((first, last) if number % 2 else (last, first), seed + 2)
    X = np.concatenate([batch.X for batch in batches])
    weights = all_classes_predicted(adapter.weights(seed), X, adapter.conventions)
    found = []
    for batch in batches:
        y = batch.y.copy()
        y[::2] = chapters.predict_labels(weights, [(batch.X, batch.y)], adapter.conventions)[::2]
        found.append((batch.X, y))
    return weights, found


def _tensors(adapter: Adapter, X: Array, y: Labels) -> tuple[Tensor, Tensor]:
    return adapter.tensor(X), adapter.labels(y)


def _counts(train_acc: float, test_acc: float | None, images: int) -> dict[str, Array]:
    test = np.array(np.nan if test_acc is None else test_acc)
    return {
        "training accuracy": np.array(train_acc),
        "test accuracy": test,
        "images": np.array(images),
    }


def _numbered(epochs: list[dict[str, Array]]) -> Arrays:
    """Return the metrics of each epoch, then those of the summary and the predicted labels."""
    return {
        f"epoch {i}: {place}" if i <= NUM_EPOCHS else f"at the end: {place}": array
        for i, figures in enumerate(epochs, start=1)
        for place, array in figures.items()
    }


def _chosen(weights: Arrays, is_part: Callable[[str], bool]) -> Arrays:
    return {name: array for name, array in weights.items() if is_part(name)}
