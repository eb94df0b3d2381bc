"""Parity of the network: names, weights, logits, every activation, loss, gradients, evaluation."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from common import reference
from common.datasets import Dataset
from common.parity.adapter import Adapter, Batch, all_float32, random_batch
from common.parity.comparison import (
    Array,
    Arrays,
    CheckResult,
    Difference,
    Distance,
    by_place,
    difference,
    largest,
    norm,
    overall_norm,
    relative,
    size_for,
)
from common.parity.tolerances import UNIT_ROUNDOFFS, tolerance
from common.reference import Conventions, layers
from common.reference.resnet import before_batch_norm
from common.reference.transforms import from_images
from common.weights.canonical import Weights, is_buffer, num_parameters, weight_shapes

TINY = 1e-300  # avoids a division by 0


def model_checks(adapter: Adapter, size: int, seed: int = 0) -> Iterator[CheckResult]:
    """Check the network on 8 images of ``size`` x ``size`` pixels."""
    batch = random_batch(8, size, seed)
    names = names_and_shapes(adapter)
    yield names
    if not names.passed:  # the other checks cannot set its weights
        return
    yield weights_round_trip(adapter, seed)
    noisy: list[CheckResult] = []
    for training in (False, True):
        if not adapter.compile:  # a compiled network has no layers to inspect
            # First layer by layer, so that a failure names the layer.
            yield activations(adapter, batch, training, seed)
        noisy.append(logits(adapter, batch, training, seed))
        yield noisy[-1]
    yield loss(adapter, batch, seed)
    for result in gradients(adapter, batch, seed):
        noisy.append(result)
        yield result
    if adapter.mixed:
        yield logits_type(adapter, batch, seed)
        yield precision_in_use(noisy)
    yield evaluation_accuracy(adapter, seed)


def names_and_shapes(adapter: Adapter) -> CheckResult:
    """Check that every weight and buffer has its canonical name and shape: 11,176,970 parameters at full width."""
    weights = adapter.backend.weights.get_weights(adapter.new_network())
    shapes = weight_shapes(*adapter.sizes)
    size = sum(math.prod(shape) for name, shape in shapes.items() if not is_buffer(name))
    got = {name: np.array(weight.shape) for name, weight in weights.items()}

    def apart(got: Arrays, expected: Arrays) -> list[Difference]:
        wrong = [
            float(not np.array_equal(got.get(name, ()), shape)) for name, shape in expected.items()
        ]
        found = [Difference(name, value) for name, value in zip(expected, wrong, strict=True)]
        found.append(Difference("names that are not canonical", len(got.keys() - expected.keys())))
        return [
            *found,
            Difference("the number of parameters", abs(num_parameters(weights) - size)),
        ]

    def expected(_: Conventions) -> Arrays:
        return {name: np.array(shape) for name, shape in shapes.items()}

    return adapter.compare("names and shapes", got, expected, apart)


def weights_round_trip(
    adapter: Adapter, seed: int, check: str = "weights round trip"
) -> CheckResult:
    """Check that weights and buffers that were set are returned unchanged, and that both are copies.

    Changing the arrays afterwards must not change the network, and training must not change the arrays.
    """
    weights, files = adapter.weights(seed), adapter.backend.weights
    net = adapter.network(weights)
    given = adapter.cast(weights)
    files.set_weights(net, given)
    for array in (*given.values(), *files.get_weights(net).values()):
        array += 1
    return adapter.compare(check, files.get_weights(net), lambda _: weights, difference, parts=())


def logits(adapter: Adapter, batch: Batch, training: bool, seed: int) -> CheckResult:
    """Check the logits, with the running statistics of BatchNorm or, in training mode, those of the batch."""
    weights = adapter.weights(seed)
    net = adapter.network(weights)
    y_hat = adapter.backend.trainer.predict(net, adapter.tensor(batch.X), training)

    def expected(conventions: Conventions) -> Arrays:
        return {"logits": reference.forward(weights, batch.X, training, conventions).logits}

    got = {"logits": adapter.array(y_hat)}
    return adapter.compare(f"logits, {_mode(training)}", got, expected, _of_activations(adapter))


def _of_activations(adapter: Adapter) -> Distance:
    """Return the distance for activations. Mixed precision uses a norm, because single values vary with rounding."""
    return relative(norm if adapter.mixed else largest)


def logits_type(adapter: Adapter, batch: Batch, seed: int) -> CheckResult:
    """Check that the logits are float32, so that the loss and its gradient are computed in float32."""
    net, X = adapter.network(adapter.weights(seed)), adapter.tensor(batch.X)
    found = []
    for training in (False, True):
        y_hat = adapter.backend.trainer.predict(net, X, training)
        wrong = not all_float32([str(y_hat.dtype)])
        found.append(Difference(f"logits, {_mode(training)}", float(wrong)))
    limit = tolerance("logits dtype", adapter.kind)
    return CheckResult("logits dtype", adapter.kind, tuple(found), limit)


def precision_in_use(results: Sequence[CheckResult]) -> CheckResult:
    """Check that the backend computed in this precision.

    A result closer to the reference than 0.4 of one rounding was computed in a higher precision. Each difference is one
    rounding, divided by the backend's difference from the reference.
    """
    kind = results[0].kind
    unit = UNIT_ROUNDOFFS[kind]
    found = [Difference(r.check, unit / max(r.largest.value, TINY)) for r in results]
    limit = tolerance("precision in use", kind)
    return CheckResult("precision in use", kind, tuple(found), limit)


def activations(adapter: Adapter, batch: Batch, training: bool, seed: int) -> CheckResult:
    """Check the output of every layer and residual block, from the first convolution to the dense layer."""
    weights = adapter.weights(seed)
    net = adapter.network(weights)
    found = adapter.backend.probes.activations(net, adapter.tensor(batch.X), training)

    def expected(conventions: Conventions) -> Arrays:
        return reference.forward(weights, batch.X, training, conventions).activations

    got = {name: adapter.array(Y) for name, Y in found.items()}
    return adapter.compare(
        f"activations, {_mode(training)}", got, expected, _of_activations(adapter)
    )


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def loss(adapter: Adapter, batch: Batch, seed: int) -> CheckResult:
    """Check the cross-entropy of each example: logits around 30, and two examples whose exponentials overflow."""
    drawn = np.random.default_rng(seed).normal(0, 30, (len(batch.y), 10))
    drawn[:2] *= 100
    y_hat = drawn.astype(np.float32).astype(np.float64)
    arguments = [adapter.tensor(y_hat), adapter.labels(batch.y)]
    if adapter.backend.probes.labels_first:
        arguments.reverse()
    losses = adapter.loss(*arguments)

    def expected(_: Conventions) -> Arrays:
        return {"losses": layers.cross_entropy(y_hat, batch.y)[0]}

    return adapter.compare("loss", {"losses": adapter.array(losses)}, expected)


def gradients(adapter: Adapter, batch: Batch, seed: int) -> Iterator[CheckResult]:
    """Check the gradient of the mean loss for every parameter, in training mode; in mixed precision also overall."""
    weights = adapter.weights(seed)
    net = adapter.network(weights)
    got = adapter.backend.probes.gradients(
        net, adapter.tensor(batch.X), adapter.labels(batch.y), adapter.loss
    )

    def expected(conventions: Conventions) -> Arrays:
        return reference.gradients(weights, batch.X, batch.y, conventions)[0]

    yield adapter.compare("gradients", got, expected, gradient_distance(adapter.kind))
    if adapter.mixed:
        yield adapter.compare("gradients, overall", got, expected, overall_norm)


def gradient_distance(kind: str) -> Distance:
    """Return the distance relative to the gradient of each tensor, from the last layer back to the first.

    Biases before a BatchNorm have a true gradient of 0. They are compared relative to the largest gradient of all.
    """
    size = size_for(kind)

    def distance(got: Arrays, expected: Arrays) -> list[Difference]:
        sizes = {name: size(gradient) for name, gradient in expected.items()}
        scales = {n: max(sizes.values()) if before_batch_norm(n) else s for n, s in sizes.items()}
        return by_place(
            size, got, {name: expected[name] for name in reversed(list(expected))}, scales
        )

    return distance


def evaluation_accuracy(adapter: Adapter, seed: int) -> CheckResult:
    """Check the accuracy on 21 images in batches of 8, the last smaller, and that evaluation changes no weight.

    In mixed precision, 84 images are drawn. The 21 images are used whose two largest logits differ most, because
    rounding does not change their predictions.
    """
    rng = np.random.default_rng(seed)
    drawn = 4 * 21 if adapter.mixed else 21
    images = rng.integers(0, 256, (drawn, 8, 8, 3), dtype=np.uint8)
    X = from_images(images)
    weights = all_classes_predicted(adapter.weights(seed), X, adapter.conventions)
    logits = reference.logits(weights, X, adapter.conventions)
    if adapter.mixed:
        least, most = np.sort(logits)[:, -2:].T
        images = images[clear := np.argsort(least - most)[:21]]
        logits = logits[clear]
    right = logits.argmax(axis=1)
    labels = np.where(rng.random(21) < 0.5, right, rng.integers(0, 10, 21))
    dataset = Dataset(images, labels, tuple("abcdefghij"))
    net = adapter.network(weights)
    before = adapter.backend.weights.get_weights(net)
    batches = adapter.backend.loaders.load_batched(dataset, (), 8, False, device=adapter.devices[0])
    data_iter = [(adapter.tensor(adapter.array(X)), y) for X, y in batches]
    accuracy = adapter.backend.trainer.evaluate_accuracy_gpu(net, data_iter)
    after = adapter.backend.weights.get_weights(net)
    moved = max(largest(after[name] - before[name]) for name in before)
    got = {"accuracy": np.array(accuracy), "weights and buffers": np.array(moved)}

    def expected(_: Conventions) -> Arrays:
        return {
            "accuracy": np.array((right == labels).mean()),
            "weights and buffers": np.array(0.0),
        }

    # Do not search for a cause: another convention can give the same accuracy by chance.
    return adapter.compare("evaluation accuracy", got, expected, parts=())


def all_classes_predicted(weights: Weights, X: Array, conventions: Conventions) -> Weights:
    """Return the weights with a last bias that gives every class the same mean logit."""
    centre = reference.logits(weights, X, conventions).mean(axis=0)
    return weights | {
        "fc.bias": (weights["fc.bias"] - centre).astype(np.float32).astype(np.float64)
    }
