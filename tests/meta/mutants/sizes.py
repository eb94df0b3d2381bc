"""Mistakes that only unusual sizes show: a missing statement or a wrong value for some batches, images or epochs."""

import ast
from collections.abc import Iterator

from tests.meta.mutants.operators import OPERATORS
from tests.meta.mutants.places import Edit, Place, expressions
from tests.meta.mutants.statements import Statements, dropped

# File and defined name: conditions that are true only for some sizes. {c}, {h} and {w} are axes.
BATCH = ("{0}.shape[0] % 4 != 0", "{0}.shape[0] > 8", "{0}.shape[0] == 1")
PICTURE = ("{0}.shape[{{h}}] != {0}.shape[{{w}}]",)
CHANNELS = ("{0}.shape[{{c}}] != 3",)
LATE = "epoch >= 2"


def _of(name: str, *conditions: str) -> tuple[str, ...]:
    return tuple(condition.format(name) for condition in conditions)


CONDITIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "trainer": {
        "X": _of("X", *BATCH, *PICTURE, *CHANNELS),
        "y_hat": _of("y_hat", "{0}.shape[0] % 4 != 0", "{0}.shape[1] != 10"),
        "pred": ("pred.shape[1] != 10",),
        "_": ("_ >= 2",),
    },
    "kaggle": {"epoch": (LATE,), "X": _of("X", "{0}.shape[0] % 4 != 0")},
    "loaders": {
        "epoch": (LATE,),
        "index": ("index >= 8",),
        "number": ("number >= 2",),
        "indices": ("len(indices) % 4 != 0", "len(indices) > 8", "len(indices) == 1"),
        "dataset": ("len(dataset) > 50",),
        "num_workers": ("num_workers > 2",),
        "size": ("size[0] != size[1]",),
    },
    "transforms": {
        "X": _of("X", *BATCH, *PICTURE),
        "images": ("images.shape[0] % 4 != 0", "images.shape[1] != images.shape[2]"),
    },
    "_native": {name: (f"{name}.shape[0] != {name}.shape[1]",) for name in ("X", "x")},
    "resnet": {"num_classes": ("num_classes != 10", "num_classes == 1")},
    "weights": {"weights": ("len(weights['fc.bias']) != 10",)},
}
CONDITIONS["resnet"]["in_channels"] = ("in_channels in (1, 2)",)
AXES = {
    "pytorch": {"c": 1, "h": 2, "w": 3},
    "mxnet": {"c": 1, "h": 2, "w": 3},
    "tensorflow": {"c": 3, "h": 1, "w": 2},
}
# Traced or symbolic functions, in which sizes are unknown.
SYMBOLIC = {"_adjust_in_turn", "hybrid_forward", "native.transform", "random_flip.transform"}
# NumPy arrays with one entry per image. Entries from position 8 on get the value of the first image.
BY_POSITION = ("flips", "factors", "shifts", "rows", "columns", "indices")
# Functions that return neither a tensor nor a number.
NO_TENSOR = {
    *("resnet18", "resnet_block", "native", "one_liner", "load_native", "load_batched", "prepare"),
    *("get_weights", "load_file", "load_net", "parameters_by_name", "tensors_by_name", "train"),
    *("train_ch13", "__iter__", "_example", "resize", "random_flip"),
}
BASES = ("constant", "arithmetic", "keyword dropped", "comparison", "arguments swapped")


def conditions(place: Place, backend: str, file: str) -> list[str]:
    """Return the conditions on size that can be written before a statement."""
    if place.function in SYMBOLIC or place.function.rpartition(".")[2] in SYMBOLIC:
        return []
    known = CONDITIONS.get(file, {})
    return [
        condition.format(**AXES[backend])
        for name, all_of_name in known.items()
        if name in place.bound
        for condition in all_of_name
    ]


def by_size(place: Place, backend: str, file: str) -> Iterator[Statements]:
    """Yield a statement that is dropped or changed under a condition on size."""
    if isinstance(place.statement, ast.Assign | ast.Expr | ast.Return | ast.AugAssign):
        for condition in conditions(place, backend, file):
            for wrong in _wrong(place):
                yield [_conditional(condition, wrong, place.statement)]


def by_position(place: Place, backend: str, file: str) -> Iterator[Statements]:
    """Yield, at the start of a function, a copy of an array whose entries from 8 on equal the first."""
    body = place.body
    docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    if file != "transforms" or place.index != int(docstring) or "X" not in place.bound:
        return
    if place.function in SYMBOLIC or "." in place.function:
        return
    for name in BY_POSITION:
        if name in place.bound:
            lines = f"{name} = {name}.copy()\n{name}[8:] = {name}[:1]"
            yield [*ast.parse(lines).body, place.statement]


def _wrong(place: Place) -> Iterator[Statements]:
    """Yield up to two wrong forms of a statement: dropped, a result that is too large, or another change."""
    found = list(dropped(place))
    name = place.function.rpartition(".")[2]
    if name not in NO_TENSOR and (value := _scaled(place.statement)):
        found.append([value])
    if not found:
        found = [[changed] for changed in _changes(place)][:1]
    yield from found[:2]


def _scaled(statement: ast.stmt) -> ast.stmt | None:
    """Return a return statement whose (first) value is too large; None for other statements."""
    match statement:
        case ast.Return(ast.Tuple([first, *rest])):
            return ast.Return(ast.Tuple([_larger(first), *rest], ast.Load()))
        case ast.Return(ast.BinOp() | ast.Name() | ast.Call() as value):
            return ast.Return(_larger(value))
    return None


def _larger(node: ast.expr) -> ast.expr:
    return ast.BinOp(node, ast.Mult(), ast.Constant(2))


def _changes(place: Place) -> Iterator[ast.stmt]:
    """Yield a statement with one of its expressions changed."""
    for owner, field, index, node in expressions(place.statement):
        for operator in BASES:
            for new in OPERATORS[operator](node, place):
                yield _replaced(place.statement, (owner, field, index), new)


def _replaced(statement: ast.stmt, slot: tuple[ast.AST, str, int | None], new: ast.AST) -> ast.stmt:
    """Return a copy of a statement with one expression replaced."""
    with Edit(*slot, new).applied():
        (copied,) = ast.parse(ast.unparse(ast.fix_missing_locations(statement))).body
    return copied


def _conditional(condition: str, wrong: Statements, right: ast.stmt) -> ast.stmt:
    test = ast.parse(condition, mode="eval").body
    if not wrong or isinstance(wrong[0], ast.Pass):
        return ast.If(ast.UnaryOp(ast.Not(), test), [right], [])
    return ast.If(test, wrong, [right])
