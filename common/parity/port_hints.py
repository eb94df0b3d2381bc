"""Hints on the first divergence of a port: relations between the two arrays that would explain it.

A hint is given only if its relation removes the difference. It does not prove the cause: another cause can leave the
same trace.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# A relation must bring the difference below the tolerance and below this share of itself. The second condition is for
# differences just above the tolerance, which almost any change brings below it.
MAX_REMAINING = 0.1
# At least this many distinct values must agree beyond the fitted parameters: a line passes through any two points.
MIN_DISTINCT_VALUES = 8


@dataclass(frozen=True)
class Pair:
    """One layer of the original and of the port, in float64 and in the same layout.

    ``tolerance`` is relative to the largest absolute value of the original; ``channels`` is the channel axis.
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
        """The largest absolute difference; infinite if the shapes differ."""
        if self.original.shape != self.port.shape:
            return np.inf
        with np.errstate(over="ignore"):
            return float(np.abs(self.original - self.port).max())

    @property
    def spatial(self) -> tuple[int, ...]:
        """The axes of the image: all but the first and the channel axis."""
        return tuple(axis for axis in range(1, self.original.ndim) if axis != self.channels)

    def removes(self, changed: Array, expected: Array, fitted: int = 0) -> bool:
        """Return whether ``changed`` agrees with ``expected`` in enough distinct values.

        ``changed`` are the port's values after a relation. ``fitted`` is the number of parameters fitted to each row of
        a matrix, or to the whole of any other array.
        """
        allowed = self.tolerance * self.largest
        if not np.abs(expected - changed).max() <= min(allowed, MAX_REMAINING * self.difference):
            return False
        rows = expected if expected.ndim == 2 else expected.reshape(1, -1)
        steps = np.round(rows / allowed) if allowed else rows
        return sum(max(len(np.unique(row)) - fitted, 0) for row in steps) >= MIN_DISTINCT_VALUES


def hints(pair: Pair) -> tuple[str, ...]:
    """Return the causes that the difference is consistent with; empty if no relation removes it."""
    if not pair.original.ndim or not pair.port.ndim:
        return ()
    relations = VALUES if pair.original.shape == pair.port.shape else SHAPES
    with np.errstate(all="ignore"):
        return tuple(hint for relation in relations for hint in relation(pair))


