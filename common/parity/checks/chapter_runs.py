"""Run a backend's training as the chapters do, and record its batches, metrics, weights and optimizer state.

The backend trains in float64 on images from its own loaders. Hyperparameters are sums of few powers of two, which
float32 represents exactly. The only exception is the Kaggle chapter's momentum of 0.9. A correct backend therefore
stays close to the reference over a whole run.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.augmentation.decisions import epoch_batches
from common.augmentation.operations import (
    CIFAR10_NORMALIZE,
    Augmentation,
    RandomFlipLeftRight,
    gallery,
    kaggle_test_augs,
    kaggle_train_augs,
)
from common.datasets import Dataset
from common.datasets.shapes import Split, draw_shapes
from common.interface import DataIter, Net, Tensor, Trainer
from common.metrics import Epoch, KaggleSummary, Listener, Report, TrainingSummary
from common.parity.adapter import Adapter
from common.parity.checks.network import all_classes_predicted
from common.parity.checks.steps import Recipe
from common.parity.comparison import Array
from common.reference import Conventions, State, chapters, forward, transforms
from common.reference.chapters import TrainedEpoch
from common.weights.canonical import Weights, initial_weights

SIZE, BATCH = 16, 8
# The last batch has four images in runs with NUM_EXACT images, because MXNet divides gradients by the batch size in
# 32-bit floats. In the others it has five.
NUM_EXACT, NUM_TRAIN, NUM_HELD_OUT = 20, 21, 29
EPOCHS, KAGGLE_EPOCHS = 4, 5
LR, WD, LR_PERIOD, LR_DECAY = 2.0**-9, 2.0**-11, 2, 0.5
# Nothing is random, so the framework's own transforms also have one correct result.
DETERMINISTIC: Sequence[Augmentation] = (RandomFlipLeftRight(p=1.0), CIFAR10_NORMALIZE)


@dataclass(frozen=True)
class Pipeline:
    """A data set and how a run reads it: through one of the two pipelines, with augmentation."""

    dataset: Dataset
    augs: Sequence[Augmentation]
    is_train: bool
    native: bool
    seed: int

    def load(
        self, adapter: Adapter, first_epoch: int = 0, part: tuple[int, int] = (0, 1)
    ) -> DataIter:
        """Return the batches of the backend's loader, from an epoch on, or a process's part of each."""
        loaders, shared = adapter.backend.loaders, (BATCH, self.is_train, self.seed)
        begin = first_epoch, part
        if self.native:
            workers = 2
            return loaders.load_native(self.dataset, self.augs, *shared, workers, None, *begin)
        return loaders.load_batched(self.dataset, self.augs, *shared, adapter.devices[0], *begin)

    def batches(
        self, epoch: int, conventions: Conventions
    ) -> Iterator[tuple[Array, NDArray[np.int64]]]:
        """Yield the reference's batches of an epoch, counted from 0."""
        images, labels, seed = np.asarray(self.dataset.images), self.dataset.labels, self.seed
        for indices in epoch_batches(len(labels), BATCH, seed, epoch, self.is_train):
            X = transforms.augmented(images, self.augs, indices, seed, epoch, conventions)
            yield X, labels[indices]


class RecordedBatches:
    """The batches of a pipeline as a backend loads them, with images in the adapter's dtype.

    ``epochs`` records each epoch's batches as arrays: images (n, channels, height, width) in float64, labels (n,).
    """

    def __init__(self, pipeline: Pipeline, adapter: Adapter, **which: Any) -> None:
        self.pipeline, self.adapter = pipeline, adapter
        self.loader = pipeline.load(adapter, **which)
        self.epochs: list[list[tuple[Array, NDArray[np.int64]]]] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epochs.append([])
        kept = self.epochs[-1]
        for X, y in self.loader:
            images = self.adapter.array(X).astype(np.float64)
            kept.append((images, self.adapter.array(y)))
            yield self.adapter.tensor(images), y

    def first_epoch(self, conventions: Conventions) -> list[tuple[Array, NDArray[np.int64]]]:
        """Return the batches of the first epoch, or the reference's batches if the backend did not read all of them."""
        num_read = sum(len(y) for _, y in self.epochs[0]) if self.epochs else 0
        if num_read == len(self.pipeline.dataset):
            return self.epochs[0]
        return list(self.pipeline.batches(0, conventions))


