"""Parity of the weights that a network starts from: Xavier-uniform by `init_cnn`, as far as draws can be compared.

Each framework draws from its own generator, so the distribution is checked: that of each layer's weights is compared
with the uniform one within Xavier's bound, by `chance.uniform`.
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
    """Check the weights of new networks of several sizes, and that `set_seed` decides them."""
    found: list[Difference] = []
    every = [(classes, channels, NUM_CHANNELS) for classes in CLASSES for channels in CHANNELS]
    for sizes in every[3:4] if quick else every[::3]:
        place = f"{sizes[0]} classes, {sizes[1]} channels"
        weights, again, other = (_drawn(backend, sizes, s) for s in (seed, seed, seed_after(seed)))
        found += [Difference(f"{place}: {d.place}", d.value) for d in distribution(weights, sizes)]
        found += [
            Difference(f"{place}: the same seed", chance.certainly(_equal(weights, again))),
            Difference(f"{place}: another seed", chance.certainly(not _equal(weights, other))),
        ]
    limit = tolerance("initial weights", "float32")
    yield CheckResult("initial weights", "float32", tuple(found), limit)


def _drawn(backend: Backend, sizes: tuple[int, int, int], seed: int) -> Weights:
    backend.devices.set_seed(seed)
    net = backend.resnet.resnet18(*sizes)
    initialize(backend, net)
    return backend.weights.get_weights(net)


def initialize(backend: Backend, net: Net) -> None:
    """Call `init_cnn` as the book does: for each layer if networks can do that, or else for the network."""
    if hasattr(net, "apply"):
        net.apply(backend.resnet.init_cnn)
    else:
        backend.resnet.init_cnn(net)


def distribution(weights: Weights, sizes: tuple[int, int, int]) -> list[Difference]:
    """Return how far weights are from draws of Xavier's distribution, and which others are wrong at the start."""
    wanted = initial_weights(*sizes)
    found = []
    for name, first in wanted.items():
        array = weights.get(name)
        if array is None or array.shape != first.shape:
            found.append(Difference(name, np.inf))
        elif array.ndim > 1:
            found.append(Difference(name, _from_uniform(array)))
        else:
            found.append(Difference(name, chance.certainly(np.array_equal(array, first))))
    drawn = {name: array for name, array in weights.items() if array.ndim > 1}
    alike = [
        f"{one} and {other}"
        for one, other in combinations(drawn, 2)
        if drawn[one].shape == drawn[other].shape and np.array_equal(drawn[one], drawn[other])
    ]
    return [*found, *(Difference(f"{pair}: equal", np.inf) for pair in alike)]


def _from_uniform(array: Array) -> float:
    """Compare weights with the uniform distribution within Xavier's bound; return inf if any is beyond it."""
    outputs, inputs, area = array.shape[0], array.shape[1], int(np.prod(array.shape[2:]))
    bound = np.sqrt(6 / ((inputs + outputs) * area))
    values = array.astype(np.float64).ravel() / bound
    if not np.abs(values).max() <= 1 + 1e-6:
        return np.inf
    return chance.uniform((values + 1) / 2)


def _equal(one: Weights, other: Weights) -> bool:
    return all(np.array_equal(array, other[name]) for name, array in one.items() if array.ndim > 1)
