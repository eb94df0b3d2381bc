"""Parity of training: steps of SGD and of Adam, BatchNorm's buffers; step-locked and free.

Training is chaotic: rounding grows until two correct runs have little in common. So the sharp checks are step-locked:
each step starts from the arbiter's weights, buffers and optimiser state. Hyperparameters are sums of few powers of two,
which float32 holds exactly, as MXNet's and Keras' optimisers round theirs to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from common.interface import Net, Trainer
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
    norms,
    relative,
)
from common.parity.tolerances import tolerance
from common.reference import SGD, Adam, Conventions, train_step
from common.reference.resnet import before_batch_norm
from common.reference.training import Step
from common.weights.canonical import is_buffer

PARTS = ("network", "training")
BATCH = 8


@dataclass(frozen=True)
class Recipe:
    """An optimiser as the arbiter and as a backend make it. The learning rate falls to a quarter at step ``drop``."""

    name: str
    lr: float
    arbiter: Callable[[Conventions], SGD | Adam]
    trainer: Callable[[Subject, Net], Trainer]
    drop: int
    amplifies_noise: (
        bool  # whether it turns a gradient that is only rounding noise into a full step
    )

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.lr if step < self.drop else self.lr / 4


def sgd(drop: int) -> Recipe:
    """Return SGD with momentum and decay."""
    lr, momentum, decay = 2.0**-7, 7 / 8, 2.0**-11
    return Recipe(
        "SGD",
        lr,
        lambda conventions: SGD(lr, momentum, decay, conventions),
        lambda subject, net: subject.backend.trainer.sgd(net, lr, momentum, decay),
        drop,
        amplifies_noise=False,
    )


def adam(drop: int) -> Recipe:
    """Return Adam with numbers near the usual ones, and the backend's own epsilon."""
    lr, betas = 2.0**-10, (7 / 8, 1 - 2.0**-10)
    return Recipe(
        "Adam",
        lr,
        lambda conventions: Adam(lr, betas, conventions=conventions),
        lambda subject, net: subject.backend.trainer.adam(net, lr, betas),
        drop,
        amplifies_noise=True,
    )


