"""`python -m docs prose`: list the sentences that are too long, and the words that have a plainer one.

Prose is the text of the Markdown pages, docstrings, comments, and strings of four or more words in programs (help texts
and messages). Code, tables and pictures are not.
"""

import ast
import inspect
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from docs.figures import ROOT

MAX_WORDS = 30  # in a sentence
PAGES = ("*.md", "docs/*.md")
PROGRAMS = (
    "run.py",
    "backends/**/*.py",
    "benchmarks/**/*.py",
    "common/**/*.py",
    "docs/**/*.py",
    "tests/**/*.py",
)
NOT_COUNTED = {"docs/prose.py", "tests/docs/test_prose.py"}  # they name the words
SECOND_VERB = r"(is|are|was|were|stays?|comes?|goes|moves?|becomes?|must|can|may|depends?)"
# Patterns, and the words to write instead. The last three are clauses in the place of a noun.
WORDS = {
    r"\barbiters?\b": "reference",
    r"\blevels?\b": "uint8 images, uint8 values",
    r"\b(parted|parting)\b": "differing, diverging",
    r"\b(they|it|that|runs|ports|trainings|curves|frameworks|backends|losses|to) parts?\b(?! of)": "diverge, differ",
    r"\bheld against\b": "compared with",
    r"\bat once\b": "immediately, together",
    r"\balone\b": "only, by itself",
    r"\botherwise( than\b|(?=[.,;:)])|$)": "differs, or say how",
    r"\b(are|be|counts?|do|does|has|is|rounds?|orders?|normalizes?) otherwise\b": "differs",
    r"\bof (which|whom)\b": "a second sentence",
    r"\bnone (where|is none)\b": "None if ..., nothing if ...",
    r"\bin force\b": "active, in use",
    r"\banew\b": "again",
    r"\bbehind the end\b": "past the end",
    r"(\belse (it|they|the|a)\b)|^else\b": "otherwise",
    r"(?-i:^Of\b)": "the subject first",
    r"(?-i:^What\b)(?=.*\.$)": "a noun",
    rf"([:;,]|\band|\bbut) what( [^\s,;:.]+){{1,6}}? {SECOND_VERB}\b": "a noun",
}
# Phrases that use such a word in a meaning that has no plainer word.
ALLOWED = (
    r"all at once",
    r"(grey|noise|log|top|high|low|module|compression|confidence|optimization)[- ]levels?",
    r"(lea?ve|leaves|left|leaving|let) (\S+ ){0,4}alone",
    r"stands? alone",
    r"anew each epoch",
    r"(say|says|said|told|stated|noted) otherwise",
)
SKIPPED = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in ALLOWED), re.I)
END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bal)(?<!\bvs)[.!?][\"')*\]]*\s+(?=[^a-z\s])")
DIRECTIVE = re.compile(r"^\s*(:{3,}.*|:[\w-]+:( .*)?|\([\w-]+\)=)$", re.M)
NO_PROSE = re.compile(r"(ruff|noqa|type|mypy|pragma|fmt):?|!|---|%%")  # begins a comment for a tool
MARKDOWN = MarkdownIt("commonmark").enable("table")


class Sentence(NamedTuple):
    """A sentence, with inline code as `code`, and the line where it begins."""

    line: int
    text: str

    def words(self) -> int:
        """Return how many words it has; a number is none, a piece of code is one."""
        return sum(bool(re.search(r"[^\W\d]", word)) for word in self.text.split())

    def replaceable(self) -> list[str]:
        """Return its words that have a plainer one."""
        allowed = [match.span() for match in SKIPPED.finditer(self.text)]
        return [
            f'"{match[0].strip()}" (write: {instead})'
            for pattern, instead in WORDS.items()
            for match in re.finditer(pattern, self.text, re.I)
            if not any(a <= match.start() and match.end() <= b for a, b in allowed)
        ]


