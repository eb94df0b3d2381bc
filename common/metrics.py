"""The book's Timer and Accumulator, the log of a training and its summary, and the confusion matrix."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.drawing.plots import Animator

if TYPE_CHECKING:
    from common.interface import DataIter


def spread(values: Sequence[float], note: str = "") -> str:
    """Return the mean of several runs' values and in brackets the lowest, the highest and a note, as printed."""
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f}{note})"


class Timer:
    """Record several running times, in seconds of wall clock."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.start()

    def start(self) -> None:
        """Start the timer."""
        self._began = time.perf_counter()

    def stop(self) -> float:
        """Stop the timer, record the time and return it."""
        self.times.append(time.perf_counter() - self._began)
        return self.times[-1]

    def avg(self) -> float:
        """Return the average time."""
        return sum(self.times) / len(self.times)

    def sum(self) -> float:
        """Return the sum of the times."""
        return sum(self.times)

    def cumsum(self) -> list[float]:
        """Return the accumulated times."""
        return [sum(self.times[: i + 1]) for i in range(len(self.times))]


class Accumulator:
    """Sums over ``n`` variables.

    Whatever is added stays what it is until it is read: a tensor is summed on its device, and only ``metric[i]``
    waits for the device and returns a float. The book's version reads every addend back at once, which stops a GPU
    after each batch. A tensor that carries a graph is detached first, so that summing keeps no graph alive.
    """

    def __init__(self, n: int) -> None:
        self.data: list[Any] = [
            0
        ] * n  # whole: a float would turn counts to float32, or not add at all

    def add(self, *args: Any) -> None:
        """Add one value to each variable."""
        values = [getattr(value, "detach", lambda value=value: value)() for value in args]
        self.data = [total + value for total, value in zip(self.data, values, strict=True)]

    def reset(self) -> None:
        """Set every variable to zero."""
        self.data = [0] * len(self.data)

    def __getitem__(self, idx: int) -> float:
        return float(self.data[idx])


def reporting_points(num_batches: int) -> set[int]:
    """Return the batches of an epoch, counted from 1, after which the chapter reports: about five, and the last.

    The book tests ``(i + 1) % (num_batches // 5) == 0``, which divides by zero below five batches.
    """
    every = max(num_batches // 5, 1)
    return {*range(every, num_batches + 1, every), num_batches}


@dataclass(frozen=True)
class Report:
    """Where a training stands within an epoch; ``loss`` and ``acc`` are means over the epoch so far."""

    epoch: int  # from 1
    share: float  # of the epoch's batches, above 0, at most 1
    loss: float
    acc: float
    images: int  # trained on in this epoch
    seconds: float  # since the epoch began


@dataclass(frozen=True)
class Epoch:
    """The figures of one finished epoch.

    ``train_loss`` and ``train_acc`` are means over the epoch, while the weights change. ``held_out_acc`` is the
    accuracy on the test or validation images after the epoch, None if there are none. ``learning_rate`` is the
    optimizer's, None if the training loop does not tell it. ``seconds`` run from before the first batch is fetched to
    the end of the evaluation.
    """

    epoch: int  # from 1
    train_loss: float
    train_acc: float
    held_out_acc: float | None
    learning_rate: float | None
    images: int
    seconds: float


class Listener:
    """What a `TrainingLog` calls. Override the methods of interest; the others do nothing."""

    def on_batch(self, epoch: int, images: int, seconds: float) -> None:
        """Called after each batch, with the images and seconds of this epoch so far."""

    def on_report(self, report: Report) -> None:
        """Called about five times an epoch, with the loss and accuracy so far."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Called after each epoch, with its figures."""


class Curves(Listener):
    """Draw a training with the book's `Animator`.

    A mean over an epoch starts anew with each epoch, so the curves of the training images break there.
    """

    def __init__(self, animator: Animator) -> None:
        self.animator = animator

    def on_report(self, report: Report) -> None:
        """Draw the means so far."""
        x = report.epoch - 1 + report.share
        self.animator.add(x, (report.loss, report.acc, None))

    def on_epoch(self, epoch: Epoch) -> None:
        """Draw the accuracy after the epoch, and end the curves of the epoch."""
        self.animator.add(epoch.epoch, (math.nan, math.nan, epoch.held_out_acc))


@dataclass(frozen=True)
class TrainingSummary:
    """The result of a training; as text, the chapter's two closing lines and the wall clock.

    ``examples`` counts over all epochs. ``step_seconds`` is the book's timer: it runs from when a batch has been
    fetched until its step is done, so it hides the loader and the evaluation. ``seconds`` is the wall clock and hides
    nothing.
    """

    held_out: ClassVar[str] = "test acc"

    loss: float
    train_acc: float
    test_acc: float
    examples: int
    step_seconds: float
    seconds: float
    devices: str

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.3f}, train acc {self.train_acc:.3f}, test acc {self.test_acc:.3f}\n"
            f"{_speeds(self)}"
        )


@dataclass(frozen=True)
class KaggleSummary:
    """The result of a training of the Kaggle chapter, as in `TrainingSummary`.

    ``valid_acc`` is None if the network was trained on all labelled images.
    """

    held_out: ClassVar[str] = "valid acc"

    loss: float
    train_acc: float
    valid_acc: float | None
    examples: int
    step_seconds: float
    seconds: float
    devices: str

    def __str__(self) -> str:
        valid = "" if self.valid_acc is None else f", valid acc {self.valid_acc:.3f}"
        return f"train loss {self.loss:.3f}, train acc {self.train_acc:.3f}{valid}\n{_speeds(self)}"


