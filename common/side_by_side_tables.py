"""What the comparisons of both chapters read and how they lay it out."""

import json
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

# Of the block that a run begins with: what may differ between backends, and is shown where it does.
SETTINGS = ("device", "threads", "precision", "compile")


def read_json(path: Path) -> dict[str, Any]:
    """Return what a backend's run left in a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def new_table(console: Console, corner: str) -> Table:
    """Return a table with its first column, the rows' names."""
    # Plain columns where the output goes to a file.
    style = box.SIMPLE_HEAD if console.is_terminal else None
    table = Table(box=style, pad_edge=False, show_edge=False)
    table.add_column(corner, overflow="fold")
    return table
