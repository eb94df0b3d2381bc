"""Plots: the curves, the layout, and the points of a notebook's Animator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import python

from common.drawing import plots
from common.metrics import Epoch


def epochs(n: int, held_out: bool = True, rates: Sequence[float | None] | None = None):
    rates = rates or [None] * n
    return [
        Epoch(
            i,
            1 / i,
            0.5 - 0.25 / i,
            0.75 - 0.5 / i if held_out else None,
            rates[i - 1],
            100,
            1.0,
            0.5,
        )
        for i in range(1, n + 1)
    ]


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda path, figure: figures.append(figure))
    return figures


def curves_of(axis):
    return {line.get_label(): list(map(tuple, line.get_xydata())) for line in axis.lines}


def test_the_same_figure_gives_the_same_file(tmp_path):
    for name in ("a.png", "b.png"):
        plots.save_curves(tmp_path / name, epochs(2, rates=[0.5, 0.25]), "test acc", "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("held_out", ["test acc", "valid acc", None])
@pytest.mark.parametrize("n", [1, 2, 100])
def test_curves_have_one_point_per_epoch_and_a_legend_that_explains_it(drawn, n, held_out):
    trained = epochs(n, held_out is not None)
    plots.save_curves(Path("x.png"), trained, held_out, "title")
    losses, accuracies = drawn[0].axes
    mean = "mean over the epoch, while the weights change"
    assert curves_of(losses) == {f"train loss: {mean}": [(e.epoch, e.train_loss) for e in trained]}
    expected = {f"train acc: {mean}": [(e.epoch, e.train_acc) for e in trained]}
    if held_out:
        after = f"{held_out}: measured after the epoch"
        expected[after] = [(e.epoch, e.held_out_acc) for e in trained]
    assert curves_of(accuracies) == expected
    for axis in (losses, accuracies):
        legend = [text.get_text() for text in axis.get_legend().get_texts()]
        assert legend == list(curves_of(axis))
        assert axis.get_xlim() == (0.5, n + 0.5)
        assert all(line.get_marker() == "o" for line in axis.lines) == (n < 30)


def test_a_changing_learning_rate_has_its_own_panel(drawn):
    plots.save_curves(Path("x.png"), epochs(3, rates=[0.5, 0.5, 0.25]), "test acc", "title")
    (strip,) = (axis for axis in drawn[0].axes if "rate" in axis.get_ylabel())
    (steps,) = strip.patches
    values, edges, _ = steps.get_data()
    assert values.tolist() == [0.5, 0.5, 0.25]
    assert edges.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert strip.get_xlim() == (0.5, 3.5)
    assert strip.get_yticks().tolist() == [0.25, 0.5]


@pytest.mark.parametrize("rates", [[0.5, 0.5], [None, None], [0.5]])
def test_a_constant_learning_rate_has_no_panel(drawn, rates):
    plots.save_curves(Path("x.png"), epochs(len(rates), rates=rates), "test acc", "title")
    assert len(drawn[0].axes) == 2


def test_a_figure_is_written_atomically(tmp_path):
    class Figure:
        def savefig(self, path, **_):
            path.write_bytes(b"half of it")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        plots.save_figure(tmp_path / "x.png", Figure())
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_draws_mean_and_band_of_each(drawn):
    runs = {"none": np.array([[0.5, 0.6], [0.7, 0.8]]), "flip": np.array([[0.6, 0.7], [0.8, 1.0]])}
    plots.save_comparison(Path("x.png"), runs, "title", "valid accuracy")
    (axis,) = drawn[0].axes
    assert axis.get_ylabel() == "valid accuracy"
    np.testing.assert_allclose([line.get_ydata() for line in axis.lines], [[0.6, 0.7], [0.7, 0.85]])
    assert [list(line.get_xdata()) for line in axis.lines] == [[1, 2]] * 2
    for band, accuracies in zip(axis.collections, runs.values(), strict=True):
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (accuracies.min(), accuracies.max())
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["none", "flip"]


@pytest.fixture
def animator():
    from matplotlib import pyplot as plt

    yield plots.Animator(
        xlabel="epoch", xlim=[1, 3], ylim=[0, 1], legend=["train loss", "train acc", "test acc"]
    )
    plt.close("all")


def test_the_animator_adds_points_to_the_curves_that_have_one(animator):
    animator.add(0.5, (0.9, 0.1, None))
    animator.add(1, (None, None, 0.4))
    animator.add(1.5, (0.5, 0.6, None))
    assert animator.points == [[(0.5, 0.9), (1.5, 0.5)], [(0.5, 0.1), (1.5, 0.6)], [(1, 0.4)]]
    lines = animator.axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[0.9, 0.5], [0.1, 0.6], [0.4]]
    assert animator.axes[0].get_xlabel() == "epoch"
    assert animator.axes[0].get_ylim() == (0, 1)


def test_a_single_point_is_drawn(animator):
    """Such as the only report of an epoch with one batch, before the gap in the curve."""
    animator.add(1, (0.5, 0.5, None))
    animator.add(1, (float("nan"), float("nan"), 0.4))
    assert all(line.get_marker() == "." for line in animator.axes[0].lines)


def test_the_animator_takes_a_single_value(animator):
    animator.add(1, 0.5)
    assert animator.points == [[(1, 0.5)]]


def test_images_of_every_layout_are_shown_channels_last():
    from matplotlib import pyplot as plt

    images = [np.zeros(shape) for shape in ((5, 7), (5, 7, 3), (3, 5, 7), (1, 5, 7))]
    axes = plots.show_images(images, 1, 4)
    shown = [axis.images[0].get_array().shape for axis in axes]
    assert shown == [(5, 7), (5, 7, 3), (5, 7, 3), (5, 7)]
    plt.close("all")


def test_figures_of_a_run_do_not_depend_on_the_user_s_matplotlibrc(tmp_path):
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\nsavefig.dpi: 10\nfigure.facecolor: red\n"
    )
    script = (
        "import pathlib, sys; from common.drawing import plots; from common.metrics import Epoch\n"
        "epochs = [Epoch(i, 1.0, 0.5, 0.5, 0.1, 100, 1.0, 1.0) for i in (1, 2)]\n"
        "plots.save_curves(pathlib.Path({path!r}), epochs, 'test acc', 'a_b & 5 %')"
    )
    files = tmp_path / "default.png", tmp_path / "own.png"
    for file, variables in zip(files, ({}, {"MATPLOTLIBRC": str(tmp_path)}), strict=True):
        done = python(script.format(path=str(file)), **variables)
        assert done.returncode == 0, done.stderr
    assert files[0].read_bytes() == files[1].read_bytes()
