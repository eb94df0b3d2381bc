"""Timer, Accumulator, reporting points and the closing lines."""

import time

import pytest

from common.metrics import Accumulator, Timer, TrainingSummary, reporting_points


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
    """Stands for a tensor on a busy device: adding is free, reading counts."""

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


def test_the_accumulator_reads_nothing_before_it_is_asked():
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


def test_the_accumulator_adds_floats_starts_again_and_wants_every_value():
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


def test_the_closing_lines_are_the_chapter_s_with_the_wall_clock_beside_them():
    summary = TrainingSummary(0.1754, 0.94, 0.8483, 1000, 2.0, 4.0, "[gpu(0)]")
    assert str(summary).splitlines() == [
        "loss 0.175, train acc 0.940, test acc 0.848",
        "500.0 examples/sec on [gpu(0)]",
        "250.0 examples/sec by the wall clock, loading and evaluation included (4.0 s)",
    ]