@dataclass
class RunRecorder(Listener):
    """Records the metrics that a training run reports, and the weights and optimizer state after each epoch."""

    adapter: Adapter
    net: Net
    trainer: Trainer | None  # None if the training function creates its own
    reports: list[Report] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def on_report(self, report: Report) -> None:
        """Record the running means."""
        self.reports.append(report)

    def on_epoch(self, epoch: Epoch) -> None:
        """Record the epoch's metrics, weights and optimizer state."""
        backend = self.adapter.backend
        self.epochs.append(epoch)
        self.weights.append(backend.weights.get_weights(self.net))
        if self.trainer is not None:
            self.states.append(backend.trainer.get_state(self.net, self.trainer))


Resume = Callable[[int], tuple[RecordedBatches, RunRecorder]]


@dataclass(frozen=True)
class Run:
    """A finished run: its batches, metrics and summary.

    ``reference`` trains the reference under given conventions, on the batches that the backend has read. ``resume``
    trains the epochs from one on (from 0) again: with the reference's weights and optimizer state before it, a new
    loader and a new optimizer. It returns their batches and metrics.
    """

    name: str
    is_kaggle: bool
    adapter: Adapter
    net: Net
    num_epochs: int
    train_iter: RecordedBatches
    held_out_iter: RecordedBatches | None
    recorder: RunRecorder
    summary: TrainingSummary | KaggleSummary
    start: Weights
    reference: Callable[[Conventions], list[TrainedEpoch]]
    resume: Resume | None = None


def train_ch13(
    adapter: Adapter, recipe: Recipe, net: Net, trainer: Trainer, native: bool, seed: int
) -> Run:
    """Run `train_ch13` with a new optimizer of this network, through one of the pipelines."""
    augs = DETERMINISTIC if native else gallery((SIZE, SIZE))["flip, jitter and crop"]
    train = Pipeline(small_shapes(NUM_EXACT, seed), augs, True, native, seed)
    test = Pipeline(
        small_shapes(NUM_HELD_OUT, seed, "test"), DETERMINISTIC[1:], False, native, seed
    )
    test_iter = RecordedBatches(test, adapter)
    start = start_weights(adapter, train, seed)
    adapter.backend.weights.set_weights(net, adapter.cast(start))

    def run(trainer: Trainer, **resumed: Any) -> tuple[RecordedBatches, RunRecorder, Any]:
        train_iter = RecordedBatches(train, adapter, **resumed)
        recorder = RunRecorder(adapter, net, trainer)
        arguments = net, train_iter, test_iter, adapter.loss, trainer, EPOCHS
        with contextlib.redirect_stdout(io.StringIO()):  # the closing lines
            summary = adapter.backend.trainer.train_ch13(
                *arguments, adapter.devices, recorder, **resumed
            )
        return train_iter, recorder, summary

    def resume(first_epoch: int) -> tuple[RecordedBatches, RunRecorder]:
        before = reference(adapter.conventions)[first_epoch - 1]
        new = recipe.trainer(adapter, net)
        adapter.restore(net, new, before.weights, before.state)
        with adapter.backend.probes.without_tracing():  # the optimizer is used once
            return run(new, first_epoch=first_epoch)[:2]

    train_iter, recorder, summary = run(trainer)

    @cache
    def reference(conventions: Conventions) -> list[TrainedEpoch]:
        optimizer = recipe.optimizer(conventions)
        held_out = test_iter.first_epoch(conventions)
        epochs = train_iter.epochs[:EPOCHS]
        return chapters.train_ch13(start, epochs, held_out, optimizer, conventions)

    return Run(
        f"train_ch13, {recipe.name}",
        False,
        adapter,
        net,
        EPOCHS,
        train_iter,
        test_iter,
        recorder,
        summary,
        start,
        reference,
        resume,
    )


