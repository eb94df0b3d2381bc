"""Parity of training steps: SGD, Adam and BatchNorm's buffers, step-locked.

Training is chaotic: rounding grows until two correct runs have little in common. So each step starts from the
reference's weights, buffers and optimizer state. Hyperparameters are sums of few powers of two. Float32 holds them
exactly, and MXNet's and Keras' optimizers round theirs to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from common.interface import Net, Trainer
from common.parity.adapter import Adapter, Batch, in_float32, random_batch
from common.parity.comparison import (
    Arrays,
    CheckResult,
    Difference,
    Distance,
    by_place,
    largest_relative,
    relative,
    size_in,
)
from common.parity.tolerances import tolerance
from common.reference import SGD, Adam, Conventions, Optimizer, State, train_step
from common.reference.resnet import before_batch_norm
from common.reference.training import Step
from common.weights.canonical import is_buffer

PARTS = ("network", "training")
# Every second batch is smaller, as the last of an epoch is. Sizes are powers of two, as MXNet divides gradients by them
# in 32-bit floats.
BATCH, LAST_BATCH = 8, 4


@dataclass(frozen=True)
class Recipe:
    """An optimizer of the reference and of a backend. The learning rate falls to a quarter at step ``drop``.

    ``amplifies_noise`` says whether it turns a gradient that is only rounding noise into a full step.
    """

    name: str
    lr: float
    optimizer: Callable[[Conventions], Optimizer]  # the reference's
    trainer: Callable[[Adapter, Net], Trainer]
    drop: int
    amplifies_noise: bool

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
        lambda adapter, net: adapter.backend.trainer.sgd(net, lr, momentum, decay),
        drop,
        amplifies_noise=False,
    )


def adam(drop: int, eps: float | None = None) -> Recipe:
    """Return Adam with numbers near the usual ones; without ``eps``, with the backend's default."""
    lr, betas = 2.0**-10, (7 / 8, 1 - 2.0**-10)
    given = () if eps is None else (eps,)
    return Recipe(
        "Adam",
        lr,
        lambda conventions: Adam(lr, betas, eps, conventions),
        lambda adapter, net: adapter.backend.trainer.adam(net, lr, betas, *given),
        drop,
        amplifies_noise=True,
    )


