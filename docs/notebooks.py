"""Make a notebook of each chapter and framework from the page: its text, its cells and its tabs.

Prose becomes Markdown, ``{cell}`` a code cell, ``{source}`` the framework's code as text, and ``{figures}`` a table. A
notebook has only its own framework's tabs, ``{only}`` blocks and table columns. Pictures and ``{differs}`` notes are
left out: a notebook draws its own pictures and compares nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain, groupby
from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

import backends
from docs import figures
from docs.cells import Cell, cell_named, cells_of, read_cells, with_settings
from docs.repository import repository

FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w-]+)\} ?(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<name>\w+): (?P<value>.*)$")
PICTURE = re.compile(r"^!\[[^\]]*\]\(.*\)$", re.M)
ROLE = re.compile(r"\{[\w-]+\}`([^`]*)`")
COLUMN = re.compile(r"(?<!\\)\|")
PAGE_LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:)[^)]*\)")

# Colab has no checkout, so this cell makes one where `FIRST` finds it. Colab's own PyTorch or TensorFlow stays if
# pyproject.toml allows its version.
COLAB = """\
# In Google Colab, get the project and install what is missing. Elsewhere, do nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 {repository} /content/three-tabs
    %cd -q /content/three-tabs
    %pip install --quiet --editable '.[{extra}]'"""

# A notebook runs in its own folder, so this cell finds the project first.
FIRST = """\
# Run this notebook from a checkout of three-tabs, or from a folder in one.
import os
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
root = next((folder for folder in folders if (folder / "common" / "book.py").exists()), None)
if root is None:
    raise RuntimeError(f"this notebook needs a checkout of three-tabs around it: {folders[0]} is in none")
