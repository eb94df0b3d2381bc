"""The figures of the parity report: difference maps, losses with their envelope, differences by layer and by step."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.parity.checks.free_running import Envelope
from common.parity.comparison import Array, Difference
from common.parity.results import BackendResults, Pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Styles = Mapping[str, Mapping[str, Any]]  # backend: arguments of matplotlib's `plot`


def difference_maps(true: Pictures, results: Sequence[BackendResults]) -> Figure:
    """Draw a row for each operation: the reference's image, and each backend's difference from it, pixel by pixel."""
    from matplotlib.figure import Figure

    columns = 1 + len(results)
    figure = Figure(figsize=(1.7 * columns + 1.2, 1.75 * len(true)), layout="constrained")
    grid = figure.subplots(len(true), columns, squeeze=False)
    maps = {
        (name, result.backend): _difference(result.pictures.get(name), image)
        for name, image in true.items()
        for result in results
    }
    most = max(float(np.nan_to_num(m).max()) for m in maps.values())
    for row, (name, image) in zip(grid, true.items(), strict=True):
        row[0].imshow(np.moveaxis(image, 0, -1).clip(0, 1))
        row[0].set_ylabel(name, fontsize="small")
        for axis, result in zip(row[1:], results, strict=True):
            difference = maps[name, result.backend]
            drawn = axis.imshow(difference, cmap="magma", vmin=0, vmax=most or 1)
            text = (
                f"at most {difference.max():.1e}"
                if np.isfinite(difference).all()
                else "not comparable"
            )
            axis.set_xlabel(text, fontsize="x-small")
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(grid[0], ("reference", *(r.backend for r in results)), strict=True):
        axis.set_title(title, fontsize="medium")
    figure.colorbar(drawn, ax=grid, shrink=0.4, label="difference, of 0..1")
    return figure


def _difference(picture: Array | None, image: Array) -> Array:
    """Return the largest difference over the channels for each pixel; nan if the shapes differ."""
    if picture is None or picture.shape != image.shape:
        return np.full(image.shape[1:], np.nan)
    difference: Array = np.abs(picture - image).max(axis=0)
    return difference


def losses(envelope: Envelope, results: Sequence[BackendResults], styles: Styles) -> Figure:
    """Draw the losses of free-running training: the reference's, its envelope, and each backend's."""
    figure, axis = _axis((8, 4))
    steps = np.arange(1, len(envelope.losses) + 1)
    true, width = np.array(envelope.losses), np.array(envelope.widths())
    axis.fill_between(
        steps, true - width, true + width, color="0.85", label="envelope of rounding errors"
    )
    axis.plot(steps, true, color="0.5", linewidth=1, label="reference, float64")
    for result in results:
        shown = result.losses[: len(steps)]
        axis.plot(steps[: len(shown)], shown, label=result.backend, **styles[result.backend])
    axis.set(xlabel="step", ylabel="mean loss of the batch", xlim=(0.5, len(steps) + 0.5))
    axis.legend(fontsize="small", loc="upper right")
    return figure


def growth(
    series: Mapping[str, Sequence[Difference]],
    styles: Styles,
    limit: float,
    xlabel: str,
    names: bool = False,
) -> Figure:
    """Draw each backend's difference from the reference for each place, on a logarithmic scale."""
    figure, axis = _axis((8, 5 if names else 3.6))
    for backend, found in series.items():
        # A logarithmic scale cannot show 0: draw it as 1e-17, below float64's precision.
        values = [max(d.value, 1e-17) for d in found]
        axis.plot(range(1, len(values) + 1), values, label=backend, **styles[backend])
    axis.axhline(limit, color="0.4", linestyle="-", linewidth=1, label="tolerance")
    axis.set(yscale="log", xlabel=xlabel, ylabel="largest difference")
    if names:
        places = [d.place for d in next(iter(series.values()))]
        axis.set_xticks(range(1, len(places) + 1), places, rotation=90, fontsize="x-small")
    axis.legend(fontsize="small")
    return figure


def _axis(size: tuple[float, float]) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.4)
    return figure, axis


def as_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
