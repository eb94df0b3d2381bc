"""Bring your own port: compare two versions of a network layer by layer, and name the first divergence.

This module imports no framework. A version of a network is a function from an input to named NumPy arrays.
docs/bring-your-own-port.md shows how to write one for PyTorch, Gluon and Keras.
"""

import copy
import difflib
import itertools
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.parity.port_hints import Array, Pair, half_stride_shift, hints

Arrays = Mapping[str, Array]  # layer: array, in the order of computation
Names = Mapping[str, str]  # layer of the original: layer of the port
Layouts = tuple[str, str]  # axes of the original and of the port, such as "NCHW"
Shape = tuple[int, ...]

# The largest difference that passes, relative to the layer's largest value in the original. Correct ports of ResNet-18
# differ by up to 8e-6 in float32 and 9e-15 in float64, measured as in docs/bring-your-own-port.md. These tolerances are
# 12 and 110 times as large, which leaves room for deeper networks.
TOLERANCES = {"float32": 1e-4, "float64": 1e-12}


@dataclass(frozen=True)
class Layer:
    """One layer in both versions, and the result of the comparison.

    ``largest`` is the largest absolute value in the original and ``difference`` the largest absolute difference.
    ``relative`` is their quotient, infinite if the original is zero everywhere. All three are NaN if the arrays could
    not be subtracted. Shapes are in the original's layout, None if the layer is missing. ``reason`` explains
    ``verdict``.
    """

    name: str
    port_name: str
    shape: Shape | None
    port_shape: Shape | None
    verdict: str  # "agrees", "differs", "shape", "not finite" or "missing"
    reason: str
    largest: float = np.nan
    difference: float = np.nan
    relative: float = np.nan

    @property
    def title(self) -> str:
        """The layer's name, and its name in the port if that differs."""
        return self.name if self.name == self.port_name else f"{self.name} = {self.port_name}"


@dataclass(frozen=True)
class Report:
    """The comparison: layers in the original's order, hints on the first divergence, and the layers left out.

    As text, a table, the first divergence in one sentence, and the hints. ``growth`` in the table is a layer's
    ``relative`` divided by that of the layer above. ``not_compared`` lists the layers of the original and of the port
    that the name map does not contain.
    """

    layers: tuple[Layer, ...]
    hints: tuple[str, ...] = ()
    not_compared: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def first(self) -> Layer | None:
        """The first layer that diverges, or None."""
        return next((layer for layer in self.layers if layer.verdict != "agrees"), None)

    def check(self) -> None:
        """Raise AssertionError with the first divergence and its hints, if there is one. Use it in a test."""
        if self.first is not None:
            raise AssertionError(self.conclusion())

    def conclusion(self) -> str:
        """Return the first divergence in one sentence, the number of later ones, and the hints."""
        if self.first is None:
            return f"No divergence: all layers agree ({len(self.layers)} compared)."
        lines = [f"First divergence: {self.first.title}: {self.first.reason}."]
        later = self.layers[self.layers.index(self.first) + 1 :]
        if diverging := sum(layer.verdict != "agrees" for layer in later):
            lines.append(
                f"{diverging} of the {len(later)} layers after it diverge too, "
                "possibly as a consequence: fix this one first."
            )
        lines += [f"Hint: {hint}." for hint in self.hints]
        return "\n".join(textwrap.fill(line, 100, subsequent_indent="  ") for line in lines)

    def __str__(self) -> str:
        rows = [("layer", "shape", "difference", "relative", "growth", "verdict")]
        for i, layer in enumerate(self.layers):
            above = self.layers[i - 1].relative if i else np.nan
            growth = layer.relative / above if above else np.nan
            shape = "-" if layer.shape is None else "x".join(map(str, layer.shape)) or "scalar"
            difference, relative = _number(layer.difference), _number(layer.relative)
            row = (layer.title, shape, difference, relative, _number(growth), layer.verdict)
            rows.append(row)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        for side, names in zip(("original", "port"), self.not_compared, strict=True):
            if names:
                lines.append(f"Not compared, in the {side} only: {', '.join(names)}.")
        return "\n".join([*lines, self.conclusion()])


def keep(arrays: dict[str, Array], name: str, array: Array) -> None:
    """Add a copy of a layer's output to ``arrays``. Call it in a hook.

    It is a copy because a later layer may overwrite the array in place. If a layer is called again, its outputs are
    kept as ``name#2``, ``name#3`` and so on.
    """
    again = next(i for i in itertools.count(1) if _numbered(name, i) not in arrays)
    arrays[_numbered(name, again)] = np.array(array)


