"""Notebooks of the chapters, one for each framework, made from the pages: their words, their cells, their tabs.

A page's prose becomes Markdown, its ``{cell}`` a cell of code, its ``{source}`` the chosen framework's code to read.
What only a page shows, its pictures and figures, is left out: the notebook draws and computes its own.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from sphinx.pycode import ModuleAnalyzer

from docs.cells import Cell, cell_named, cells_of, read_cells
from docs.figures import ROOT
from docs.tabs import TITLES

DOCS = ROOT / "docs"
CHAPTERS = ("image-augmentation", "kaggle-cifar10")
FENCE = re.compile(r"^```\{(?P<name>[\w-]+)\} ?(?P<argument>.*)$")
OPTION = re.compile(r"^:(?P<name>\w+): (?P<value>.*)$")
PICTURE = re.compile(r"^!\[.*\]\(.*\)$")
ROLE = re.compile(r"\{[\w-]+\}`([^`]*)`")
PAGE_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)[^)]*\)")

# What a notebook needs before its first cell: where the project is, as a notebook runs in its own folder.
FIRST = """\
# Run this notebook from a checkout of the project, or from a folder in one.
import os
import sys
from pathlib import Path

root = next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "run.py").exists())
os.chdir(root)
sys.path.insert(0, str(root))
%matplotlib inline"""


def notebook(chapter: str, backend: str) -> nbformat.NotebookNode:
    """Return the notebook of a chapter in one framework, without outputs."""
    page = (DOCS / f"{chapter}.md").read_text(encoding="utf-8")
    cells = read_cells(DOCS / f"{chapter}.py")
    parts = list(_parts(page, cells_of(cells, backend), backend))
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    book.cells = [_first(chapter, backend), nbformat.v4.new_code_cell(FIRST)]
    book.cells += [
        nbformat.v4.new_code_cell(text) if kind == "code" else nbformat.v4.new_markdown_cell(text)
        for kind, text in parts
    ]
    for number, cell in enumerate(book.cells):
        cell["id"] = f"{chapter}-{number}"  # else they are drawn at random, and every build differs
    return book


def write_notebooks(folder: Path) -> list[Path]:
    """Write the notebook of every chapter and framework; return the files."""
    from backends import FRAMEWORKS

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chapter in CHAPTERS:
        for backend in FRAMEWORKS:
            path = folder / f"{chapter}-{backend}.ipynb"
            text = json.dumps(notebook(chapter, backend), indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")
            written.append(path)
    return written


def _first(chapter: str, backend: str) -> nbformat.NotebookNode:
    text = f"*{TITLES[backend]}: made from docs/{chapter}.md of this project.*"
    return nbformat.v4.new_markdown_cell(text)


def _parts(page: str, cells: list[Cell], backend: str) -> Iterator[tuple[str, str]]:
    """Yield ('markdown' or 'code', text) in the order of the page.

    Raises ValueError for a directive that is not known here, and where the page does not show every cell, in order.
    """
    prose: list[str] = []
    seen: list[str] = []
    lines = iter(page.splitlines())
    for line in lines:
        found = FENCE.match(line)
        if found is None:
            if not PICTURE.match(line):
                prose.append(_plain(line))
            continue
        argument, options = found["argument"].strip(), _options(lines)
        match found["name"]:
            case "cell":
                if text := "\n".join(prose).strip():
                    yield "markdown", text
                prose = []
                (cell,) = cell_named(cells, argument)
                seen.append(cell.name)
                yield "code", cell.code
            case "source":
                prose += ["```python", _source(argument, options, backend), "```"]
            case "figures" | "notebooks":
                pass
            case other:
                raise ValueError(f"a notebook cannot show the directive {other}")
    if text := "\n".join(prose).strip():
        yield "markdown", text
    if seen != [cell.name for cell in cells]:
        raise ValueError(f"the page shows the cells {seen}, not all in the order of its file")


def _options(lines: Iterator[str]) -> dict[str, str]:
    """Read the rest of a directive, up to its closing fence; return its options."""
    found = {}
    for line in lines:
        if line.startswith("```"):
            break
        if option := OPTION.match(line):
            found[option["name"]] = option["value"]
    return found


def _plain(line: str) -> str:
    """Return a line without what only Sphinx understands: links to other pages, roles."""
    return ROLE.sub(r"`\1`", PAGE_LINK.sub(r"\1", line))


def _source(argument: str, options: dict[str, str], backend: str) -> str:
    file, *names = argument.split()
    if "/" not in file:
        file, names = f"backends/{backend}/{file}", options.get(backend, "").split() or names
    return f"# {file}\n\n" + "\n\n\n".join(source_of(ROOT / file, name) for name in names)


def source_of(path: Path, name: str) -> str:
    """Return a function, class or method of a Python file as it stands there, as literalinclude finds it.

    Raises KeyError for a name that the file does not define.
    """
    tags = ModuleAnalyzer.for_file(path, path.stem).find_tags()
    _, first, last = tags[name]
    return "\n".join(path.read_text(encoding="utf-8").splitlines()[first - 1 : last]).rstrip()
