"""What a user sees while a network trains: a bar on a terminal, plain lines elsewhere."""

import io

import pytest
from rich.console import Console

from common import progress
from common.errors import UserError
from common.progress import TrainingProgress


def train(
    terminal: bool, num_epochs: int = 2, losses=(0.5, 0.25)
) -> tuple[str, list[dict], TrainingProgress]:
    """Follow what `train_ch13` does: batches from the watched loader, points to the animator."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, highlight=False)
    epochs: list[dict] = []
    watch = TrainingProgress(console, num_epochs, (8, 4), epochs.append, "run 1:")
    batches = [("X", [0] * 4), ("X", [0] * 4)]
    train_iter, test_iter = watch.training(batches), watch.evaluation(batches[:1])
    with watch:
        for epoch in range(num_epochs):
            for i, _ in enumerate(train_iter, start=1):
                watch.add(epoch + i / 2, (losses[epoch], 0.75, None))
            list(test_iter)
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
    assert all(e["seconds"] >= 0 and e["images_per_second"] > 0 for e in epochs)


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
