"""The mutants of a backend. A mutant keeps its id as long as its statement does not change."""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.meta.mutants.operators import OPERATORS
from tests.meta.mutants.places import Edit, Place, expressions, line, places
from tests.meta.mutants.sizes import by_position, by_size
from tests.meta.mutants.statements import STATEMENTS

ROOT = Path(__file__).parents[3]
TAB = ("trainer", "kaggle", "loaders", "transforms", "resnet", "weights")
FILES = {
    "pytorch": (*TAB, "_wrappers", "_state_dict"),
    "mxnet": (*TAB, "_native", "_layers", "_sgd"),
    "tensorflow": (*TAB, "_native", "_layers", "_graphs", "_sgd"),
}
SHOWN = 24  # characters shown before and after a change in a long line


@dataclass(frozen=True)
class Mutant:
    """One change of one statement. ``number`` is its position in the file and not part of the id."""

    backend: str
    file: str
    function: str
    operator: str
    before: str
    after: str
    occurrence: int  # how many equal changes of equal lines come before it in the function
    line: int
    number: int

    @property
    def id(self) -> str:
        text = f"{self.before}\n{self.after}\n{self.occurrence}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        operator = self.operator.replace(" ", "-")
        return f"{self.backend}/{self.file}:{self.function or 'module'}:{operator}:{digest}"

    @property
    def diff(self) -> str:
        """The change on one line, without equal parts far from it."""
        before, after = self.before, self.after
        shorter = min(len(before), len(after))
        start = next((i for i in range(shorter) if before[i] != after[i]), shorter)
        rest = shorter - start
        end = next((i for i in range(rest) if before[-1 - i] != after[-1 - i]), rest)
        first, last = max(0, start - SHOWN), max(0, end - SHOWN)
        return f"{_part(before, first, last)}  =>  {_part(after, first, last) or '(nothing)'}"


def _part(text: str, first: int, last: int) -> str:
    """Return a text without its first and last characters."""
    part = text[first : len(text) - last]
    return f"{'…' if first else ''}{part}{'…' if last else ''}"


def mutants_of(backend: str) -> list[Mutant]:
    """Return all mutants of a backend, in the order of its files."""
    return [
        mutant
        for file in FILES[backend]
        for mutant in of_source(backend, file, source(backend, file))
    ]


def sample(mutants: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """Return ``number`` random mutants, or all if there are fewer.

    The rank of a mutant depends only on seed and id, so adding or removing a mutant does not change the others.
    """
    return sorted(mutants, key=lambda m: hashlib.sha256(f"{seed} {m.id}".encode()).digest())[
        :number
    ]


@cache
def source(backend: str, file: str) -> str:
    return (ROOT / "backends" / backend / f"{file}.py").read_text(encoding="utf-8")


def of_source(backend: str, file: str, text: str) -> list[Mutant]:
    """Return the mutants of a source."""
    found: list[Mutant] = []
    occurrences: Counter[tuple[str, ...]] = Counter()
    seen: set[tuple[int, str]] = set()
    for number, (operator, place, edit) in enumerate(edits(ast.parse(text), backend, file)):
        before, after, at = line(place.statement), _after(place, edit), place.statement.lineno
        if before == after or (at, after) in seen:  # two operators can give the same change
            continue
        seen.add((at, after))
        key = (place.function, operator, before, after)
        change = (place.function, operator, before, after, occurrences[key])
        found.append(Mutant(backend, file, *change, at, number))
        occurrences[key] += 1
    return found


def mutated(mutant: Mutant) -> str:
    """Return the source of the mutant's file with its change."""
    return mutated_source(mutant, source(mutant.backend, mutant.file))


def mutated_source(mutant: Mutant, text: str) -> str:
    tree = ast.parse(text)
    for number, (_, _, edit) in enumerate(edits(tree, mutant.backend, mutant.file)):
        if number == mutant.number:
            with edit.applied():
                return ast.unparse(ast.fix_missing_locations(tree))
    raise ValueError(f"no mutant {mutant.number} in {mutant.backend}/{mutant.file}.py")


def edits(tree: ast.Module, backend: str, file: str) -> Iterator[tuple[str, Place, Edit]]:
    """Yield every change of a tree, with its operator and the statement that it changes."""
    for owner, block, place in places(tree):
        for *slot, node in expressions(place.statement):
            for operator, change in OPERATORS.items():
                for new in change(node, place):
                    yield operator, place, Edit(*slot, new)
        for operator, change_of in STATEMENTS.items():
            for statements in change_of(place):
                yield operator, place, Edit(owner, block, place.index, statements)
        for operator, by in (("size", by_size), ("position", by_position)):
            for statements in by(place, backend, file):
                yield operator, place, Edit(owner, block, place.index, statements)


def _after(place: Place, edit: Edit) -> str:
    """Return the changed statement as a line, or the lines of the statements that replace it."""
    if not isinstance(edit.new, list):
        with edit.applied():
            return line(place.statement)
    return "; ".join(_line_of_new(statement, place.statement) for statement in edit.new)


def _line_of_new(statement: ast.stmt, old: ast.stmt) -> str:
    """Return a new statement as a line, including its body if it is a condition around the old statement."""
    if isinstance(statement, ast.For) and isinstance(statement.body[-1], ast.Break):
        return f"{line(statement)} ...; break"
    if isinstance(statement, ast.If) and not isinstance(old, ast.If):
        inner = "; ".join(map(line, statement.body))
        return f"{line(statement)} {inner}" + (" else ..." if statement.orelse else "")
    return line(statement)