def recipes(num_steps: int, eps: float | None = None) -> list[Recipe]:
    """Return the recipe of every optimizer, with a learning rate that falls after half of the steps."""
    return [sgd(num_steps // 2), adam(num_steps // 2, eps)]


def locked_steps(
    adapter: Adapter,
    recipe: Recipe,
    size: int,
    num_steps: int,
    seed: int = 0,
    trainer: Trainer | None = None,
) -> Iterator[CheckResult]:
    """Take each step from the reference's state; yield the results for loss, weights, buffers and optimizer state.

    Each result has the largest difference of every step, up to the first step that fails. ``trainer`` is an optimizer
    of the recipe that has been used for the adapter's network before; by default it is a new one.
    """
    weights = adapter.weights(seed)
    net = adapter.network(weights)
    if trainer is None:
        trainer = recipe.trainer(adapter, net)
    else:  # it may have taken the lower rate. A new one has the rate that it was made with.
        adapter.restore(
            net, trainer, weights, fresh(adapter.backend.probes.get_state(net, trainer))
        )
        adapter.backend.trainer.set_learning_rate(trainer, recipe.lr_at(0))
    optimizer = recipe.optimizer(adapter.conventions)
    found: dict[str, list[CheckResult]] = {}
    for step in range(num_steps):
        n = BATCH if step % 2 == 0 else LAST_BATCH
        batch = random_batch(n, size, 1000 * seed + step)
        adapter.restore(net, trainer, weights, optimizer.state)
        if step == recipe.drop:
            adapter.backend.trainer.set_learning_rate(trainer, recipe.lr_at(step))
        got = _taken(adapter, net, trainer, batch)
        take = _reference_step(weights, batch, replace(optimizer, lr=recipe.lr_at(step)))
        for result in _compare_parts(adapter, recipe, got, weights, take):
            found.setdefault(result.check, []).append(result)
        if not all(results[-1].passed for results in found.values()):
            break
        true = take(adapter.conventions)
        weights, optimizer = true.weights, replace(optimizer, state=true.state)
    for results in found.values():
        yield _by_step(results)
    if adapter.mixed:
        given = Difference("logits of the steps", float(not in_float32(adapter.logits_types)))
        check = f"locked {recipe.name}: logits dtype"
        yield CheckResult(check, adapter.kind, (given,), tolerance(check, adapter.kind))


def _taken(adapter: Adapter, net: Net, trainer: Trainer, batch: Batch) -> Step:
    """Take a step in the backend."""
    l, correct = adapter.step(net, trainer, batch)
    state = adapter.backend.probes.get_state(net, trainer)
    return Step(l, correct, adapter.backend.weights.get_weights(net), state)


def _reference_step(
    weights: Arrays, batch: Batch, optimizer: Optimizer
) -> Callable[[Conventions], Step]:
    """Return a function that takes the reference's step under given conventions, once for each."""

    @cache
    def take(conventions: Conventions) -> Step:
        own = replace(optimizer, conventions=conventions)
        return train_step(weights, batch.X, batch.y, own, conventions)

    return take


def _compare_parts(
    adapter: Adapter,
    recipe: Recipe,
    got: Step,
    before: Arrays,
    take: Callable[[Conventions], Step],
) -> Iterator[CheckResult]:
    """Compare the parts of a step, each within a tolerance of its own."""

    def losses(step: Step) -> Arrays:
        number_right = {"number right": np.array(float(step.correct))}
        # In bfloat16 the two largest logits may change places; evaluation accuracy uses images where they do not.
        return {"loss": np.array(step.loss)} | ({} if adapter.mixed else number_right)

    changed, kind = change_since(before, adapter.kind), adapter.kind
    parts: list[tuple[str, Callable[[Step], Arrays], Distance]] = [
        ("loss", losses, largest_relative),
        ("weights", lambda step: parameters_of(step.weights), changed),
        ("buffers", lambda step: buffers_of(step.weights), changed),
        ("state", lambda step: slots_of(step.state), relative(size_in(kind))),
    ]
    for part, chosen, distance in parts:
        yield _compare(adapter, f"locked {recipe.name}: {part}", got, take, chosen, distance)

    def update(conventions: Conventions) -> Arrays:
        """Return the weights that the optimizer computes from the state that the backend has after the step."""
        optimizer = recipe.optimizer(conventions)
        optimizer.lr = take(conventions).state.lr or optimizer.lr
        return optimizer.moved(before, got.state)

    # Biases before a BatchNorm are compared only if their decay moves them more than rounding noise does.
    exact = not recipe.amplifies_noise and kind == "float64"
    weights = {
        name: weight
        for name, weight in got.weights.items()
        if not is_buffer(name) and (exact or not before_batch_norm(name))
    }

    def largest_change(got: Arrays, wanted: Arrays) -> list[Difference]:
        # The largest difference also in float32: no gradient is computed, so no ReLU can flip.
        return change_since(before, "float64")(got, {name: wanted[name] for name in weights})

    yield adapter.compare(f"locked {recipe.name}: update", weights, update, largest_change, PARTS)


def fresh(state: State) -> State:
    """Return the state of the same optimizer before its first step."""
    slots = {
        slot: {name: np.zeros_like(array) for name, array in arrays.items()}
        for slot, arrays in state.slots.items()
    }
    return State(0, slots)


def parameters_of(weights: Arrays) -> Arrays:
    """Return the parameters, without those whose changes are rounding noise: see `before_batch_norm`."""
    return {
        name: weight
        for name, weight in weights.items()
        if not is_buffer(name) and not before_batch_norm(name)
    }


def buffers_of(weights: Arrays) -> Arrays:
    """Return BatchNorm's running statistics."""
    return {name: weight for name, weight in weights.items() if is_buffer(name)}


def slots_of(state: State) -> Arrays:
    """Return an optimizer's state, of the same parameters as `parameters_of`."""
    return {
        f"{slot} of {name}": array
        for slot, arrays in state.slots.items()
        for name, array in arrays.items()
        if not before_batch_norm(name)
    }


def _compare(
    adapter: Adapter,
    check: str,
    got: Step,
    take: Callable[[Conventions], Step],
    chosen: Callable[[Step], Arrays],
    distance: Distance,
) -> CheckResult:
    def wanted(conventions: Conventions) -> Arrays:
        return chosen(take(conventions))

    return adapter.compare(check, chosen(got), wanted, distance, PARTS)


def change_since(before: Arrays, kind: str) -> Distance:
    """Return the distance relative to the change that training makes in each tensor."""
    size = size_in(kind)

    def distance(got: Arrays, wanted: Arrays) -> list[Difference]:
        changes = {name: size(array - before[name]) for name, array in wanted.items()}
        return by_place(size, got, wanted, changes)

    return distance


def _by_step(results: list[CheckResult]) -> CheckResult:
    """Return the result of a check over all steps: the largest difference of each step."""
    worst = [result.first or result.largest for result in results]
    found = [Difference(f"step {i}: {d.place}", d.value) for i, d in enumerate(worst, start=1)]
    return replace(results[-1], differences=tuple(found))
