"""The places where a source can be changed: its statements and expressions, except those that change no result."""

import ast
import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

# Functions and classes that compute no result in float32 on one device: reports, speed, bfloat16 (checked by `parity
# --precision bf16`), several devices, errors about damaged and hostile files.
SKIPPED_FUNCTIONS = {
    "_check_archive",
    "_check_tensor",
    "_is_whole",
    "describe",
    "get_dataloader_workers",
    "get_config",
    "_mean_over_devices",
    "evaluate_accuracy_gpus",
    "MixedPrecision",
    "in_float32",
}
# Module constants that are messages, limits for hostile files, or used by Python.
SKIPPED_NAMES = {
    *("__all__", "NO_WORKERS", "SATURATION_IS_WRONG", "ADVICE", "MAX_PICKLE"),
    *("OTHER_OBJECTS", "GLOBALS", "UNIFORM"),
}
# Texts in conditions for code that does not run in float32 on one device.
ELSEWHERE = ("len(devices) >", "num_replicas_in_sync", "'bf16'", "mixed")
# Parameters that change no result in float32 on one device.
ONLY_ELSEWHERE = {"num_workers", "compile", "precision", "split_f", "verbose", "force_reinit"}
# Calls that raise, warn, or wait for background work.
QUIET_CALLS = {
    *("warnings.warn", "warnings.simplefilter", "require_fit", "npx.waitall"),
    *("_check_archive", "_check_tensor", "check_entries"),
}
BLOCKS = ("body", "orelse", "finalbody")


@dataclass(frozen=True)
class Place:
    """A statement, ``body[index]``, in a function, with the names that are defined there."""

    function: str  # qualified, such as "_Batches.__iter__"; "" outside of functions
    body: list[ast.stmt]
    index: int
    attributes: frozenset[str] = frozenset()  # attributes of self in the class
    bound: frozenset[str] = frozenset()  # names defined before the statement
    defaults: Mapping[str, ast.expr] = field(default_factory=dict)  # of the function's parameters

    @property
    def statement(self) -> ast.stmt:
        return self.body[self.index]


@dataclass
class Edit:
    """A change of the tree: ``owner.field``, or one of its elements, becomes ``new``. A list replaces a statement."""

    owner: ast.AST
    field: str
    index: int | None
    new: ast.AST | list[ast.stmt]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Change the tree, and restore it afterwards."""
        kept = getattr(self.owner, self.field)
        if self.index is None:
            setattr(self.owner, self.field, self.new)
        else:
            new = self.new if isinstance(self.new, list) else [self.new]
            changed = [*kept[: self.index], *new, *kept[self.index + 1 :]]
            setattr(self.owner, self.field, changed)
        try:
            yield
        finally:
            setattr(self.owner, self.field, kept)


@dataclass
class _Walk:
    """The state of a walk through a tree."""

    function: str = ""
    attributes: frozenset[str] = frozenset()
    bound: set[str] = field(default_factory=set)
    defaults: Mapping[str, ast.expr] = field(default_factory=dict)


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, Place]]:
    """Yield each statement that computes something, with the owner of its block and the name of the field."""
    yield from _block(tree, "body", _Walk())


def _block(owner: ast.AST, name: str, walk: _Walk) -> Iterator[tuple[ast.AST, str, Place]]:
    body = getattr(owner, name)
    for index, statement in enumerate(body):
        if _is_skipped(statement):
            continue
        place = Place(
            walk.function, body, index, walk.attributes, frozenset(walk.bound), walk.defaults
        )
        yield owner, name, place
        yield from _inside(statement, walk)
        walk.bound |= _stored(statement)


def _inside(statement: ast.stmt, walk: _Walk) -> Iterator[tuple[ast.AST, str, Place]]:
    """Yield the places within a compound statement."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        function = f"{walk.function}.{statement.name}".lstrip(".")
        if isinstance(statement, ast.ClassDef):
            inner = _Walk(function, frozenset(_attributes(statement)))
        else:
            arguments = {node.arg for node in ast.walk(statement.args) if isinstance(node, ast.arg)}
            defaults = _defaults(statement.args)
            inner = _Walk(function, walk.attributes, walk.bound | arguments, defaults)
        yield from _block(statement, "body", inner)
        return
    if isinstance(statement, ast.Match):
        for case in statement.cases:
            names = (getattr(node, "name", None) for node in ast.walk(case.pattern))
            walk.bound |= set(filter(None, names))
            yield from _block(case, "body", walk)
    walk.bound |= _stored(statement) if isinstance(statement, ast.For | ast.With) else set()
    for name in BLOCKS:
        if isinstance(getattr(statement, name, None), list):
            yield from _block(statement, name, walk)


