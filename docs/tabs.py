"""Sphinx directives that take code out of this project, and lay the three frameworks side by side.

``{source} trainer.py train_batch_ch13`` shows that function of each backend's file in tabs, ``{source}
common/sampling.py decide`` that of one file, ``{cell} the network`` a cell of the page's own Python file, ``{trap}
lazy_layers`` an example that fails and the one that mends it, ``{figures} training`` what a run came to. What is not
there is an error of the page: a renamed function fails the build.
"""

import itertools
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import backends
from common.titles import title_of
from docs import figures
from docs.cells import Cell, cell_named, read_cells
from docs.notebooks import cut, source_of, write_notebooks


def tab_set(contents: dict[str, str]) -> str:
    """Return MyST text of a tab for each framework; all sets of a site switch together."""
    items = (
        f"::::{{tab-item}} {title_of(name)}\n:sync: {name}\n\n{text}\n::::"
        for name, text in contents.items()
    )
    return ":::::{tab-set}\n:sync-group: framework\n\n" + "\n".join(items) + "\n:::::\n"


class Shown(SphinxDirective):
    """A directive that shows code of the project whose docs these are, or names the page and line that ask for none."""

    @property
    def page(self) -> Path:
        """The page that the directive stands on."""
        return Path(self.env.doc2path(self.env.docname))

    @property
    def root(self) -> Path:
        """The folder in which the docs are."""
        return Path(self.env.srcdir).parent

    def source_block(self, file: str, name: str, caption: str) -> str:
        """Return MyST text that shows a function, class or method of a file."""
        try:
            source_of(self.root / file, name)
        except LookupError as error:
            raise self.error(str(error)) from error
        dedent = ":dedent:\n" if "." in name else ""
        return (
            f"```{{literalinclude}} /../{file}\n:pyobject: {name}\n:caption: {caption}\n{dedent}```"
        )


class Source(Shown):
    """Show functions or classes: ``FILE NAME...``, where a FILE without a folder is that of each backend.

    The options ``pytorch``, ``mxnet`` and ``tensorflow`` name others in one of them, where its tab has another cut.
    """

    required_arguments = 2
    final_argument_whitespace = True
    option_spec = dict.fromkeys(backends.FRAMEWORKS, directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        """Return the blocks, in tabs where they are the backends'."""
        argument = " ".join(self.arguments)
        shown = {name: cut(argument, self.options, name) for name in backends.FRAMEWORKS}
        first, *others = shown.values()
        if all(other == first for other in others):  # a file of no backend
            return self.parse_text_to_nodes(self.blocks(*first))
        contents = {name: self.blocks(*place) for name, place in shown.items()}
        return self.parse_text_to_nodes(tab_set(contents))

    def blocks(self, file: str, names: list[str]) -> str:
        """Return MyST text that shows what is named of a file, under the file's name."""
        return "\n\n".join(self.source_block(file, name, file) for name in names)


class Trap(Shown):
    """Show an example of docs/examples/traps beside the one that mends it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both blocks, as columns where there is room."""
        file = f"docs/examples/traps/{self.arguments[0]}.py"
        items = (
            f"::::{{grid-item}}\n{self.source_block(file, name, caption)}\n::::"
            for name, caption in {"trap": "the trap", "fixed": "mended"}.items()
        )
        grid = ":::::{grid} 1\n:gutter: 2\n:class-container: trap\n\n" + "\n".join(items)
        return self.parse_text_to_nodes(grid + "\n:::::\n")


class CellDirective(Shown):
    """Show a cell of the Python file that stands beside the page, by its name."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the code, in tabs where each framework has its own."""
        path = self.page.with_suffix(".py")
        try:
            cells = cell_named(read_cells(path), self.arguments[0])
        except (OSError, LookupError, ValueError) as error:
            raise self.error(f"{path.name}: {error}") from error
        return self.parse_text_to_nodes(shown(cells))


def shown(cells: list[Cell]) -> str:
    """Return MyST text of a cell, or of what it is in each framework."""
    blocks = {cell.backend: f"```python\n{cell.code}\n```" for cell in cells}
    if None in blocks:
        return blocks[None]
    return tab_set({name: blocks[name] for name in backends.FRAMEWORKS})


class Notebooks(Shown):
    """Make the page's notebooks, one for each framework, and offer them for download."""

    def run(self) -> list[nodes.Node]:
        """Return a line of links."""
        try:
            write_notebooks(self.page, self.root / "build" / "notebooks")
        except (OSError, LookupError, ValueError) as error:
            raise self.error(f"no notebooks: {error}") from error
        links = (
            f"{{download}}`{title_of(name)} </../build/notebooks/{self.env.docname}-{name}.ipynb>`"
            for name in backends.FRAMEWORKS
        )
        return self.parse_text_to_nodes(
            f"This page as a notebook: {', '.join(links)}. Put it into a checkout of the project, and open it "
            "there with `uv run --extra all --with jupyterlab jupyter lab`."
        )


class Figures(Shown):
    """Show the table that one of the page's runs came to: ``training``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table, with where it comes from."""
        try:
            text = figures.shown(self.page.stem, self.arguments[0])
        except OSError as error:
            raise self.error(f"no figures: {error}") from error
        found = self.parse_text_to_nodes(text)
        for table in itertools.chain(*(node.findall(nodes.table) for node in found)):
            table["classes"].append("figures")
        return found


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directives known to Sphinx."""
    app.add_directive("source", Source)
    app.add_directive("cell", CellDirective)
    app.add_directive("trap", Trap)
    app.add_directive("notebooks", Notebooks)
    app.add_directive("figures", Figures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
