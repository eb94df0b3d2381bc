"""Progress output: a bar on a terminal, plain lines elsewhere, and one line per epoch of a training."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeRemainingColumn

from common.finite import check_finite
from common.metrics import Epoch, Listener, Report
from common.system.console import PlainConsole

TRAINING_COST, EVALUATION_COST = 3, 1  # in forward passes; a backward pass costs about two
SECONDS_BETWEEN_LINES = 30.0  # without a bar
SECONDS_BETWEEN_UPDATES = 0.05  # of a bar; an update takes longer than linking a file


class _Words(ProgressColumn):
    """A column of a bar; the console prints its string as plain text."""

    def __init__(self, words: Callable[[Task], str]) -> None:
        super().__init__()
        self.words = words

    def render(self, task: Task) -> str:
        return self.words(task)


def _make_bar(console: Console, show: bool = True) -> Progress:
    """Return a bar with the time left, whose tasks have a field ``status``. It is hidden without a terminal."""
    return Progress(
        _Words(lambda task: task.description),
        BarColumn(bar_width=16),
        TimeRemainingColumn(compact=True),
        _Words(lambda task: f"left  {task.fields['status']}"),
        console=console,
        transient=True,
        disable=not (show and console.is_terminal),
    )


@contextmanager
def progress_bar(
    title: str,
    total: float | None,
    unit: str = "images",
    console: Console | None = None,
    show: bool = True,
) -> Iterator[Callable[[float], None]]:
    """Yield a function that adds a number to the count of done units; ``total`` is None if it is unknown.

    If ``show`` is true, a terminal shows a bar with the rate and the time left. The default ``console`` is standard
    error, with no output unless it is a terminal. Another ``console`` that is not a terminal gets a line every 30
    seconds.
    """
    lines = console is not None and not console.is_terminal
    console = console or PlainConsole(stderr=True)
    began = last_line = time.perf_counter()
    done = shown = 0.0

    def advance(number: float) -> None:
        nonlocal done, shown, last_line
        done += number
        now = time.perf_counter()
        if now - shown < SECONDS_BETWEEN_UPDATES:
            return
        shown = now
        rate = done / max(now - began, 1e-9)
        status = f"{rate:,.0f} {unit}/s"
        bar.update(task, completed=done, status=status)
        if lines and total and now - last_line > SECONDS_BETWEEN_LINES:
            left = f"{(total - done) / rate:,.0f} s left"
            console.print(f"{title} {done:,.0f} of {total:,.0f}  {status}  {left}", soft_wrap=True)
            last_line = now

    with _make_bar(console, show) as bar:
        task = bar.add_task(title, total=total, status="")
        yield advance


class TrainingProgress(Listener):
    """Show the progress of a training, and pass each finished epoch to ``keep``.

    ``num_examples`` are the numbers of training images and of held-out images. ``held_out`` is the name of the accuracy
    on the latter, None if nothing is held out. ``title`` is printed before each line. ``first_epoch`` epochs were done
    before. Raises UserError if the loss is not finite.
    """

    def __init__(
        self,
        console: Console,
        num_epochs: int,
        num_examples: tuple[int, int],
        keep: Callable[[Epoch], None],
        title: str = "",
        held_out: str | None = "test acc",
        first_epoch: int = 0,
    ) -> None:
        self.console, self.bar = console, _make_bar(console)
        self.last_line = time.perf_counter()
        self.num_epochs, self.keep, self.held_out = num_epochs, keep, held_out
        self.title = f"{title} " if title else ""
        self.num_train = num_examples[0]
        self.losses = ""  # text of the latest loss and accuracy
        self.cost = num_examples[0] * TRAINING_COST + num_examples[1] * EVALUATION_COST
        self.task = self.bar.add_task(
            self._where(first_epoch + 1), total=self.cost * num_epochs, status=""
        )

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def on_batch(self, epoch: int, images: int, seconds: float) -> None:
        """Move the bar."""
        evaluates = images == self.num_train and self.held_out is not None
        status = "evaluating" if evaluates else f"{images / max(seconds, 1e-9):.1f} images/s"
        self.bar.update(
            self.task,
            description=self._where(epoch),
            completed=(epoch - 1) * self.cost + images * TRAINING_COST,
            status=f"{status}{self.losses}",
        )

    def on_report(self, report: Report) -> None:
        """Show loss and accuracy so far; without a bar, only after 30 seconds without a line."""
        where = report.epoch - 1 + report.share
        check_finite(report.loss, f"train loss after {where:.2f} epochs")
        self.losses = f"  loss {report.loss:.3f}  train acc {report.acc:.3f}"
        silent = time.perf_counter() - self.last_line > SECONDS_BETWEEN_LINES
        if report.share < 1 and silent and not self.console.is_terminal:
            rate = report.images / max(report.seconds, 1e-9)
            self._print(f"{self._where(f'{where:.2f}')}{self.losses}  {rate:.1f} images/s")

    def on_epoch(self, epoch: Epoch) -> None:
        """Pass the epoch to ``keep``, which may refuse it, and print its line."""
        self.keep(epoch)
        rate = epoch.images_per_second
        accuracy = (
            "" if epoch.held_out_acc is None else f"  {self.held_out} {epoch.held_out_acc:.3f}"
        )
        self._print(
            f"{self._where(epoch.epoch)}{self.losses}{accuracy}"
            f"  {rate:.1f} images/s  {epoch.seconds:.1f} s"
        )
        status = f"{rate:.1f} images/s{self.losses}"
        self.bar.update(self.task, completed=epoch.epoch * self.cost, status=status)
        self.losses = ""  # the next epoch has no loss yet
        if epoch.epoch == self.num_epochs:  # the closing lines are printed next
            self.bar.stop()

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)
        self.last_line = time.perf_counter()

    def _where(self, epoch: int | str) -> str:
        return f"{self.title}epoch {epoch}/{self.num_epochs}"
