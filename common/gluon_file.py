"""The weights of ResNet-18 in Gluon's `.params` files, on machines without MXNet too.

Gluon's layouts are the canonical ones; its names differ. `save_parameters` counts the layers of a network:
`3.0.bn1.gamma` is the canonical `resnet_block1.0.bn1.weight`. `export` and the older `save_params` count the layers of
a kind through the process: `arg:conv7_weight`.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from common.errors import UserError
from common.params_file import read_params, write_params
from common.weights import (
    Entry,
    Weights,
    check_entries,
    check_weights,
    renamed,
    shown,
    weight_shapes,
)

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
