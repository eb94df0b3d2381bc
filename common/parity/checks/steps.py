"""Parity of training steps: SGD, Adam and BatchNorm's buffers, in locked steps.

Training is chaotic: rounding errors grow until two correct runs have little in common. So each step starts from the
reference's weights, buffers and optimizer state. Hyperparameters are sums of few powers of two, which float32
represents exactly: the optimizers of MXNet and Keras round theirs to float32.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from common.interface import Net, Trainer
from common.parity.adapter import Adapter, Batch, all_float32, random_batch
from common.parity.comparison import (
    Arrays,
    CheckResult,
    Difference,
    Distance,
    absolute,
    by_place,
    largest,
    largest_relative,
    relative,
    size_for,
)
from common.parity.tolerances import tolerance
from common.reference import SGD, Adam, Conventions, Optimizer, State, train_step
from common.reference.resnet import before_batch_norm
from common.reference.training import Step
from common.weights.canonical import LAST_LAYER, is_buffer

PARTS = ("network", "training")
# Every second batch is smaller, like the last of an epoch. Sizes are powers of two, because MXNet divides gradients by
# them in 32-bit floats.
BATCH, LAST_BATCH = 8, 4


@dataclass(frozen=True)
class Recipe:
    """An optimizer of the reference and of a backend. The learning rate drops to a quarter at step ``drop``.

    ``amplifies_noise`` is true if the optimizer turns a gradient of pure rounding noise into a full step.
    """

    name: str
    lr: float
    optimizer: Callable[[Conventions], Optimizer]  # of the reference
    trainer: Callable[[Adapter, Net], Trainer]  # of the backend
    drop: int
    amplifies_noise: bool

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.lr if step < self.drop else self.lr / 4


def sgd(drop: int) -> Recipe:
    """Return SGD with momentum and weight decay."""
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
    """Return Adam with values near the usual ones. The default of ``eps`` is the backend's own."""
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
    """Return the recipe of every optimizer, with a learning rate that drops after half of the steps."""
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
    of the recipe that was used before with the adapter's network. The default is a new one.
    """
    weights = adapter.weights(seed)
    net = adapter.network(weights)
    if trainer is None:
        trainer = recipe.trainer(adapter, net)
    else:  # it may have the lower learning rate
        adapter.restore(
            net, trainer, weights, initial_state(adapter.backend.trainer.get_state(net, trainer))
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
        got = _backend_step(adapter, net, trainer, batch)
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
        given = Difference("logits of the steps", float(not all_float32(adapter.logits_types)))
        check = f"locked {recipe.name}: logits dtype"
        yield CheckResult(check, adapter.kind, (given,), tolerance(check, adapter.kind))


def frozen_steps(adapter: Adapter, size: int, seed: int = 0) -> Iterator[CheckResult]:
    """Train only the last layer for three steps; compare it with the reference's, and all other weights with before."""
    weights = adapter.weights(seed)
    batches = [
        random_batch(n, size, 1000 * seed + step)
        for step, n in enumerate((BATCH, LAST_BATCH, BATCH))
    ]
    for recipe in recipes(len(batches), eps=2.0**-20):
        net = adapter.frozen_network(weights)
        trainer = recipe.trainer(adapter, net)
        for batch in batches:
            adapter.step(net, trainer, batch)
        got = adapter.backend.weights.get_weights(net)

        def expected(conventions: Conventions, recipe: Recipe = recipe) -> Arrays:
            trained, optimizer = weights, recipe.optimizer(conventions)
            for batch in batches:
                step = train_step(trained, batch.X, batch.y, optimizer, conventions, freeze=True)
                trained = step.weights
            return {name: trained[name] for name in LAST_LAYER}

        check, distance = f"frozen {recipe.name}", change_since(weights, adapter.kind)
        yield adapter.compare(f"{check}: last layer", got, expected, distance, PARTS)
        others = {name: weight for name, weight in weights.items() if name not in LAST_LAYER}
        yield CheckResult(
            f"{check}: other weights",
            adapter.kind,
            tuple(absolute(largest)(got, others)),
            tolerance(f"{check}: other weights", adapter.kind),
        )


