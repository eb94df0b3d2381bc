"""Parity of whole runs: compare the batches, metrics, weights and summary of a run with the reference.

Losses and learning rates are compared with those of the reference's own run on the same batches. A reported accuracy is
compared with the accuracy that the reference computes from the backend's weights at that time.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from common.metrics import Epoch
from common.parity.checks.chapter_runs import (
    RecordedBatches,
    Resume,
    Run,
    RunRecorder,
    images_to_predict,
)
from common.parity.checks.steps import (
    PARTS,
    buffers_of,
    change_since,
    parameters_of,
    slots_of,
)
from common.parity.comparison import (
    Array,
    Arrays,
    CheckResult,
    Distance,
    difference,
    largest_relative,
    relative_difference,
)
from common.reference import Conventions, State, chapters
from common.reference.chapters import TrainedEpoch

Places = dict[str, Array]
Selection = Callable[
    [Arrays, State], Arrays
]  # selects the compared part of weights and optimizer state


def chapter_checks(run: Run) -> Iterator[CheckResult]:
    """Compare a run's batches, metrics, weights, buffers, optimizer state and summary with the reference.

    The last check does so for the last two epochs, trained again from a saved state, if the run has a ``resume``.
    """
    adapter, name = run.adapter, run.name
    read, wanted_read = _read(run), _expected_read(run)
    yield adapter.compare(f"{name}: batches", read, wanted_read, difference, ("transforms",))
    losses, counts = _reported(run.recorder)
    for part, got, expected in (
        ("losses", losses, _by_epoch(run, _losses)),
        ("metrics", counts, _by_epoch(run, _counts)),
    ):
        yield adapter.compare(f"{name}: {part}", got, expected, relative_difference, PARTS)
    yield from _left(run)
    yield _summary(run)
    if run.resume:
        yield _resumed(run, run.resume)


# --- Batches ---------------------------------------------------------------------------------------------------------


def _splits(run: Run) -> dict[str, RecordedBatches]:
    held_out = {"held out": run.held_out_iter} if run.held_out_iter else {}
    return {"train": run.train_iter} | held_out


def _read(run: Run) -> Places:
    """Return the images and labels that the run has read."""
    found: Places = {}
    for split, batches in _splits(run).items():
        for e, epoch in enumerate(batches.epochs, start=1):
            for i, (X, y) in enumerate(epoch, start=1):
                place = f"{split}, epoch {e}, batch {i}"
                found[f"{place}: labels"], found[f"{place}: images"] = y, X
    return found


def _expected_read(run: Run) -> Callable[[Conventions], Places]:
    """Return a function that computes the reference's batches of every epoch."""

    def expected(conventions: Conventions) -> Places:
        found: Places = {}
        for split, batches in _splits(run).items():
            for e in range(1, run.num_epochs + 1):
                pairs = batches.pipeline.batches(e - 1, conventions)
                for i, (X, y) in enumerate(pairs, start=1):
                    place = f"{split}, epoch {e}, batch {i}"
                    found[f"{place}: labels"], found[f"{place}: images"] = y, X
        return found

    return expected


# --- Metrics ---------------------------------------------------------------------------------------------------------


def _reported(recorder: RunRecorder) -> tuple[Places, Places]:
    """Return the losses that a run reported, and its other metrics: accuracies, images, learning rates."""
    losses: Places = {}
    counts: Places = {}
    for report in recorder.reports:
        place = f"epoch {report.epoch}, {report.images} images"
        losses[place] = np.array(report.loss)
        counts[f"{place}: accuracy"] = np.array(report.acc)
    for epoch in recorder.epochs:
        place = f"epoch {epoch.epoch}"
        losses[place] = np.array(epoch.train_loss)
        counts[f"{place}: training accuracy"] = np.array(epoch.train_acc)
        counts[f"{place}: images"] = np.array(epoch.images)
        if epoch.held_out_acc is not None:
            counts[f"{place}: accuracy held out"] = np.array(epoch.held_out_acc)
        if epoch.learning_rate is not None:
            counts[f"{place}: learning rate"] = np.array(epoch.learning_rate)
    return losses, counts


def _by_epoch(
    run: Run, of_epoch: Callable[[Run, int, TrainedEpoch, Conventions], Places]
) -> Callable[[Conventions], Places]:
    """Return a function that merges the results of ``of_epoch`` for each epoch of the reference, counted from 1."""

    def expected(conventions: Conventions) -> Places:
        found: Places = {}
        for e, epoch in enumerate(run.reference(conventions), start=1):
            found |= of_epoch(run, e, epoch, conventions)
        return found

    return expected


def _losses(run: Run, e: int, epoch: TrainedEpoch, conventions: Conventions) -> Places:  # noqa: ARG001
    found = {
        f"epoch {e}, {images} images": np.array(loss)
        for images, loss in zip(epoch.images, epoch.losses, strict=True)
    }
    return found | {f"epoch {e}": np.array(epoch.losses[-1])}


def _counts(run: Run, e: int, epoch: TrainedEpoch, conventions: Conventions) -> Places:
    found = {
        f"epoch {e}, {images} images: accuracy": np.array(accuracy)
        for images, accuracy in zip(epoch.images, epoch.accuracies, strict=True)
    }
    found[f"epoch {e}: training accuracy"] = np.array(epoch.accuracies[-1])
    found[f"epoch {e}: images"] = np.array(epoch.images[-1])
    if run.held_out_iter:
        weights = run.recorder.weights[e - 1] if e <= len(run.recorder.weights) else epoch.weights
        held_out = run.held_out_iter.first_epoch(conventions)
        accuracy = chapters.evaluate_accuracy(weights, held_out, conventions)
        found[f"epoch {e}: accuracy held out"] = np.array(accuracy)
    if run.is_kaggle:
        found[f"epoch {e}: learning rate"] = np.array(epoch.learning_rate)
    return found


