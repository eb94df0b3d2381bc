"""Check the weights in a file: names, shapes, types and values."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, UserNotice, listed, printable
from common.finite import WAYS_OUT
from common.weights.canonical import Shape, Weights, weight_shapes

OTHERS = (
    "A network of torchvision, timm or Keras is another one: train that with its own library, or start from the "
    "weights of a run of this project"
)
ANY = -1  # a size that differs between networks and is unknown
MAX_FAULTS_OF_A_KIND = 10  # listed in a message; a file may have any number


@dataclass(frozen=True)
class Entry:
    """Shape and dtype of an array in a file, known before its values are read."""

    shape: Shape  # in the canonical layout
    dtype: np.dtype[Any]


def check_weights(weights: Mapping[str, NDArray[Any]], source: str) -> Weights:
    """Return ``weights`` in canonical order, as float32.

    Raises UserError as `check_entries` does. Warns if values with more than 32 bits are rounded.
    """
    check_entries({n: Entry(w.shape, w.dtype) for n, w in weights.items()}, source)
    with np.errstate(over="ignore"):
        result = {name: weights[name].astype(np.float32, copy=False) for name in weight_shapes(1)}
    rounded = [
        name
        for name in result
        if weights[name].dtype.itemsize > 4
        and not np.array_equal(result[name], weights[name], equal_nan=True)
    ]
    if rounded:
        notice = (
            f"{source} has values with more than 32 bits, rounded to float32, in {listed(rounded)}"
        )
        warnings.warn(UserNotice(notice), stacklevel=2)
    return result


def check_entries(entries: Mapping[str, Entry], source: str) -> None:
    """Raise UserError, naming ``source``, unless names, shapes and types are those of ResNet-18.

    The message lists the faults, at most `MAX_FAULTS_OF_A_KIND` of each kind.
    """
    num_classes = _size(entries, "fc.weight", 0, 2)
    num_channels, in_channels = (_size(entries, "conv.weight", axis, 4) for axis in (0, 1))
    width = 64 if num_channels == ANY else num_channels
    shapes = weight_shapes(num_classes, in_channels, width)
    what = f"{source} does not hold the weights of this project's ResNet-18"
    known = shapes.keys() & entries.keys()
    if not known or 2 * len(known) < min(
        len(shapes), len(entries)
    ):  # such as torchvision's, which share fc.weight and fc.bias
        first = ", ".join([printable(name) for name in entries if name not in known][:3])
        names = (
            f"only {len(known)} of its {len(entries):,} names are"
            if known
            else "none of its names is"
        )
        raise UserError(f"{what}: {names} known; the first others are {first}. {OTHERS}")
    faults = [
        [f"{name} is missing" for name in shapes if name not in entries],
        [f"{printable(name)} is not expected" for name in entries if name not in shapes],
        [
            f"{name} {fault}"
            for name in shapes
            if name in entries and (fault := _fault(entries[name], shapes[name]))
        ],
    ]
    count = sum(map(len, faults))
    lines = [line for kind in faults for line in kind[:MAX_FAULTS_OF_A_KIND]]
    if count == 1:
        raise UserError(f"{what}: {lines[0]}")
    if count > len(lines):
        lines.append(f"and {count - len(lines):,} more")
    if count:
        raise UserError(f"{what}: {count:,} faults", *(f"  {line}" for line in lines))


def _size(entries: Mapping[str, Entry], name: str, axis: int, axes: int) -> int:
    """Return the size of an axis that differs between networks, or ANY if it is unknown."""
    known = name in entries and len(entries[name].shape) == axes
    return entries[name].shape[axis] if known else ANY


def _fault(entry: Entry, shape: Shape) -> str:
    """Return what is wrong with an entry, '' if nothing is."""
    fits = len(entry.shape) == len(shape) and all(
        right in (ANY, size) for size, right in zip(entry.shape, shape, strict=True)
    )
    if not fits:
        return f"has shape {entry.shape}, not {str(shape).replace(str(ANY), 'any')}"
    if 0 in entry.shape:
        return "has no values"
    if not np.issubdtype(entry.dtype, np.floating):
        return f"holds {entry.dtype}, not floating-point numbers"
    return ""


def check_values(weights: Weights, source: str) -> None:
    """Raise UserError, naming ``source``, for values that are not finite and variances below 0."""
    wrong = [
        name
        for name, weight in weights.items()
        if not np.isfinite(weight).all() or (name.endswith("running_var") and weight.min() < 0)
    ]
    if wrong:
        raise UserError(
            f"{source} has invalid values (not finite, or a variance below 0) in {listed(wrong)}: "
            + WAYS_OUT
        )


def renamed(names: Iterable[str], canonical: Mapping[str, str], source: str) -> dict[str, str]:
    """Return the canonical name for each name in a file, or the name itself if it has none.

    Raises UserError, naming ``source``, if two names have the same canonical name, because one would overwrite the
    other.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(canonical.get(name, name), name)
        if other != name:
            raise UserError(
                f"{source} has {printable(other)} and {printable(name)}, which are both "
                f"{printable(canonical.get(name, name))}: save only one network in a file"
            )
    return {name: new for new, name in found.items()}


def require_fit(shapes: Mapping[str, Shape], weights: Weights) -> None:
    """Raise ValueError unless ``weights`` have the names and shapes of a network, given as ``shapes``."""
    if wrong := sorted(shapes.keys() ^ weights.keys()):
        raise ValueError(f"missing or unexpected weights: {wrong}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(f"{name} has shape {weights[name].shape}, not {shape}")