def locked_steps(
    subject: Subject, recipe: Recipe, size: int, num_steps: int, seed: int = 0
) -> Iterator[Outcome]:
    """Take each step from the arbiter's state; yield the outcomes for loss, weights, buffers and optimiser's state.

    Each outcome has the largest difference of every step, up to the first step that is too far.
    """
    weights = subject.weights(seed)
    net = subject.network(weights)
    trainer = recipe.trainer(subject, net)
    arbiter = recipe.arbiter(subject.conventions)
    found: dict[str, list[Outcome]] = {}
    for step in range(num_steps):
        # Every second batch is smaller, as the last of an epoch is.
        batch = random_batch(BATCH if step % 2 == 0 else BATCH // 2, size, 1000 * seed + step)
        subject.put(net, trainer, weights, arbiter.state)
        if step == recipe.drop:
            subject.backend.trainer.set_learning_rate(trainer, recipe.lr_at(step))
        got = _taken(subject, net, trainer, batch)
        take = _arbiter_step(weights, batch, replace(arbiter, lr=recipe.lr_at(step)))
        for outcome in _hold_parts(subject, recipe, got, weights, take):
            found.setdefault(outcome.check, []).append(outcome)
        if not all(outcomes[-1].passed for outcomes in found.values()):
            break
        true = take(subject.conventions)
        weights, arbiter = true.weights, replace(arbiter, lr=recipe.lr_at(step), state=true.state)
    for outcomes in found.values():
        yield _by_step(outcomes)
    if subject.mixed:
        given = Difference("logits of the steps", float(not in_float32(subject.logits_types)))
        check = f"locked {recipe.name}: type"
        yield Outcome(check, subject.kind, (given,), tolerance(check, subject.kind))


def _taken(subject: Subject, net: Net, trainer: Trainer, batch: Batch) -> Step:
    """Return what the backend's step gives."""
    l, correct = subject.step(net, trainer, batch)
    state = subject.backend.probes.get_state(net, trainer)
    return Step(l, correct, subject.backend.weights.get_weights(net), state)


def _arbiter_step(
    weights: Arrays, batch: Batch, arbiter: SGD | Adam
) -> Callable[[Conventions], Step]:
    """Return what computes the arbiter's step under given conventions, once for each."""

    @cache
    def take(conventions: Conventions) -> Step:
        optimizer = replace(arbiter, conventions=conventions)
        return train_step(weights, batch.X, batch.y, optimizer, conventions)

    return take


def _hold_parts(
    subject: Subject,
    recipe: Recipe,
    got: Step,
    before: Arrays,
    take: Callable[[Conventions], Step],
) -> Iterator[Outcome]:
    """Hold what a step leaves, each part within a tolerance of its own."""

    def losses(step: Step) -> Arrays:
        number_right = {"number right": np.array(float(step.correct))}
        # In bfloat16 the two largest logits may change places: evaluation accuracy has images whose do not.
        return {"loss": np.array(step.loss)} | ({} if subject.mixed else number_right)

    changed, kind = change_since(before, subject.kind), subject.kind
    for part, chosen, distance in (
        ("loss", losses, relative),
        ("weights", _weights, changed),
        ("buffers", _buffers, changed),
        ("state", _slots, size_of_each(kind)),
    ):
        yield _hold(subject, f"locked {recipe.name}: {part}", got, take, chosen, distance)

    def update(conventions: Conventions) -> Arrays:
        """The optimiser alone: where it goes from the state that the backend has after the step."""
        arbiter = recipe.arbiter(conventions)
        arbiter.lr = take(conventions).state.lr or arbiter.lr
        return arbiter.moved(before, got.state)

    # Biases whose gradient is only rounding noise: in float64, what does not amplify it moves them by their decay.
    exact = not recipe.amplifies_noise and kind == "float64"
    weights = {
        name: weight
        for name, weight in got.weights.items()
        if not is_buffer(name) and (exact or not before_batch_norm(name))
    }

    def largest_change(got: Arrays, wanted: Arrays) -> list[Difference]:
        # No gradient is in it, so no ReLU that flips either: the largest difference counts.
        return change_since(before, "float64")(got, {name: wanted[name] for name in weights})

    yield subject.hold(f"locked {recipe.name}: update", weights, update, largest_change, PARTS)


def _weights(step: Step) -> Arrays:
    """Return the parameters after a step whose changes mean something: see `before_batch_norm`."""
    return {
        name: weight
        for name, weight in step.weights.items()
        if not is_buffer(name) and not before_batch_norm(name)
    }


def _slots(step: Step) -> Arrays:
    """Return the optimiser's state after a step, of the same parameters."""
    return {
        f"{slot} of {name}": array
        for slot, arrays in step.state.slots.items()
        for name, array in arrays.items()
        if not before_batch_norm(name)
    }


def _hold(
    subject: Subject,
    check: str,
    got: Step,
    take: Callable[[Conventions], Step],
    chosen: Callable[[Step], Arrays],
    distance: Distance,
) -> Outcome:
    def wanted(conventions: Conventions) -> Arrays:
        return chosen(take(conventions))

    return subject.hold(check, chosen(got), wanted, distance, PARTS)


def _buffers(step: Step) -> Arrays:
    return {name: weight for name, weight in step.weights.items() if is_buffer(name)}


def size_of_each(kind: str) -> Distance:
    """Return the distance that counts in shares of what is in each tensor."""
    size, apart = (largest, differences) if kind == "float64" else (norm, norms)

    def distance(got: Arrays, wanted: Arrays) -> list[Difference]:
        return apart(got, wanted, {name: size(array) for name, array in wanted.items()})

    return distance


def change_since(before: Arrays, kind: str) -> Distance:
    """Return the distance that counts in shares of the change that training makes in each tensor."""

    def distance(got: Arrays, wanted: Arrays) -> list[Difference]:
        changes = {name: array - before[name] for name, array in wanted.items()}
        if kind == "float64":
            return differences(got, wanted, {name: largest(c) for name, c in changes.items()})
        return norms(got, wanted, {name: norm(change) for name, change in changes.items()})

    return distance


def _by_step(outcomes: list[Outcome]) -> Outcome:
    """Return the outcome of a check over all steps: the largest difference of each."""
    worst = [outcome.first or outcome.largest for outcome in outcomes]
    found = [Difference(f"step {i}: {d.place}", d.value) for i, d in enumerate(worst, start=1)]
    return replace(outcomes[-1], differences=tuple(found))


def free_steps(
    subject: Subject, recipe: Recipe, size: int, num_steps: int, seed: int = 0
) -> Iterator[Outcome]:
    """Take steps that follow on each other; yield the outcomes for losses, last weights and last buffers."""
    start = subject.weights(seed)
    batches = [random_batch(BATCH, size, 1000 * seed + step) for step in range(num_steps)]
    net = subject.network(start)
    trainer = recipe.trainer(subject, net)
    steps = []
    for i, batch in enumerate(batches):
        if i == recipe.drop:
            subject.backend.trainer.set_learning_rate(trainer, recipe.lr_at(i))
        steps.append(_taken(subject, net, trainer, batch))

    @cache
    def run(conventions: Conventions) -> list[Step]:
        return arbiter_run(recipe, start, batches, conventions)

    def last(conventions: Conventions) -> Step:
        return run(conventions)[-1]

    check = f"free {recipe.name}"
    got = {f"step {i}: loss": np.array(step.loss) for i, step in enumerate(steps, start=1)}

    def wanted(conventions: Conventions) -> Arrays:
        return dict(zip(got, (np.array(step.loss) for step in run(conventions)), strict=True))

    yield subject.hold(f"{check}: loss", got, wanted, parts=PARTS)
    for part, chosen in (("weights", _weights), ("buffers", _buffers)):
        yield _hold(
            subject, f"{check}: {part}", steps[-1], last, chosen, change_since(start, subject.kind)
        )


def arbiter_run(
    recipe: Recipe, start: dict[str, Array], batches: list[Batch], conventions: Conventions
) -> list[Step]:
    """Return the arbiter's steps through ``batches``; only the last keeps its weights."""
    arbiter, weights, steps = recipe.arbiter(conventions), start, []
    for i, batch in enumerate(batches):
        arbiter.lr = recipe.lr_at(i)
        step = train_step(weights, batch.X, batch.y, arbiter, conventions)
        weights = step.weights
        steps.append(step if i == len(batches) - 1 else replace(step, weights={}))
    return steps
