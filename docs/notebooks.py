"""Notebooks of the chapters, one for each framework, made from the pages: their words, their cells, their tabs.

A page's prose becomes Markdown, its ``{cell}`` a cell of code, its ``{source}`` the chosen framework's code to read,
its ``{figures}`` their table. The pictures are left out: a notebook draws its own.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import nbformat
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

import backends
from common.titles import title_of
from docs import figures
from docs.cells import Cell, cell_named, cells_of, read_cells

FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w-]+)\} ?(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<name>\w+): (?P<value>.*)$")
PICTURE = re.compile(r"^!\[[^\]]*\]\(.*\)$", re.M)
ROLE = re.compile(r"\{[\w-]+\}`([^`]*)`")
PAGE_LINK = re.compile(r"\[([^\[\]]*)\]\((?!https?:)[^)]*\)")

# What a notebook needs before its first cell: where the project is, as a notebook runs in its own folder.
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


def notebook(page: Path, backend: str) -> nbformat.NotebookNode:
    """Return the notebook of a chapter's page in one framework, without outputs.

    Raises OSError, LookupError and ValueError for what the page names and what cannot be had.
    """
    cells = cells_of(read_cells(page.with_suffix(".py")), backend)
    parts = list(_parts(page, cells, backend))
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    book.cells = [_first(page, backend), nbformat.v4.new_code_cell(FIRST)]
    book.cells += [
        nbformat.v4.new_code_cell(text) if kind == "code" else nbformat.v4.new_markdown_cell(text)
        for kind, text in parts
    ]
    for number, cell in enumerate(book.cells):
        cell["id"] = (
            f"{page.stem}-{number}"  # else they are drawn at random, and every build differs
        )
    return book


def write_notebooks(page: Path, folder: Path) -> list[Path]:
    """Write a page's notebook in every framework; return the files. Raises what `notebook` does."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for backend in backends.FRAMEWORKS:
        path = folder / f"{page.stem}-{backend}.ipynb"
        text = json.dumps(notebook(page, backend), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        written.append(path)
    return written


def _first(page: Path, backend: str) -> nbformat.NotebookNode:
    text = f"*{title_of(backend)}: made from docs/{page.name} of this project.*"
    return nbformat.v4.new_markdown_cell(text)


def _parts(page: Path, cells: list[Cell], backend: str) -> Iterator[tuple[str, str]]:
    """Yield ('markdown' or 'code', text) in the order of the page.

    Raises ValueError for a directive that is not known here, and where the page does not show every cell, in order.
    """
    prose: list[str] = []
    seen: list[str] = []
    lines = iter(_plain(page.read_text(encoding="utf-8")).splitlines())
    for line in lines:
        found = FENCE.match(line)
        if found is None:
            prose.append(line)
            continue
        argument, options = found["argument"].strip(), _options(lines, found["fence"])
        match found["name"]:
            case "cell":
                if text := "\n".join(prose).strip():
                    yield "markdown", text
                prose = []
                (cell,) = cell_named(cells, argument)
                seen.append(cell.name)
                yield "code", cell.code
            case "source":
                prose += ["```python", _source(page.parents[1], argument, options, backend), "```"]
            case "figures":
                prose.append(figures.shown(page.stem, argument))
            case "notebooks":
                pass
            case other:
                raise ValueError(f"a notebook cannot show the directive {other}")
    if text := "\n".join(prose).strip():
        yield "markdown", text
    if seen != [cell.name for cell in cells]:
        raise ValueError(f"the page shows the cells {seen}, not all in the order of its file")


def _options(lines: Iterator[str], fence: str) -> dict[str, str]:
    """Read the rest of a directive, up to its closing fence; return its options."""
    found = {}
    for line in lines:
        if line.startswith(fence):
            break
        if option := OPTION.match(line):
            found[option["name"]] = option["value"]
    return found


def _plain(page: str) -> str:
    """Return a page without its pictures and without what only Sphinx understands: links to other pages, roles."""
    return ROLE.sub(r"`\1`", PAGE_LINK.sub(r"\1", PICTURE.sub("", page)))


def cut(argument: str, options: Mapping[str, str], backend: str) -> tuple[str, list[str]]:
    """Return the file and the names that a ``{source}`` shows of a backend.

    A file without a folder is each backend's own; there, an option of the backend's name names others.
    """
    file, *names = argument.split()
    if "/" in file:
        return file, names
    return f"backends/{backend}/{file}", options.get(backend, "").split() or names


def _source(root: Path, argument: str, options: Mapping[str, str], backend: str) -> str:
    file, names = cut(argument, options, backend)
    return f"# {file}\n\n" + "\n\n\n".join(source_of(root / file, name) for name in names)


def source_of(path: Path, name: str) -> str:
    """Return a function, class or method of a Python file as literalinclude finds it, a method not indented.

    Raises LookupError for a name that the file does not define, and for a file that is not there or no Python.
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
