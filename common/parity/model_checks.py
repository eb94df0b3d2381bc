"""Parity of the network: names, weights, logits, every activation, loss, gradients, evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np

from common import reference
from common.datasets import Dataset
from common.interface import DataIter, Tensor
from common.parity.adapter import Batch, Subject, in_float32, random_batch
from common.parity.comparison import (
    Array,
    Arrays,
    Difference,
    Distance,
    Outcome,
    differences,
    largest,
    norm,
    norm_together,
    norms,
    relative,
    relative_norms,
)
from common.parity.tolerances import UNIT_ROUNDOFF, tolerance
from common.reference import Conventions, layers
from common.reference.resnet import before_batch_norm
from common.weights.canonical import Weights, num_parameters, weight_shapes

TINY = 1e-300  # what no difference divides by zero with


def model_checks(subject: Subject, size: int, seed: int = 0) -> Iterator[Outcome]:
    """Check the network, full width, on 8 images of ``size`` pixels a side."""
    batch = random_batch(8, size, seed)
    names = names_and_shapes(subject)
    yield names
    if not names.passed:  # nothing else can be put into such a network
        return
    yield weights_return(subject, seed)
    noisy: list[Outcome] = []
    for training in (False, True):
        if not subject.compile:  # a compiled network is one program: it has no layers to look into
            # Layer by layer first: it says where.
            yield activations(subject, batch, training, seed)
        noisy.append(logits(subject, batch, training, seed))
        yield noisy[-1]
    yield loss(subject, batch, seed)
    for outcome in gradients(subject, batch, seed):
        noisy.append(outcome)
        yield outcome
    if subject.mixed:
        yield logits_type(subject, batch, seed)
        yield precision_in_force(noisy)
    yield evaluation_accuracy(subject, seed)


def names_and_shapes(subject: Subject) -> Outcome:
    """Every weight and buffer has its canonical name and shape; there are 11,176,970 parameters."""
    weights = subject.backend.weights.get_weights(subject.backend.resnet.resnet18(10))
    got = {name: np.array(weight.shape) for name, weight in weights.items()}

    def apart(got: Arrays, wanted: Arrays) -> list[Difference]:
        wrong = [
            float(not np.array_equal(got.get(name, ()), shape)) for name, shape in wanted.items()
        ]
        found = [Difference(name, value) for name, value in zip(wanted, wrong, strict=True)]
        found.append(Difference("names that are not canonical", len(got.keys() - wanted.keys())))
        return [
            *found,
            Difference("the number of parameters", abs(num_parameters(weights) - 11_176_970)),
        ]

    def wanted(_: Conventions) -> Arrays:
        return {name: np.array(shape) for name, shape in weight_shapes(10).items()}

    return subject.hold("names and shapes", got, wanted, apart)


def weights_return(subject: Subject, seed: int) -> Outcome:
    """Weights and buffers that go into a network come out unchanged."""
    weights = subject.weights(seed)
    got = subject.backend.weights.get_weights(subject.network(weights))
    return subject.hold("weights return", got, lambda _: weights)


def logits(subject: Subject, batch: Batch, training: bool, seed: int) -> Outcome:
    """The logits, by BatchNorm's running statistics or, in training mode, by those of the batch."""
    weights = subject.weights(seed)
    net = subject.network(weights)
    y_hat = subject.backend.trainer.predict(net, subject.tensor(batch.X), training)

    def wanted(conventions: Conventions) -> Arrays:
        return {"logits": reference.forward(weights, batch.X, training, conventions).logits}

    got, distance = {"logits": subject.array(y_hat)}, apart(subject)
    return subject.hold(f"logits, {_mode(training)}", got, wanted, distance)


def apart(subject: Subject) -> Distance:
    """Return the distance of activations: in bfloat16 a norm, as the largest of many roundings says little."""
    return relative_norms if subject.mixed else relative


def logits_type(subject: Subject, batch: Batch, seed: int) -> Outcome:
    """The logits come back as float32, so that the loss and its gradient are computed in that."""
    net, X = subject.network(subject.weights(seed)), subject.tensor(batch.X)
    found = []
    for training in (False, True):
        y_hat = subject.backend.trainer.predict(net, X, training)
        wrong = not in_float32([str(y_hat.dtype)])
        found.append(Difference(f"logits, {_mode(training)}", float(wrong)))
    limit = tolerance("logits' type", subject.kind)
    return Outcome("logits' type", subject.kind, tuple(found), limit)


def precision_in_force(outcomes: Sequence[Outcome]) -> Outcome:
    """Bfloat16 is computed in, not only asked for: then all of these are off by some of its grain, at the least.

    Each difference is how many times nearer than one rounding the backend is to the arbiter.
    """
    found = [Difference(o.check, UNIT_ROUNDOFF / max(o.largest.value, TINY)) for o in outcomes]
    kind = outcomes[0].kind
    limit = tolerance("precision in force", kind)
    return Outcome("precision in force", kind, tuple(found), limit)


