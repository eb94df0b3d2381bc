"""What the first divergence of a port is consistent with: relations between two arrays, tried one after another.

A hint is given only where its relation, taken into account, leaves no difference. It is still a hint: another cause may
leave the same trace.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What a relation leaves must be below the tolerance, and this share of what there was: a difference that is just above
# the tolerance comes below it by almost anything.
SHARE_LEFT = 0.1
# So many distinct values must agree beyond the numbers that were fitted: a line passes through any two points.
WITNESSES = 8


@dataclass(frozen=True)
class Pair:
    """One layer of the original and of the port, float64, in the same layout.

    ``tolerance`` is relative to the largest absolute value of the original; ``channels`` is the axis of the channels.
    """

    original: Array
    port: Array
    tolerance: float
    channels: int

    @property
    def largest(self) -> float:
        """The largest absolute value in the original."""
        return float(np.abs(self.original).max())

    @property
    def difference(self) -> float:
        """The largest absolute difference; infinite where the shapes differ."""
        if self.original.shape != self.port.shape:
            return np.inf
        with np.errstate(over="ignore"):
            return float(np.abs(self.original - self.port).max())

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes of the image: all but the first and that of the channels."""
        return tuple(axis for axis in range(1, self.original.ndim) if axis != self.channels)

    def removes(self, changed: Array, expected: Array, fitted: int = 0) -> bool:
        """Tell whether values of the port, ``changed`` by a relation, are those ``expected``, and enough of them.

        ``fitted`` numbers were adjusted to each row of a matrix, or to all of another array.
        """
        allowed = self.tolerance * self.largest
        if not np.abs(expected - changed).max() <= min(allowed, SHARE_LEFT * self.difference):
            return False
        rows = expected if expected.ndim == 2 else expected.reshape(1, -1)
        steps = np.round(rows / allowed) if allowed else rows
        return sum(max(len(np.unique(row)) - fitted, 0) for row in steps) >= WITNESSES


def hints(pair: Pair) -> tuple[str, ...]:
    """Return what the difference is consistent with; nothing if no relation removes it."""
    if not pair.original.ndim or not pair.port.ndim:
        return ()
    relations = VALUES if pair.original.shape == pair.port.shape else SHAPES
    with np.errstate(all="ignore"):
        return tuple(hint for relation in relations for hint in relation(pair))


def _linear(pair: Pair) -> Iterator[str]:
    """A factor; an offset for each channel; both: the simplest that does."""
    x, y = pair.port.reshape(1, -1), pair.original.reshape(1, -1)
    factor = (x * y).sum() / (x * x).sum()
    if pair.removes(factor * x, y, fitted=1):
        yield (
            f"consistent with a constant factor: {factor:.5g} times the port's values agree "
            "(a sum for a mean, dropout, another scale of the input)"
        )
        return
    x, y = _by_channel(pair.port, pair.channels), _by_channel(pair.original, pair.channels)
    x_mean, y_mean = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
    if pair.removes(x + (y_mean - x_mean), y, fitted=1):
        yield (
            f"consistent with a constant offset in each channel, {_range(y_mean - x_mean)}: "
            "a bias that is missing, wrong or added twice"
        )
        return
    smallest, x = pair.tolerance * np.abs(x).max(), x - x_mean
    factors = (x * y).sum(1, keepdims=True) / (x * x).sum(1, keepdims=True)
    # A channel that is constant but for rounding has none.
    varies = np.abs(x).max(1, keepdims=True) > smallest
    factors = np.where(varies, factors, 1)
    if pair.removes(factors * x + y_mean, y, fitted=2):
        yield f"consistent with a factor and an offset in each channel: {_batch_norm(factors)}"


def _by_channel(array: Array, channels: int) -> Array:
    """Return a matrix with one row for each channel."""
    return np.moveaxis(array, channels, 0).reshape(array.shape[channels], -1)


def _batch_norm(factors: Array) -> str:
    # Epsilon adds to the variance: it moves all channels to the same side, and little, as most variances are larger.
    one_side = (factors <= 1).all() or (factors >= 1).all()
    if one_side and len(factors) > 2 and np.abs(factors - 1).max() < 0.1:
        return (
            f"the factors, {_range(factors)}, suit another epsilon in BatchNorm, or running statistics "
            "that are a little different"
        )
    return (
        f"the factors, {_range(factors)}, suit other statistics in BatchNorm (the batch's for the "
        "running ones, or a momentum for one minus itself), or another gamma or beta"
    )


def _rectified(pair: Pair) -> Iterator[str]:
    sides = (("port", pair.original, pair.port), ("original", pair.port, pair.original))
    for side, plain, rectified in sides:
        if pair.removes(np.maximum(plain, 0), rectified):
            yield (
                f"consistent with a ReLU in the {side} alone, or a record there that a ReLU in "
                "place has overwritten"
            )