def sentences(markdown: str, first_line: int = 1) -> Iterator[Sentence]:
    """Yield the sentences of a Markdown text that begins in a line."""
    in_table = 0
    for token in MARKDOWN.parse(DIRECTIVE.sub("", markdown)):
        in_table += {"table_open": 1, "table_close": -1}.get(token.type, 0)
        if token.type != "inline" or in_table or token.map is None:
            continue
        text, start = _text(token), 0
        for end in (*(match.end() for match in END.finditer(text)), len(text)):
            line = first_line + token.map[0] + text[:start].count("\n")
            yield Sentence(line, " ".join(text[start:end].split()))
            start = end


def _text(token: Token) -> str:
    texts = {"code_inline": "`code`", "softbreak": "\n", "hardbreak": "\n"}
    return "".join(
        child.content if child.type == "text" else texts.get(child.type, "")
        for child in token.children or ()
    )


def of_program(source: str, strings: bool = True) -> Iterator[Sentence]:
    """Yield the sentences of a program's docstrings and comments, and with `strings` of its messages."""
    tree = ast.parse(source)
    known = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        if (docstring := ast.get_docstring(node, clean=False)) is not None:
            known.add(node.body[0].value)  # type: ignore[attr-defined]
            yield from sentences(inspect.cleandoc(docstring), node.body[0].lineno)
    yield from _comments(source)
    for node in ast.walk(tree):
        if node in known or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        pieces = node.values if isinstance(node, ast.JoinedStr) else [node]
        known.update(ast.walk(node))
        text = "".join(
            str(piece.value) if isinstance(piece, ast.Constant) else "`value`" for piece in pieces
        )
        if strings and re.search(r"([^\W\d]+[,;:]? ){3}[^\W\d]+", text) and not _is_code(text):
            yield from sentences(inspect.cleandoc(text), node.lineno)


def _is_code(text: str) -> bool:
    """Return whether a text is Python, or a cell of a notebook."""
    with suppress(SyntaxError):
        return bool(ast.parse(re.sub(r"(?m)^(\s*)[!%].*$", r"\1pass", text)))
    return False


def _comments(source: str) -> Iterator[Sentence]:
    """Yield the sentences of comments; whole lines of comments one below the other are one text."""
    block: list[str] = []
    begin = 1
    last = 0  # the line of the block's last comment; 0 after a comment behind code
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or NO_PROSE.match(token.string.lstrip("# ")):
            continue
        line, column = token.start
        whole = not token.line[:column].strip()
        if not (whole and line == last + 1):
            yield from sentences("\n".join(block), begin)
            block, begin = [], line
        block.append(token.string.lstrip("#").strip())
        last = line if whole else 0
    yield from sentences("\n".join(block), begin)


def of_file(path: Path) -> list[Sentence]:
    """Return the sentences of a page or a program, in order. Strings in tests are data and are left out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return list(sentences(text))
    is_test = "tests" in path.resolve().relative_to(ROOT).parts
    return sorted(of_program(text, strings=not is_test))


def files() -> list[Path]:
    """Return all pages and programs of this project."""
    found = [path for pattern in (*PAGES, *PROGRAMS) for path in sorted(ROOT.glob(pattern))]
    return [path for path in found if path.relative_to(ROOT).as_posix() not in NOT_COUNTED]


def report(paths: Iterable[Path] = ()) -> tuple[str, str]:
    """Return the findings in files (default: all) with counts per file, and the line of totals."""
    lines = []
    long, replaceable = Counter[str](), Counter[str]()
    for path in list(paths) or files():
        name = path.resolve().relative_to(ROOT).as_posix()
        for sentence in of_file(path):
            where = f"{name}:{sentence.line}"
            if (n := sentence.words()) > MAX_WORDS:
                long[name] += 1
                lines.append(f"{where}: {n} words: {sentence.text}")
            for word in sentence.replaceable():
                replaceable[name] += 1
                lines.append(f"{where}: {word}: {sentence.text}")
    counts = [
        f"{long[name]:5} {replaceable[name]:5}  {name}" for name in sorted({*long, *replaceable})
    ]
    totals = (
        f"{long.total()} sentences of more than {MAX_WORDS} words; "
        f"{replaceable.total()} words that have a plainer one"
    )
    return "\n".join([*lines, "", " long words  file", *counts]), totals
