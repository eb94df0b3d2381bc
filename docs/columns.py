"""Show the same function in three frameworks as a table with aligned rows and marked differences.

Statements that share many of their words share a row. If a framework has no such statement, its cell is empty. A
statement or comment of several lines becomes one line. Docstrings are cut to their first line, and blank lines are left
out.
"""

import ast
import functools
import io
import itertools
import re
import tokenize
from collections.abc import Sequence
from html import escape

from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

Line = tuple[tuple[str, str], ...]  # its tokens, each with the CSS class of its colour
Row = list[Line | None]  # for each framework, a line or None

ALIKE = 0.4  # lines in a row share at least this fraction of their words, ...
ALIKE_FROM_THE_START = 0.2  # ... or this fraction if they begin with the same word
LONGEST = 120  # characters; longer statements are not put on one line
HANGING = 4  # characters by which a wrapped line is indented
SUBWORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+(?:[A-Z]+(?![a-z]))?|\d+[a-zA-Z]?")


def table(titles: Sequence[str], functions: Sequence[Sequence[str]]) -> str:
    """Return an HTML table with a column for each title, which shows the source of its functions.

    ``functions`` has a sequence for each title; functions at the same place begin in the same row.
    """
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = ""
    for sources in zip(*functions, strict=True):
        rows = aligned([lines_of(source) for source in sources])
        body += f"<tbody>{''.join(map(_row, rows))}</tbody>"
    return f'<table class="columns highlight"><thead><tr>{head}</tr></thead>{body}</table>'


def lines_of(source: str) -> list[Line]:
    """Return the lines of a function or class, without blank ones and with short docstrings."""
    lines: list[list[tuple[str, str]]] = [[]]
    for kind, text in PythonLexer().get_tokens(_on_one_line(_with_short_docstrings(source))):
        for i, part in enumerate(text.split("\n")):
            if i > 0:
                lines.append([])
            if part:
                lines[-1].append((STANDARD_TYPES.get(kind, ""), part))
    return [tuple(line) for line in lines if any(text.strip() for _, text in line)]


def _with_short_docstrings(source: str) -> str:
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            first, last = node.body[0].lineno, node.body[0].end_lineno or 0
            if last > first:
                lines[first - 1] += '"""'
                lines[first:last] = [""] * (last - first)
    return "\n".join(lines)


def _on_one_line(source: str) -> str:
    """Return a source in which each comment, and the content of each bracket, is on one line.

    A bracket that holds comments or more than ``LONGEST`` characters stays as it is, apart from the brackets in it.
    """
    lines = source.splitlines()
    depths, commented = [0] * len(lines), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            commented.add(token.start[0] - 1)
        if token.type == tokenize.OP:
            depths[token.start[0] - 1] += (token.string in "([{") - (token.string in ")]}")
    depths = [0, *itertools.accumulate(depths)]  # before each line
    joined, row = [], 0
    while row < len(lines):
        if lines[row].lstrip().startswith("#"):
            others = itertools.takewhile(lambda line: line.lstrip().startswith("#"), lines[row:])
            end = row + len(list(others))
            text = lines[row] + "".join(line.lstrip().lstrip("#") for line in lines[row + 1 : end])
        else:
            end = next(
                (i for i in range(row + 1, len(lines)) if depths[i] <= depths[row]), len(lines)
            )
            text = _joined(lines[row:end])
            if end > row + 1 and (len(text) > LONGEST or commented & {*range(row, end)}):
                end, text = row + 1, lines[row]
        joined.append(text)
        row = end
    return "\n".join(joined)


def _joined(lines: Sequence[str]) -> str:
    """Join the lines of a statement, without a comma before the closing bracket."""
    text = lines[0]
    for line in map(str.strip, lines[1:]):
        if line[:1] in ")]}":  # also if there is none
            text = text.rstrip(",") + line
        else:
            text += line if text[-1] in "([{" else f" {line}"
    return text


def aligned(columns: Sequence[Sequence[Line]]) -> list[Row]:
    """Return rows with a line or None for each column, so that as many equal words as possible share a row."""
    rows: list[Row] = [[line] for line in columns[0]]
    for column in columns[1:]:
        none = [None] * len(rows[0])
        rows = [
            [*(none if i is None else rows[i]), None if j is None else column[j]]
            for i, j in _paired([[_alike(row, line) for line in column] for row in rows])
        ]
    return rows


