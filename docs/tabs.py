"""Sphinx directives that take code out of this project, and lay the three frameworks side by side.

``{source} trainer.py train_batch_ch13`` shows that function of each backend's file in tabs, ``{source}
common/sampling.py decide`` that of one file, ``{cell} the network`` a cell of the page's own Python file, ``{trap}
lazy_layers`` an example that fails and the one that mends it. What is not there is a warning, and warnings are errors:
a renamed function fails the build.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import backends
from docs import figures
from docs.cells import Cell, cell_named, read_cells
from docs.figures import RESULTS, ROOT

TITLES = {"pytorch": "PyTorch", "mxnet": "MXNet", "tensorflow": "TensorFlow"}


def tab_set(contents: dict[str, str]) -> str:
    """Return MyST text of a tab for each framework; all sets of a site switch together."""
    items = (
        f"::::{{tab-item}} {TITLES[name]}\n:sync: {name}\n\n{text}\n::::"
        for name, text in contents.items()
    )
    return ":::::{tab-set}\n:sync-group: framework\n\n" + "\n".join(items) + "\n:::::\n"


def source_block(file: str, name: str) -> str:
    """Return MyST text that shows a function or class of a file, under the file's name."""
    return f"```{{literalinclude}} /../{file}\n:pyobject: {name}\n:caption: {file}\n```"


class Source(SphinxDirective):
    """Show functions or classes: ``FILE NAME...``, where a FILE without a folder is that of each backend.

    The options ``pytorch``, ``mxnet`` and ``tensorflow`` name others in one of them, where its tab has another cut.
    """

    required_arguments = 2
    final_argument_whitespace = True
    option_spec = dict.fromkeys(backends.FRAMEWORKS, directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        """Return the blocks, in tabs where they are the backends'."""
        file, names = self.arguments[0], self.arguments[1].split()
        if "/" in file:
            return self.parse_text_to_nodes(_blocks(file, names))
        contents = {
            backend: _blocks(
                f"backends/{backend}/{file}", self.options.get(backend, "").split() or names
            )
            for backend in backends.FRAMEWORKS
        }
        return self.parse_text_to_nodes(tab_set(contents))


def _blocks(file: str, names: list[str]) -> str:
    return "\n\n".join(source_block(file, name) for name in names)


class Trap(SphinxDirective):
    """Show an example of docs/examples/traps beside the one that mends it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both blocks, as columns where there is room."""
        file = f"docs/examples/traps/{self.arguments[0]}.py"
        items = (
            f"::::{{grid-item}}\n```{{literalinclude}} /../{file}\n:pyobject: {name}\n:caption: {caption}\n```\n::::"
            for name, caption in {"trap": "the trap", "fixed": "mended"}.items()
        )
        grid = ":::::{grid} 1\n:gutter: 2\n:class-container: trap\n\n" + "\n".join(items)
        return self.parse_text_to_nodes(grid + "\n:::::\n")


class CellDirective(SphinxDirective):
    """Show a cell of the Python file that stands beside the page, by its name."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the code, in tabs where each framework has its own."""
        path = Path(self.env.doc2path(self.env.docname)).with_suffix(".py")
        self.env.note_dependency(str(path))
        try:
            cells = cell_named(read_cells(path), self.arguments[0])
        except KeyError:
            raise self.error(f"{path} has no cell '{self.arguments[0]}'") from None
        return self.parse_text_to_nodes(shown(cells))


def shown(cells: list[Cell]) -> str:
    """Return MyST text of a cell, or of what it is in each framework."""
    blocks = {cell.backend: f"```python\n{cell.code}\n```" for cell in cells}
    if None in blocks:
        return blocks[None]
    return tab_set({name: blocks[name] for name in backends.FRAMEWORKS})


class Notebooks(SphinxDirective):
    """Offer the page's notebooks for download, one for each framework."""

    def run(self) -> list[nodes.Node]:
        """Return a line of links."""
        links = (
            f"{{download}}`{title} </../build/notebooks/{self.env.docname}-{name}.ipynb>`"
            for name, title in TITLES.items()
        )
        return self.parse_text_to_nodes("This page as a notebook: " + ", ".join(links) + ".")


class Figures(SphinxDirective):
    """Show the numbers that the page's command gave."""

    def run(self) -> list[nodes.Node]:
        """Return the table, with where it comes from."""
        page = self.env.docname
        self.env.note_dependency(str(RESULTS / f"{page}.json"))
        return self.parse_text_to_nodes(figures.shown(page))


def _write_notebooks(_: Sphinx) -> None:
    from docs.notebooks import write_notebooks  # which imports this module

    write_notebooks(ROOT / "build" / "notebooks")


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directives known to Sphinx."""
    app.add_directive("source", Source)
    app.add_directive("cell", CellDirective)
    app.add_directive("trap", Trap)
    app.add_directive("notebooks", Notebooks)
    app.add_directive("figures", Figures)
    app.connect("builder-inited", _write_notebooks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
