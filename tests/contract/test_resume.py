"""A training that goes on from a checkpoint equals, bit for bit, one that was not interrupted."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import Recorder, bright_dataset, load_or_skip, without_tracing

import backends
from common.augmentation.operations import parse_augmentations
from common.interface import Backend
from common.metrics import Epoch
from common.reference import State
from common.weights.canonical import initial_weights
from common.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

EPOCHS, SIZE = 3, 8
TRAIN, TEST = bright_dataset(20, 0), bright_dataset(12, 1)
AUGS = parse_augmentations("flip,crop,jitter", (SIZE, SIZE))


@pytest.fixture(autouse=True)
def eager(request):
    with without_tracing("tensorflow" if "tensorflow" in request.node.name else ""):
        yield


class Run:
    """A training of one chapter: the first with Adam, the second with SGD and a falling rate."""

    def __init__(self, backend: Backend, chapter: str, pipeline: str, num_devices: int = 1):
        self.backend, self.chapter, self.pipeline = backend, chapter, pipeline
        self.devices = [backend.devices.cpu()] * num_devices
        net = backend.resnet.resnet18(2, num_channels=8)
        backend.weights.set_weights(net, initial_weights(2, num_channels=8))
        self.net = backend.trainer.prepare(net, self.devices)
        if chapter == "train_ch13":
            self.trainer = backend.trainer.adam(self.net)
        else:
            self.trainer = backend.trainer.sgd(self.net, 0.05, 0.9, 1e-3)
        self.epochs: list[Epoch] = []

    def until(self, num_epochs: int) -> "Run":
        """Train up to this number of epochs, from the last finished one."""
        load = getattr(self.backend.loaders, f"load_{self.pipeline}")
        first, listener = len(self.epochs), Recorder()
        train_iter = load(TRAIN, AUGS, 8, True, seed=3, first_epoch=first)
        test_iter = load(TEST, (), 8, False)
        if self.chapter == "train_ch13":
            loss = self.backend.trainer.cross_entropy()
            arguments = self.net, train_iter, test_iter, loss, self.trainer, num_epochs
            self.backend.trainer.train_ch13(*arguments, self.devices, listener, first)
        else:
            arguments = (
                self.net,
                train_iter,
                test_iter,
                num_epochs,
                0.05,
                1e-3,
                self.devices,
                1,
                0.5,
            )
            self.backend.kaggle.train(*arguments, listener, self.trainer, first)
        self.epochs += listener.epochs
        return self

    def checkpoint(self) -> Checkpoint:
        weights = self.backend.weights.get_weights(self.net)
        state = self.backend.trainer.get_state(self.net, self.trainer)
        return Checkpoint(weights, state, tuple(self.epochs), {})

    def restore(self, checkpoint: Checkpoint) -> "Run":
        self.backend.weights.set_weights(self.net, checkpoint.weights)
        self.backend.trainer.set_state(self.net, self.trainer, checkpoint.state)
        self.epochs = list(checkpoint.epochs)
        return self

    def results(self):
        """The metrics without the times."""
        return [
            (e.epoch, e.train_loss, e.train_acc, e.held_out_acc, e.learning_rate, e.images)
            for e in self.epochs
        ]


def require_equal(left: Run, right: Run) -> None:
    one, other = left.checkpoint(), right.checkpoint()
    assert left.results() == right.results()
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        np.testing.assert_array_equal(weight, other.weights[name], name)
    assert one.state.steps == other.state.steps
    assert one.state.slots.keys() == other.state.slots.keys()
    for slot, arrays in one.state.slots.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, other.state.slots[slot][name], f"{slot} {name}")


def interrupted(run: Run, again: Run, path) -> Run:
    """Save ``run`` as a file, and return ``again`` as it was then."""
    save_checkpoint(path, run.checkpoint())
    return again.restore(load_checkpoint(path))


@pytest.mark.parametrize("pipeline", ["batched", "native"])
@pytest.mark.parametrize("chapter", ["train_ch13", "kaggle"])
def test_a_training_interrupted_twice_ends_as_one_that_ran_through(
    backend, chapter, pipeline, tmp_path
):
    def new() -> Run:
        return Run(backend, chapter, pipeline)

    first = new().until(1)
    second = interrupted(first, new(), tmp_path / "1.safetensors").until(2)
    third = interrupted(second, new(), tmp_path / "2.safetensors").until(EPOCHS)
    require_equal(third, new().until(EPOCHS))


@pytest.mark.parametrize("chapter", ["train_ch13", "kaggle"])
def test_a_training_on_two_devices_goes_on_with_the_state_of_both(backend, chapter, tmp_path):
    if backend.name != "mxnet":
        pytest.skip("only MXNet has two CPU devices without a restart")
    import mxnet

    def new() -> Run:
        run = Run(backend, chapter, "batched")
        run.devices = [mxnet.cpu(0), mxnet.cpu(1)]
        run.net = backend.trainer.prepare(run.net, run.devices)
        run.trainer = (
            backend.trainer.adam(run.net)
            if chapter == "train_ch13"
            else backend.trainer.sgd(run.net, 0.05, 0.9, 1e-3)
        )
        return run

    again = interrupted(new().until(1), new(), tmp_path / "1.safetensors").until(EPOCHS)
    require_equal(again, new().until(EPOCHS))


@pytest.mark.parametrize("chapter", ["train_ch13", "kaggle"])
def test_weights_alone_do_not_go_on_as_the_training_would(backend, chapter):
    straight = Run(backend, chapter, "batched").until(EPOCHS)
    begun = Run(backend, chapter, "batched").until(2).checkpoint()
    again = Run(backend, chapter, "batched")
    backend.weights.set_weights(again.net, begun.weights)
    again.epochs = list(begun.epochs)
    loss = again.until(EPOCHS).epochs[-1].train_loss
    assert abs(loss - straight.epochs[-1].train_loss) > 1e-4


@pytest.mark.parametrize("chapter", ["train_ch13", "kaggle"])
def test_a_training_begun_in_one_framework_goes_on_in_another(loaded, chapter, tmp_path):
    names = list(backends.FRAMEWORKS)
    straight = {name: Run(loaded[name], chapter, "batched").until(EPOCHS) for name in names}
    for name, other in zip(names, [*names[1:], names[0]], strict=True):
        begun = Run(loaded[name], chapter, "batched").until(2)
        new = Run(loaded[other], chapter, "batched")
        moved = interrupted(begun, new, tmp_path / f"{name}.safetensors").until(EPOCHS)
        loss = moved.epochs[-1].train_loss
        assert loss == pytest.approx(straight[name].epochs[-1].train_loss, rel=1e-4)


def test_the_order_of_the_slots_in_a_file_does_not_matter(backend):
    begun = Run(backend, "train_ch13", "batched").until(1).checkpoint()
    reverse = {"second": begun.state.slots["second"], "first": begun.state.slots["first"]}
    one, other = (
        Run(backend, "train_ch13", "batched")
        .restore(replace(begun, state=State(3, slots)))
        .until(2)
        for slots in (begun.state.slots, reverse)
    )
    require_equal(one, other)


@pytest.mark.parametrize("name", list(backends.FRAMEWORKS))
def test_a_state_is_that_of_the_network_it_is_read_from(name):
    backend = load_or_skip(name)
    run = Run(backend, "train_ch13", "batched").until(1)
    state = run.checkpoint().state
    assert state.steps == 3
    assert set(state.slots) == {"first", "second"}
