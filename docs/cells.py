"""Read the chapters' cells: Python files in the percent format, which the pages show and the notebooks run.

A cell begins with ``# %% its name``. If its code differs by framework, it comes once for each, as ``# %% its name
[pytorch]``. Code before the first cell belongs to no cell. The cell named ``settings`` holds only lines ``name =
literal``; the tests run the notebooks with other values.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import backends

MARKER = re.compile(r"# %% (?P<name>[^\[\]]+?)(?: \[(?P<backend>\w+)\])?")
LIKE_A_MARKER = re.compile(r"\s*#\s*%%")
SETTINGS = "settings"


@dataclass(frozen=True)
class Cell:
    """A cell's name, its backend or None for all of them, and its code."""

    name: str
    backend: str | None
    code: str


def read_cells(path: Path) -> list[Cell]:
    """Return the cells of a file, in order.

    Raises ValueError for a name that comes twice, an unknown framework, or a cell that some frameworks lack. Also
    raises it for settings that are not ``name = literal``, and for a line that is almost a marker: its code would
    silently join the cell before.
    """
    cells: list[Cell] = []
    lines: list[str] = []
    name, backend = "", None
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate([*text.splitlines(), "# %% the end"], start=1):
        found = MARKER.fullmatch(line)
        if found is None:
            if LIKE_A_MARKER.match(line):
                raise ValueError(f"{path}, line {number}: '{line}' is not '# %% NAME [BACKEND]'")
            lines.append(line)
            continue
        if name:
            cells.append(Cell(name, backend, "\n".join(lines).strip("\n")))
        name, backend, lines = found["name"], found["backend"], []
    _check(cells, path)
    return cells


def _check(cells: list[Cell], path: Path) -> None:
    owners: dict[str, list[str | None]] = {}
    for cell in cells:
        owners.setdefault(cell.name, []).append(cell.backend)
        if cell.name == SETTINGS:
            try:
                for line in cell.code.splitlines():
                    _setting(line)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    for name, found in owners.items():
        if found != [None] and sorted(map(str, found)) != sorted(backends.FRAMEWORKS):
            raise ValueError(
                f"{path}: the cell '{name}' exists for {found}: write it once, or for each framework"
            )


def _setting(line: str) -> str | None:
    """Return the name that a line of the cell ``settings`` sets, or None for a blank line or a comment.

    Raises ValueError for anything that is not ``name = literal``.
    """
    try:
        match ast.parse(line).body:
            case []:
                return None
            case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
                ast.literal_eval(value)
                return name
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"the cell '{SETTINGS}' holds '{line}', which is not 'name = literal'")


def with_settings(cells: list[Cell], values: Mapping[str, Any]) -> list[Cell]:
    """Return the cells, with these values in the cell ``settings``.

    Raises ValueError for a name that the cell does not set.
    """
    unknown = set(values)
    changed = []
    for cell in cells:
        if cell.name == SETTINGS:
            lines = cell.code.splitlines()
            for i, name in enumerate(map(_setting, lines)):
                if name is not None and name in values:
                    lines[i] = f"{name} = {values[name]!r}"
                    unknown.discard(name)
            cell = replace(cell, code="\n".join(lines))
        changed.append(cell)
    if unknown:
        raise ValueError(f"the cell '{SETTINGS}' does not set {', '.join(sorted(unknown))}")
    return changed


def cells_of(cells: list[Cell], backend: str) -> list[Cell]:
    """Return the cells that one framework runs."""
    return [cell for cell in cells if cell.backend in (None, backend)]


def cell_named(cells: list[Cell], name: str) -> list[Cell]:
    """Return the cell of a name: one, or one for each framework. Raises LookupError if there is none."""
    found = [cell for cell in cells if cell.name == name]
    if not found:
        raise LookupError(f"there is no cell '{name}'")
    return found
