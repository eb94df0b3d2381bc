"""Changes of a statement: dropped, ended early, a constant condition, batches left out."""

import ast
from collections.abc import Callable, Iterator

from tests.meta.mutants.operators import called, changed
from tests.meta.mutants.places import Place

Statements = list[ast.stmt]


def dropped(place: Place) -> Iterator[Statements]:
    """Drop a call, an update of a variable, or an assignment to a name that already has a value."""
    if is_droppable(place) and not _only_places(place.statement):
        yield [ast.Pass()] if len(place.body) == 1 else []


def is_droppable(place: Place) -> bool:
    """Return whether the code after a statement can run without it."""
    match place.statement:
        case ast.Expr(ast.Yield()):
            return False
        case ast.Expr(ast.Call(function)):
            return ast.unparse(function) != "super().__init__"
        case ast.Expr() | ast.AugAssign():
            return True
        case ast.Assign([ast.Subscript()]):
            return True
        case ast.Assign([target]):
            names = {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} - {"self"}
            attributes = any(isinstance(n, ast.Attribute) for n in ast.walk(target))
            return bool(names) and not attributes and names <= place.bound
    return False


def _only_places(statement: ast.stmt) -> bool:
    """Return whether a statement only moves tensors to a device: on the CPU, they are already there."""
    if not isinstance(statement, ast.Assign):
        return False
    values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
    return all(
        called_in(value) in ("identity", "as_in_ctx")
        or (called_in(value) == "to" and "device" in ast.unparse(value))
        for value in values
    )


def context(place: Place) -> Iterator[Statements]:
    """Yield the body of a `with` without the `with`."""
    statement = place.statement
    if isinstance(statement, ast.With) and not any(i.optional_vars for i in statement.items):
        yield statement.body


def early_return(place: Place) -> Iterator[Statements]:
    """Return X at the start of a function whose first argument is X."""
    body, statement = place.body, place.statement
    is_first = place.index == 0 or (place.index == 1 and isinstance(body[0], ast.Expr))
    function = place.function.rpartition(".")[2]
    if is_first and function and "X" in place.bound and len(body) > place.index + 1:
        yield [ast.Return(ast.Name("X", ast.Load())), statement]


def early_end(place: Place) -> Iterator[Statements]:
    """Yield a loop that ends after its first iteration."""
    statement = place.statement
    if isinstance(statement, ast.For):
        yield [changed(statement, body=[*statement.body, ast.Break()])]  # type: ignore[list-item]


def condition(place: Place) -> Iterator[Statements]:
    """Yield an `if` with the condition True, and one with False."""
    statement = place.statement
    if isinstance(statement, ast.If):
        for value in (True, False):
            yield [changed(statement, test=ast.Constant(value))]  # type: ignore[list-item]


def batches(place: Place) -> Iterator[Statements]:
    """Yield a loop without its last iteration, and one without its first."""
    statement = place.statement
    if not isinstance(statement, ast.For) or called_in(statement.iter) == "range":
        return
    for bounds in ("[:-1]", "[1:]"):
        iterated = statement.iter
        if isinstance(iterated, ast.Call) and called(iterated) == "batches":
            inner = ast.parse(f"list({ast.unparse(iterated.args[0])}){bounds}", mode="eval").body
            iterated = changed(iterated, args=[inner])  # type: ignore[assignment]
        else:
            iterated = ast.parse(f"list({ast.unparse(iterated)}){bounds}", mode="eval").body
        yield [changed(statement, iter=iterated)]  # type: ignore[list-item]


def called_in(node: ast.expr) -> str:
    return called(node) if isinstance(node, ast.Call) else ""


STATEMENTS: dict[str, Callable[[Place], Iterator[Statements]]] = {
    "statement dropped": dropped,
    "context dropped": context,
    "early return": early_return,
    "loop ended early": early_end,
    "condition fixed": condition,
    "batches left out": batches,
}
