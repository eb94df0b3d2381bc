"""Changes of one expression: operators, constants, arguments, names, and off-by-one errors."""

import ast
import copy
import re
from collections.abc import Callable, Iterator

from tests.meta.mutants.places import Place

# Pairs of names of the same kind.
SWAPPED = [
    ("mean", "std"),
    ("height", "width"),
    ("out_height", "out_width"),
    ("rows", "columns"),
    ("top", "left"),
    ("first", "second"),
    ("train_iter", "test_iter"),
    ("train_iter", "valid_iter"),
    ("images", "labels"),
    ("image", "label"),
    ("X", "y"),
    ("X", "Y"),
    ("pred", "y"),
    ("l", "acc"),
    ("lr", "wd"),
    ("lr", "momentum"),
    ("lr_period", "lr_decay"),
    ("momentum", "weight_decay"),
    ("mean", "variance"),
    ("gamma", "beta"),
    ("moving_mean", "moving_variance"),
    ("in_channels", "num_channels"),
    ("conv1", "conv2"),
    ("bn1", "bn2"),
    ("seed", "epoch"),
    ("epoch", "index"),
    ("num_examples", "batch_size"),
    ("scale", "ratio"),
    ("brightness", "contrast"),
    ("contrast", "saturation"),
    ("saturation", "hue"),
    ("red", "green"),
    ("green", "blue"),
    ("red", "blue"),
    ("value", "chroma"),
    ("flip_left_right", "flip_top_bottom"),
    ("adjust_brightness", "adjust_contrast"),
    ("adjust_saturation", "adjust_hue"),
    ("RandomHorizontalFlip", "RandomVerticalFlip"),
    ("RandomFlipLeftRight", "RandomFlipTopBottom"),
    ("stateless_random_flip_left_right", "stateless_random_flip_up_down"),
    ("maximum", "minimum"),
    ("max", "min"),
    ("argmax", "argmin"),
]
OTHER_NAMES: dict[str, list[str]] = {}
for one, other in SWAPPED:
    OTHER_NAMES.setdefault(one, []).append(other)
    OTHER_NAMES.setdefault(other, []).append(one)
# Attributes that every tensor, module or optimizer has. They may be swapped even if only one of both is used.
ALWAYS_THERE = {"maximum", "minimum", "max", "min", "argmax", "argmin"} | {
    name for name in OTHER_NAMES if re.search("[fF]lip|adjust_|gamma|beta", name)
}
# String arguments of a framework, and another that it accepts instead.
WORDS = {
    "same": "valid",
    "relu": "tanh",
    "none": "sum",
    "int64": "int32",
    "gamma": "beta",
    "beta": "gamma",
    "moving_mean": "moving_variance",
    "moving_variance": "moving_mean",
}
COUNTED = {
    "epoch",
    "index",
    "indices",
    "number",
    "num_epochs",
    "batch_size",
    "num_examples",
    "i",
    "kind",
}
# Keyword arguments that change only speed, memory or a message.
SPEED = {
    *("fused", "non_blocking", "memory_format", "static_alloc", "static_shape", "mode"),
    *("persistent_workers", "num_parallel_calls", "reduce_retracing", "autograph", "jit_compile"),
    *("strict", "name", "stacklevel", "count", "xla"),
}
# Calls that return their first operand, perhaps with another device, dtype or memory layout, or only check it.
PLACEMENT = {
    *("to", "cpu", "detach", "contiguous", "numpy", "asnumpy", "as_in_ctx", "device", "identity"),
    *("as_nd_ndarray", "as_np_ndarray", "convert_to_tensor", "as_tensor", "ascontiguousarray"),
    *("array", "catch_warnings", "check_weights", "atomic_write"),
    *("tolist", "items", "values", "keys", "split", "append", "constant", "from_numpy"),
}
NOT_SWAPPED = {"isinstance", "getattr", "hasattr", "zip", "max", "min", "maximum", "minimum", "add"}
MODULES = {
    *("torch", "nn", "F", "tf", "keras", "layers", "mx", "np", "onp", "npx", "nd", "gluon"),
    *("transforms", "image", "init", "_native", "_replicas", "random", "autograd", "shutil"),
}

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Div, ast.Mod),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
}


