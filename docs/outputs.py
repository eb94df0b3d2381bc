"""Keep the output of a chapter's cells in each framework, which the page shows below the code.

`make` runs the cells of one framework in a new process and keeps their outputs in docs/results and docs/images/cells.
`kept` reads them. Building the site runs no cells.
"""

import ast
import contextlib
import hashlib
import io
import json
import linecache
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from pprint import pformat
from types import ModuleType
from typing import Any

from backends import FRAMEWORKS
from docs.cells import Cell, cells_of, read_cells

ROOT = Path(__file__).resolve().parents[1]
DPI = 100  # a figure of six inches is as wide as the text
QUALITY = 85


@dataclass(frozen=True)
class Output:
    """The output of a cell: its text, its pictures' file names in docs/images/cells, and a digest of its code."""

    code: str
    text: str
    pictures: list[str]


def digest(cell: Cell) -> str:
    """Return a short digest of a cell's code; if it has changed, the kept output is out of date."""
    return hashlib.sha256(cell.code.encode()).hexdigest()[:16]


def _results(page: Path, backend: str) -> Path:
    return page.parent / "results" / f"{page.stem}-cells-{backend}.json"


def pictures(page: Path) -> Path:
    """Return the folder of the pictures of a page's cells."""
    return page.parent / "images" / "cells"


def kept(page: Path, backend: str) -> dict[str, Output]:
    """Return the kept outputs of a page's cells in one framework by cell name; empty if none are kept."""
    try:
        found = json.loads(_results(page, backend).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: Output(**output) for name, output in found["cells"].items()}


def measured(page: Path) -> dict[str, str]:
    """Return the versions and the machine that made a page's outputs, by framework."""
    paths = {name: _results(page, name) for name in FRAMEWORKS}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))["measured"]
        for name, path in paths.items()
        if path.exists()
    }


def make(page: Path, backend: str) -> None:
    """Run a page's cells in one framework and keep their outputs. Raises CalledProcessError if a cell fails."""
    print(f"the cells of {page.stem} in {backend}", flush=True)
    command = [sys.executable, "-m", "docs.outputs", str(page), backend]
    environment = os.environ | {"MPLBACKEND": "Agg"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def _keep(page: Path, backend: str) -> None:
    from common.system.environment import hardware, measured_with, versions
    from common.system.files import write_text

    prefix = f"{page.stem}-{backend}-"
    with tempfile.TemporaryDirectory() as folder:
        cells = cells_of(read_cells(page.with_suffix(".py")), backend)
        outputs = dict(_run(cells, Path(folder), prefix))
        pictures(page).mkdir(parents=True, exist_ok=True)
        for old in pictures(page).glob(f"{prefix}*.webp"):
            old.unlink()
        for picture in Path(folder).iterdir():
            shutil.move(picture, pictures(page) / picture.name)
    record = {
        "measured": measured_with(versions(FRAMEWORKS[backend].packages), hardware()),
        "cells": {name: asdict(output) for name, output in outputs.items()},
    }
    _results(page, backend).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    write_text(_results(page, backend), text + "\n")


def _run(cells: list[Cell], folder: Path, prefix: str) -> Iterator[tuple[str, Output]]:
    """Run cells in one namespace, as a notebook does; yield each cell's name and output.

    The pictures go into ``folder``.
    """
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    for cell in cells:
        print(f"- {cell.name}", flush=True)
        text = _printed(cell, main)
        print(text, end="", flush=True)
        slug = re.sub(r"\W+", "-", cell.name.lower()).strip("-")
        yield cell.name, Output(digest(cell), text, _drawn(folder, f"{prefix}{slug}"))


def _printed(cell: Cell, main: ModuleType) -> str:
    """Run a cell and return its printed text, with the value of its last line as in a notebook."""
    name = f"<cell {cell.name}>"
    # TensorFlow's AutoGraph and tracebacks read a function's source.
    linecache.cache[name] = (len(cell.code), None, cell.code.splitlines(keepends=True), name)
    body = ast.parse(cell.code).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), name, "exec"), vars(main))
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), vars(main))
            if not _of_matplotlib(value):
                print(pformat(value, sort_dicts=False))
    return printed.getvalue()


def _of_matplotlib(value: Any) -> bool:
    """Return whether a cell's last value is None or an object of matplotlib, which the page does not show."""
    import numpy as np

    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        return all(map(_of_matplotlib, value)) and len(value) > 0
    return value is None or type(value).__module__.startswith("matplotlib.")


def _drawn(folder: Path, name: str) -> list[str]:
    """Save the open figures of a cell, close them, and return the file names."""
    from matplotlib import pyplot as plt

    files = []
    for i, number in enumerate(plt.get_fignums(), start=1):
        files.append(f"{name}-{i}.webp" if i > 1 else f"{name}.webp")
        plt.figure(number).savefig(
            folder / files[-1],
            dpi=DPI,
            bbox_inches="tight",
            pil_kwargs={"quality": QUALITY, "method": 6},
        )
    plt.close("all")
    return files


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), sys.argv[2])