def _reordered(pair: Pair) -> Iterator[str]:
    """Slices along one axis in another order, matched by their products with one random vector."""
    for axis, size in enumerate(pair.original.shape):
        y, x = (_by_channel(array, axis) for array in (pair.original, pair.port))
        vector = np.random.default_rng(0).standard_normal(y.shape[1])
        order = np.argsort(x @ vector)[np.argsort(np.argsort(y @ vector))]
        if pair.removes(x[order].ravel(), y.ravel()):
            way = "reversed" if (order == np.arange(size)[::-1]).all() else "in another order"
            yield f"consistent with axis {axis} {way}: the values there are the same"


def _transposed(pair: Pair) -> Iterator[str]:
    x, y = pair.port, pair.original
    if sorted(x.shape) != sorted(y.shape) or not 2 <= x.ndim <= 5:
        return
    for axes in list(itertools.permutations(range(x.ndim)))[1:]:
        changed = x.transpose(axes)
        if changed.shape == y.shape and pair.removes(changed.ravel(), y.ravel()):
            yield (
                f"consistent with another layout: transposed by {axes}, the port's values agree "
                "(see the argument layouts)"
            )
            return
    if x.shape != y.shape:
        yield (
            "the same sizes in another order: probably another layout (see the argument layouts), "
            "and not that alone, as the values differ however they are transposed"
        )


def _reshaped(pair: Pair) -> Iterator[str]:
    x, y = pair.port, pair.original
    if x.size == y.size and pair.removes(x.ravel(), y.ravel()):
        yield "in their order in memory the values agree: reshape where they are recorded"


def _shifted(pair: Pair) -> Iterator[str]:
    """One pixel further in the image, compared where both have that pixel."""
    if min((pair.original.shape[axis] for axis in pair.spatial), default=0) < 3:
        return
    parts = {0: slice(None), 1: slice(1, None), -1: slice(None, -1)}
    for shift in _directions(len(pair.spatial)):
        here = _where(pair, [parts[step] for step in shift])
        there = _where(pair, [parts[-step] for step in shift])
        if pair.removes(pair.port[there].ravel(), pair.original[here].ravel()):
            yield (
                f"consistent with a shift by one pixel, {shift} along axes {pair.spatial}: padding "
                "on another side, or another crop"
            )


def _at_edges(pair: Pair) -> Iterator[str]:
    inner = _where(pair, [slice(1, -1)] * len(pair.spatial))
    if not pair.spatial or not pair.original[inner].size:
        return
    if pair.removes(pair.port[inner].ravel(), pair.original[inner].ravel()):
        yield (
            "only the edges of the image differ: consistent with another kind of padding, or with "
            "an average that counts the padding on one side alone"
        )


VALUES = (_linear, _rectified, _reordered, _transposed, _shifted, _at_edges)
SHAPES = (_transposed, _reshaped)


def half_a_stride(
    pair: Pair, inputs: Array, port_again: Callable[[Array], Array]
) -> tuple[str, ...]:
    """Return a hint if the port, given inputs shifted by half a stride, computes what the original does.

    At stride 2 another padding takes the pixels between those that the original takes: the outputs have none in
    common, and only the input can be shifted. The middle of the image is compared, as the shift changes the edges.
    """
    sizes = [(inputs.shape[axis], pair.original.shape[axis]) for axis in pair.spatial]
    halves = [round(before / after) // 2 for before, after in sizes]
    middle = _where(pair, [slice(size // 4, size - size // 4) for _, size in sizes])
    shifts = [
        tuple(step * half for step, half in zip(direction, halves, strict=True))
        for direction in _directions(len(sizes))
    ]
    for shift in [shift for shift in dict.fromkeys(shifts) if any(shift)]:
        changed = port_again(np.roll(inputs, shift, pair.spatial))
        if changed.shape != pair.original.shape:
            continue
        if pair.removes(changed[middle].ravel(), pair.original[middle].ravel()):
            return (
                f"consistent with padding on another side at stride 2 (TensorFlow's 'same' pads 0 "
                f"and 1, PyTorch and MXNet 1 and 1): with the input shifted by {shift} along axes "
                f"{pair.spatial}, the middle of the port's image agrees",
            )
    return ()


def _directions(axes: int) -> list[tuple[int, ...]]:
    """Return the steps to the neighbours of a pixel, the diagonal first."""
    return [steps for steps in itertools.product((1, -1, 0), repeat=axes) if any(steps)]


def _where(pair: Pair, parts: list[slice]) -> tuple[slice, ...]:
    """Return the index that takes ``parts`` of the image's axes and all of the others."""
    index = [slice(None)] * pair.original.ndim
    for axis, part in zip(pair.spatial, parts, strict=True):
        index[axis] = part
    return tuple(index)


def _range(values: Array) -> str:
    return f"{values.min():.5g} to {values.max():.5g}"