def _numbered(name: str, i: int) -> str:
    return name if i == 1 else f"{name}#{i}"


def compare_ports(
    original: Callable[[Any], Arrays],
    port: Callable[[Any], Arrays],
    inputs: Any,
    names: Names | None = None,
    tolerance: float | None = None,
    layouts: Layouts | None = None,
    probe: bool = True,
) -> Report:
    """Run two versions of a network on the same input and compare them layer by layer.

    ``original`` and ``port`` each take a copy of ``inputs`` and return the arrays that `compare_arrays` takes.
    ``inputs`` is an array in the original's layout, or anything that contains arrays. See `compare_arrays` for the
    other arguments.

    With ``probe``, ``port`` is called again on shifted inputs if the first diverging layer is smaller than the input:
    eight times for images of two axes. This finds padding that differs at stride 2. Switch it off if a call is
    expensive or changes the port. Raises ValueError for invalid arguments.
    """
    for side, function in (("original", original), ("port", port)):
        if not callable(function):
            raise ValueError(f"the {side} must be a function from the input to named arrays")
    ours, theirs = original(copy.deepcopy(inputs)), port(copy.deepcopy(inputs))
    report = compare_arrays(ours, theirs, names, tolerance, layouts)
    first = report.first
    if not probe or first is None or first.verdict != "differs":
        return report
    if not isinstance(inputs, np.ndarray) or first.shape is None or inputs.ndim != len(first.shape):
        return report

    def port_again(X: Array) -> Array:
        return _to_original_layout(_checked("port", port(X))[first.port_name], layouts)

    pair = _pair(ours[first.name], theirs[first.port_name], tolerance, layouts)
    return replace(report, hints=(*report.hints, *half_stride_shift(pair, inputs, port_again)))


def compare_arrays(
    original: Arrays,
    port: Arrays,
    names: Names | None = None,
    tolerance: float | None = None,
    layouts: Layouts | None = None,
) -> Report:
    """Compare named arrays of two versions of a network: activations, gradients, weights.

    The arrays are float16, float32 or float64. ``names`` maps names of the original to names of the port; other names
    are not compared. Without ``names``, both versions use the same names, and a name that is missing in one is a
    divergence.

    ``tolerance`` is relative to the largest absolute value of the layer in the original. The default is that of
    `TOLERANCES` for the less precise of the two dtypes.

    ``layouts`` is a pair such as ``("NCHW", "NHWC")``. The port's arrays with this number of axes are transposed to the
    original's layout. The hints then take C as the channel axis (or O, for weights). Without ``layouts`` nothing is
    transposed, and the hints take axis 1.

    Raises ValueError for invalid arguments.
    """
    _check_options(tolerance, layouts)
    original, port = _checked("original", original), _checked("port", port)
    layers: list[Layer] = []
    found: tuple[str, ...] = ()
    for name, port_name in _matched(original, port, names).items():
        if name not in original or port_name not in port:
            side = "port" if name in original else "original"
            layer = Layer(name, port_name, None, None, "missing", f"missing in the {side}")
        else:
            pair = _pair(original[name], port[port_name], tolerance, layouts)
            layer = _compared(name, port_name, pair)
            if layer.verdict in ("differs", "shape") and Report(tuple(layers)).first is None:
                found = hints(pair)
        layers.append(layer)
    if names is None:
        return Report(tuple(layers), found)
    not_compared = _others(original, names.keys()), _others(port, names.values())
    return Report(tuple(layers), found, not_compared)


def _check_options(tolerance: float | None, layouts: Layouts | None) -> None:
    if tolerance is not None and not (isinstance(tolerance, float | int) and 0 <= tolerance < 1):
        raise ValueError(
            f"tolerance is {tolerance!r}. Pass a number from 0 to below 1, relative to a layer's largest value."
        )
    if layouts is None:
        return
    if not isinstance(layouts, tuple | list) or [*map(type, layouts)] != [str, str]:
        raise ValueError(f"layouts is {layouts!r}. Pass a pair such as ('NCHW', 'NHWC').")
    if not len(set(layouts[0])) == len(layouts[0]) > 0 or sorted(layouts[0]) != sorted(layouts[1]):
        raise ValueError(f"layouts is {layouts!r}. Both must name the same axes, each once.")