def changed(node: ast.AST, **fields: object) -> ast.AST:
    """Return a copy of a node with other fields."""
    found = copy.copy(node)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def comparison(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield < as <=, == as != and so on."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            if new := COMPARISONS.get(type(operator)):
                yield changed(node, ops=[*node.ops[:i], new(), *node.ops[i + 1 :]])


def boolean(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield `and` as `or` and the reverse, and the operand of a `not`."""
    if isinstance(node, ast.BoolOp):
        yield changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand


def arithmetic(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield + as -, * as /, // as / and %, and so on, and the operand of a minus."""
    if isinstance(node, ast.BinOp) and not _is_text(node):
        for new in ARITHMETIC.get(type(node.op), ()):
            yield changed(node, op=new())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand


def constant(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield 0 as 1, n as n + 1 and n - 1, x as 1.1 x, False as True, a framework's string as another."""
    if isinstance(node, ast.Constant):
        match node.value:
            case bool(value):
                found: list[object] = [not value]
            case int(value):
                found = {0: [1], 1: [0, 2]}.get(value, [value + 1, value - 1])
            case float(value):
                found = [value * 1.1] if value else [0.1]
            case str(value):
                found = [WORDS[value]] if value in WORDS else []
            case _:
                found = []
        for value in found:
            yield ast.Constant(value)


def keyword(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield a call without one of its keyword arguments."""
    if isinstance(node, ast.Call):
        for i, argument in enumerate(node.keywords):
            if argument.arg is not None and argument.arg not in SPEED:
                yield changed(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])


def element(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield a list or dict without one of its elements."""
    if isinstance(node, ast.List) and len(node.elts) > 1:
        for i in range(len(node.elts)):
            yield changed(node, elts=[*node.elts[:i], *node.elts[i + 1 :]])
    if isinstance(node, ast.Dict) and len(node.keys) > 1:
        for i in range(len(node.keys)):
            keys, values = list(node.keys), list(node.values)
            del keys[i], values[i]
            yield changed(node, keys=keys, values=values)


def argument(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield a call with two neighbouring arguments swapped."""
    if not isinstance(node, ast.Call) or called(node) in NOT_SWAPPED:
        return
    for i, (one, other) in enumerate(zip(node.args, node.args[1:], strict=False)):
        if ast.dump(one) != ast.dump(other):
            yield changed(node, args=[*node.args[:i], other, one, *node.args[i + 2 :]])


def name(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield another name of the same kind, if it is defined in the function or class."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for other in OTHER_NAMES.get(node.id, ()):
            if other in place.bound or other in ALWAYS_THERE:
                yield ast.Name(other, ast.Load())
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        for other in OTHER_NAMES.get(node.attr, ()):
            if other in place.attributes or other in ALWAYS_THERE:
                yield changed(node, attr=other)


def call(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield the object of a method, or a function's first argument, instead of the call."""
    if not isinstance(node, ast.Call) or called(node) in PLACEMENT:
        return
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if owner is not None and _root(owner) not in MODULES and "super" not in ast.unparse(owner):
        yield owner
    elif node.args and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
        yield node.args[0]


def off_by_one(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield counts and lengths plus and minus 1, such as epoch - 1; yield range(n) as range(n - 1)."""
    loaded = isinstance(getattr(node, "ctx", None), ast.Load)
    is_count = (isinstance(node, ast.Name) and loaded and node.id in COUNTED) or (
        isinstance(node, ast.Attribute) and loaded and node.attr in COUNTED
    )
    if is_count or (isinstance(node, ast.Call) and called(node) == "len"):
        for new in (ast.Sub(), ast.Add()):
            yield ast.BinOp(node, new, ast.Constant(1))
    if isinstance(node, ast.Call) and called(node) == "range":
        less = ast.BinOp(node.args[-1], ast.Sub(), ast.Constant(1))
        yield changed(node, args=[*node.args[:-1], less])


def ignored(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield the default of a parameter instead of its value."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in place.defaults:
        yield place.defaults[node.id]


def comprehension(node: ast.expr, place: Place) -> Iterator[ast.AST]:
    """Yield a list or dict comprehension without the last element of its iterable, and without the first."""
    if isinstance(node, ast.ListComp | ast.DictComp):
        first, *rest = node.generators
        if isinstance(first.iter, ast.Call) and called(first.iter) in ("range", "batches"):
            return
        for bounds in ("[:-1]", "[1:]"):
            fewer = ast.parse(f"list({ast.unparse(first.iter)}){bounds}", mode="eval").body
            yield changed(node, generators=[changed(first, iter=fewer), *rest])


OPERATORS: dict[str, Callable[[ast.expr, Place], Iterator[ast.AST]]] = {
    "comparison": comparison,
    "boolean": boolean,
    "arithmetic": arithmetic,
    "constant": constant,
    "keyword dropped": keyword,
    "element dropped": element,
    "arguments swapped": argument,
    "name swapped": name,
    "call dropped": call,
    "off by one": off_by_one,
    "batches left out": comprehension,
    "argument ignored": ignored,
}


def called(node: ast.Call) -> str:
    """Return the last name of the called function."""
    match node.func:
        case ast.Attribute(attr=found) | ast.Name(id=found):
            return found
    return ""


def _root(node: ast.expr) -> str:
    return ast.unparse(node).partition(".")[0]


def _is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in sides
    )
