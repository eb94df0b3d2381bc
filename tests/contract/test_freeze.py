"""`freeze` trains only the last layer: all other weights and BatchNorm's statistics stay bit for bit.

The parity checks compare its steps with the reference.
"""

from typing import Any

import pytest
from conftest import Recorder, bright_dataset, filled_weights, without_tracing

from common.augmentation.operations import parse_augmentations
from common.interface import Backend
from common.metrics import Epoch
from common.weights.canonical import LAST_LAYER, Weights
from common.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

SIZE = 8


@pytest.fixture(autouse=True)
def eager(request):
    tensorflow = "compiled" not in request.node.name and "tensorflow" in request.node.name
    with without_tracing("tensorflow" if tensorflow else ""):
        yield


class Training:
    """A network whose last layer is trained, and its optimizer."""

    def __init__(self, backend: Backend, precision: str = "fp32", compile: bool = False):
        self.backend, self.devices = backend, [backend.devices.cpu()]
        self.first = filled_weights(2, num_channels=8)
        net = backend.resnet.resnet18(2, num_channels=8)
        backend.weights.set_weights(net, self.first)
        backend.trainer.freeze(net)
        self.net = backend.trainer.prepare(net, self.devices, precision, compile)
        self.trainer = backend.trainer.adam(self.net)

    def epoch(self, number: int) -> list[Epoch]:
        """Train an epoch, counted from 0, and evaluate."""
        load, recorder = self.backend.loaders.load_batched, Recorder()
        augs = parse_augmentations("flip,crop", (SIZE, SIZE))
        train_iter = load(bright_dataset(20, 0), augs, 8, True, seed=3, first_epoch=number)
        test_iter = load(bright_dataset(12, 1), (), 8, False)
        loss = self.backend.trainer.cross_entropy()
        batches: tuple[Any, ...] = train_iter, test_iter, loss, self.trainer, number + 1
        self.backend.trainer.train_ch13(self.net, *batches, self.devices, recorder, number)
        return recorder.epochs

    def weights(self) -> Weights:
        return self.backend.weights.get_weights(self.net)


def changed(before: Weights, after: Weights) -> tuple[str, ...]:
    """Return the names of the weights that are not bit for bit the same."""
    return tuple(
        name for name, weight in before.items() if weight.tobytes() != after[name].tobytes()
    )


def test_an_epoch_in_bfloat16_changes_only_the_last_layer(backend):
    training = Training(backend, "bf16")
    training.epoch(0)
    assert changed(training.first, training.weights()) == LAST_LAYER


@pytest.mark.slow  # compiling takes half a minute
def test_a_compiled_epoch_changes_only_the_last_layer(backend):
    training = Training(backend, compile=True)
    training.epoch(0)
    assert changed(training.first, training.weights()) == LAST_LAYER


def test_a_training_that_goes_on_from_a_checkpoint_ends_as_one_that_ran_through(backend, tmp_path):
    straight = Training(backend)
    epochs = straight.epoch(0)
    half = straight.weights()
    assert changed(straight.first, half) == LAST_LAYER
    state = backend.trainer.get_state(straight.net, straight.trainer)
    assert {slot: set(arrays) for slot, arrays in state.slots.items()} == {
        "first": {*LAST_LAYER},
        "second": {*LAST_LAYER},
    }
    save_checkpoint(tmp_path / "1.safetensors", Checkpoint(half, state, tuple(epochs), {}))
    straight.epoch(1)
    assert changed(half, straight.weights()) == LAST_LAYER

    kept, again = load_checkpoint(tmp_path / "1.safetensors"), Training(backend)
    backend.weights.set_weights(again.net, kept.weights)
    backend.trainer.set_state(again.net, again.trainer, kept.state)
    again.epoch(1)
    assert changed(straight.weights(), again.weights()) == ()


def test_two_devices_change_only_the_last_layer(backend):
    if backend.name != "mxnet":
        pytest.skip("only MXNet has two CPU devices without a restart")
    import mxnet

    training = Training(backend)
    training.devices = [mxnet.cpu(0), mxnet.cpu(1)]
    training.net = backend.trainer.prepare(training.net, training.devices)
    training.trainer = backend.trainer.adam(training.net)
    training.epoch(0)
    assert changed(training.first, training.weights()) == LAST_LAYER
