"""Pictures: what is drawn, in which shape, and what a notebook's Animator holds."""

import numpy as np
import pytest

from common import plotting


def test_equal_pictures_are_equal_files(tmp_path):
    for name in ("a.png", "b.png"):
        plotting.save_curves(tmp_path / name, {"train loss": [(1, 0.5), (2, 0.25)]}, "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_curves_are_drawn_by_name_over_the_epochs(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plotting, "save_figure", lambda path, figure: drawn.append(figure))
    losses = {"train loss": [(0.5, 0.9), (1, 0.7)]}
    accuracies = {"train acc": [(0.5, 0.2), (1, 0.3)], "test acc": [(1, 0.4)]}
    plotting.save_curves(tmp_path / "x.png", losses | accuracies, "title")
    for axis, curves in zip(drawn[0].axes, (losses, accuracies), strict=True):
        found = {line.get_label(): list(map(tuple, line.get_xydata())) for line in axis.lines}
        assert found == curves
        assert [text.get_text() for text in axis.get_legend().get_texts()] == list(curves)


def test_a_picture_is_whole_or_absent(tmp_path):
    class Figure:
        def savefig(self, path, **_):
            path.write_bytes(b"half of it")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        plotting.save_figure(tmp_path / "x.png", Figure())
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_draws_mean_and_band_of_each(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plotting, "save_figure", lambda path, figure: drawn.append(figure))
    runs = {"none": np.array([[0.5, 0.6], [0.7, 0.8]]), "flip": np.array([[0.6, 0.7], [0.8, 1.0]])}
    plotting.save_comparison(tmp_path / "x.png", runs, "title")
    (axis,) = drawn[0].axes
    np.testing.assert_allclose([line.get_ydata() for line in axis.lines], [[0.6, 0.7], [0.7, 0.85]])
    assert [list(line.get_xdata()) for line in axis.lines] == [[1, 2]] * 2
    for band, accuracies in zip(axis.collections, runs.values(), strict=True):
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (accuracies.min(), accuracies.max())
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["none", "flip"]


@pytest.fixture
def animator():
    from matplotlib import pyplot as plt

    yield plotting.Animator(
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


def test_the_animator_takes_a_single_value(animator):
    animator.add(1, 0.5)
    assert animator.points == [[(1, 0.5)]]


def test_images_of_every_form_are_shown_channels_last():
    grey, rgb = np.zeros((5, 7)), np.zeros((5, 7, 3))
    assert plotting._channels_last(grey).shape == (5, 7)
    assert plotting._channels_last(rgb).shape == (5, 7, 3)
    assert plotting._channels_last(np.zeros((3, 5, 7))).shape == (5, 7, 3)
    assert plotting._channels_last(np.zeros((1, 5, 7))).shape == (5, 7)
