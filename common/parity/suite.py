"""All checks of one backend, in the order in which a training meets what they check."""

from collections.abc import Iterator
from dataclasses import dataclass

from common.interface import Backend
from common.parity import training_checks as training
from common.parity.data_checks import level_checks, loader_checks, transform_checks
from common.parity.model_checks import model_checks
from common.parity.outcome import Outcome
from common.parity.subject import Subject


@dataclass(frozen=True)
class Extent:
    """How much is checked: pixels a side of the images, and numbers of steps."""

    model_size: int = 32  # the chapter's
    step_size: int = 16
    locked_steps: int = 30
    free_steps: int = 10
    float32_steps: int = 3


def run_checks(backend: Backend, extent: Extent, seed: int = 0) -> Iterator[Outcome]:
    """Yield the outcome of every check but that of free-running training, which takes an envelope."""
    single, double = Subject(backend, "float32"), Subject(backend, "float64")
    yield from transform_checks(single, seed)
    yield from level_checks(Subject(backend, "uint8"), seed)
    yield from loader_checks(single, seed)
    for subject in (double, single):
        yield from model_checks(subject, extent.model_size, seed)
    drop, num_steps = extent.locked_steps // 2, extent.locked_steps
    size = extent.step_size
    for recipe in (training.sgd(drop), training.adam(drop)):
        yield from training.locked_steps(double, recipe, size, num_steps, seed)
    drop = extent.free_steps // 2
    for recipe in (training.sgd(drop), training.adam(drop)):
        yield from training.free_steps(double, recipe, size, extent.free_steps, seed)
    drop = extent.float32_steps // 2
    for recipe in (training.sgd(drop), training.adam(drop)):
        yield from training.locked_steps(single, recipe, size, extent.float32_steps, seed)
