"""The weights of ResNet-18 in Gluon's `.params` files, on machines without MXNet too.

Gluon's layouts are the canonical ones; its names differ. `save_parameters` counts the layers of a network:
`3.0.bn1.gamma` is the canonical `resnet_block1.0.bn1.weight`. `export` and the older `save_params` count the layers of
a kind through the process: `arg:conv7_weight`.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.weights.canonical import (
    Entry,
    Weights,
    check_entries,
    check_weights,
    renamed,
    shown,
    weight_shapes,
)
from common.weights.params import read_names, read_params, write_params

# Canonical name: position in the network.
POSITIONS = {
    "conv": "0",
    "bn": "1",
    "resnet_block1": "3",
    "resnet_block2": "4",
    "resnet_block3": "5",
    "resnet_block4": "6",
    "fc": "8",
}
SCALE = {"weight": "gamma", "bias": "beta"}  # of BatchNorm
COUNTED = re.compile(r"(?:arg:|aux:)?(.*_)?([a-z]+)([0-9]{1,9})_([a-z_]+)")
MOST_GRAPH = 1_000_000  # bytes; that of this network has 60,000
MOST_WINDOW = 16
# What MXNet's two interfaces make of the layers; no other operator is run.
OPERATORS = {
    "null",  # an input
    "Convolution",
    "BatchNorm",
    "Activation",
    "relu",
    "_npx_relu",
    "Pooling",
    "Flatten",
    "FullyConnected",
    "elemwise_add",
    "_npi_add",
}
KINDS = {"conv": "conv", "batchnorm": "bn", "dense": "fc"}


def load_params(path: Path) -> Weights:
    """Read canonical weights from a `.params` file of the book's network.

    It may be from `save_parameters`, `export` or the older `save_params`, with MXNet's NumPy interface or without.
    Raises UserError for any other file.
    """
    names: dict[str, str] = {}

    def check(entries: dict[str, Entry]) -> None:
        names.update(canonical_names(entries, str(path)))
        check_entries({names[name]: entry for name, entry in entries.items()}, str(path))

    arrays = read_params(path, check)
    return check_weights({names[name]: array for name, array in arrays.items()}, str(path))


def graph_beside(path: Path) -> Path | None:
    """Return where `export` has put the graph of a `.params` file, None where the file's name is not as it gives them.

    `net-0000.params` goes with `net-symbol.json`.
    """
    match = re.fullmatch(r"(.*)-[0-9]{4,}\.params", path.name)
    return path.with_name(f"{match[1]}-symbol.json") if match else None


def is_proven_by_mxnet(path: Path) -> bool:
    """Tell whether MXNet itself places the weights of a `.params` file: by position, or by the graph of `export`."""
    graph = graph_beside(path)
    return counted_by_position(read_names(path)) or (graph is not None and graph.is_file())


def read_graph(path: Path) -> str:
    """Return the graph of a network from `export`, as JSON, having found in it nothing but what ResNet-18 is made of.

    MXNet's own loader trusts what a file says. Raises UserError for any other file.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MOST_GRAPH + 1)
        graph = json.loads(text)
        nodes = graph["nodes"]
        lawful = len(text) <= MOST_GRAPH and all(
            _is_lawful(node, number) for number, node in enumerate(nodes)
        )
        heads = [[int(index), 0, 0] for index, *_ in graph["heads"]]
        lawful = lawful and len(heads) == 1 and 0 <= heads[0][0] < len(nodes)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        lawful = False
    if not lawful:
        raise UserError(
            f"{path} is not the graph of a ResNet-18 from export, or is damaged; without it the weights beside it are "
            "converted unproven"
        )
    arguments = [number for number, node in enumerate(nodes) if node["op"] == "null"]
    attrs = graph.get("attrs", {})
    kept = {"nodes": nodes, "arg_nodes": arguments, "heads": heads, "attrs": attrs}
    return json.dumps(kept)


def _is_lawful(node: Any, number: int) -> bool:
    """Tell whether a node computes what ResNet-18 does, from nodes before it, with windows of its size."""
    windows = [
        node.get("attrs", {}).get(name, "") for name in ("kernel", "pad", "stride", "dilate")
    ]
    return (
        node.keys() <= {"op", "name", "attrs", "inputs"}
        and node["op"] in OPERATORS
        and isinstance(node["name"], str)
        and all(isinstance(text, str) for text in node.get("attrs", {}).values())
        and all(0 <= source < number for source, *_ in node["inputs"])
        and all(output == 0 for _, output, *_ in node["inputs"])
        and all(int(size) <= MOST_WINDOW for text in windows for size in re.findall(r"\d+", text))
    )


def save_params(path: Path, weights: Weights) -> None:
    """Write canonical weights as a `.params` file that `load_parameters` reads, with either interface."""
    write_params(path, {gluon_name(name): weight for name, weight in weights.items()})


def gluon_name(name: str) -> str:
    """Return the name that `save_parameters` gives to a canonical weight: `3.0.bn1.gamma` and its like."""
    layer, _, rest = name.partition(".")
    *path, kind = rest.split(".")
    if "bn" in name:
        kind = SCALE.get(kind, kind)
    return ".".join([POSITIONS[layer], *path, kind])


def counted_by_position(names: Iterable[str]) -> bool:
    """Tell the names of `save_parameters` from those of `export` and `save_params`."""
    return any(name in names for name in map(gluon_name, weight_shapes(1)))


def canonical_names(names: Iterable[str], source: str) -> dict[str, str]:
    """Return the canonical name for each of Gluon's; names of other networks stay as they are.

    Raises UserError, naming ``source``, where two names would become one or belong to two networks.
    """
    names = list(names)
    if counted_by_position(names):
        return renamed(names, {gluon_name(name): name for name in weight_shapes(1)}, source)
    return renamed(names, _canonical_of_counted(names, source), source)


def _canonical_of_counted(names: Iterable[str], source: str) -> dict[str, str]:
    """Return the canonical names for those of `export` and `save_params`.

    The numbers grow in the order in which layers are made, which is the canonical one; they start anywhere. That holds
    within one prefix, as each has a count of its own.
    """
    matches = {name: COUNTED.fullmatch(name) for name in names}
    found: dict[str, tuple[str, int, str]] = {}
    prefixes: dict[str, str] = {}  # and a name that has it
    for name, match in matches.items():
        if match and match[2] in KINDS:
            found[name] = KINDS[match[2]], int(match[3]), match[4]
            prefixes.setdefault(match[1] or "", name)
    if len(prefixes) > 1:
        one, other = list(prefixes.values())[:2]
        raise UserError(
            f"{source}: {shown(one)} and {shown(other)} have different prefixes, so that the order of their layers "
            "is not known: save the network with save_parameters"
        )
    layers = dict.fromkeys(n.rpartition(".")[0] for n in weight_shapes(1))
    canonical: dict[tuple[str, int], str] = {}
    for kind in KINDS.values():
        numbers = sorted({n for k, n, _ in found.values() if k == kind})
        named = [name for name in layers if kind in name.rpartition(".")[2]]
        canonical |= dict(zip(((kind, n) for n in numbers), named, strict=False))
    scale = {gluon: own for own, gluon in SCALE.items()}
    return {
        name: f"{canonical[kind, number]}.{scale.get(value, value)}"
        for name, (kind, number, value) in found.items()
        if (kind, number) in canonical
    }
