"""Sphinx directives that show this project's code, with the three frameworks side by side.

- ``{source} trainer.py train_batch_ch13`` shows this function of each backend's file in tabs, and ``{source}
  common/augmentation/decisions.py decide`` shows a function of a single file. BACKEND in a file's name stands for the
  name of each backend.
- ``{columns} trainer.py train_batch_ch13`` shows it in three columns with aligned rows.
- ``{cell} the network`` shows a cell of the page's own Python file and its kept output.
- ``{only} mxnet`` holds prose for one framework, ``{differs}`` a note on a difference.
- ``{trap} lazy_layers`` shows an example that fails and its fix.
- ``{figures} training`` shows the results of a run, ``{notes}`` the ``Differs:`` notes of the source.
- ``{command} predict`` shows a command of run.py, ``{contract} trainer`` a part of a backend, and ``{api}
  common.parity`` the names that a package exports.

A name that does not exist is an error, so a renamed function fails the build.
"""

import itertools
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective
from sphinx_design.shared import is_component

import backends
from docs import api, columns, command_line, figures, outputs
from docs.cells import cell_named, read_cells
from docs.differences.notes import as_list, read_notes
from docs.notebooks import check_framework, cut, in_colab, source_of, write_notebooks
from docs.outputs import Output
from docs.repository import repository


def tab_set(contents: dict[str, str]) -> str:
    """Return MyST text with a tab for each framework; all sets of the site switch together."""
    items = (
        f"::::{{tab-item}} {backends.FRAMEWORKS[name].title}\n:sync: {name}\n\n{text}\n::::"
        for name, text in contents.items()
    )
    return ":::::{tab-set}\n:sync-group: framework\n\n" + "\n".join(items) + "\n:::::\n"


