"""Checks of the weights in a file: names, shapes, types and values."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, UserNotice, listed, printable
from common.weights.canonical import Shape, Weights, weight_shapes

ANY = -1  # a size that differs between networks and is unknown here
MAX_FAULTS_OF_A_KIND = 10  # faults that are listed: a file may have any number


@dataclass(frozen=True)
class Entry:
    """What the index of a file says about an array, before its values are read."""

    shape: Shape  # in the canonical layout
    dtype: np.dtype[Any]


def check_weights(weights: Mapping[str, NDArray[Any]], source: str) -> Weights:
    """Return ``weights`` in canonical order, as float32.

    Raises UserError as `check_entries` does. Warns if values of more than 32 bits are rounded.
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
        notice = f"{source} holds more than 32 bits, rounded to float32, in {listed(rounded)}"
        warnings.warn(UserNotice(notice), stacklevel=2)
    return result


def check_entries(entries: Mapping[str, Entry], source: str) -> None:
    """Raise UserError, naming ``source``, unless names, shapes and types are those of ResNet-18.

    The message lists every fault, of each kind at most `MAX_FAULTS_OF_A_KIND`.
    """
    num_classes = _size(entries, "fc.weight", 0, 2)
    num_channels, in_channels = (_size(entries, "conv.weight", axis, 4) for axis in (0, 1))
    width = 64 if num_channels == ANY else num_channels
    shapes = weight_shapes(num_classes, in_channels, width)
    what = f"{source} does not hold the weights of this project's ResNet-18"
    if not shapes.keys() & entries.keys():
        raise UserError(
            f"{what}: none of its {len(entries):,} names is known, the first are "
            f"{', '.join(map(printable, list(entries)[:3]))}"
        )
    faults = [
        [f"{name} is missing" for name in shapes if name not in entries],
        [f"{printable(name)} is not wanted" for name in entries if name not in shapes],
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
        raise UserError(f"{what}: {count:,} faults" + "".join(f"\n  {line}" for line in lines))


def _size(entries: Mapping[str, Entry], name: str, axis: int, axes: int) -> int:
    """Return the size of an axis that differs between networks, ANY if the array does not tell it."""
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
    """Raise UserError, naming ``source``, for weights that no network can compute with."""
    wrong = [
        name
        for name, weight in weights.items()
        if not np.isfinite(weight).all() or (name.endswith("running_var") and weight.min() < 0)
    ]
    if wrong:
        raise UserError(
            f"{source} holds values that a network cannot compute with (not finite, or a variance below 0) in "
            f"{listed(wrong)}"
        )


def renamed(names: Iterable[str], canonical: Mapping[str, str], source: str) -> dict[str, str]:
    """Return the canonical name for each name of a file, or the name itself if it has none.

    Raises UserError, naming ``source``, if two names stand for one weight: the last would overwrite the first.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(canonical.get(name, name), name)
        if other != name:
            raise UserError(
                f"{source} holds {printable(other)} and {printable(name)}, which both stand for "
                f"{printable(canonical.get(name, name))}: save one network alone"
            )
    return {name: new for new, name in found.items()}


def require_fit(shapes: Mapping[str, Shape], weights: Weights) -> None:
    """Raise ValueError unless ``weights`` have the names and shapes of a network, which are ``shapes``."""
    if wrong := sorted(shapes.keys() ^ weights.keys()):
        raise ValueError(f"weights missing or not wanted: {wrong}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(f"{name} has shape {weights[name].shape}, not {shape}")