class TrainingLog:
    """Time, sum up and report a training: the book's Timer, Accumulator and Animator in one.

    The loop runs over ``batches``, gives each step's results to ``add``, ends an epoch with ``end_epoch`` and the
    training with ``close``. The log tells ``animator`` what happens: a `Listener`, or the book's `Animator`; None draws
    the chapter's plot. ``summary`` is the class of what ``close`` returns.
    """

    def __init__(
        self,
        num_epochs: int,
        devices: Sequence[Any],
        animator: Listener | Animator | None = None,
        summary: type[TrainingSummary] | type[KaggleSummary] = TrainingSummary,
    ) -> None:
        if num_epochs < 1:
            raise ValueError(f"num_epochs must be at least 1, not {num_epochs}")
        if animator is None:
            animator = Animator(
                xlabel="epoch",
                xlim=[0, num_epochs],
                ylim=[0, None],
                legend=["train loss", "train acc", summary.held_out],
            )
        self.listener = animator if isinstance(animator, Listener) else Curves(animator)
        self.devices, self.summary = str(devices), summary
        self.timer, self.total = Timer(), Timer()
        self.epochs: list[Epoch] = []

    def batches(self, train_iter: "DataIter") -> Iterator[tuple[Any, Any]]:
        """Yield the batches (X, y) of the next epoch, and time what the loop does with each.

        About five times an epoch the log reads loss and accuracy; only then does the host wait for the device.
        """
        epoch, num_batches = len(self.epochs) + 1, len(train_iter)
        reports = reporting_points(num_batches)
        # Sum of losses, number of correct predictions, number of examples
        self.metric = Accumulator(3)
        self.images, self.began = 0, time.perf_counter()
        for i, (X, y) in enumerate(train_iter, start=1):
            self.timer.start()
            yield X, y
            if i in reports:
                self.loss, self.acc = (self.metric[k] / self.metric[2] for k in (0, 1))
            self.timer.stop()
            self.images, seconds = int(self.metric[2]), time.perf_counter() - self.began
            self.listener.on_batch(epoch, self.images, seconds)
            if i in reports:
                share = i / num_batches
                report = Report(epoch, share, self.loss, self.acc, self.images, seconds)
                self.listener.on_report(report)
        if not self.images:
            raise ValueError("train_iter gave no batch")

    def add(self, loss: Any, correct: Any, num_examples: int) -> None:
        """Take the results of a step: sum of the losses and number of correct predictions, both still on the device."""
        self.metric.add(loss, correct, num_examples)

    def end_epoch(
        self, held_out_acc: float | None = None, learning_rate: float | None = None
    ) -> None:
        """End an epoch, with the accuracy on the images held out and the optimizer's learning rate.

        The rate is kept to seven digits, which is what an optimizer in float32 has.
        """
        rate = None if learning_rate is None else float(f"{float(learning_rate):.7g}")
        epoch = Epoch(
            len(self.epochs) + 1,
            self.loss,
            self.acc,
            held_out_acc,
            rate,
            self.images,
            time.perf_counter() - self.began,
        )
        self.epochs.append(epoch)
        self.listener.on_epoch(epoch)

    def close(self) -> Any:
        """Print the closing lines, and return them as the summary."""
        summary = self.summary(
            self.loss,
            self.acc,
            self.epochs[-1].held_out_acc,  # type: ignore[arg-type]  # chapter 14.1 always tests
            examples=sum(epoch.images for epoch in self.epochs),
            step_seconds=self.timer.sum(),
            seconds=self.total.stop(),
            devices=self.devices,
        )
        print(summary)
        return summary


@dataclass(frozen=True)
class Confusion:
    """How often images of each class were taken for each.

    ``counts`` is int64 (classes, classes): rows are what they are, columns what they were taken for.
    """

    classes: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        labels: NDArray[np.int64],
        predicted: NDArray[np.int64],
        classes: Sequence[str],
    ) -> "Confusion":
        """Count the pairs of label and predicted label, each int64 (n,), positions in ``classes``."""
        if labels.shape != predicted.shape:
            raise ValueError(f"{labels.shape} labels and {predicted.shape} predictions")
        n = len(classes)
        counts = np.bincount(labels * n + predicted, minlength=n * n).reshape(n, n)
        return cls(tuple(classes), counts)

    @property
    def accuracy(self) -> float:
        """The share of all images that were recognised."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The share of each class's images that were recognised, nan where it has none."""
        totals = self.counts.sum(axis=1)
        return np.divide(
            np.diag(self.counts), totals, out=np.full(len(totals), np.nan), where=totals > 0
        )

    def plain(self) -> dict[str, Any]:
        """Return the accuracies and the counts as JSON can hold them."""
        by_class = [None if np.isnan(a) else float(a) for a in self.accuracies]
        return {
            "accuracy": self.accuracy,
            "per_class": dict(zip(self.classes, by_class, strict=True)),
            "confusion": self.counts.tolist(),
        }


def _speeds(summary: TrainingSummary | KaggleSummary) -> str:
    """Return the two lines of speed: by the book's timer, and by the wall clock."""
    return (
        f"{summary.examples / summary.step_seconds:.1f} examples/sec on {summary.devices}\n"
        f"{summary.examples / summary.seconds:.1f} examples/sec by the wall clock, "
        f"loading and evaluation included ({summary.seconds:.1f} s)"
    )
