"""What a user sees while a network trains: a bar on a terminal, plain lines elsewhere."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from common import progress
from common.errors import UserError
from common.progress import TrainingProgress


def train(
    terminal: bool, num_epochs: int = 2, losses=(0.5, 0.25), use=lambda watch, seconds: None
) -> tuple[str, list[dict], TrainingProgress]:
    """Follow what `train_ch13` does: batches from the watched loader, points to the animator.

    ``use`` is called with each batch, which takes 2 seconds in training and 1 in evaluation.
    """
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    epochs: list[dict] = []
    watch = TrainingProgress(console, num_epochs, (8, 4), epochs.append, "run 1:")
    batches = [("X", [0] * 4), ("X", [0] * 4)]
    train_iter, test_iter = watch.training(batches), watch.evaluation(batches[:1])
    with watch:
        for epoch in range(num_epochs):
            for i, _ in enumerate(train_iter, start=1):
                use(watch, 2)
                watch.add(epoch + i / 2, (losses[epoch], 0.75, None))
            for _ in test_iter:
                use(watch, 1)
            watch.add(epoch + 1, (None, None, 0.5))
    return out.getvalue(), epochs, watch


def test_elsewhere_there_is_one_plain_line_an_epoch():
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
    """Stands for the time module: time passes where a test says so."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
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
    # What the bar says while a batch is used counts the batches before it.
    assert statuses == ["", *["2.0 images/s"] * 2, "evaluating", *["2.0 images/s"] * 2]


def test_an_error_gives_the_terminal_back():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True)
    with (
        pytest.raises(KeyboardInterrupt),
        TrainingProgress(console, 1, (8, 4), lambda epoch: None),
    ):
        raise KeyboardInterrupt
    hidden, shown = out.getvalue().rfind("\x1b[?25l"), out.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown  # the cursor


def test_a_long_epoch_is_not_silent(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    out, _, _ = train(terminal=False)
    assert "run 1: epoch 0.50/2  loss 0.500" in out


def test_a_terminal_shows_a_bar_with_rate_loss_accuracy_and_time_left():
    out, _, watch = train(terminal=True)
    assert "━" in out
    for word in ("images/s", "loss 0.500", "train acc 0.750", "left", "evaluating"):
        assert word in out
    assert watch.bar.finished  # every batch was counted, and the end is 100 %


def test_the_curves_are_kept_by_name():
    _, _, watch = train(terminal=False)
    assert watch.points == {
        "train loss": [(0.5, 0.5), (1.0, 0.5), (1.5, 0.25), (2.0, 0.25)],
        "train acc": [(0.5, 0.75), (1.0, 0.75), (1.5, 0.75), (2.0, 0.75)],
        "test acc": [(1, 0.5), (2, 0.5)],
    }


def test_a_watched_loader_passes_batches_on_as_they_are():
    _, _, watch = train(terminal=False)
    batches = [("a", [1]), ("b", [2])]
    watched = watch.training(batches)
    assert list(watched) == batches
    assert len(watched) == 2


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training(loss):
    with pytest.raises(UserError, match="diverged"):
        train(terminal=False, losses=(0.5, loss))