os.chdir(root)
sys.path.insert(0, str(root))
%matplotlib inline"""


def notebook(
    page: Path, backend: str, settings: Mapping[str, Any] | None = None, address: str = ""
) -> nbformat.NotebookNode:
    """Return the notebook of a chapter's page in one framework, without outputs.

    ``settings`` replaces values in the page's cell ``settings``. With the ``address`` of the repository, the notebook
    of a framework that runs in Google Colab gets a cell that prepares Colab. Raises OSError, LookupError and ValueError
    if the page or ``settings`` names something that does not exist.
    """
    cells = cells_of(read_cells(page.with_suffix(".py")), backend)
    cells = with_settings(cells, settings or {})
    parts = list(_parts(page, cells, backend))
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    book.cells = [_first(page, backend)]
    if address and backend in in_colab():
        code = COLAB.format(repository=address, extra=backend)
        book.cells.append(nbformat.v4.new_code_cell(code))
    book.cells.append(nbformat.v4.new_code_cell(FIRST))
    book.cells += [
        nbformat.v4.new_code_cell(text) if kind == "code" else nbformat.v4.new_markdown_cell(text)
        for kind, text in parts
    ]
    for number, cell in enumerate(book.cells):
        cell["id"] = f"{page.stem}-{number}"  # the default is random: every build would differ
    return book


def in_colab() -> list[str]:
    """Return the names of the frameworks that run in Google Colab, which has NumPy 2."""
    return [name for name, it in backends.FRAMEWORKS.items() if it.newest_numpy is None]


def write_notebooks(page: Path, folder: Path) -> list[Path]:
    """Write a page's notebook in every framework and return the files. Raises the errors of `notebook`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for backend in backends.FRAMEWORKS:
        path = folder / f"{page.stem}-{backend}.ipynb"
        book = notebook(page, backend, address=repository())
        text = json.dumps(book, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        written.append(path)
    return written


def _first(page: Path, backend: str) -> nbformat.NotebookNode:
    text = f"*{backends.FRAMEWORKS[backend].title}: made from docs/{page.name} of this project.*"
    return nbformat.v4.new_markdown_cell(text)


def _parts(page: Path, cells: list[Cell], backend: str) -> Iterator[tuple[str, str]]:
    """Yield ('markdown' or 'code', text) in the order of the page.

    Raises ValueError for an unknown directive or framework, and if the page does not show every cell in order.
    """
    prose: list[str] = []
    seen: list[str] = []
    lines = iter(_plain(page.read_text(encoding="utf-8")).splitlines())
    # A directive's content is read before the remaining lines.
    while (line := next(lines, None)) is not None:
        found = FENCE.match(line)
        if found is None:
            prose.append(line)
            continue
        argument, content = found["argument"].strip(), list(_content(lines, found["fence"]))
        options = {it["name"]: it["value"] for it in map(OPTION.match, content) if it}
        match found["name"]:
            case "cell":
                if text := _own_columns(prose, backend):
                    yield "markdown", text
                prose = []
                (cell,) = cell_named(cells, argument)
                seen.append(cell.name)
                yield "code", cell.code
            case "source":
                prose += ["```python", _source(page.parents[1], argument, options, backend), "```"]
            case "figures":
                prose += figures.shown(page.stem, argument).splitlines()
            case "only":
                if check_framework(argument) == backend:
                    lines = chain(content, lines)
            case "notebooks" | "differs":
                pass
            case other:
                raise ValueError(f"a notebook cannot show the directive {other}")
    if text := _own_columns(prose, backend):
        yield "markdown", text
    if seen != [cell.name for cell in cells]:
        raise ValueError(f"the page shows the cells {seen}, not all in the order of its file")


def _content(lines: Iterator[str], fence: str) -> Iterator[str]:
    """Yield the rest of a directive up to its closing fence."""
    for line in lines:
        if line.startswith(fence) and not line.strip().strip(fence[0]):
            return
        yield line


def check_framework(name: str) -> str:
    """Return a framework's name. Raises ValueError for an unknown one."""
    if name not in backends.FRAMEWORKS:
        raise ValueError(
            f"there is no framework '{name}': choose from {', '.join(backends.FRAMEWORKS)}"
        )
    return name


def _own_columns(lines: list[str], backend: str) -> str:
    """Return text whose tables with a column for each framework keep only the first column and this framework's.

    Raises ValueError for a row of such a table that has too few cells.
    """
    titles = {framework.title for framework in backends.FRAMEWORKS.values()}
    text: list[str] = []
    for is_table, found in groupby(lines, lambda line: line.startswith("|")):
        rows = list(found)
        cells = [[cell.strip() for cell in COLUMN.split(row)[1:-1]] for row in rows]
        if is_table and titles <= {*cells[0]}:
            own = cells[0].index(backends.FRAMEWORKS[backend].title)
            if short := [
                row for row, columns in zip(rows, cells, strict=True) if len(columns) <= own
            ]:
                raise ValueError(f"the row '{short[0]}' has too few cells")
            rows = [f"| {columns[0]} | {columns[own]} |" for columns in cells]
        text += rows
    return "\n".join(text).strip()


def _plain(page: str) -> str:
    """Return a page without pictures, roles and links to other pages."""
    return ROLE.sub(r"`\1`", PAGE_LINK.sub(r"\1", PICTURE.sub("", page)))


def cut(argument: str, options: Mapping[str, str], backend: str) -> tuple[str, list[str]]:
    """Return the file and the names that ``{source}`` shows for a backend.

    A file without a folder is each backend's own, and so is one with BACKEND in its name. An option named after the
    backend replaces the names, and the file too if it begins with one.
    """
    file, *names = argument.split()
    if "/" in file:
        return file.replace("BACKEND", backend), names
    others = options.get(backend, "").split()
    if others and others[0].endswith(".py"):
        file, *others = others
    return f"backends/{backend}/{file}", others or names


def _source(root: Path, argument: str, options: Mapping[str, str], backend: str) -> str:
    file, names = cut(argument, options, backend)
    return f"# {file}\n\n" + "\n\n\n".join(source_of(root / file, name) for name in names)


def source_of(path: Path, name: str) -> str:
    """Return a function, class or method of a Python file as literalinclude does; methods are not indented.

    Raises LookupError for a name that the file does not define, or a file that cannot be read as Python.
    """
    try:
        tags = ModuleAnalyzer.for_file(path, path.stem).find_tags()
    except PycodeError as error:
        raise LookupError(f"{path} cannot be read: {error}") from error
    if name not in tags:
        raise LookupError(f"{path} defines no {name}")
    _, first, last = tags[name]
    lines = path.read_text(encoding="utf-8").splitlines()[first - 1 : last]
    return dedent("\n".join(lines)).rstrip()
