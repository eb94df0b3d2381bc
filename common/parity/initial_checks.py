"""Parity of the weights that a network starts from: Xavier-uniform by `init_cnn`, as far as draws can be compared.

Each framework draws from its own generator, so the distribution is checked. For each layer, the distance of the
empirical distribution of n weights from the uniform one exceeds sqrt(log(2 / p) / (2 n)) with a probability of at most
p (Dvoretzky, Kiefer and Wolfowitz 1956, Massart 1990). With p = 1e-12 a correct backend fails less than once in 1e10
runs.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from common.interface import Backend, Net
from common.parity.cases import CHANNELS, CLASSES, NUM_CHANNELS
from common.parity.comparison import Array, CheckResult, Difference
from common.parity.tolerances import tolerance
from common.weights.canonical import Weights, initial_weights

FALSE_ALARM = 1e-12  # the probability for one layer
WRONG = (
    2.0  # a difference that is too large, as distances are shares of the largest that is allowed
)


def initial_checks(backend: Backend, quick: bool = False, seed: int = 0) -> Iterator[CheckResult]:
    """Check the weights of new networks of several sizes, and that `set_seed` decides them."""
    found: list[Difference] = []
    every = [(classes, channels, NUM_CHANNELS) for classes in CLASSES for channels in CHANNELS]
    for sizes in every[3:4] if quick else every[::3]:
        place = f"{sizes[0]} classes, {sizes[1]} channels"
        weights, again, other = (_drawn(backend, sizes, s) for s in (seed, seed, seed + 1))
        found += [Difference(f"{place}: {d.place}", d.value) for d in distribution(weights, sizes)]
        found += [
            Difference(f"{place}: the same seed", WRONG * (not _equal(weights, again))),
            Difference(f"{place}: another seed", WRONG * _equal(weights, other)),
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
            found.append(Difference(name, WRONG))
        elif array.ndim > 1:
            found.append(Difference(name, _from_uniform(array)))
        else:
            found.append(Difference(name, WRONG * (not np.array_equal(array, first))))
    drawn = {name: array for name, array in weights.items() if array.ndim > 1}
    alike = [
        f"{one} and {other}"
        for one, other in combinations(drawn, 2)
        if drawn[one].shape == drawn[other].shape and np.array_equal(drawn[one], drawn[other])
    ]
    return [*found, *(Difference(f"{pair}: equal", WRONG) for pair in alike)]


def _from_uniform(array: Array) -> float:
    """Return the distance of weights from the uniform distribution within Xavier's bound, as a share of the largest."""
    outputs, inputs, area = array.shape[0], array.shape[1], int(np.prod(array.shape[2:]))
    bound = np.sqrt(6 / ((inputs + outputs) * area))
    values = np.sort(array.astype(np.float64).ravel()) / bound
    if not np.abs(values).max() <= 1 + 1e-6:
        return WRONG
    n, share = values.size, (values + 1) / 2
    steps = np.arange(n + 1) / n
    apart = max(np.abs(share - steps[1:]).max(), np.abs(share - steps[:-1]).max())
    return float(apart / np.sqrt(np.log(2 / FALSE_ALARM) / (2 * n)))


def _equal(one: Weights, other: Weights) -> bool:
    return all(np.array_equal(array, other[name]) for name, array in one.items() if array.ndim > 1)
