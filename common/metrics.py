"""The book's Timer and Accumulator, the training log and its summary, and the confusion matrix."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from common.drawing.plots import Animator

if TYPE_CHECKING:
    from common.interface import DataIter


def spread(values: Sequence[float], note: str = "") -> str:
    """Return the text "mean (lowest to highest, note)" for the values of several runs."""
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f}{note})"


class Timer:
    """Record several running times, in seconds of wall-clock time."""

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

    Tensors are summed on their device. Only ``metric[i]`` waits for the device and returns a float. The book's version
    converts every value to a float, which synchronizes with the GPU after each batch. Tensors are detached first, so
    that summing keeps no graph alive.
    """

    def __init__(self, n: int) -> None:
        self.data: list[Any] = [
            0
        ] * n  # integers: a float would turn counts into float32, or fail to add

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
    """Return the numbers (from 1) of the batches after which the chapter reports: about five per epoch, and the last.

    The book tests ``(i + 1) % (num_batches // 5) == 0``, which divides by zero below five batches.
    """
    every = max(num_batches // 5, 1)
    return {*range(every, num_batches + 1, every), num_batches}


@dataclass(frozen=True)
class Report:
    """Progress within an epoch; ``loss`` and ``acc`` are means over the epoch so far."""

    epoch: int  # from 1
    share: float  # of the epoch's batches that are done: above 0, at most 1
    loss: float
    acc: float
    images: int  # trained on so far in this epoch
    seconds: float  # since the epoch began


@dataclass(frozen=True)
class Epoch:
    """The metrics of one finished epoch.

    ``train_loss`` and ``train_acc`` are means over the epoch, while the weights change. ``held_out_acc`` is the
    accuracy on the test or validation images after the epoch, None if there are none. ``learning_rate`` is the
    optimizer's, None if the training loop does not pass it. ``seconds`` include loading and the evaluation,
    ``step_seconds`` only the steps.
    """

    epoch: int  # from 1
    train_loss: float
    train_acc: float
    held_out_acc: float | None
    learning_rate: float | None
    images: int
    seconds: float
    step_seconds: float

    @property
    def images_per_second(self) -> float:
        """The speed of everything, loading and evaluation included."""
        return self.images / max(self.seconds, 1e-9)

    def plain(self, held_out: str | None) -> dict[str, Any]:
        """Return a line of ``metrics.jsonl``; ``held_out`` is the name of the accuracy, None if nothing is held out."""
        rates = {} if self.learning_rate is None else {"lr": self.learning_rate}
        accuracy = {} if held_out is None else {held_out.replace(" ", "_"): self.held_out_acc}
        return {
            **rates,
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "train_acc": self.train_acc,
            **accuracy,
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


class Listener:
    """Callbacks of a `TrainingLog`. Override the methods that you need; the others do nothing.

    ``held_out`` is the name of the accuracy after each epoch, None for the name in the chapter.
    """

    held_out: str | None = None

    def on_batch(self, epoch: int, images: int, seconds: float) -> None:
        """Called after each batch, with the images and seconds of this epoch so far."""

    def on_report(self, report: Report) -> None:
        """Called about five times per epoch, with the loss and accuracy so far."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Called after each epoch, with its metrics."""


class Curves(Listener):
    """Draw the training curves with the book's `Animator`.

    The means start again with each epoch, so the curves of the training images are interrupted there.
    """

    def __init__(self, animator: Animator) -> None:
        self.animator = animator

    def on_report(self, report: Report) -> None:
        """Draw the means over the epoch so far."""
        x = report.epoch - 1 + report.share
        self.animator.add(x, (report.loss, report.acc, None))

    def on_epoch(self, epoch: Epoch) -> None:
        """Draw the accuracy after the epoch, and end the training curves of this epoch."""
        self.animator.add(epoch.epoch, (math.nan, math.nan, epoch.held_out_acc))


@dataclass(frozen=True)
class TrainingSummary:
    """The result of a training run; as text, the chapter's two closing lines and the wall-clock speed.

    ``examples`` is the total over all epochs. ``step_seconds`` is the book's timer: it runs only during the steps and
    leaves out loading and evaluation. ``seconds`` is the wall-clock time of everything. ``held_out`` is the name of
    ``test_acc``, "valid acc" if it is the accuracy on validation images.
    """

    loss: float
    train_acc: float
    test_acc: float
    examples: int
    step_seconds: float
    seconds: float
    devices: str
    held_out: str = "test acc"

    def __str__(self) -> str:
        accuracies = f"train acc {self.train_acc:.3f}, {self.held_out} {self.test_acc:.3f}"
        return f"loss {self.loss:.3f}, {accuracies}\n{_speeds(self)}"

    def plain(self) -> dict[str, Any]:
        """Return the numbers by name; that of ``test_acc`` is ``valid_acc`` on validation images."""
        found = asdict(self)
        own = found.pop("held_out").replace(" ", "_")
        return {own if name == "test_acc" else name: value for name, value in found.items()}


@dataclass(frozen=True)
class KaggleSummary:
    """The result of a training run of the Kaggle chapter, with the fields of `TrainingSummary`.

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
    """Time, accumulate and report a training run: the book's Timer, Accumulator and Animator in one.

    The training loop iterates over ``batches``, passes each step's results to ``add``, and calls ``end_epoch`` after
    each epoch and ``close`` at the end. The log calls ``animator``: a `Listener` or the book's `Animator`; None draws
    the chapter's plot. ``close`` returns an instance of the class ``summary``. ``total`` sums numbers over all
    processes.
    """

    def __init__(
        self,
        num_epochs: int,
        devices: Sequence[Any],
        animator: Listener | Animator | None = None,
        summary: type[TrainingSummary] | type[KaggleSummary] = TrainingSummary,
        total: Callable[[Any], Any] = lambda values: values,
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
        self.over_processes, self.num_processes = total, int(total(1))
        self.timer, self.total = Timer(), Timer()
        self.epochs: list[Epoch] = []

    def batches(self, train_iter: "DataIter", epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield the batches (X, y) of an epoch, counted from 0, and time the step of each.

        The log reads loss and accuracy about five times per epoch; only then does the host wait for the device.
        """
        self.epoch, num_batches = epoch + 1, len(train_iter)
        reports = reporting_points(num_batches)
        # Sum of losses, number of correct predictions, number of examples
        self.metric = Accumulator(3)
        self.images, self.began = 0, time.perf_counter()
        self.before = self.timer.sum()
        for i, (X, y) in enumerate(train_iter, start=1):
            self.timer.start()
            yield X, y
            if i in reports:
                loss, correct, images = self.over_processes([self.metric[k] for k in range(3)])
                self.loss, self.acc, self.images = loss / images, correct / images, int(images)
            else:  # the processes' parts of a batch differ by at most one example
                self.images = int(self.metric[2]) * self.num_processes
            self.timer.stop()
            seconds = time.perf_counter() - self.began
            self.listener.on_batch(self.epoch, self.images, seconds)
            if i in reports:
                share = i / num_batches
                report = Report(self.epoch, share, self.loss, self.acc, self.images, seconds)
                self.listener.on_report(report)
        if not self.images:
            raise ValueError("train_iter gave no batch")

    def add(self, loss: Any, correct: Any, num_examples: int) -> None:
        """Add the results of a step: sum of the losses and number of correct predictions, both still on the device."""
        self.metric.add(loss, correct, num_examples)

    def end_epoch(
        self, held_out_acc: float | None = None, learning_rate: float | None = None
    ) -> None:
        """End an epoch, with the accuracy on the held-out images and the optimizer's learning rate.

        The rate is rounded to seven digits, the precision of an optimizer in float32.
        """
        rate = None if learning_rate is None else float(f"{float(learning_rate):.7g}")
        epoch = Epoch(
            self.epoch,
            self.loss,
            self.acc,
            held_out_acc,
            rate,
            self.images,
            time.perf_counter() - self.began,
            self.timer.sum() - self.before,
        )
        self.epochs.append(epoch)
        self.listener.on_epoch(epoch)

    def close(self) -> Any:
        """Print and return the summary."""
        summary = self.summary(
            self.loss,
            self.acc,
            self.epochs[-1].held_out_acc,  # type: ignore[arg-type]  # chapter 14.1 always tests
            examples=sum(epoch.images for epoch in self.epochs),
            step_seconds=self.timer.sum(),
            seconds=self.total.stop(),
            devices=self.devices,
        )
        if self.listener.held_out and isinstance(summary, TrainingSummary):
            summary = replace(summary, held_out=self.listener.held_out)
        print(summary)  # noqa: T201 - as the book does, also in a notebook
        return summary


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix.

    ``counts`` is int64 (classes, classes): rows are the true classes, columns the predicted ones.
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
        """Count the pairs of label and predicted label, each int64 (n,), indices into ``classes``."""
        if labels.shape != predicted.shape:
            raise ValueError(
                f"labels of shape {labels.shape} and predictions of shape {predicted.shape} do not match"
            )
        n = len(classes)
        counts = np.bincount(labels * n + predicted, minlength=n * n).reshape(n, n)
        return cls(tuple(classes), counts)

    @property
    def accuracy(self) -> float:
        """The share of all images that were classified correctly."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """The share of each class's images that were classified correctly, nan for a class without images."""
        totals = self.counts.sum(axis=1)
        return np.divide(
            np.diag(self.counts), totals, out=np.full(len(totals), np.nan), where=totals > 0
        )

    def plain(self) -> dict[str, Any]:
        """Return the accuracies and the counts as JSON types."""
        by_class = [None if np.isnan(a) else float(a) for a in self.accuracies]
        return {
            "accuracy": self.accuracy,
            "per_class": dict(zip(self.classes, by_class, strict=True)),
            "confusion": self.counts.tolist(),
        }


def _speeds(summary: TrainingSummary | KaggleSummary) -> str:
    """Return the two lines about speed: by the book's timer, and by the wall clock."""
    return (
        f"{summary.examples / summary.step_seconds:.1f} examples/sec on {summary.devices}\n"
        f"{summary.examples / summary.seconds:.1f} examples/sec by the wall clock, "
        f"loading and evaluation included ({summary.seconds:.1f} s)"
    )