def _linear(pair: Pair) -> Iterator[str]:
    """Try a factor, then an offset for each channel, then both; yield the simplest that fits."""
    x, y = pair.port.reshape(1, -1), pair.original.reshape(1, -1)
    factor = (x * y).sum() / (x * x).sum()
    if pair.removes(factor * x, y, fitted=1):
        yield (
            f"consistent with a constant factor: the port's values times {factor:.5g} agree "
            "(a sum instead of a mean, dropout, another scale of the input)"
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
    # A channel that is constant up to rounding has no factor.
    varies = np.abs(x).max(1, keepdims=True) > smallest
    factors = np.where(varies, factors, 1)
    if pair.removes(factors * x + y_mean, y, fitted=2):
        yield f"consistent with a factor and an offset in each channel: {_batch_norm(factors)}"


def _by_channel(array: Array, channels: int) -> Array:
    """Return a matrix with one row for each channel."""
    return np.moveaxis(array, channels, 0).reshape(array.shape[channels], -1)


def _batch_norm(factors: Array) -> str:
    # Epsilon adds to the variance. It moves all channels to the same side, and by little if variances are larger.
    one_side = (factors <= 1).all() or (factors >= 1).all()
    if one_side and len(factors) > 2 and np.abs(factors - 1).max() < 0.1:
        return (
            f"the factors, {_range(factors)}, suggest another epsilon in BatchNorm, or slightly different "
            "running statistics"
        )
    return (
        f"the factors, {_range(factors)}, suggest other statistics in BatchNorm (batch instead of running "
        "statistics, or one minus the momentum), or another gamma or beta"
    )


def _rectified(pair: Pair) -> Iterator[str]:
    sides = (("port", pair.original, pair.port), ("original", pair.port, pair.original))
    for side, plain, rectified in sides:
        if pair.removes(np.maximum(plain, 0), rectified):
            yield (
                f"consistent with a ReLU in the {side} only, or with an in-place ReLU there that has "
                "overwritten the recorded array"
            )


def _reordered(pair: Pair) -> Iterator[str]:
    """Match slices along one axis by their products with one random vector."""
    for axis, size in enumerate(pair.original.shape):
        y, x = (_by_channel(array, axis) for array in (pair.original, pair.port))
        vector = np.random.default_rng(0).standard_normal(y.shape[1])
        order = np.argsort(x @ vector)[np.argsort(np.argsort(y @ vector))]
        if pair.removes(x[order].ravel(), y.ravel()):
            way = "reversed" if (order == np.arange(size)[::-1]).all() else "in another order"
            yield f"consistent with axis {axis} {way}: the slices are the same"


def _transposed(pair: Pair) -> Iterator[str]:
    x, y = pair.port, pair.original
    if sorted(x.shape) != sorted(y.shape) or not 2 <= x.ndim <= 5:
        return
    for axes in list(itertools.permutations(range(x.ndim)))[1:]:
        changed = x.transpose(axes)
        if changed.shape == y.shape and pair.removes(changed.ravel(), y.ravel()):
            yield (
                f"consistent with another layout: the port's values transposed by {axes} agree "
                "(see the argument layouts)"
            )
            return
    if x.shape != y.shape:
        yield (
            "the same sizes in another order: probably another layout (see the argument layouts). "
            "No transposition makes the values agree, so there is another difference too"
        )


def _reshaped(pair: Pair) -> Iterator[str]:
    x, y = pair.port, pair.original
    if x.size == y.size and pair.removes(x.ravel(), y.ravel()):
        yield "the flattened values agree: reshape the array where it is recorded"


def _shifted(pair: Pair) -> Iterator[str]:
    """Shift the image by one pixel, and compare the pixels that both images have."""
    if min((pair.original.shape[axis] for axis in pair.spatial), default=0) < 3:
        return
    parts = {0: slice(None), 1: slice(1, None), -1: slice(None, -1)}
    for shift in _directions(len(pair.spatial)):
        here = _where(pair, [parts[step] for step in shift])
        there = _where(pair, [parts[-step] for step in shift])
        if pair.removes(pair.port[there].ravel(), pair.original[here].ravel()):
            yield (
                f"consistent with a shift by one pixel, {shift} along axes {pair.spatial}: padding "
                "on the other side, or another crop"
            )


def _at_edges(pair: Pair) -> Iterator[str]:
    inner = _where(pair, [slice(1, -1)] * len(pair.spatial))
    if not pair.spatial or not pair.original[inner].size:
        return
    if pair.removes(pair.port[inner].ravel(), pair.original[inner].ravel()):
        yield (
            "only the edges of the image differ: consistent with another kind of padding, or with "
            "an average that counts the padding in only one of the two networks"
        )


VALUES = (_linear, _rectified, _reordered, _transposed, _shifted, _at_edges)
SHAPES = (_transposed, _reshaped)


def half_stride_shift(
    pair: Pair, inputs: Array, port_again: Callable[[Array], Array]
) -> tuple[str, ...]:
    """Return a hint if the port agrees with the original when its inputs are shifted by half a stride.

    With other padding at stride 2, the port computes the pixels between those of the original. The outputs have no
    pixel in common, so only the input can be shifted. Only the middle of the image is compared, because the shift
    changes the edges.
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
                f"consistent with padding on the other side at stride 2: with the input shifted by {shift} "
                f"along axes {pair.spatial}, the middle of the port's image agrees. TensorFlow's 'same' "
                "pads 0 and 1, PyTorch and MXNet pad 1 and 1",
            )
    return ()


def _directions(axes: int) -> list[tuple[int, ...]]:
    """Return the steps to the neighbours of a pixel, the diagonal ones first."""
    return [steps for steps in itertools.product((1, -1, 0), repeat=axes) if any(steps)]


def _where(pair: Pair, parts: list[slice]) -> tuple[slice, ...]:
    """Return the index that selects ``parts`` along the image's axes and everything along the others."""
    index = [slice(None)] * pair.original.ndim
    for axis, part in zip(pair.spatial, parts, strict=True):
        index[axis] = part
    return tuple(index)


def _range(values: Array) -> str:
    return f"{values.min():.5g} to {values.max():.5g}"
