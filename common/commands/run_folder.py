"""The run folder: configuration, metrics and results of a run. Every file in it is complete."""

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Self

from common.errors import UserError, UserNotice
from common.system.files import check_folder, write_text, writing

Metrics = dict[str, Any]


class RunFolder:
    """A folder for one run: ``config.json``, ``metrics.jsonl``, pictures and weights.

    ``path`` is a new or an empty folder; None makes a new one in ``runs``. Raises UserError if it is not empty or
    cannot be written. ``with`` removes a new folder that is still empty at the end of the block.
    """

    def __init__(self, path: Path | None, name: str) -> None:
        self.metrics: list[Metrics] = []
        self.made = path is None or not path.exists()
        if path is None:
            self.path = _new_folder(name)
            return
        self.path = path
        check_output(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Return the folder of an earlier run, with its metrics."""
        folder = cls.__new__(cls)
        folder.path, folder.metrics, folder.made = path, [], False
        metrics = path / "metrics.jsonl"
        try:
            lines = metrics.read_text(encoding="utf-8").splitlines()
            folder.metrics = [dict(json.loads(line)) for line in lines]
        except FileNotFoundError:
            pass
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{metrics} is damaged: remove it and resume again; the checkpoints have its lines too"
            ) from error
        return folder

    def set_metrics(self, lines: Sequence[Metrics], **training: Any) -> None:
        """Replace the lines of one training in ``metrics.jsonl`` by ``lines``."""
        others = [
            line for line in self.metrics if any(line.get(k) != v for k, v in training.items())
        ]
        if self.metrics != [*others, *lines]:
            self.metrics = [*others, *lines]
            self._write_metrics()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.made:
            with suppress(OSError):  # not empty
                self.path.rmdir()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``content`` as an indented JSON file."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def add_metrics(self, metrics: Metrics) -> None:
        """Add a line to ``metrics.jsonl``. If it cannot be written, print a notice: the next line may be."""
        self.metrics.append(metrics)
        self._write_metrics()

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(line) + "\n" for line in self.metrics)
        try:
            write_text(self.path / "metrics.jsonl", lines)
        except UserError as error:
            warnings.warn(UserNotice(f"{error}; the training goes on"), stacklevel=3)


def check_output(path: Path | None) -> None:
    """Raise UserError if ``path`` cannot be the folder of a run. Creates nothing."""
    with writing(path or Path("runs")):
        if path is not None and path.is_dir() and any(path.iterdir()):
            raise UserError(f"{path} is not empty: choose another --output")
        check_folder(path or Path("runs"), f"cannot write {path}", "choose another --output")


def _new_folder(name: str) -> Path:
    """Make and return a folder in ``runs``, named by the local time and ``name``, with a number if that is taken."""
    path = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    for number in count(2):
        try:
            with writing(path.parent):
                path.parent.mkdir(exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError:
            path = path.with_name(f"{path.name.removesuffix(f'-{number - 1}')}-{number}")
    raise AssertionError  # count() has no end
