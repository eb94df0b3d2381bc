"""Plots: the book's `show_images` and `Animator` for notebooks, and the figures of a run as files.

matplotlib is imported inside the functions, so that importing a backend and ``run.py --help`` stay fast.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.drawing.style import in_default_style
from common.errors import printable
from common.system.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from common.metrics import Confusion, Epoch

Images = NDArray[np.uint8]
MAX_MARKED = 30  # curves with fewer points get markers
LONGEST_NAME = 24  # characters of a class name in the confusion matrix; longer ones are cut
MAX_NAMED = 250  # classes; the names of more would overlap
MAX_NUMBERED = 30  # confusion matrices of at most so many classes show the counts
STYLES = ("-", "m--", "g-.", "r:")  # the book's, one per curve
# The meaning of a point of a curve, for the legend.
TRAINED, EVALUATED = "mean over the epoch, while the weights change", "measured after the epoch"


def use_svg_display() -> None:
    """Draw plots as SVG in a notebook. Do nothing elsewhere."""
    try:
        from matplotlib_inline import backend_inline
    except ImportError:
        return
    backend_inline.set_matplotlib_formats("svg")


def set_figsize(figsize: tuple[float, float] = (3.5, 2.5)) -> None:
    """Set the size of the next figures, in inches."""
    from matplotlib import pyplot as plt

    use_svg_display()
    plt.rcParams["figure.figsize"] = figsize


def show_images(
    imgs: Sequence[Any],
    num_rows: int,
    num_cols: int,
    titles: Sequence[str] | None = None,
    scale: float = 1.5,
) -> Any:
    """Plot a list of images in a grid and return its axes, flat.

    An image is an array (height, width) or with channels first or last, a PIL image, or a tensor on the CPU. Its values
    are uint8 in 0..255 or float in 0..1. ``scale`` is the side of a cell in inches.
    """
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(num_rows, num_cols, figsize=(num_cols * scale, num_rows * scale))
    axes = np.atleast_1d(axes).flatten()
    _fill(axes, imgs, titles)
    return axes


def _fill(axes: Any, imgs: Sequence[Any], titles: Sequence[str] | None) -> None:
    for axis in axes:
        axis.axis("off")
    for i, (axis, image) in enumerate(zip(axes, imgs, strict=False)):
        axis.imshow(_channels_last(_as_array(image)), cmap="gray")
        if titles is not None:
            axis.set_title(titles[i], fontsize=7, pad=2, parse_math=False)


def _as_array(image: Any) -> NDArray[Any]:
    # NumPy would convert an MXNet array to an array of Python objects.
    return image.asnumpy() if hasattr(image, "asnumpy") else np.asarray(image)


def _channels_last(image: NDArray[Any]) -> NDArray[Any]:
    first = image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3, 4)
    return np.squeeze(np.moveaxis(image, 0, -1) if first else image)


class Animator:
    """Plot data incrementally: a notebook redraws the plot in place; elsewhere it is drawn when it is saved."""

    def __init__(
        self,
        xlabel: str | None = None,
        ylabel: str | None = None,
        legend: Sequence[str] | None = None,
        xlim: Sequence[float] | None = None,
        ylim: Sequence[float | None] | None = None,
        xscale: str = "linear",
        yscale: str = "linear",
        fmts: Sequence[str] = STYLES,
        nrows: int = 1,
        ncols: int = 1,
        figsize: tuple[float, float] = (3.5, 2.5),
    ) -> None:
        from matplotlib import pyplot as plt

        use_svg_display()
        self.fig, axes = plt.subplots(nrows, ncols, figsize=figsize)
        self.axes = np.atleast_1d(axes).flatten()
        self.settings = {
            "xlabel": xlabel,
            "ylabel": ylabel,
            "xlim": xlim,
            "ylim": ylim,
            "xscale": xscale,
            "yscale": yscale,
        }
        self.legend, self.fmts = legend, fmts
        self.points: list[list[tuple[float, float]]] = []

    def add(self, x: Any, y: Any) -> None:
        """Add a point to each curve. None adds no point, NaN a gap. ``x`` is shared, or one per curve."""
        ys = y if hasattr(y, "__len__") else [y]
        xs = x if hasattr(x, "__len__") else [x] * len(ys)
        while len(self.points) < len(ys):
            self.points.append([])
        for curve, a, b in zip(self.points, xs, ys, strict=False):
            if a is not None and b is not None:
                curve.append((a, b))
        self.draw()

    def draw(self) -> None:
        """Draw all points so far; in a notebook, in place."""
        axis = self.axes[0]
        axis.cla()
        for i, (curve, fmt) in enumerate(zip(self.points, self.fmts, strict=False)):
            name = self.legend[i] if self.legend and curve else None
            marker = "." if len(curve) < MAX_MARKED else None  # a single point draws no line
            axis.plot([x for x, _ in curve], [y for _, y in curve], fmt, label=name, marker=marker)
        axis.set(**{name: value for name, value in self.settings.items() if value is not None})
        axis.grid()
        if self.legend:
            axis.legend()
        if display := _notebook_display():
            display.display(self.fig)
            display.clear_output(wait=True)


def _notebook_display() -> Any:
    """Return IPython's display module in a notebook, else None."""
    try:
        from IPython import display, get_ipython
    except ImportError:
        return None
    return display if type(get_ipython()).__name__ == "ZMQInteractiveShell" else None


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a figure to a file, atomically."""
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # The font may lack the script of a class name; the boxes in the picture show that.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(temporary, dpi=150)


@in_default_style
def save_curves(path: Path, epochs: "Sequence[Epoch]", held_out: str | None, title: str) -> None:
    """Write the curves of a training, one point per epoch: the loss on the left, the accuracies on the right.

    ``epochs`` must not be empty. ``held_out`` is the name of the accuracy after each epoch, such as "test acc", or None
    if nothing is held out. If the learning rate changes, it is drawn below the loss.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.8), layout="constrained")
    figure.suptitle(title, parse_math=False)
    changes = len({epoch.learning_rate for epoch in epochs}) > 1
    rows: list[Any] = [["losses", "accuracies"]]
    if changes:
        rows.append(["rates", "accuracies"])
    axes: Any = figure.subplot_mosaic(rows, height_ratios=(3, 1)[: len(rows)])
    losses, accuracies = axes["losses"], axes["accuracies"]
    curves: list[tuple[Any, str, str, list[float | None]]] = [
        (losses, "train loss", TRAINED, [epoch.train_loss for epoch in epochs]),
        (accuracies, "train acc", TRAINED, [epoch.train_acc for epoch in epochs]),
    ]
    if held_out is not None:
        curves.append((accuracies, held_out, EVALUATED, [epoch.held_out_acc for epoch in epochs]))
    x = [epoch.epoch for epoch in epochs]
    marker = "o" if len(x) < MAX_MARKED else None
    for (axis, name, point, y), style in zip(curves, STYLES, strict=False):
        axis.plot(x, y, style, label=f"{name}: {point}", marker=marker, markersize=3)
    losses.set(ylabel="loss")
    losses.set_ylim(bottom=0)
    accuracies.set(ylabel="accuracy", ylim=(0, 1.02))
    for axis in axes.values():
        _by_epoch(axis)
        axis.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    for axis in (losses, accuracies):
        axis.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    if changes:
        _draw_rates(axes["rates"], epochs)
        losses.tick_params(labelbottom=False)
        losses.set(xlabel=None)
    save_figure(path, figure)