def activations(subject: Subject, batch: Batch, training: bool, seed: int) -> Outcome:
    """What every layer and residual block gives, from the first convolution to the dense layer."""
    weights = subject.weights(seed)
    net = subject.network(weights)
    found = subject.backend.probes.activations(net, subject.tensor(batch.X), training)

    def wanted(conventions: Conventions) -> Arrays:
        return reference.forward(weights, batch.X, training, conventions).activations

    got = {name: subject.array(Y) for name, Y in found.items()}
    return subject.hold(f"activations, {_mode(training)}", got, wanted, apart(subject))


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def loss(subject: Subject, batch: Batch, seed: int) -> Outcome:
    """The cross-entropy of each example, of logits around 30, and of two so large that their exponentials overflow."""
    drawn = np.random.default_rng(seed).normal(0, 30, (len(batch.y), 10))
    drawn[:2] *= 100
    y_hat = drawn.astype(np.float32).astype(np.float64)
    arguments = [subject.tensor(y_hat), subject.labels(batch.y)]
    if subject.backend.probes.labels_first:
        arguments.reverse()
    losses = subject.loss(*arguments)

    def wanted(_: Conventions) -> Arrays:
        return {"losses": layers.cross_entropy(y_hat, batch.y)[0]}

    return subject.hold("loss", {"losses": subject.array(losses)}, wanted)


def gradients(subject: Subject, batch: Batch, seed: int) -> Iterator[Outcome]:
    """The gradient of the mean loss by every parameter, in training mode; in bfloat16 by all of them together too."""
    weights = subject.weights(seed)
    net = subject.network(weights)
    got = subject.backend.probes.gradients(
        net, subject.tensor(batch.X), subject.labels(batch.y), subject.loss
    )

    def wanted(conventions: Conventions) -> Arrays:
        return reference.gradients(weights, batch.X, batch.y, conventions)[0]

    yield subject.hold("gradients", got, wanted, gradient_distance(subject.kind))
    if subject.mixed:
        yield subject.hold("gradients, together", got, wanted, norm_together)


def gradient_distance(kind: str) -> Distance:
    """Return the distance that counts in shares of each tensor's gradient, from the last layer back to the first.

    Biases before a BatchNorm have a true gradient of 0: theirs are shares of the largest one of all.
    """
    size, apart = (largest, differences) if kind == "float64" else (norm, norms)

    def distance(got: Arrays, wanted: Arrays) -> list[Difference]:
        sizes = {name: size(gradient) for name, gradient in wanted.items()}
        scales = {n: max(sizes.values()) if before_batch_norm(n) else s for n, s in sizes.items()}
        return apart(got, {name: wanted[name] for name in reversed(list(wanted))}, scales)

    return distance


def evaluation_accuracy(subject: Subject, seed: int) -> Outcome:
    """The accuracy on 21 images in batches of 8, the last smaller, in evaluation mode, which changes no weight.

    In bfloat16 these are the images, of four times as many, whose largest logit leads by most.
    """
    rng = np.random.default_rng(seed)
    drawn = 4 * 21 if subject.mixed else 21
    images = rng.integers(0, 256, (drawn, 8, 8, 3), dtype=np.uint8)
    X = np.moveaxis(images / 255, -1, 1)
    weights = all_classes_predicted(subject.weights(seed), X)
    logits = reference.logits(weights, X)
    if subject.mixed:  # the images whose prediction no rounding changes
        least, most = np.sort(logits)[:, -2:].T
        images = images[clear := np.argsort(least - most)[:21]]
        logits = logits[clear]
    right = logits.argmax(axis=1)
    labels = np.where(rng.random(21) < 0.5, right, rng.integers(0, 10, 21))
    dataset = Dataset(images, labels, tuple("abcdefghij"))
    net = subject.network(weights)
    before = subject.backend.weights.get_weights(net)
    batches = subject.backend.loaders.load_batched(dataset, (), 8, False, device=subject.devices[0])
    data_iter = _InKind(batches, subject)
    accuracy = subject.backend.trainer.evaluate_accuracy_gpu(net, data_iter)
    after = subject.backend.weights.get_weights(net)
    moved = max(largest(after[name] - before[name]) for name in before)
    got = {"accuracy": np.array(accuracy), "weights and buffers": np.array(moved)}

    def wanted(_: Conventions) -> Arrays:
        return {
            "accuracy": np.array((right == labels).mean()),
            "weights and buffers": np.array(0.0),
        }

    # No cause is sought: one number is easily met by chance.
    return subject.hold("evaluation accuracy", got, wanted, parts=())


def all_classes_predicted(weights: Weights, X: Array) -> Weights:
    """Return the weights with another last bias: the mean logit of every class is then the same."""
    centre = reference.logits(weights, X).mean(axis=0)
    return weights | {
        "fc.bias": (weights["fc.bias"] - centre).astype(np.float32).astype(np.float64)
    }


class _InKind:
    """Batches of images in the precision of the subject."""

    def __init__(self, batches: DataIter, subject: Subject) -> None:
        self.batches, self.subject = batches, subject

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for X, y in self.batches:
            yield self.subject.tensor(self.subject.array(X)), y