def _backend_step(adapter: Adapter, net: Net, trainer: Trainer, batch: Batch) -> Step:
    """Take a step in the backend."""
    l, correct = adapter.step(net, trainer, batch)
    state = adapter.backend.trainer.get_state(net, trainer)
    return Step(l, correct, adapter.backend.weights.get_weights(net), state)


def _reference_step(
    weights: Arrays, batch: Batch, optimizer: Optimizer
) -> Callable[[Conventions], Step]:
    """Return a function that takes the reference's step under given conventions, and caches the result."""

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
    """Compare the parts of a step, each with its own tolerance."""

    def losses(step: Step) -> Arrays:
        number_right = {"number right": np.array(float(step.correct))}
        # In bfloat16 the two largest logits may swap. The check of evaluation accuracy uses images where they do not.
        return {"loss": np.array(step.loss)} | ({} if adapter.mixed else number_right)

    changed, kind = change_since(before, adapter.kind), adapter.kind
    parts: list[tuple[str, Callable[[Step], Arrays], Distance]] = [
        ("loss", losses, largest_relative),
        ("weights", lambda step: parameters_of(step.weights), changed),
        ("buffers", lambda step: buffers_of(step.weights), changed),
        ("state", lambda step: slots_of(step.state), relative(size_for(kind))),
    ]
    for part, chosen, distance in parts:
        yield _compare(adapter, f"locked {recipe.name}: {part}", got, take, chosen, distance)

    def update(conventions: Conventions) -> Arrays:
        """Return the weights that the reference's optimizer computes from the backend's state after the step."""
        optimizer = recipe.optimizer(conventions)
        optimizer.lr = take(conventions).state.lr or optimizer.lr
        with np.errstate(divide="ignore", invalid="ignore"):  # a state without steps divides by 0
            return optimizer.updated_parameters(before, got.state)

    # Compare biases before a BatchNorm only if weight decay changes them more than rounding noise does.
    exact = not recipe.amplifies_noise and kind == "float64"
    weights = {
        name: weight
        for name, weight in got.weights.items()
        if not is_buffer(name) and (exact or not before_batch_norm(name))
    }

    def largest_change(got: Arrays, expected: Arrays) -> list[Difference]:
        # Use the largest difference in float32 too: no gradient is computed, so no ReLU can flip.
        return change_since(before, "float64")(got, {name: expected[name] for name in weights})

    yield adapter.compare(f"locked {recipe.name}: update", weights, update, largest_change, PARTS)


def initial_state(state: State) -> State:
    """Return the state of the same optimizer before its first step."""
    slots = {
        slot: {name: np.zeros_like(array) for name, array in arrays.items()}
        for slot, arrays in state.slots.items()
    }
    return State(0, slots)


def parameters_of(weights: Arrays) -> Arrays:
    """Return the parameters without those whose changes are rounding noise: see `before_batch_norm`."""
    return {
        name: weight
        for name, weight in weights.items()
        if not is_buffer(name) and not before_batch_norm(name)
    }


def buffers_of(weights: Arrays) -> Arrays:
    """Return BatchNorm's running statistics."""
    return {name: weight for name, weight in weights.items() if is_buffer(name)}


def slots_of(state: State) -> Arrays:
    """Return an optimizer's state for the same parameters as `parameters_of`."""
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
    def expected(conventions: Conventions) -> Arrays:
        return chosen(take(conventions))

    return adapter.compare(check, chosen(got), expected, distance, PARTS)


def change_since(before: Arrays, kind: str) -> Distance:
    """Return the distance relative to the change of each tensor in training."""
    size = size_for(kind)

    def distance(got: Arrays, expected: Arrays) -> list[Difference]:
        changes = {name: size(array - before[name]) for name, array in expected.items()}
        return by_place(size, got, expected, changes)

    return distance


def _by_step(results: list[CheckResult]) -> CheckResult:
    """Merge the results of a check over all steps: the largest difference of each step."""
    worst = [result.first or result.largest for result in results]
    found = [Difference(f"step {i}: {d.place}", d.value) for i, d in enumerate(worst, start=1)]
    return replace(results[-1], differences=tuple(found))
