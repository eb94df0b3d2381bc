"""The run folder: what was run, on what, and what came of it. Every file in it is whole."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_text, writing

Metrics = dict[str, Any]


class RunFolder:
    """A folder for one run: ``config.json``, ``metrics.jsonl``, pictures and weights.

    Raises UserError if the folder cannot be written or already holds a run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: list[Metrics] = []
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        if (path / "config.json").exists():
            raise UserError(f"{path} already holds a run: choose another --output")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``content`` as an indented JSON file."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def add_metrics(self, metrics: Metrics) -> None:
        """Add a line to ``metrics.jsonl``."""
        self.metrics.append(metrics)
        lines = "".join(json.dumps(line) + "\n" for line in self.metrics)
        write_text(self.path / "metrics.jsonl", lines)


def default_folder(backend: str, what: str) -> Path:
    """Return a new folder name under ``runs``: the local time, the backend and what is run."""
    path = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{backend}-{what}"
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{path.name.removesuffix(f'-{number - 1}')}-{number}")
    return path
