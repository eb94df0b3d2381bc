"""Training as a user watches it: a progress bar on a terminal, plain lines elsewhere, one line per epoch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from common.errors import UserError
from common.interface import DataIter

Epoch = dict[str, Any]
Points = list[tuple[float, float]]

TRAINED = ("train loss", "train acc")
TRAINING_COST, EVALUATION_COST = 3, 1  # forward passes: a backward costs about two
SECONDS_BETWEEN_LINES = 30.0  # where there is no bar


class _Shown:
    """A bar with the time that is left, from entering to leaving; none where the console is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = self.spoke = time.perf_counter()
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TimeRemainingColumn(compact=True),
            TextColumn("left  {task.fields[status]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.began = self.spoke = time.perf_counter()
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()


class TrainingProgress(_Shown):
    """Watch a training from outside: be its animator, and count the batches that its loaders hand out.

    ``held_out`` is what the accuracy is called that ends an epoch, None where nothing is held out. ``points`` collects
    the curves by name. ``on_epoch`` is called with the metrics of each finished epoch; ``title`` stands before each
    line. Raises UserError when the loss is no longer a number.
    """

    def __init__(
        self,
        console: Console,
        num_epochs: int,
        num_examples: tuple[int, int],
        on_epoch: Callable[[Epoch], None],
        title: str = "",
        held_out: str | None = "test acc",
    ) -> None:
        super().__init__(console)
        self.held_out = held_out
        self.num_epochs, self.on_epoch = num_epochs, on_epoch
        self.title = f"{title} " if title else ""
        self.num_train = num_examples[0]
        self.legend = TRAINED if held_out is None else (*TRAINED, held_out)
        self.points: dict[str, Points] = {name: [] for name in self.legend}
        self.epoch = 1
        self.seen = 0  # training examples of this epoch
        cost = num_examples[0] * TRAINING_COST + num_examples[1] * EVALUATION_COST
        self.task = self.bar.add_task(self._where(), total=cost * num_epochs, status="")

    def training(self, data_iter: DataIter) -> DataIter:
        """Return ``data_iter``, watched; its batches count as training."""
        return _Watched(
            data_iter, lambda examples: self._advance(examples, TRAINING_COST), self._begin_epoch
        )

    def evaluation(self, data_iter: DataIter) -> DataIter:
        """Return ``data_iter``, watched; its batches count as evaluation."""
        return _Watched(data_iter, lambda examples: self._advance(examples, EVALUATION_COST))

    def _begin_epoch(self) -> None:
        """Start the clock of the first epoch: making the optimizer, which may import for seconds, is no part of it."""
        if self.epoch == 1:
            self.began = time.perf_counter()

    def _advance(self, examples: int, cost: int) -> None:
        if cost == TRAINING_COST:
            self.seen += examples
        status = f"{self._rate():.1f} images/s" if cost == TRAINING_COST else "evaluating"
        self.bar.update(self.task, advance=examples * cost, status=f"{status}{self._losses()}")

    def add(self, x: float, y: Sequence[float | None]) -> None:
        """Take a point of the curves; the last of an epoch is of what was held out, if anything was."""
        for name, value in zip(self.legend, y, strict=False):
            if value is not None and not math.isfinite(value):
                raise UserError(
                    f"the {name} is {value} after {x:.2f} epochs: training diverged; try a smaller --lr"
                )
            if value is not None:
                self.points[name].append((x, value))
        if self.held_out is None and x == self.epoch:
            self._end_epoch(None)
        elif y[-1] is not None:
            self._end_epoch(y[-1])
        elif x < self.epoch and self._silent_for() > SECONDS_BETWEEN_LINES:
            rate = (x - self.epoch + 1) * self.num_train / (time.perf_counter() - self.began)
            self._say(f"{self._where(x)}{self._losses()}  {rate:.1f} images/s")

    def _end_epoch(self, accuracy: float | None) -> None:
        seconds = time.perf_counter() - self.began
        held_out = {} if self.held_out is None else {self.held_out.replace(" ", "_"): accuracy}
        metrics = {
            "epoch": self.epoch,
            "train_loss": self.points["train loss"][-1][1],
            "train_acc": self.points["train acc"][-1][1],
            **held_out,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.num_train / seconds, 1),
        }
        self._say(
            f"{self._where()}{self._losses()}"
            + ("" if accuracy is None else f"  {self.held_out} {accuracy:.3f}")
            + f"  {self.num_train / seconds:.1f} images/s  {seconds:.1f} s"
        )
        self.epoch, self.seen, self.began = self.epoch + 1, 0, time.perf_counter()
        self.bar.update(self.task, description=self._where())
        if self.epoch > self.num_epochs:  # the closing lines come now
            self.bar.stop()
        self.on_epoch(metrics)

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)
        self.spoke = time.perf_counter()

    def _silent_for(self) -> float:
        """Return the seconds since the last line; a bar is never silent."""
        return 0.0 if self.console.is_terminal else time.perf_counter() - self.spoke

    def _where(self, x: float | None = None) -> str:
        epoch = min(self.epoch, self.num_epochs) if x is None else f"{x:.2f}"
        return f"{self.title}epoch {epoch}/{self.num_epochs}"

    def _rate(self) -> float:
        return self.seen / max(time.perf_counter() - self.began, 1e-9)

    def _losses(self) -> str:
        if not self.points["train loss"]:
            return ""
        loss, acc = self.points["train loss"][-1][1], self.points["train acc"][-1][1]
        return f"  loss {loss:.3f}  train acc {acc:.3f}"


class CountingProgress(_Shown):
    """Count images as they are done: a bar with the time left on a terminal, elsewhere a line from time to time."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        super().__init__(console)
        self.what, self.total, self.done = what, total, 0
        self.task = self.bar.add_task(what, total=total, status="")

    def add(self, images: int) -> None:
        """Count ``images`` more as done."""
        self.done += images
        now = time.perf_counter()
        rate = self.done / max(now - self.began, 1e-9)
        self.bar.update(self.task, advance=images, status=f"{rate:,.0f} images/s")
        if not self.console.is_terminal and now - self.spoke > SECONDS_BETWEEN_LINES:
            left = (self.total - self.done) / rate
            self.console.print(
                f"{self.what} {self.done:,} of {self.total:,}  {rate:,.0f} images/s  {left:,.0f} s left",
                soft_wrap=True,
            )
            self.spoke = now


class _Watched:
    """A loader that reports the examples of each batch once the batch has been used."""

    def __init__(
        self,
        data_iter: DataIter,
        used: Callable[[int], None],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.data_iter, self.used, self.begin = data_iter, used, begin

    def __len__(self) -> int:
        return len(self.data_iter)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self.begin()
        for X, y in self.data_iter:
            yield X, y
            self.used(len(y))
