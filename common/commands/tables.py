"""What the comparisons of both chapters read and how they lay it out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

START_AND_MEMORY = (
    "Start-up lasts until the framework is imported. "
    "Memory is the most that the process held at once, without worker processes."
)
# Of the block that a run begins with: what may differ between backends, and is shown where it does.
SETTINGS = ("device", "threads", "precision", "compile")


def read_json(path: Path) -> dict[str, Any]:
    """Return what a backend's run left in a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_run(folder: Path, packages: Sequence[str]) -> dict[str, Any]:
    """Return what a backend's run left that both chapters compare: versions, settings, and metrics by epoch."""
    config = read_json(folder / "config.json")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "versions": {package: config["versions"][package] for package in packages},
        **{name: config["description"].get(name, "") for name in SETTINGS},
        "epochs": [json.loads(line) for line in lines],
    }


def curves_by_backend(
    epochs: Mapping[str, Sequence[Mapping[str, Any]]], held_out: str
) -> dict[str, dict[str, list[float]]]:
    """Return the curves of each backend by their titles, from its metrics by epoch."""
    titles = {
        "train loss": "train_loss",
        "train accuracy": "train_acc",
        f"{held_out} accuracy": f"{held_out}_acc",
    }
    return {
        name: {title: [line[metric] for line in lines] for title, metric in titles.items()}
        for name, lines in epochs.items()
    }


def add_versions(table: Table, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Add a column for each backend, its version, and the settings that are not the same in all."""
    for name in results:
        table.add_column(name, justify="right", overflow="fold")
    table.add_row("version", *(next(iter(r["versions"].values())) for r in results.values()))
    for setting in SETTINGS:
        values = [result[setting] for result in results.values()]
        if len(set(values)) > 1:
            table.add_row(setting, *values)


def new_table(console: Console, corner: str) -> Table:
    """Return a table with its first column, the rows' names."""
    # Plain columns where the output goes to a file.
    style = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=style, pad_edge=False, show_edge=False)
    table.add_column(corner, overflow="fold")
    return table
