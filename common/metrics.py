"""The book's Timer and Accumulator, the closing lines of a training, and what was taken for what."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
class TrainingSummary:
    """What a training ended with; as text, the chapter's two closing lines and the wall clock.

    ``examples`` counts over all epochs. ``step_seconds`` is the book's timer: it runs from when a batch has been
    fetched until its step is done, so it hides the loader and the evaluation. ``seconds`` is the wall clock and hides
    nothing.
    """

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
    """What a training of the Kaggle chapter ended with, as in `TrainingSummary`.

    ``valid_acc`` is None where the network has learnt from all labelled images.
    """

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
