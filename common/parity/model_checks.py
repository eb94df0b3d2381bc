"""Parity of the network: names, weights, logits, every activation, loss, gradients, evaluation."""

from collections.abc import Iterator

import numpy as np

from common import reference
from common.datasets import Dataset
from common.interface import DataIter, Tensor
from common.parity.outcome import (
    Array,
    Arrays,
    Difference,
    Distance,
    Outcome,
    differences,
    largest,
    norm,
    norms,
)
from common.parity.subject import Batch, Subject, random_batch, weights_at_work
from common.reference import Conventions, layers
from common.reference.resnet import before_batch_norm
from common.weights import Weights, num_parameters, weight_shapes


def model_checks(subject: Subject, size: int, seed: int = 0) -> Iterator[Outcome]:
    """Check the network, full width, on 8 images of ``size`` pixels a side."""
    batch = random_batch(8, size, seed)
    names = names_and_shapes(subject)
    yield names
    if not names.passed:  # nothing else can be put into such a network
        return
    yield weights_return(subject, seed)
    for training in (False, True):
        # Layer by layer first: it says where.
        yield activations(subject, batch, training, seed)
        yield logits(subject, batch, training, seed)
    yield loss(subject, batch, seed)
    yield gradients(subject, batch, seed)
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
    weights = weights_at_work(seed=seed)
    got = subject.backend.weights.get_weights(subject.network(weights))
    return subject.hold("weights return", got, lambda _: weights)


def logits(subject: Subject, batch: Batch, training: bool, seed: int) -> Outcome:
    """The logits, by BatchNorm's running statistics or, in training mode, by those of the batch."""
    weights = weights_at_work(seed=seed)
    net = subject.network(weights)
    y_hat = subject.backend.trainer.predict(net, subject.tensor(batch.X), training)

    def wanted(conventions: Conventions) -> Arrays:
        return {"logits": reference.forward(weights, batch.X, training, conventions).logits}

    return subject.hold(f"logits, {_mode(training)}", {"logits": subject.array(y_hat)}, wanted)


def activations(subject: Subject, batch: Batch, training: bool, seed: int) -> Outcome:
    """What every layer and residual block gives, from the first convolution to the dense layer."""
    weights = weights_at_work(seed=seed)
    net = subject.network(weights)
    found = subject.backend.probes.activations(net, subject.tensor(batch.X), training)

    def wanted(conventions: Conventions) -> Arrays:
        return reference.forward(weights, batch.X, training, conventions).activations

    got = {name: subject.array(Y) for name, Y in found.items()}
    return subject.hold(f"activations, {_mode(training)}", got, wanted)


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def loss(subject: Subject, batch: Batch, seed: int) -> Outcome:
    """The cross-entropy of each example, of logits around 30, and of two so large that their exponentials overflow."""
    drawn = np.random.default_rng(seed).normal(0, 30, (len(batch.y), 10))
    drawn[:2] *= 100
    y_hat = drawn.astype(np.float32).astype(np.float64)
    losses = subject.loss(subject.tensor(y_hat), subject.labels(batch.y))

    def wanted(_: Conventions) -> Arrays:
        return {"losses": layers.cross_entropy(y_hat, batch.y)[0]}

    return subject.hold("loss", {"losses": subject.array(losses)}, wanted)


def gradients(subject: Subject, batch: Batch, seed: int) -> Outcome:
    """The gradient of the mean loss by every parameter, in training mode."""
    weights = weights_at_work(seed=seed)
    net = subject.network(weights)
    got = subject.backend.probes.gradients(
        net, subject.tensor(batch.X), subject.labels(batch.y), subject.loss
    )

    def wanted(conventions: Conventions) -> Arrays:
        return reference.gradients(weights, batch.X, batch.y, conventions)[0]

    return subject.hold("gradients", got, wanted, gradient_distance(subject.kind))


def gradient_distance(kind: str) -> Distance:
    """Return the distance that counts in shares of each tensor's gradient, from the last layer back to the first.

    Biases before a BatchNorm have a true gradient of 0: theirs are shares of the largest one of all.
    """
    size, apart = (norm, norms) if kind == "float32" else (largest, differences)

    def distance(got: Arrays, wanted: Arrays) -> list[Difference]:
        sizes = {name: size(gradient) for name, gradient in wanted.items()}
        scales = {n: max(sizes.values()) if before_batch_norm(n) else s for n, s in sizes.items()}
        return apart(got, {name: wanted[name] for name in reversed(list(wanted))}, scales)

    return distance


def evaluation_accuracy(subject: Subject, seed: int) -> Outcome:
    """The accuracy on 21 images in batches of 8, the last smaller, in evaluation mode, which changes no weight."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (21, 8, 8, 3), dtype=np.uint8)
    X = np.moveaxis(images / 255, -1, 1)
    weights = all_classes_predicted(weights_at_work(seed=seed), X)
    right = reference.logits(weights, X).argmax(axis=1)
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
