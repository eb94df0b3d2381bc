"""The weights of ResNet-18 in Gluon's `.params` files, read and written without MXNet.

Gluon's layouts are the canonical ones; its names differ. `save_parameters` names a layer by its position in the
network: `3.0.bn1.gamma` is the canonical `resnet_block1.0.bn1.weight`. `export` and the older `save_params` number the
layers of each kind in the order in which the process made them: `arg:conv7_weight`.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.errors import UserError, printable
from common.weights.canonical import Weights, weight_shapes
from common.weights.checks import Entry, check_entries, check_weights, renamed
from common.weights.params import read_params, write_params

# {canonical layer: its position in the network}. Blocks and their layers keep their names.
LAYERS = {
    "conv": "0",
    "bn": "1",
    "resnet_block1": "3",
    "resnet_block2": "4",
    "resnet_block3": "5",
    "resnet_block4": "6",
    "fc": "8",
}
BATCH_NORM = {"weight": "gamma", "bias": "beta"}  # {canonical name: Gluon's}


def _name(name: str) -> str:
    layer, *path, value = name.split(".")
    if "bn" in name:
        value = BATCH_NORM.get(value, value)
    return ".".join([LAYERS[layer], *path, value])


# {canonical name: name in a file of `save_parameters`}
NAMES = {name: _name(name) for name in weight_shapes(1)}

COUNTED = re.compile(r"(?:arg:|aux:)?(.*_)?([a-z]+)([0-9]{1,9})_([a-z_]+)")
KINDS = {
    "conv": "conv",
    "batchnorm": "bn",
    "dense": "fc",
}  # {in a numbered name: in a canonical name}


def load_params(path: Path) -> Weights:
    """Read canonical weights from a `.params` file of the book's network.

    The file may be from `save_parameters`, `export` or the older `save_params`, with or without MXNet's NumPy
    interface. Raises UserError for any other file.
    """
    names: dict[str, str] = {}

    def check(entries: Mapping[str, Entry]) -> None:
        names.update(canonical_names(entries, str(path)))
        check_entries({names[name]: entry for name, entry in entries.items()}, str(path))

    arrays = read_params(path, check)
    return check_weights({names[name]: array for name, array in arrays.items()}, str(path))


def save_params(path: Path, weights: Weights) -> None:
    """Write canonical weights as a `.params` file that `load_parameters` can read, with either interface."""
    write_params(path, {NAMES[name]: weight for name, weight in weights.items()})


def named_by_position(names: Iterable[str]) -> bool:
    """Return whether the names are from `save_parameters`, not from `export` or `save_params`."""
    return not set(NAMES.values()).isdisjoint(names)


def graph_beside(path: Path) -> Path | None:
    """Return the graph that `export` writes next to a `.params` file: `net-symbol.json` for `net-0000.params`.

    Return None if there is none, or if the file name is not from `export`.
    """
    match = re.fullmatch(r"(.*)-[0-9]{4,}\.params", path.name)
    graph = path.with_name(f"{match[1]}-symbol.json") if match else None
    return graph if graph is not None and graph.is_file() else None


def layers_are_known(path: Path) -> bool:
    """Return whether MXNet can assign the weights in a file to layers: by their names, or by the graph of `export`."""
    return named_by_position(read_params(path)) or graph_beside(path) is not None


def canonical_names(names: Iterable[str], source: str) -> dict[str, str]:
    """Return the canonical name for each of Gluon's; names of other networks are not changed.

    Raises UserError, naming ``source``, if two names have the same canonical name or belong to two networks.
    """
    names = list(names)
    if named_by_position(names):
        return renamed(names, {own: name for name, own in NAMES.items()}, source)
    return renamed(names, _canonical_of_counted(names, source), source)


def _canonical_of_counted(names: Iterable[str], source: str) -> dict[str, str]:
    """Return the canonical names for those of `export` and `save_params`.

    The numbers increase in the order in which the layers were made, which is the canonical order; they may start at any
    number. This is true within one prefix, because each prefix has its own count.
    """
    found: dict[str, tuple[str, int, str]] = {}
    prefixes: dict[str, str] = {}  # {prefix: a name with it}
    for name in names:
        match = COUNTED.fullmatch(name)
        if match and match[2] in KINDS:
            found[name] = KINDS[match[2]], int(match[3]), match[4]
            prefixes.setdefault(match[1] or "", name)
    if len(prefixes) > 1:
        one, other = list(prefixes.values())[:2]
        raise UserError(
            f"{source}: {printable(one)} and {printable(other)} have different prefixes, so the order of their layers "
            "is unknown: save the network with save_parameters"
        )
    layers = dict.fromkeys(name.rpartition(".")[0] for name in NAMES)
    canonical: dict[tuple[str, int], str] = {}
    for kind in KINDS.values():
        numbers = sorted({n for k, n, _ in found.values() if k == kind})
        named = [layer for layer in layers if kind in layer.rpartition(".")[2]]
        canonical |= dict(zip(((kind, n) for n in numbers), named, strict=False))
    values = {own: value for value, own in BATCH_NORM.items()}
    return {
        name: f"{canonical[kind, number]}.{values.get(value, value)}"
        for name, (kind, number, value) in found.items()
        if (kind, number) in canonical
    }