def kaggle_train(adapter: Adapter, validate: bool, seed: int) -> Run:
    """Run the Kaggle chapter's `train`: batched with a validation set, or native on all images."""
    augs = kaggle_train_augs((SIZE, SIZE)) if validate else DETERMINISTIC
    train = Pipeline(small_shapes(NUM_TRAIN, seed), augs, True, not validate, seed)
    valid_iter = RecordedBatches(images_to_predict(False, seed), adapter) if validate else None
    start = start_weights(adapter, train, seed)
    net = adapter.network(start)

    def run(trainer: Trainer | None, **resumed: Any) -> tuple[RecordedBatches, RunRecorder, Any]:
        train_iter = RecordedBatches(train, adapter, **resumed)
        recorder = RunRecorder(adapter, net, trainer)
        arguments = net, train_iter, valid_iter, KAGGLE_EPOCHS, LR, WD, adapter.devices
        with contextlib.redirect_stdout(io.StringIO()):
            summary = adapter.backend.kaggle.train(
                *arguments, LR_PERIOD, LR_DECAY, recorder, trainer, **resumed
            )
        return train_iter, recorder, summary

    def resume(first_epoch: int) -> tuple[RecordedBatches, RunRecorder]:
        before = reference(adapter.conventions)[first_epoch - 1]
        new = adapter.backend.trainer.sgd(net, LR, 0.9, WD)
        adapter.restore(net, new, before.weights, before.state)
        with adapter.backend.probes.without_tracing():
            return run(new, first_epoch=first_epoch)[:2]

    train_iter, recorder, summary = run(None)

    @cache
    def reference(conventions: Conventions) -> list[TrainedEpoch]:
        held_out = valid_iter.first_epoch(conventions) if valid_iter else None
        schedule = LR, WD, LR_PERIOD, LR_DECAY
        epochs = train_iter.epochs[:KAGGLE_EPOCHS]
        return chapters.train(start, epochs, held_out, *schedule, conventions)

    return Run(
        f"kaggle.train, {'with validation' if validate else 'all images'}",
        True,
        adapter,
        net,
        KAGGLE_EPOCHS,
        train_iter,
        valid_iter,
        recorder,
        summary,
        start,
        reference,
        resume,
    )


def images_to_predict(native: bool, seed: int) -> Pipeline:
    """Return the images that the Kaggle chapter validates on or predicts."""
    dataset = small_shapes(NUM_HELD_OUT, seed, "test")
    return Pipeline(dataset, kaggle_test_augs(), False, native, seed)


def small_shapes(n: int, seed: int, split: Split = "train") -> Dataset:
    """Return n embedded pictures at half resolution, 16 x 16 pixels."""
    dataset = draw_shapes(n, seed, split)
    halved = np.asarray(dataset.images)[:, ::2, ::2].copy()
    return Dataset(halved, dataset.labels, dataset.classes)


def start_weights(adapter: Adapter, pipeline: Pipeline, seed: int) -> Weights:
    """Return the chapters' initial weights, with running statistics of the images of ``pipeline``.

    These runs take few steps. With statistics that start at 0 and 1, all images would get the same class.
    """
    drawn = initial_weights(10, num_channels=adapter.num_channels, seed=seed)
    weights: Weights = {name: weight.astype(np.float64) for name, weight in drawn.items()}
    X = np.concatenate([X for X, _ in pipeline.batches(0, adapter.conventions)])
    passed = forward(weights, X, training=True)
    for name, (mean, variance, _) in passed.statistics.items():
        weights |= {f"{name}.running_mean": mean, f"{name}.running_var": variance}
    # Round to float32, as files and networks do.
    weights = {name: w.astype(np.float32).astype(np.float64) for name, w in weights.items()}
    return all_classes_predicted(weights, X, adapter.conventions)
