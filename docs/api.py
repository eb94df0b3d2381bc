"""Make the page of the Python API: signatures and docstrings, read from the source, so that no NumPy is needed.

`contract` shows a part of a `Backend`. The arguments and types come from its Protocol in common/interface.py. The first
docstring line comes from the PyTorch tab; it is the same in every backend. `public_names` shows the names that a
package exports.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

TAB = "backends/pytorch"
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def contract(root: Path, part: str) -> str:
    """Return a part of a backend, such as `trainer`, as Markdown. Raises LookupError for an unknown part."""
    interface = _definitions(root / "common" / "interface.py")
    fields = dict(_fields(interface["Backend"]))
    del fields["framework"]  # not a part: the record of the framework
    if part not in fields:
        raise LookupError(f"a backend has no {part}: choose from {', '.join(fields)}")
    protocol = interface[fields[part]]
    tab = _definitions(root / TAB / f"{part}.py")
    entries = [_docstring(protocol)]
    for function in _functions(protocol):
        if function.name not in tab:
            raise LookupError(f"{TAB}/{part}.py defines no {function.name}")
        first = _docstring(tab[function.name]).split("\n")[0]
        entries.append(_entry("function", f"backend.{part}.{_signature(function)}", first))
    return "\n\n".join(entries)


def public_names(root: Path, package: str, names: list[str]) -> str:
    """Return functions and classes of a package as Markdown: these names, by default all that it exports.

    Raises LookupError for an unknown name.
    """
    init = root.joinpath(*package.split("."), "__init__.py")
    tree = ast.parse(init.read_text(encoding="utf-8"))
    found = _definitions(init)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            path = root.joinpath(*node.module.split(".")).with_suffix(".py")
            if path.exists():
                imported = {alias.name for alias in node.names}
                found |= {n: d for n, d in _definitions(path).items() if n in imported}
    if unknown := set(names) - found.keys():
        raise LookupError(f"{package} defines no {', '.join(sorted(unknown))}")
    return "\n\n".join(_shown(package, found[name]) for name in names or _exported(tree))


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise LookupError("no __all__")


def _shown(package: str, definition: Definition) -> str:
    """Return a function, or a class with its fields and its public methods."""
    if isinstance(definition, Function):
        signature = _signature(definition)
        return _entry("function", f"{package}.{signature}", _docstring(definition))
    members = [
        _entry("property", function.name, _docstring(function))
        if any(ast.unparse(decorator) == "property" for decorator in function.decorator_list)
        else _entry("method", _signature(function), _docstring(function))
        for function in _functions(definition)
        if not function.name.startswith("_")
    ]
    signature = ", ".join(f"{name}: {kind}" for name, kind in _fields(definition))
    text = "\n\n".join([_docstring(definition), *members])
    return _entry("class", f"{package}.{definition.name}({signature})", text)


def _entry(kind: str, signature: str, text: str) -> str:
    """Return the Markdown of a signature with its text, in a fence longer than those inside."""
    fence = "`" * (3 if "```" not in text else 4)
    return f"{fence}{{py:{kind}}} {signature}\n\n{text}\n{fence}"


def _definitions(path: Path) -> dict[str, Definition]:
    """Return the functions and classes of a file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, Definition)}


def _functions(node: ast.AST) -> Iterator[Function]:
    assert isinstance(node, ast.ClassDef)
    return (each for each in node.body if isinstance(each, Function))


def _fields(node: ast.AST) -> list[tuple[str, str]]:
    """Return the annotated names of a class with their types."""
    assert isinstance(node, ast.ClassDef)
    return [
        (ast.unparse(each.target), ast.unparse(each.annotation))
        for each in node.body
        if isinstance(each, ast.AnnAssign)
    ]


def _docstring(node: Definition) -> str:
    text = ast.get_docstring(node)
    if text is None:
        raise LookupError(f"{node.name} has no docstring")
    return text


def _signature(function: Function) -> str:
    """Return a function's name, arguments and result, without ``self``."""
    arguments = ast.unparse(function.args).removeprefix("self").removeprefix(", ")
    result = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{function.name}({arguments}){result}".replace("'Backend'", "Backend")
