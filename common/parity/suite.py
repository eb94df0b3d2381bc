"""All checks of one backend, in the order of a training run: data, network, steps, whole runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from common.interface import Backend
from common.parity.adapter import KINDS, NUM_CHANNELS, Adapter
from common.parity.checks import chapter_runs
from common.parity.checks import steps as training
from common.parity.checks.case_checks import case_checks
from common.parity.checks.chapters import chapter_checks, prediction_checks
from common.parity.checks.devices import device_checks
from common.parity.checks.initial_weights import initial_checks
from common.parity.checks.loaders import batched_loader_checks
from common.parity.checks.network import model_checks
from common.parity.checks.operations import operation_checks
from common.parity.checks.transforms import transform_checks, uint8_checks
from common.parity.comparison import CheckResult
from common.parity.native.checks import native_checks


@dataclass(frozen=True)
class Extent:
    """How much is checked: image sizes in pixels, numbers of steps, channels of the network's first stage."""

    model_size: int = 32  # as in the chapter
    num_channels: int = NUM_CHANNELS  # as in the chapter
    step_size: int = 16
    # With a quarter of the channels, a step of the reference takes a tenth of the time.
    step_channels: int = 16
    locked_steps: int = 12
    float32_steps: int = 4
    # Later steps hardly change BatchNorm's statistics, and differences are measured relative to that change.
    bfloat16_steps: int = 4
    quick: bool = False  # a small fixed set of inputs instead of all pairs


QUICK = Extent(
    model_size=8,
    num_channels=16,
    locked_steps=4,
    float32_steps=2,
    bfloat16_steps=2,
    quick=True,
)
# Minimums for mixed precision. With 8 x 8 pixels the last stage has one position, and statistics over few positions are
# mostly rounding errors. Norms over the values of few channels vary too much.
LEAST_SIZE, LEAST_CHANNELS = 16, 32


def run_checks(
    backend: Backend,
    extent: Extent,
    seed: int = 0,
    precision: str = "fp32",
    compile: bool = False,
    device: str = "cpu",
) -> Iterator[CheckResult]:
    """Yield the result of every check except free-running training, which needs an envelope.

    ``device`` takes the values of --device. Transforms, loaders and whole runs are checked only in fp32 without
    compiling: other precisions and compilers change only the network and its steps.
    """
    on_device = partial(Adapter, backend, device=device)
    network = partial(on_device, compile=compile, num_channels=extent.num_channels)
    if precision != "fp32":
        wide = max(extent.num_channels, LEAST_CHANNELS)
        yield from _rounded(network(KINDS[precision], num_channels=wide), extent, seed)
        return
    single, double = network("float32"), network("float64")
    if not compile:
        yield from device_checks(backend)
        yield from transform_checks(single, seed)
        yield from uint8_checks(on_device("uint8"), seed)
        yield from operation_checks(single, on_device("uint8"), extent.quick, seed)
        yield from batched_loader_checks(single, extent.quick, seed)
        yield from native_checks(single, extent.quick, seed)
        yield from initial_checks(backend, extent.quick, seed)
    for adapter in (double, single):
        yield from model_checks(adapter, extent.model_size, seed)
    if not compile:
        yield from case_checks(backend, device, extent.quick, seed)
    if extent.step_channels != extent.num_channels:
        # Also train at the chapter's width, for two steps: a mistake may depend on the size of a layer.
        yield from training.locked_steps(double, training.sgd(1), extent.step_size, 2, seed)
        narrow = partial(network, num_channels=extent.step_channels)
        single, double = narrow("float32"), narrow("float64")
    if compile:
        yield from _locked(double, extent.step_size, extent.locked_steps, seed)
    else:
        yield from training.frozen_steps(double, extent.step_size, seed)
        yield from whole_runs(double, extent, seed)
    yield from _locked(single, extent.step_size, extent.float32_steps, seed)


def whole_runs(adapter: Adapter, extent: Extent, seed: int) -> Iterator[CheckResult]:
    """Check the training runs of both chapters, and locked steps with the optimizers of the first chapter."""
    # Pass Adam's epsilon here. The locked steps in float32 use the default.
    for recipe in training.recipes(extent.locked_steps, eps=2.0**-20):
        net = adapter.network(adapter.weights(seed))
        trainer = recipe.trainer(adapter, net)
        native = recipe.name == "Adam"  # so that each pipeline runs once
        run = chapter_runs.train_ch13(adapter, recipe, net, trainer, native, seed)
        yield from chapter_checks(run)
        yield from training.locked_steps(
            adapter, recipe, extent.step_size, extent.locked_steps, seed, trainer
        )
    for validate in (True,) if extent.quick else (True, False):
        run = chapter_runs.kaggle_train(adapter, validate, seed)
        yield from chapter_checks(run)
        yield from prediction_checks(run, native=not validate, seed=seed)


def _rounded(adapter: Adapter, extent: Extent, seed: int) -> Iterator[CheckResult]:
    yield from model_checks(adapter, max(extent.model_size, LEAST_SIZE), seed)
    yield from _locked(adapter, max(extent.step_size, LEAST_SIZE), extent.bfloat16_steps, seed)


def _locked(adapter: Adapter, size: int, num_steps: int, seed: int) -> Iterator[CheckResult]:
    for recipe in training.recipes(num_steps):
        yield from training.locked_steps(adapter, recipe, size, num_steps, seed)
