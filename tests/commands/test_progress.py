"""Progress of a training: a bar on a terminal, plain lines elsewhere."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from common import metrics
from common.drawing import progress
from common.drawing.progress import TrainingProgress
from common.errors import UserError
from common.metrics import Epoch, TrainingLog


def train(
    terminal: bool, num_epochs: int = 2, losses=(0.5, 0.25), use=lambda watch, seconds: None
) -> tuple[str, list[dict], list[Epoch]]:
    """Run the loop of `train_ch13` on two batches of 4 images an epoch, with 4 images held out.

    ``use`` is called with each batch, which takes 2 seconds in training and 1 in evaluation.
    """
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    epochs: list[dict] = []
    kept: list[Epoch] = []

    def keep(epoch: Epoch) -> None:
        epochs.append(epoch.plain("test acc"))
        kept.append(epoch)

    watch = TrainingProgress(console, num_epochs, (8, 4), keep, "run 1:")
    with watch:
        log = TrainingLog(num_epochs, ["cpu"], watch)
        for epoch in range(num_epochs):
            for _, y in log.batches([("X", [0] * 4), ("X", [0] * 4)], epoch):
                use(watch, 2)
                log.add(losses[epoch] * len(y), 0.75 * len(y), len(y))
            use(watch, 1)
            log.end_epoch(0.5)
    return out.getvalue(), epochs, kept


def test_without_a_terminal_there_is_one_plain_line_per_epoch():
    out, epochs, _ = train(terminal=False)
    lines = out.splitlines()
    assert [line[:40] for line in lines] == [
        "run 1: epoch 1/2  loss 0.500  train acc ",
        "run 1: epoch 2/2  loss 0.250  train acc ",
    ]
    assert all("test acc 0.500" in line and "images/s" in line for line in lines)
    assert "\x1b" not in out
    assert [e["epoch"] for e in epochs] == [1, 2]
    assert [e["train_loss"] for e in epochs] == [0.5, 0.25]
    assert {(e["train_acc"], e["test_acc"]) for e in epochs} == {(0.75, 0.5)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand-in for the time module: a test sets the time."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(metrics, "time", clock)
    return clock


def test_seconds_and_rates_are_those_of_the_epoch(clock, monkeypatch):
    statuses = []

    def use(watch, seconds):
        statuses.append(watch.bar.tasks[0].fields["status"].partition("  ")[0])
        clock.now += seconds

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    out, epochs, _ = train(terminal=False, use=use)
    # Two batches of 4 images in 2 seconds each, and an evaluation of 1 second.
    assert [(e["seconds"], e["images_per_second"]) for e in epochs] == [(5, 1.6)] * 2
    rates = [line.split("  ")[-1] for line in out.splitlines() if "test acc" not in line]
    assert rates == ["2.0 images/s"] * 2
    assert out.count("  1.6 images/s  5.0 s") == 2
    # The bar is updated after a batch, so during a batch it counts the batches before.
    later = ["2.0 images/s", "evaluating"]
    assert statuses == ["", *later, "1.6 images/s", *later]


def test_an_error_restores_the_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True)
    with (
        pytest.raises(KeyboardInterrupt),
        TrainingProgress(console, 1, (8, 4), lambda epoch: None),
    ):
        raise KeyboardInterrupt
    hidden, shown = out.getvalue().rfind("\x1b[?25l"), out.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown  # the cursor


def test_a_long_epoch_prints_lines_in_between(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    out, _, _ = train(terminal=False)
    assert "run 1: epoch 0.50/2  loss 0.500" in out


def test_a_terminal_shows_a_bar_with_rate_loss_accuracy_and_time_left():
    used: list[TrainingProgress] = []

    def use(watch, seconds):
        used.append(watch)
        watch.bar.refresh()

    out, _, _ = train(terminal=True, use=use)
    assert "━" in out
    for word in ("images/s", "loss 0.500", "train acc 0.750", "left", "evaluating"):
        assert word in out
    assert used[-1].bar.finished  # every batch was counted, and the end is 100 %


def test_the_epochs_are_kept():
    _, _, kept = train(terminal=False)
    figures = [(e.epoch, e.train_loss, e.train_acc, e.held_out_acc, e.images) for e in kept]
    assert figures == [(1, 0.5, 0.75, 0.5, 8), (2, 0.25, 0.75, 0.5, 8)]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training(loss):
    with pytest.raises(UserError, match="diverged"):
        train(terminal=False, losses=(0.5, loss))