def _is_skipped(statement: ast.stmt) -> bool:
    """Return whether a statement computes nothing: imports, docstrings, messages, errors, several devices."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Raise() | ast.Assert() | ast.Pass():
            return True
        case ast.Expr(ast.Constant()):
            return True
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name in SKIPPED_FUNCTIONS
        case ast.Assign([ast.Name(name)]):
            return name in SKIPPED_NAMES
        case ast.If(test, [ast.Raise()], []):
            return True
        case ast.If(test):
            return _is_elsewhere(test)
        case ast.Expr(ast.Call(function)):
            return ast.unparse(function) in QUIET_CALLS
    return False


def _is_elsewhere(test: ast.expr) -> bool:
    """Return whether a condition is about several devices or bfloat16."""
    return any(text in ast.unparse(test) for text in ELSEWHERE)


def _defaults(arguments: ast.arguments) -> dict[str, ast.expr]:
    """Return the defaults, except None, of parameters that change a result in float32 on one device."""
    given = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    return {
        parameter.arg: default
        for parameter, default in zip(given, arguments.defaults, strict=True)
        if parameter.arg not in ONLY_ELSEWHERE and ast.unparse(default) != "None"
    }


def _attributes(node: ast.AST) -> set[str]:
    """Return the attributes of self that occur in a class."""
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "self"
    }


def _stored(statement: ast.stmt) -> set[str]:
    """Return the names that a statement binds."""
    header = head(statement)
    return {
        node.id
        for node in ast.walk(header)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def head(statement: ast.stmt) -> ast.stmt:
    """Return a statement without the statements inside it."""
    changes = {name: [ast.Pass()] for name in ("body",) if _is_block(statement, name)}
    changes |= {name: [] for name in ("orelse", "finalbody", "handlers", "cases", "decorator_list")}
    found = copy.copy(statement)
    for name, value in changes.items():
        if isinstance(getattr(statement, name, None), list):
            setattr(found, name, value)
    return found


def _is_block(statement: ast.stmt, name: str) -> bool:
    return isinstance(getattr(statement, name, None), list)


def line(statement: ast.stmt) -> str:
    """Return a statement as one line of source, or the first line of a compound statement."""
    text = ast.unparse(ast.fix_missing_locations(head(statement)))
    return " ".join(text.removesuffix("\n    pass").split())


def expressions(statement: ast.stmt) -> Iterator[tuple[ast.AST, str, int | None, ast.expr]]:
    """Yield the expressions of a statement, outer ones first, each with its owner, field and index.

    Functions yield their defaults. Messages, types, patterns and inner statements are left out.
    """
    if isinstance(statement, ast.FunctionDef):
        for name in ("defaults", "kw_defaults"):
            for index, node in enumerate(getattr(statement.args, name)):
                if node is not None:
                    yield statement.args, name, index, node
        return
    if isinstance(statement, ast.ClassDef):
        return
    yield from _expressions_in(statement)


def _expressions_in(owner: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.expr]]:
    for name, value in ast.iter_fields(owner):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        items = value if isinstance(value, list) else [value]
        for index, node in enumerate(items):
            if isinstance(node, ast.JoinedStr | ast.stmt | ast.match_case | ast.excepthandler):
                continue
            if isinstance(node, ast.IfExp) and _is_elsewhere(node.test):
                continue
            if isinstance(node, ast.expr):
                yield owner, name, index if isinstance(value, list) else None, node
            if isinstance(node, ast.AST):
                yield from _expressions_in(node)
