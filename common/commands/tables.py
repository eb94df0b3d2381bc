"""Read the results of several backends, and lay them out in tables; shared by both chapters."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

START_AND_MEMORY = (
    "Start-up is the time until the framework is imported. "
    "Memory is the peak memory of the process, without worker processes."
)
# Lines of the opening block that are shown in the table if they differ between backends.
SETTINGS = ("device", "threads", "precision", "compile")


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file in a run folder."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def read_run(folder: Path, packages: Sequence[str]) -> dict[str, Any]:
    """Return the versions, settings and metrics by epoch of a run, which both chapters compare."""
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
    """Return each backend's curves by title, from its metrics by epoch."""
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
    """Add a column for each backend, and rows for its version and the settings that differ."""
    for name in results:
        table.add_column(name, justify="right", overflow="fold")
    table.add_row("version", *(next(iter(r["versions"].values())) for r in results.values()))
    for setting in SETTINGS:
        values = [result[setting] for result in results.values()]
        if len(set(values)) > 1:
            table.add_row(setting, *values)


def new_table(console: Console, corner: str) -> Table:
    """Return a table with its first column, the names of the rows."""
    # Plain columns if the output goes to a file.
    style = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=style, pad_edge=False, show_edge=False)
    table.add_column(corner, overflow="fold")
    return table
