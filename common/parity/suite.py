"""All checks of one backend, in the order in which a training meets what they check."""

from collections.abc import Iterator
from dataclasses import dataclass

from common.interface import Backend
from common.parity import training_checks as training
from common.parity.adapter import Subject
from common.parity.comparison import Outcome
from common.parity.data_checks import level_checks, loader_checks, transform_checks
from common.parity.model_checks import model_checks


@dataclass(frozen=True)
class Extent:
    """How much is checked: pixels a side of the images, and numbers of steps."""

    model_size: int = 32  # the chapter's
    step_size: int = 16
    locked_steps: int = 30
    free_steps: int = 10
    float32_steps: int = 3
    # BatchNorm's statistics soon hardly change any more, and a change is what bfloat16 is measured by.
    bfloat16_steps: int = 4


# In bfloat16, statistics over a few positions alone, as the last stage has them at 8 pixels, are mostly rounding.
LEAST_SIZE = 16


def run_checks(
    backend: Backend, extent: Extent, seed: int = 0, precision: str = "fp32", compile: bool = False
) -> Iterator[Outcome]:
    """Yield the outcome of every check but that of free-running training, which takes an envelope.

    What neither a precision nor a compiler touches, transforms and loaders, is checked without them alone.
    """
    if precision == "bf16":
        yield from _in_bfloat16(Subject(backend, "bfloat16", compile), extent, seed)
        return
    single, double = Subject(backend, "float32", compile), Subject(backend, "float64", compile)
    if not compile:
        yield from transform_checks(single, seed)
        yield from level_checks(Subject(backend, "uint8"), seed)
        yield from loader_checks(single, seed)
    for subject in (double, single):
        yield from model_checks(subject, extent.model_size, seed)
    yield from _locked(double, extent.step_size, extent.locked_steps, seed)
    for recipe in _recipes(extent.free_steps):
        yield from training.free_steps(double, recipe, extent.step_size, extent.free_steps, seed)
    yield from _locked(single, extent.step_size, extent.float32_steps, seed)


def _in_bfloat16(subject: Subject, extent: Extent, seed: int) -> Iterator[Outcome]:
    yield from model_checks(subject, max(extent.model_size, LEAST_SIZE), seed)
    yield from _locked(subject, max(extent.step_size, LEAST_SIZE), extent.bfloat16_steps, seed)


def _locked(subject: Subject, size: int, num_steps: int, seed: int) -> Iterator[Outcome]:
    for recipe in _recipes(num_steps):
        yield from training.locked_steps(subject, recipe, size, num_steps, seed)


def _recipes(num_steps: int) -> tuple[training.Recipe, training.Recipe]:
    """Return SGD and Adam, whose learning rate falls half way."""
    return training.sgd(num_steps // 2), training.adam(num_steps // 2)
