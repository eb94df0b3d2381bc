"""Read the contract in common/interface.py and the functions of the backends' files from their sources, with `ast`."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = {
    "devices": "Devices",
    "transforms": "Transforms",
    "loaders": "Loaders",
    "processes": "Processes",
    "resnet": "ResNet",
    "weights": "WeightFiles",
    "trainer": "Trainers",
    "kaggle": "Kaggle",
    "probes": "Probes",
}
# Extra arguments, with defaults, that the book's cells pass to the function of a single tab.
EXTRAS = {("mxnet", "train_batch_ch13"): ("split_f", "split_batch")}
Signature = tuple[list[str], list[str]]


def signature(function: ast.FunctionDef) -> Signature:
    """Return the argument names and the source of the defaults."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    defaults = [ast.unparse(d) for d in (*arguments.defaults, *arguments.kw_defaults) if d]
    return [name for name in names if name != "self"], defaults


def functions(body: list[ast.stmt]) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def contract(protocol: str) -> dict[str, Signature]:
    tree = ast.parse((ROOT / "common/interface.py").read_text())
    (node,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == protocol]
    return {name: signature(function) for name, function in functions(node.body).items()}


def source(backend: str, file: str) -> str:
    return (ROOT / "backends" / backend / f"{file}.py").read_text()


def first_lines(text: str) -> dict[str, str]:
    public = {n: f for n, f in functions(ast.parse(text).body).items() if not n.startswith("_")}
    return {name: (ast.get_docstring(f) or "").partition("\n")[0] for name, f in public.items()}


def departures(text: str, protocol: str, backend: str = "") -> list[str]:
    """Return the functions of a protocol that a backend's file lacks or defines differently."""
    found = {
        name: signature(function) for name, function in functions(ast.parse(text).body).items()
    }
    wanted = contract(protocol)
    for name in wanted:
        if extra := EXTRAS.get((backend, name)):
            for part, more in zip(wanted[name], extra, strict=True):
                part.append(more)
    return [name for name in wanted if found.get(name) != wanted[name]]