def _summary(run: Run) -> CheckResult:
    """Check that the summary has the metrics of the last epoch, and counts all images."""
    summary, epochs = run.summary, run.recorder.epochs
    held_out = getattr(summary, "valid_acc" if run.is_kaggle else "test_acc", np.nan)
    got = _figures(summary.loss, summary.train_acc, held_out, summary.examples)
    # Without a reported epoch, no summary is correct.
    last = epochs[-1] if epochs else Epoch(0, np.nan, np.nan, np.nan, None, 0, 0.0, 0.0)
    images = run.num_epochs * len(run.train_iter.pipeline.dataset)
    expected = _figures(last.train_loss, last.train_acc, last.held_out_acc, images)
    return run.adapter.compare(
        f"{run.name}: summary", got, lambda _: expected, difference, parts=()
    )


def _figures(loss: float, train_acc: float, held_out: float | None, images: int) -> Places:
    return {
        "loss": np.array(loss),
        "training accuracy": np.array(train_acc),
        "accuracy held out": np.array(-1.0 if held_out is None else held_out),
        "images": np.array(images),
    }


# --- Weights, buffers, optimizer state -------------------------------------------------------------------------------


def _left(run: Run) -> Iterator[CheckResult]:
    """Compare weights, buffers and, if the run was given an optimizer, its state after each epoch."""
    recorder = run.recorder
    changed = change_since(_of_epochs([run.start] * run.num_epochs), run.adapter.kind)
    parts: list[tuple[str, Selection, Distance]] = [
        ("weights", lambda weights, _: parameters_of(weights), changed),
        ("buffers", lambda weights, _: buffers_of(weights), changed),
    ]
    if recorder.states:
        parts.append(("state", lambda _, state: slots_of(state), largest_relative))
    for part, chosen, distance in parts:
        yield _compare_left(run, part, chosen, distance)


def _compare_left(run: Run, part: str, chosen: Selection, distance: Distance) -> CheckResult:
    recorder = run.recorder
    states = recorder.states or [State()] * len(recorder.weights)
    got = _of_epochs([chosen(*left) for left in zip(recorder.weights, states, strict=True)])

    def expected(conventions: Conventions) -> Places:
        return _of_epochs([chosen(e.weights, e.state) for e in run.reference(conventions)])

    return run.adapter.compare(f"{run.name}: {part}", got, expected, distance, PARTS)


def _of_epochs(epochs: Sequence[Arrays], first: int = 0) -> Places:
    return {
        f"epoch {e}: {name}": array
        for e, arrays in enumerate(epochs, start=first + 1)
        for name, array in arrays.items()
    }


# --- Resuming --------------------------------------------------------------------------------------------------------


def _resumed(run: Run, resume: Resume) -> CheckResult:
    """Train the last two epochs again, from the reference's weights and optimizer state before them.

    Compare the images with those of the whole run, and the losses, weights, buffers and state with the reference.
    """
    first = run.num_epochs - 2
    train_iter, recorder = resume(first)
    losses, _ = _reported(recorder)
    left = zip(recorder.weights, recorder.states, strict=True)
    got = _images(train_iter.epochs, first) | losses
    got |= _of_epochs([_all_of(*each) for each in left], first)

    def expected(conventions: Conventions) -> Places:
        epochs = run.reference(conventions)[first:]
        found = _images(run.train_iter.epochs[first : run.num_epochs], first)
        for e, epoch in enumerate(epochs, start=first + 1):
            found |= _losses(run, e, epoch, conventions)
        return found | _of_epochs([_all_of(e.weights, e.state) for e in epochs], first)

    # It started with the reference's own state, so no convention explains a difference.
    return run.adapter.compare(f"{run.name}: resumed", got, expected, relative_difference, parts=())


def _images(epochs: Sequence[Sequence[tuple[Array, Array]]], first: int) -> Places:
    return {
        f"epoch {e}, batch {i}": X
        for e, epoch in enumerate(epochs, start=first + 1)
        for i, (X, _) in enumerate(epoch, start=1)
    }


def _all_of(weights: Arrays, state: State) -> Places:
    found = {**parameters_of(weights), **buffers_of(weights), **slots_of(state)}
    if "first" in state.slots:  # only Adam needs the number of steps; PyTorch's SGD does not count
        found["steps"] = np.array(float(state.steps))
    return found


# --- Predictions -----------------------------------------------------------------------------------------------------


def prediction_checks(run: Run, native: bool, seed: int) -> Iterator[CheckResult]:
    """Check the labels that `predict_labels` returns for a pipeline's images, with the weights after the run."""
    batches = RecordedBatches(images_to_predict(native, seed), run.adapter)
    labels = run.adapter.backend.kaggle.predict_labels(run.net, batches)
    weights = run.adapter.backend.weights.get_weights(run.net)

    def expected(conventions: Conventions) -> Places:
        images = batches.first_epoch(conventions)
        return labels_and_type(chapters.predict_labels(weights, images, conventions))

    got = labels_and_type(labels)
    yield run.adapter.compare(f"{run.name}: predictions", got, expected, difference, parts=())


def labels_and_type(labels: Array) -> Places:
    """Return predicted labels, and whether they are a NumPy array of int64."""
    is_int64 = isinstance(labels, np.ndarray) and labels.dtype == np.int64
    return {"labels": labels, "labels are int64": np.array(float(is_int64))}