def _paired(scores: Sequence[Sequence[float]]) -> list[tuple[int | None, int | None]]:
    """Pair rows and columns of a table of scores, in order and with the largest sum; None means no partner."""
    n, m = len(scores), len(scores[0]) if scores else 0
    best = [[0.0] * (m + 1) for _ in range(n + 1)]  # the sum for the first i rows and j columns
    for i, j in ((i, j) for i in range(n) for j in range(m)):
        best[i + 1][j + 1] = max(best[i][j] + scores[i][j], best[i][j + 1], best[i + 1][j])
    pairs: list[tuple[int | None, int | None]] = []
    i, j = n, m
    while i or j:
        if j and best[i][j] == best[i][j - 1]:
            j -= 1
            pairs.append((None, j))
        elif i and best[i][j] == best[i - 1][j]:
            i -= 1
            pairs.append((i, None))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _alike(row: Row, line: Line) -> float:
    """Return how many words a line shares with the lines of a row, 0 if they are too few."""
    return max(
        _shared_words(_subwords(other), _subwords(line)) for other in row if other is not None
    )


@functools.cache
def _shared_words(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    shared = len(_matches(a, b))
    first = 2 if a[0] == "self" else 1
    least = ALIKE_FROM_THE_START if a[:first] == b[:first] else ALIKE
    return shared if shared / (len(a) + len(b)) >= least / 2 else 0.0


def _matches(a: Sequence[str], b: Sequence[str]) -> list[int]:
    """Return the positions in ``a`` of the longest common sequence of words."""
    pairs = _paired([[float(word == other) for other in b] for word in a])
    return [i for i, j in pairs if i is not None and j is not None]


def _subwords(line: Line) -> tuple[str, ...]:
    """Return the parts of a line's words, of BatchNorm batch and norm; those of its comment if it has no code.

    Return a line of punctuation as it is.
    """
    text = " ".join(_words(line)) or "".join(text for _, text in line)
    return tuple(word.lower() for word in SUBWORD.findall(text)) or (text,)


def _words(line: Line) -> list[str]:
    return [text for kind, text in line if not _is_comment(kind) and _is_word(text)]


def _is_comment(kind: str) -> bool:
    return kind.startswith("c")


def _is_word(text: str) -> bool:
    return re.search(r"\w", text) is not None


def _row(row: Row) -> str:
    cells = (
        "<td></td>" if line is None else _cell(line, row[:i] + row[i + 1 :])
        for i, line in enumerate(row)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _cell(line: Line, others: Sequence[Line | None]) -> str:
    alone = ' class="alone"' if None in others else ""
    first = line[0][1]
    indent = len(first) if first.isspace() else 0
    html = ""
    for mark, parts in itertools.groupby(
        zip(_marks(line, others), line, strict=True), lambda pair: pair[0]
    ):
        text = "".join(_span(kind, text) for _, (kind, text) in parts)
        html += f"<mark>{text}</mark>" if mark else text
    return f'<td{alone} style="--indent: {indent + HANGING}ch"><code>{html}</code></td>'


def _span(kind: str, text: str) -> str:
    return f'<span class="{kind}">{escape(text)}</span>' if kind else escape(text)


def _marks(line: Line, others: Sequence[Line | None]) -> list[bool]:
    """Return for each part of a line whether it is marked: words that another line lacks, and the parts between them.

    None stands for a framework that has no such line. There is nothing to compare with.
    """
    code = [i for i, (kind, text) in enumerate(line) if not _is_comment(kind) and _is_word(text)]
    words = [line[i][1] for i in code]
    shared = [True] * len(words)
    for other in filter(None, others):
        same = _matches(words, _words(other))
        shared = [it and i in same for i, it in enumerate(shared)]
    marks = [False] * len(line)
    for number, i in enumerate(code):
        if not shared[number]:
            before = code[number - 1] if number and not shared[number - 1] else i - 1
            marks[before + 1 : i + 1] = [True] * (i - before)
    return marks