def _draw_rates(axis: Any, epochs: "Sequence[Epoch]") -> None:
    """Draw the learning rate of each epoch as a step, with ticks at its lowest and highest value."""
    rates = [np.nan if epoch.learning_rate is None else epoch.learning_rate for epoch in epochs]
    edges = [epochs[0].epoch - 0.5, *(epoch.epoch + 0.5 for epoch in epochs)]
    axis.stairs(rates, edges, baseline=None, color="black", zorder=3)
    low, high = np.nanmin(rates), np.nanmax(rates)
    axis.set(ylabel="learning\nrate", ylim=(0, 1.2 * high))
    axis.set_yticks([low, high] if low < 0.8 * high else [high])
    axis.yaxis.set_major_formatter("{x:.2g}")


@in_default_style
def save_confusion(path: Path, confusion: "Confusion", title: str) -> None:
    """Write the confusion matrix, with the accuracy next to each class."""
    from matplotlib.figure import Figure

    n = len(confusion.classes)
    side = min(max(0.42 * n + 1.6, 4.0), 20.0)  # inches
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axis = figure.subplots()
    totals = confusion.counts.sum(axis=1, keepdims=True)
    shares = confusion.counts / np.maximum(totals, 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= MAX_NUMBERED:
        for (i, j), count in np.ndenumerate(confusion.counts):
            if count:
                colour = "white" if shares[i, j] > 0.5 else "black"
                axis.text(j, i, f"{count}", ha="center", va="center", color=colour, fontsize=7)
    # Longer names would leave no room for the matrix.
    classes = [printable(name, LONGEST_NAME) for name in confusion.classes]
    names = [
        f"{name}  {accuracy:.2f}"
        for name, accuracy in zip(classes, confusion.accuracies, strict=True)
    ]
    size = 8 if n <= MAX_NUMBERED else 4
    if n <= MAX_NAMED:
        axis.set_xticks(range(n), classes, rotation=90, fontsize=size, parse_math=False)
        axis.set_yticks(range(n), names, fontsize=size, parse_math=False)
        axis.set(xlabel="predicted class", ylabel="class and accuracy")
    else:
        axis.set(xlabel="predicted class, by number", ylabel="class, by number")
    title = fill(f"{title}: accuracy {confusion.accuracy:.3f}", round(11 * side))
    figure.suptitle(title, fontsize="medium", parse_math=False)
    save_figure(path, figure)


@in_default_style
def save_comparison(
    path: Path, runs: Mapping[str, NDArray[np.float64]], title: str, ylabel: str
) -> None:
    """Write accuracies, (seeds, epochs) by name: the mean as a line, the range as a band."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for (name, accuracies), marker in zip(runs.items(), "os", strict=False):
        epochs = np.arange(1, accuracies.shape[1] + 1)
        (line,) = axis.plot(epochs, accuracies.mean(axis=0), marker=marker, label=name)
        low, high = accuracies.min(axis=0), accuracies.max(axis=0)
        axis.fill_between(epochs, low, high, alpha=0.2, color=line.get_color())
    axis.set(ylabel=ylabel)
    axis.set_title(title, parse_math=False)
    _by_epoch(axis, legend="augmentation")
    save_figure(path, figure)


@in_default_style
def save_backends(
    path: Path,
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    styles: Mapping[str, Mapping[str, Any]],
    title: str,
) -> None:
    """Write the curves of several backends: one panel per curve, one line per backend.

    ``curves`` is {backend: {name of the curve: values by epoch}}. ``styles`` has the arguments of matplotlib's `plot`
    for each backend.
    """
    from matplotlib.figure import Figure

    names = list(next(iter(curves.values())))
    figure = Figure(figsize=(3.6 * len(names), 3.9), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for axis, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        for backend, values in curves.items():
            epochs = range(1, len(values[name]) + 1)
            style = {**styles[backend], "clip_on": False}  # do not clip markers at the edges
            if len(epochs) >= MAX_MARKED:
                style["marker"] = None
            axis.plot(epochs, values[name], label=backend, **style)
        axis.set_title(name, fontsize="medium")
        axis.set_ylim(bottom=0)
        if "accuracy" in name:
            axis.set_ylim(top=1.02)
        _by_epoch(axis)
        axis.get_legend().remove()  # the figure has one legend for all panels
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save_figure(path, figure)


def _by_epoch(axis: Any, legend: str | None = None) -> None:
    """Finish a plot over epochs: integer ticks, a grid and a legend."""
    from matplotlib.ticker import MaxNLocator

    axis.set(xlabel="epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.4)
    if axis.lines:
        axis.legend(title=legend)
