"""Parity on varied inputs: networks and batches of all sizes, short training runs, weights files.

Networks are narrow and compute in float64. All checks stop after the first case in which any of them fails.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np

from common.interface import Backend
from common.parity.adapter import Adapter, Batch
from common.parity.checks.case_training import training_checks
from common.parity.checks.cases import NUM_CHANNELS, NetworkCase, network_cases
from common.parity.checks.files import file_checks
from common.parity.checks.network import gradient_distance, weights_round_trip
from common.parity.comparison import (
    Array,
    Arrays,
    CheckResult,
    at,
    logits_difference,
    together,
)
from common.reference import Conventions, forward, gradients, layers
from common.reference.resnet import Forward

# Height and width of single images, used in evaluation mode only: BatchNorm cannot train on some of them.
SINGLE_IMAGES = ((1, 1), (32, 17), (1, 9), (13, 31), (2, 3), (8, 7))
MODES = ("evaluation", "training")
Results = dict[str, list[CheckResult]]  # check: results


def case_checks(
    backend: Backend, device: str = "cpu", quick: bool = False, seed: int = 0
) -> Iterator[CheckResult]:
    """Check networks, short training runs and files in every case, or with ``quick`` in few."""
    found: Results = {}
    networks: dict[
        tuple[int, int], Adapter
    ] = {}  # reused, because building one takes as long as a case
    # Tracing a step for a shape that is used four times would take longer than the whole case.
    with backend.probes.without_tracing():
        for number, case in enumerate(network_cases(seed, quick)):
            sizes = case.num_classes, case.in_channels
            new = Adapter(backend, "float64", False, NUM_CHANNELS, device, *sizes)
            adapter = networks.setdefault(sizes, new)
            results = list(_checks(adapter, case, number, seed))
            if adapter is new:
                single = Adapter(backend, "float32", False, NUM_CHANNELS, device, *sizes)
                results += [("", result) for result in file_checks(single, case, seed)]
            for part, result in results:
                found.setdefault(result.check, []).append(at(f"{case}{part}", result))
            if not all(result.passed for _, result in results):
                break
    for of_check in found.values():
        yield together(of_check)


def _checks(
    adapter: Adapter, case: NetworkCase, number: int, seed: int
) -> Iterator[tuple[str, CheckResult]]:
    """Yield the part of the case that a result belongs to, and the result."""
    yield "", weights_round_trip(adapter, seed, "cases: weights round trip")
    yield "", single_image(adapter, case, SINGLE_IMAGES[number % len(SINGLE_IMAGES)], seed)
    for batch in case.batches((case.batch_size, case.last_size), seed):
        for result in batch_checks(adapter, batch, seed):
            yield f": batch of {len(batch.y)}", result
    yield "", loss(adapter, case, seed)
    for result in training_checks(adapter, case, number, seed):
        yield "", result


# --- The network -----------------------------------------------------------------------------------------------------


def single_image(
    adapter: Adapter, case: NetworkCase, size: tuple[int, int], seed: int
) -> CheckResult:
    """Check the logits of a single image of another size, in evaluation mode."""
    weights, place = adapter.weights(seed), "one image of {} x {}".format(*size)
    (batch,) = replace(case, size=size).batches([1], seed)
    y_hat = adapter.backend.trainer.predict(adapter.network(weights), adapter.tensor(batch.X))

    def expected(conventions: Conventions) -> Arrays:
        return {place: forward(weights, batch.X, False, conventions).logits}

    return adapter.compare(
        "cases: logits", {place: adapter.array(y_hat)}, expected, logits_difference
    )


def batch_checks(adapter: Adapter, batch: Batch, seed: int) -> Iterator[CheckResult]:
    """Check logits and activations in both modes, and gradients, on one batch."""
    backend, weights, X = adapter.backend, adapter.weights(seed), adapter.tensor(batch.X)
    # Set the weights only once: evaluation comes first, and training mode does not use the running statistics.
    net = adapter.network(weights)

    y_hat: dict[str, Array] = {}
    found: dict[str, Array] = {}
    for mode in MODES:
        training = mode == "training"
        y_hat[mode] = adapter.array(backend.trainer.predict(net, X, training))
        for place, Y in backend.probes.activations(net, X, training).items():
            found[f"{mode}, {place}"] = adapter.array(Y)

    @cache
    def passed(conventions: Conventions) -> tuple[dict[str, Array], dict[str, Forward]]:
        found, _, training = gradients(weights, batch.X, batch.y, conventions)
        evaluation = forward(weights, batch.X, False, conventions)
        return found, dict(zip(MODES, (evaluation, training), strict=True))

    def activations(conventions: Conventions) -> Arrays:
        return {
            f"{mode}, {place}": Y
            for mode, forward in passed(conventions)[1].items()
            for place, Y in forward.activations.items()
        }

    def logits(conventions: Conventions) -> Arrays:
        return {mode: forward.logits for mode, forward in passed(conventions)[1].items()}

    yield adapter.compare("cases: activations", found, activations)
    yield adapter.compare("cases: logits", y_hat, logits, logits_difference)
    got = backend.probes.gradients(net, X, adapter.labels(batch.y), adapter.loss)
    distance = gradient_distance(adapter.kind)
    yield adapter.compare("cases: gradients", got, lambda c: passed(c)[0], distance)


def loss(adapter: Adapter, case: NetworkCase, seed: int) -> CheckResult:
    """Check the loss of each example and the number of correct labels, for large, huge and equal logits."""
    batch = case.batches([max(case.batch_size, 5)], seed)[0]
    rng = np.random.default_rng(seed)
    drawn = rng.normal(0, 30, (len(batch.y), case.num_classes))
    drawn[1] *= 100
    drawn[2], drawn[3] = 0, 1e4
    batch.y[2:4] = 0  # argmax of equal logits is the first
    y_hat = drawn.astype(np.float32).astype(np.float64)
    arguments = [adapter.tensor(y_hat), adapter.labels(batch.y)]
    number_right = adapter.backend.trainer.accuracy(*arguments)
    if adapter.backend.probes.labels_first:
        arguments.reverse()
    losses = {"losses": adapter.array(adapter.loss(*arguments))}
    got = losses | {"number right": adapter.array(number_right)}

    def expected(_: Conventions) -> Arrays:
        right = np.array((y_hat.argmax(axis=1) == batch.y).sum())
        return {"losses": layers.cross_entropy(y_hat, batch.y)[0], "number right": right}

    return adapter.compare("cases: loss", got, expected, parts=())