class Shown(SphinxDirective):
    """A directive that shows code of the documented project; its errors name the page and the line."""

    @property
    def page(self) -> Path:
        """The page with the directive."""
        return Path(self.env.doc2path(self.env.docname))

    @property
    def root(self) -> Path:
        """The folder that contains the docs."""
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
    """Show functions or classes: ``FILE NAME...``. A FILE without a folder, or with BACKEND, is one of each backend.

    The options ``pytorch``, ``mxnet`` and ``tensorflow`` replace the names in one backend.
    """

    required_arguments = 2
    final_argument_whitespace = True
    option_spec = dict.fromkeys(backends.FRAMEWORKS, directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        """Return the blocks, in tabs if they belong to the backends."""
        argument = " ".join(self.arguments)
        shown = {name: cut(argument, self.options, name) for name in backends.FRAMEWORKS}
        first, *others = shown.values()
        if all(other == first for other in others):  # a file of no backend
            return self.parse_text_to_nodes(self.blocks(*first))
        contents = {name: self.blocks(*place) for name, place in shown.items()}
        return self.parse_text_to_nodes(tab_set(contents))

    def blocks(self, file: str, names: list[str]) -> str:
        """Return MyST text that shows the named functions or classes of a file, under the file's name."""
        return "\n\n".join(self.source_block(file, name, file) for name in names)


class Columns(Shown):
    """Show the same code as `Source`, in three columns with aligned rows and marked differences."""

    required_arguments = 2
    final_argument_whitespace = True
    option_spec = Source.option_spec

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        argument = " ".join(self.arguments)
        sources = []
        for backend in backends.FRAMEWORKS:
            file, names = cut(argument, self.options, backend)
            try:
                sources.append([source_of(self.root / file, name) for name in names])
            except LookupError as error:
                raise self.error(str(error)) from error
        try:
            table = columns.table([f.title for f in backends.FRAMEWORKS.values()], sources)
        except ValueError as error:
            raise self.error(
                f"the frameworks have different numbers of functions: {error}"
            ) from error
        return [nodes.raw("", f'<div class="table-wrapper">{table}</div>', format="html")]


class Only(Shown):
    """Hold text for one framework. It joins the framework's tab in the set before it, or makes a new set."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a set of one tab, which `JoinTabs` joins with the set before."""
        self.assert_has_content()
        try:
            name = check_framework(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from error
        found = self.parse_text_to_nodes(tab_set({name: "\n".join(self.content)}))
        found[0]["classes"].append("only")
        return found


class JoinTabs(SphinxTransform):
    """Move the content of ``{only}`` into the set of tabs right before it, if there is one."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        """Append to the framework's tab, or append a new tab."""
        for tabs in list(self.document.findall(_is_tab_set)):
            before = tabs.previous_sibling()
            if "only" not in tabs["classes"] or before is None or not _is_tab_set(before):
                continue
            (tab,) = tabs.children
            label, content = tab.children
            for other_label, other_content in (other.children for other in before.children):
                if label["sync_id"] == other_label["sync_id"]:
                    other_content += content.children
                    break
            else:
                before += tab
            tabs.parent.remove(tabs)


def _is_tab_set(node: nodes.Node) -> bool:
    return is_component(node, "tab-set")


class Differs(Shown):
    """Hold a note on a difference between the frameworks."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the note."""
        self.assert_has_content()
        title = nodes.title("", "What differs")
        content = self.parse_content_to_nodes()
        return [nodes.admonition("", title, *content, classes=["differs"])]


class Trap(Shown):
    """Show an example of docs/examples/traps beside its fix."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both blocks, as columns where there is room."""
        file = f"docs/examples/traps/{self.arguments[0]}.py"
        items = (
            f"::::{{grid-item}}\n{self.source_block(file, name, caption)}\n::::"
            for name, caption in {"trap": "the trap", "fixed": "the fix"}.items()
        )
        grid = ":::::{grid} 1\n:gutter: 2\n:class-container: trap\n\n" + "\n".join(items)
        return self.parse_text_to_nodes(grid + "\n:::::\n")


class CellDirective(Shown):
    """Show a cell of the page's Python file, and its output below the code.

    The option ``alt`` describes the cell's pictures.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec = dict.fromkeys(["alt"], directives.unchanged_required)

    def run(self) -> list[nodes.Node]:
        """Return the code and its output, in tabs if they differ between the frameworks."""
        path, (name,) = self.page.with_suffix(".py"), self.arguments
        try:
            cells = cell_named(read_cells(path), name)
        except (OSError, LookupError, ValueError) as error:
            raise self.error(f"{path.name}: {error}") from error
        code = {cell.backend: f"```python\n{cell.code}\n```\n" for cell in cells}
        kept = {backend: outputs.kept(self.page, backend) for backend in backends.FRAMEWORKS}
        found = {backend: self.output(of[name]) for backend, of in kept.items() if name in of}
        if None not in code:
            tabs = {backend: code[backend] + found.get(backend, "") for backend in kept}
            return self.parse_text_to_nodes(tab_set(tabs))
        text = code[None]
        if len({self.identity(of[name]) for of in kept.values() if name in of}) == 1:
            text += next(iter(found.values()))
        elif any(found.values()):
            text += tab_set({backend: shown for backend, shown in found.items() if shown})
        return self.parse_text_to_nodes(text)

    def identity(self, output: Output) -> tuple[str | bytes, ...]:
        """Return the visible part of an output; equal outputs are shown once."""
        folder = outputs.pictures(self.page)
        return output.text, *((folder / picture).read_bytes() for picture in output.pictures)

    def output(self, output: Output) -> str:
        """Return MyST text that shows a cell's text and pictures."""
        text = ""
        if output.text.strip():
            text += f"\n````{{code-block}} text\n:class: output\n\n{output.text.rstrip()}\n````\n"
        if output.pictures and "alt" not in self.options:
            raise self.error(
                f"the cell '{self.arguments[0]}' draws: describe its pictures with :alt:"
            )
        for picture in output.pictures:
            text += f"\n```{{image}} /images/cells/{picture}\n:alt: {self.options['alt']}\n:class: output\n```\n"
        return text


class Notebooks(Shown):
    """Make the page's notebooks, one for each framework, and offer them for download."""

    def run(self) -> list[nodes.Node]:
        """Return a line of links, and the versions and machine of the outputs on the page."""
        try:
            write_notebooks(self.page, self.root / "build" / "notebooks")
        except (OSError, LookupError, ValueError) as error:
            raise self.error(f"no notebooks: {error}") from error
        links = (
            f"{{download}}`{backends.FRAMEWORKS[name].title} </../build/notebooks/{self.env.docname}-{name}.ipynb>`"
            for name in backends.FRAMEWORKS
        )
        text = (
            f"This page as a notebook: {', '.join(links)}. Put it into a checkout of the project, and open it "
            "there with `uv run --extra all --with jupyterlab jupyter lab`.\n"
        )
        if repository():
            titles = [backends.FRAMEWORKS[name].title for name in in_colab()]
            text += f"In Google Colab, upload the notebook of {' or '.join(titles)}: its first cell gets the project.\n"
        if measured := outputs.measured(self.page):
            lines = (
                f"- {backends.FRAMEWORKS[name].title}: {line}" for name, line in measured.items()
            )
            text += (
                "\n:::{dropdown} The outputs on this page: versions and machine\n"
                ":class-container: measured\n\n"
                f"`python -m docs figures {self.env.docname} --cells` runs the cells.\n\n"
                + "\n".join(lines)
                + "\n:::\n"
            )
        return self.parse_text_to_nodes(text)


class Figures(Shown):
    """Show tables of results: of one of the page's runs, such as ``training``, or of the page's measurements."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return the tables. Tables of runs are mostly numbers and have narrow columns on a telephone."""
        try:
            text = figures.shown(self.page.stem, self.arguments[0])
        except (OSError, LookupError) as error:
            raise self.error(f"no figures: {error}") from error
        found = self.parse_text_to_nodes(text)
        if self.page.stem in figures.RUNS:
            for table in itertools.chain(*(node.findall(nodes.table) for node in found)):
                table["classes"].append("figures")
        return found


class Notes(Shown):
    """List the ``Differs:`` notes at these places, one per line. Without places, list all others by framework."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the lists."""
        notes = read_notes(self.root)
        listed: Any = self.env.temp_data.setdefault("listed notes", set())
        listed.update(self.content)
        if unknown := set(self.content) - {note.place for note in notes}:
            raise self.error(f"no note 'Differs:' at {', '.join(sorted(unknown))}")
        if self.content:
            chosen = [note for note in notes if note.place in self.content]
            return self.parse_text_to_nodes(f"In the source:\n\n{as_list(chosen)}")
        text = ""
        for backend in backends.FRAMEWORKS:
            others = [n for n in notes if n.backend == backend and n.place not in listed]
            text += f"{backends.FRAMEWORKS[backend].title}:\n\n{as_list(others)}\n\n"
        return self.parse_text_to_nodes(text)


class Generated(Shown):
    """Show the Markdown that a function makes from the argument."""

    required_arguments = 1
    final_argument_whitespace = True

    def text(self, argument: str) -> str:
        """Return the Markdown. Raises LookupError for an unknown argument."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return the parsed Markdown."""
        try:
            text = self.text(self.arguments[0])
        except (OSError, LookupError) as error:
            raise self.error(str(error)) from error
        return self.parse_text_to_nodes(text)


class CommandDirective(Generated):
    """Show a command of run.py: what it does, an example with its output, and its options."""

    def text(self, argument: str) -> str:
        """Return the command's help."""
        return command_line.shown(argument)


class Contract(Generated):
    """Show the functions of a part of a backend, such as ``trainer``."""

    def text(self, argument: str) -> str:
        """Return their signatures and docstrings."""
        return api.contract(self.root, argument)


class Api(Generated):
    """Show functions and classes of a package: ``PACKAGE NAME...``. Without names, show all that it exports."""

    def text(self, argument: str) -> str:
        """Return their signatures and docstrings."""
        package, *names = argument.split()
        return api.public_names(self.root, package, names)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives with Sphinx."""
    app.add_directive("source", Source)
    app.add_directive("columns", Columns)
    app.add_directive("cell", CellDirective)
    app.add_directive("only", Only, override=True)  # Sphinx' own is for tags
    app.add_transform(JoinTabs)
    app.add_directive("differs", Differs)
    app.add_directive("trap", Trap)
    app.add_directive("notebooks", Notebooks)
    app.add_directive("figures", Figures)
    app.add_directive("notes", Notes)
    app.add_directive("command", CommandDirective)
    app.add_directive("contract", Contract)
    app.add_directive("api", Api)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
