"""Draw the charts of docs/performance.md: the speed of training, and how time and memory grow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from backends import FRAMEWORKS
from benchmarks.goals import Results
from benchmarks.results import Spread
from common.drawing.plots import save_figure

# The groups of bars: a title, what was measured and its precision.
BARS = (
    ("the book's recipe, fp32", "book", "fp32"),
    ("train_ch13, fp32", "train", "fp32"),
    ("train_ch13, bf16", "train", "bf16"),
)
WIDTH = 0.26  # of a bar


def draw_training(path: Path, results: Results) -> None:
    """Draw the speed of training: for each recipe a bar for each backend, with its lowest and highest value."""
    rates = results["training"]["rates"]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    for i, b in enumerate(results["backends"]):
        spreads = [Spread.of(rates[f"{what} {b} {precision}"]) for _, what, precision in BARS]
        axis.bar(
            [group + (i - 1) * WIDTH for group in range(len(BARS))],
            [s.median for s in spreads],
            WIDTH * 0.92,
            yerr=[
                [s.median - s.lowest for s in spreads],
                [s.highest - s.median for s in spreads],
            ],
            capsize=3,
            ecolor="#666666",
            color=FRAMEWORKS[b].style["color"],
            label=FRAMEWORKS[b].title,
        )
    axis.set_xticks(range(len(BARS)), [title for title, *_ in BARS])
    axis.set(ylabel="images/s", ylim=(0, None))
    axis.set_axisbelow(True)
    axis.grid(axis="y", alpha=0.4)
    axis.legend(loc="upper left", frameon=False)
    save_figure(path, figure)


def draw_growth(path: Path, results: Results) -> None:
    """Draw time and memory by images, batch size and workers, with a line for each backend."""
    growth = results["growth"]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = dict(
        zip(("images", "batch", "workers", "memory"), figure.subplots(2, 2).flat, strict=True)
    )
    for b in results["backends"]:
        style = FRAMEWORKS[b].style
        _line(axes["images"], b, style, growth["images"][b])
        batches = {n: found["this"] for n, found in growth["batch_size"][b].items()}
        _line(axes["batch"], b, style, batches)
        _line(axes["workers"], b, style, growth["workers"][b])
        memory = {point["data"]: [point["peak"]] for point in growth["memory"][b].values()}
        _line(axes["memory"], b, style, memory)
    batch = results["extent"]["batch_size"]
    axes["images"].set(xlabel="images", ylabel="seconds", title=f"an epoch, batches of {batch}")
    axes["batch"].set(xlabel="batch size", ylabel="images/s", title="a step", xscale="log")
    ticks = [int(n) for n in next(iter(growth["batch_size"].values()))]
    axes["batch"].set_xticks(ticks, [str(n) for n in ticks])
    axes["batch"].minorticks_off()
    axes["workers"].set(xlabel="workers", ylabel="images/s", title="native loader, flip")
    axes["memory"].set(xlabel="data, MiB", ylabel="most memory, MiB", title="memory")
    axes["workers"].set_xticks([int(n) for n in next(iter(growth["workers"].values()))])
    for axis in axes.values():
        axis.margins(y=0.1)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.4)
    handles, labels = axes["images"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save_figure(path, figure)


def _line(
    axis: Any, name: str, style: Mapping[str, Any], values: Mapping[Any, Sequence[float]]
) -> None:
    """Draw medians, with bars from the lowest to the highest."""
    x = [float(n) for n in values]
    spreads = [Spread.of(found) for found in values.values()]
    y = [s.median for s in spreads]
    below = [s.median - s.lowest for s in spreads]
    above = [s.highest - s.median for s in spreads]
    axis.errorbar(x, y, yerr=[below, above], label=name, capsize=3, **style)