def _checked(side: str, arrays: Arrays) -> Arrays:
    """Return ``arrays`` if they can be compared. Raises ValueError."""
    if not isinstance(arrays, Mapping) or not arrays:
        raise ValueError(f"the {side} returned no layers. Return a dict of names and NumPy arrays.")
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise ValueError(f"the {side} has a layer named {name!r}. Names must be strings.")
        if not isinstance(array, np.ndarray):
            kind = f"{type(array).__module__}.{type(array).__qualname__}"
            raise ValueError(f"{name!r} of the {side} is a {kind}. Convert it to a NumPy array.")
        if array.dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(
                f"{name!r} of the {side} has dtype {array.dtype}. Leave it out, or cast it to a float dtype."
            )
        if not array.size:
            raise ValueError(
                f"{name!r} of the {side} is empty: its shape is {array.shape}. Leave it out."
            )
    return arrays


def _matched(original: Arrays, port: Arrays, names: Names | None) -> Names:
    """Return the names to compare, in the original's order. Raises ValueError if the name map does not fit."""
    if names is None:
        if not original.keys() & port.keys():
            raise ValueError(
                f"the original ({_some(original)}) and the port ({_some(port)}) have no name in common. Pass names."
            )
        return {name: name for name in (*original, *port)}
    if not isinstance(names, Mapping) or not names:
        raise ValueError("names must be a dict from layers of the original to layers of the port")
    for side, arrays, given in (("original", original, names), ("port", port, names.values())):
        for name in given:
            if name not in arrays:
                close = difflib.get_close_matches(str(name), arrays) or _some(arrays)
                raise ValueError(f"names has {name!r}, but the {side} has {close}")
    return {name: names[name] for name in original if name in names}


def _some(arrays: Arrays) -> list[str]:
    return list(arrays)[:3]


def _others(arrays: Arrays, names: Iterable[str]) -> tuple[str, ...]:
    mentioned = set(names)
    return tuple(name for name in arrays if name not in mentioned)


def _pair(original: Array, port: Array, tolerance: float | None, layouts: Layouts | None) -> Pair:
    if tolerance is None:
        types = {str(original.dtype), str(port.dtype)}
        if not types <= TOLERANCES.keys():
            raise ValueError("float16 has no default tolerance. Pass tolerance.")
        tolerance = max(TOLERANCES[name] for name in types)
    axes = layouts[0] if layouts is not None and len(layouts[0]) == original.ndim else ""
    channels = next((axes.index(axis) for axis in "CO" if axis in axes), min(1, original.ndim - 1))
    port = _to_original_layout(port, layouts)
    return Pair(original.astype(np.float64), port.astype(np.float64), tolerance, channels)


def _to_original_layout(array: Array, layouts: Layouts | None) -> Array:
    """Return the port's array in the original's layout."""
    if layouts is None or array.ndim != len(layouts[0]):
        return array
    return array.transpose([layouts[1].index(axis) for axis in layouts[0]])


def _compared(name: str, port_name: str, pair: Pair) -> Layer:
    shapes = pair.original.shape, pair.port.shape
    if shapes[0] != shapes[1]:
        reason = f"shape {shapes[0]} in the original, {shapes[1]} in the port"
        return Layer(name, port_name, *shapes, "shape", reason)
    for side, array in (("original", pair.original), ("port", pair.port)):
        if odd := array.size - int(np.isfinite(array).sum()):
            reason = f"{odd} of {array.size} values are NaN or infinite in the {side}"
            return Layer(name, port_name, *shapes, "not finite", reason)
    relative = _quotient(pair.difference, pair.largest)
    verdict = "agrees" if relative <= pair.tolerance else "differs"
    reason = (
        f"the largest difference, {_number(pair.difference)}, is {_number(relative)} of the "
        f"largest value, {_number(pair.largest)} (tolerance {_number(pair.tolerance)})"
    )
    numbers = pair.largest, pair.difference, relative
    return Layer(name, port_name, *shapes, verdict, reason, *numbers)


def _quotient(value: float, unit: float) -> float:
    """Divide; return 0 for 0 / 0 and infinity for any other value over 0."""
    if unit == 0:
        return 0.0 if value == 0 else float(np.inf * value)
    return value / unit


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2g}"
