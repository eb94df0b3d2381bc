"""Draw the chart of docs/performance.md: how time and memory grow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from backends import FRAMEWORKS
from benchmarks.goals import Results
from benchmarks.results import Spread
from common.drawing.plots import save_figure


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
