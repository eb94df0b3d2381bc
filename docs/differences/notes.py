"""The `Differs:` notes in the backends' sources: each one describes there how the framework differs."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MARK = re.compile(r"\bDiffers:(?=\s)")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Note:
    """One note: the file from the root of the checkout, the function or class it is in, and its text on one line.

    ``inside`` is a qualified name, '' for a note on the whole file.
    """

    file: str
    inside: str
    text: str

    @property
    def backend(self) -> str:
        """Return the folder below backends/ that the note is in."""
        return self.file.split("/")[1]

    @property
    def place(self) -> str:
        """Return the place of the note, as `backends/mxnet/resnet.py Residual.__init__`."""
        return f"{self.file} {self.inside}".strip()


def as_list(notes: Iterable[Note]) -> str:
    """Return notes as a Markdown list."""
    return "\n".join(f"- `{note.place}`: {note.text}" for note in notes)


@cache  # a page asks for each of its lists
def read_notes(root: Path) -> list[Note]:
    """Return the notes of all files in ``root``/backends, by file and line."""
    return [
        note
        for path in sorted((root / "backends").rglob("*.py"))
        for note in notes_of(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
    ]


def notes_of(source: str, file: str) -> list[Note]:
    """Return the notes in docstrings and comments of a source, by line.

    A note ends with its paragraph, or with its block of comment lines.
    """
    tree = ast.parse(source)
    found = [*_in_docstrings(tree), *_in_comments(source, tree)]
    return [Note(file, inside, " ".join(text.split())) for _, inside, text in sorted(found)]


def _in_docstrings(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the place and the text of each note in a docstring."""
    for inside, node in [("", tree), *definitions(tree)]:
        for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
            for text in MARK.split(paragraph)[1:]:
                yield node.body[0].lineno, inside, text


def _in_comments(source: str, tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the place and the text of each note in comments on lines of their own."""
    lines: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.strip() == token.string:
            lines[token.start[0]] = token.string.removeprefix("#").strip()
    for number, line in lines.items():
        if not MARK.match(line):
            continue
        text = [MARK.sub("", line, count=1)]
        while (after := lines.get(number + len(text))) and not MARK.match(after):
            text.append(after)
        yield number, _around(tree, number), " ".join(text)


def _around(tree: ast.Module, number: int) -> str:
    """Return the innermost function or class that a line is in, '' if there is none."""
    inside = [
        name
        for name, node in definitions(tree)
        if node.lineno <= number <= (node.end_lineno or node.lineno)
    ]
    return max(inside, key=len, default="")


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield every function and class with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition):
            name = f"{prefix}{node.name}"
            yield name, node
            yield from definitions(node, f"{name}.")
        else:
            yield from definitions(node, prefix)
