"""Parity of the initial weights: `init_cnn` must draw from Xavier's uniform distribution.

Each framework has its own random generator, so only the distributions are compared. `chance.uniform` compares each
layer's weights with the uniform distribution within Xavier's bound.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from common.interface import Backend, Net
from common.parity import chance
from common.parity.checks.cases import CHANNELS, CLASSES, NUM_CHANNELS
from common.parity.comparison import Array, CheckResult, Difference
from common.parity.native.visits import seed_after
from common.parity.tolerances import tolerance
from common.weights.canonical import Weights, initial_weights


def initial_checks(backend: Backend, quick: bool = False, seed: int = 0) -> Iterator[CheckResult]:
    """Check the weights of new networks of several sizes, and that `set_seed` makes them reproducible."""
    found: list[Difference] = []
    every = [(classes, channels, NUM_CHANNELS) for classes in CLASSES for channels in CHANNELS]
    for sizes in every[3:4] if quick else every[::3]:
        place = f"{sizes[0]} classes, {sizes[1]} channels"
        weights, again, other = (_drawn(backend, sizes, s) for s in (seed, seed, seed_after(seed)))
        found += [Difference(f"{place}: {d.place}", d.value) for d in distribution(weights, sizes)]
        found += [
            Difference(f"{place}: the same seed", chance.must_hold(_equal(weights, again))),
            Difference(f"{place}: another seed", chance.must_hold(not _equal(weights, other))),
        ]
    limit = tolerance("initial weights", "float32")
    yield CheckResult("initial weights", "float32", tuple(found), limit)


def _drawn(backend: Backend, sizes: tuple[int, int, int], seed: int) -> Weights:
    backend.devices.set_seed(seed)
    net = backend.resnet.resnet18(*sizes)
    initialize(backend, net)
    return backend.weights.get_weights(net)


def initialize(backend: Backend, net: Net) -> None:
    """Call `init_cnn` as the book does: on each layer if networks have ``apply``, otherwise on the network."""
    if hasattr(net, "apply"):
        net.apply(backend.resnet.init_cnn)
    else:
        backend.resnet.init_cnn(net)


def distribution(weights: Weights, sizes: tuple[int, int, int]) -> list[Difference]:
    """Return how far the weights are from Xavier's distribution, and which biases, statistics or layers are wrong."""
    expected = initial_weights(*sizes)
    found = []
    for name, first in expected.items():
        array = weights.get(name)
        if array is None or array.shape != first.shape:
            found.append(Difference(name, np.inf))
        elif array.ndim > 1:
            found.append(Difference(name, _from_uniform(array)))
        else:
            found.append(Difference(name, chance.must_hold(np.array_equal(array, first))))
    drawn = {name: array for name, array in weights.items() if array.ndim > 1}
    alike = [
        f"{one} and {other}"
        for one, other in combinations(drawn, 2)
        if drawn[one].shape == drawn[other].shape and np.array_equal(drawn[one], drawn[other])
    ]
    return [*found, *(Difference(f"{pair}: equal", np.inf) for pair in alike)]


def _from_uniform(array: Array) -> float:
    """Compare weights with the uniform distribution within Xavier's bound; return inf if any is outside."""
    outputs, inputs, area = array.shape[0], array.shape[1], int(np.prod(array.shape[2:]))
    bound = np.sqrt(6 / ((inputs + outputs) * area))
    values = array.astype(np.float64).ravel() / bound
    if not np.abs(values).max() <= 1 + 1e-6:
        return np.inf
    return chance.uniform((values + 1) / 2)


def _equal(one: Weights, other: Weights) -> bool:
    return all(np.array_equal(array, other[name]) for name, array in one.items() if array.ndim > 1)
