"""The chapters' cells: Python files in the percent format, which the pages show and the notebooks run.

A cell begins with ``# %% its name``; one that is written in each framework in its own way comes once for each, as
``# %% its name [pytorch]``. What stands before the first cell belongs to none.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import backends

MARKER = re.compile(r"# %% (?P<name>[^\[\]]+?)(?: \[(?P<backend>\w+)\])?")
LIKE_A_MARKER = re.compile(r"\s*#\s*%%")


@dataclass(frozen=True)
class Cell:
    """A cell's name, the backend whose it is or None for all of them, and its code."""

    name: str
    backend: str | None
    code: str


def read_cells(path: Path) -> list[Cell]:
    """Return the cells of a file, in order.

    Raises ValueError for a name that comes twice, for an unknown framework, for a cell that not all of them have, and
    for a line that is nearly a cell's first: its code would run as that of the cell before.
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
    whose: dict[str, list[str | None]] = {}
    for cell in cells:
        whose.setdefault(cell.name, []).append(cell.backend)
    for name, found in whose.items():
        if found != [None] and sorted(map(str, found)) != sorted(backends.FRAMEWORKS):
            raise ValueError(f"{path}: the cell '{name}' is there for {found}, not once for all")


def cells_of(cells: list[Cell], backend: str) -> list[Cell]:
    """Return the cells that one framework runs."""
    return [cell for cell in cells if cell.backend in (None, backend)]


def cell_named(cells: list[Cell], name: str) -> list[Cell]:
    """Return the cell of that name: one, or one for each framework. Raises LookupError where there is none."""
    found = [cell for cell in cells if cell.name == name]
    if not found:
        raise LookupError(f"there is no cell '{name}'")
    return found
