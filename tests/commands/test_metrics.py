"""Timer, Accumulator, the training log and its closing lines."""

import time

import pytest
from conftest import Recorder

from common.metrics import (
    Accumulator,
    KaggleSummary,
    Timer,
    TrainingLog,
    TrainingSummary,
    reporting_points,
)


def test_the_timer_records_every_time_it_is_stopped():
    timer = Timer()
    time.sleep(0.01)
    first = timer.stop()
    timer.start()
    second = timer.stop()
    assert first >= 0.01 > second
    assert timer.sum() == pytest.approx(first + second)
    assert timer.avg() == pytest.approx((first + second) / 2)
    assert timer.cumsum() == pytest.approx([first, first + second])


class Waiting:
    """Stand-in for a tensor on a busy device: adding is free, reading is counted."""

    reads = 0

    def __init__(self, value, graph=True):
        self.value, self.graph = value, graph

    def detach(self):
        return Waiting(self.value, graph=False)

    def __radd__(self, other):
        return Waiting(self.value + other, self.graph)

    def __add__(self, other):
        return Waiting(self.value + other.value, self.graph or other.graph)

    def __float__(self):
        Waiting.reads += 1
        return float(self.value)


def test_the_accumulator_reads_a_value_only_on_access():
    Waiting.reads = 0
    metric = Accumulator(2)
    for i in range(5):
        metric.add(Waiting(i), 2)
    assert Waiting.reads == 0
    assert (metric[0], metric[1]) == (10.0, 10.0)
    assert Waiting.reads == 1


def test_the_accumulator_keeps_no_graph_alive():
    metric = Accumulator(1)
    metric.add(Waiting(1))
    metric.add(Waiting(2))
    assert not metric.data[0].graph


def test_the_accumulator_adds_floats_resets_and_requires_every_value():
    metric = Accumulator(2)
    metric.add(1.5, 2)
    metric.add(1, 3)
    assert (metric[0], metric[1]) == (2.5, 5.0)
    metric.reset()
    assert (metric[0], metric[1]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="argument"):
        metric.add(1)


@pytest.mark.parametrize(
    ("num_batches", "points"),
    [
        (1, {1}),
        (3, {1, 2, 3}),
        (5, {1, 2, 3, 4, 5}),
        (7, {1, 2, 3, 4, 5, 6, 7}),
        (23, {4, 8, 12, 16, 20, 23}),
        (196, {39, 78, 117, 156, 195, 196}),
    ],
)
def test_an_epoch_reports_about_five_times_and_at_its_end(num_batches, points):
    assert reporting_points(num_batches) == points


def test_the_closing_lines_are_the_chapter_s_plus_the_wall_clock():
    summary = TrainingSummary(0.1754, 0.94, 0.8483, 1000, 2.0, 4.0, "[gpu(0)]")
    assert str(summary).splitlines() == [
        "loss 0.175, train acc 0.940, test acc 0.848",
        "500.0 examples/sec on [gpu(0)]",
        "250.0 examples/sec by the wall clock, loading and evaluation included (4.0 s)",
    ]


class Drawn:
    """An animator like the book's that records its points."""

    def __init__(self):
        self.points = []

    def add(self, x, y):
        self.points.append((x, y))


def run(listener, summary=TrainingSummary, held_out=0.5, batches=2):
    """Run two epochs of the book's loop; each batch of 3 has a loss of 6 in the first epoch, of 3 in the second."""
    log = TrainingLog(2, ["cpu"], listener, summary)
    for epoch, loss in enumerate((6, 3)):
        for _, y in log.batches([("X", "yyy")] * batches, epoch):
            log.add(Waiting(loss), Waiting(2), len(y))
        log.end_epoch(held_out, 0.25)
    return log.close()


def test_a_log_calls_its_listener_with_the_results(capsys):
    recorder = Recorder()
    summary = run(recorder)
    assert recorder.images == [3, 6, 3, 6]
    told = [(r.epoch, r.share, r.loss, r.images) for r in recorder.reports]
    assert told == [(1, 0.5, 2, 3), (1, 1, 2, 6), (2, 0.5, 1, 3), (2, 1, 1, 6)]
    assert all(report.acc == pytest.approx(2 / 3) for report in recorder.reports)
    first, second = recorder.epochs
    assert (first.epoch, first.train_loss, first.held_out_acc, first.learning_rate) == (
        1,
        2,
        0.5,
        0.25,
    )
    assert (second.epoch, second.train_loss, second.images) == (2, 1, 6)
    assert (summary.loss, summary.test_acc, summary.examples) == (1, 0.5, 12)
    assert capsys.readouterr().out.splitlines() == str(summary).splitlines()


def test_a_listener_names_the_accuracy_after_an_epoch(capsys):
    recorder = Recorder()
    recorder.held_out = "valid acc"
    summary = run(recorder)
    assert "train acc 0.667, valid acc 0.500\n" in capsys.readouterr().out
    assert summary.plain()["valid_acc"] == 0.5
    assert not {"test_acc", "held_out"} & summary.plain().keys()
    assert run(Recorder()).plain()["test_acc"] == 0.5


def test_a_log_reads_the_results_of_a_step_only_for_its_reports():
    Waiting.reads = 0
    run(Recorder(), batches=20)
    assert Waiting.reads == 2 * 2 * 5  # loss and accuracy, five times per epoch, two epochs


def test_zero_epochs_are_refused():
    with pytest.raises(ValueError, match="num_epochs must be at least 1, not 0"):
        TrainingLog(0, ["cpu"], Recorder())


def test_an_empty_iterator_is_refused():
    log = TrainingLog(1, ["cpu"], Recorder())
    with pytest.raises(ValueError, match="train_iter gave no batch"):
        list(log.batches([], 0))


def test_a_log_draws_with_the_book_s_animator_and_interrupts_the_curves_at_each_epoch():
    drawn = Drawn()
    run(drawn, KaggleSummary)
    xs = [x for x, _ in drawn.points]
    assert xs == [0.5, 1, 1, 1.5, 2, 2]
    losses = [y[0] for _, y in drawn.points]
    assert losses[:2] == [2, 2]
    assert losses[3:5] == [1, 1]
    assert all(loss != loss for loss in (losses[2], losses[5]))  # nan: no line across
    assert [y[2] for _, y in drawn.points] == [None, None, 0.5, None, None, 0.5]


@pytest.mark.parametrize("held_out", [0.5, None])
def test_without_an_animator_the_chapter_s_plot_is_drawn(held_out):
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    run(None, KaggleSummary, held_out)
    (number,) = set(plt.get_fignums()) - set(before)
    (axis,) = plt.figure(number).axes
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["train loss", "train acc"] + ["valid acc"] * (held_out is not None)
    assert axis.get_xlim() == (0, 2)
    plt.close(number)
