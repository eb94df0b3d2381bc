"""docs/long-runs.md: the examples resume exactly, forget what the page says, and the format is as described."""

import importlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip

import backends
from common.augmentation.operations import CIFAR10_NORMALIZE
from common.commands.training import weights_metadata
from common.metrics import Epoch
from common.reference import State
from common.weights.canonical import initial_weights, is_buffer
from common.weights.checkpoint import Checkpoint, save_checkpoint
from docs.examples.read_checkpoint import read_checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "long-runs.md").read_text(encoding="utf-8")


def load_example(framework):
    load_or_skip(framework)
    return importlib.import_module(f"docs.examples.resume_{framework}")


@pytest.fixture(params=backends.FRAMEWORKS)
def example(request):
    """The example of each framework in turn."""
    return load_example(request.param)


@pytest.fixture
def run(tmp_path):
    """The folder of a run."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def arrays_of(net):
    """Return copies of all weights and statistics of an example's network."""
    if hasattr(net, "state_dict"):
        return [tensor.numpy().copy() for tensor in net.state_dict().values()]
    if hasattr(net, "collect_params"):
        return [p.data().asnumpy() for p in net._collect_params_with_prefix().values()]
    return net.get_weights()


def are_equal(first, second):
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


# --- The frameworks' own means ---------------------------------------------------------------------------------------


def test_an_example_that_is_interrupted_twice_ends_as_one_that_ran_through(example, run, tmp_path):
    ends = [arrays_of(example.train(run, num_epochs)) for num_epochs in (2, 3, 5)]
    straight = arrays_of(example.train(tmp_path, 5))
    assert are_equal(ends[2], straight)
    assert not are_equal(ends[1], straight)


def test_an_example_trains_only_the_epochs_that_are_left(example, run, monkeypatch):
    trained, real = [], example.batches
    monkeypatch.setattr(example, "batches", lambda epoch: trained.append(epoch) or real(epoch))
    for num_epochs in (2, 2, 4):
        example.train(run, num_epochs)
    assert trained == [0, 1, 2, 3]


@pytest.mark.parametrize("restored", [False, True])
def test_a_restored_optimizer_has_the_learning_rate_of_the_file(example, run, restored):
    def rate():
        if hasattr(trainer, "param_groups"):
            return trainer.param_groups[0]["lr"]
        return float(trainer.learning_rate)

    example.train(run, 1)
    net, trainer = example.new_training()
    assert rate() == pytest.approx(0.01)
    if hasattr(trainer, "param_groups"):
        trainer.param_groups[0]["lr"] = 0.5
    elif hasattr(trainer, "set_learning_rate"):
        trainer.set_learning_rate(0.5)
    else:
        trainer.learning_rate = 0.5
    if restored:
        example.restore(run, net, trainer)
    assert rate() == pytest.approx(0.01 if restored else 0.5)


def test_gluon_loads_the_state_of_another_optimizer_and_takes_it(run):
    example = load_example("mxnet")
    from mxnet import gluon

    example.train(run, 1)
    net, _ = example.new_training()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    example.restore(run, net, trainer)
    assert type(trainer.optimizer).__name__ == "Adam"


class Code:
    """An object whose pickle calls a function when it is read."""

    def __reduce__(self):
        return print, ("the code ran",)


def test_gluon_s_file_of_states_can_run_code_and_pytorch_refuses_to(run, capsys):
    gluon, pytorch = load_example("mxnet"), load_example("pytorch")
    import torch

    _, trainer = gluon.new_training()
    (run / "any.states").write_bytes(pickle.dumps(Code()))
    with pytest.raises(AttributeError):  # it holds no states
        trainer.load_states(str(run / "any.states"))
    assert capsys.readouterr().out == "the code ran\n"
    torch.save({"net": Code()}, run / "last.pt")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        pytorch.restore(run, *pytorch.new_training())
    assert capsys.readouterr().out == ""


def test_a_renamed_part_of_a_tensorflow_checkpoint_is_left_out_without_an_error(run):
    example = load_example("tensorflow")
    import tensorflow as tf

    end = arrays_of(example.train(run, 2))
    path = tf.train.latest_checkpoint(str(run))
    net, trainer = example.new_training()
    begin = arrays_of(net)
    found = tf.train.Checkpoint(network=net, trainer=trainer).restore(path)
    names = [variable.name for variable in net.variables]
    arrays = zip(names, arrays_of(net), begin, end, strict=True)
    left_out = [name for name, now, before, saved in arrays if not np.array_equal(now, saved)]
    # The optimizer holds the weights too, so only the statistics are those of a new network.
    assert left_out == ["moving_mean", "moving_variance"]
    for name, now, before in zip(names, arrays_of(net), begin, strict=True):
        assert np.array_equal(now, before) == (name in left_out)
    with pytest.raises(AssertionError, match="not bound to checkpointed values"):
        found.assert_consumed()


def test_a_keras_optimizer_without_variables_gets_them_at_its_first_step(run, tmp_path):
    example = load_example("tensorflow")
    import keras
    import tensorflow as tf

    example.train(run, 2)
    net, _ = example.new_training()
    late = keras.optimizers.Adam(0.5)
    checkpoint = tf.train.Checkpoint(net=net, trainer=late, epochs=tf.Variable(0))
    found = checkpoint.restore(tf.train.latest_checkpoint(str(run)))
    with pytest.raises(AssertionError, match="momentum"):
        found.assert_consumed()
    late.build(net.trainable_variables)
    found.assert_consumed()
    assert int(late.iterations) == 8


def test_a_tensorflow_checkpoint_holds_a_generator_that_is_named_in_it(run):
    load_example("tensorflow")
    import tensorflow as tf

    generator = tf.random.Generator.from_seed(0)
    generator.normal([3])
    path = tf.train.Checkpoint(generator=generator).save(str(run / "generator"))
    following = generator.normal([3]).numpy()
    again = tf.random.Generator.from_seed(0)
    tf.train.Checkpoint(generator=again).restore(path)
    assert np.array_equal(again.normal([3]).numpy(), following)


# --- The format of a checkpoint --------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint():
    """A checkpoint of a Kaggle training with Adam, which so has everything that the page lists."""
    weights = initial_weights(2, num_channels=8)
    trained = {name: array for name, array in weights.items() if not is_buffer(name)}
    slots = {
        slot: {n: a + i for n, a in trained.items()} for i, slot in enumerate(("first", "second"))
    }
    epochs = tuple(Epoch(n, 0.5 / n, 0.5, 0.25, 0.1, 64, 2.0, 1.0) for n in (1, 2))
    backend = type("Backend", (), {"name": "pytorch"})
    metadata = weights_metadata(backend, "photos", ["cat", "dog"], 64, CIFAR10_NORMALIZE)
    return Checkpoint(weights, State(8, slots), epochs, metadata)


def test_the_example_reads_a_checkpoint(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    weights, optimizer, steps, epochs = read_checkpoint(tmp_path / "a.safetensors")
    assert weights.keys() == checkpoint.weights.keys()
    for name, array in checkpoint.weights.items():
        assert np.array_equal(weights[name], array)
    names = {
        f"optimizer.{s}.{n}": a for s, of in checkpoint.state.slots.items() for n, a in of.items()
    }
    assert optimizer.keys() == names.keys()
    for name, array in names.items():
        assert np.array_equal(optimizer[name], array)
    assert steps == 8
    assert [Epoch(**epoch) for epoch in epochs] == list(checkpoint.epochs)


def test_the_page_lists_the_metadata_of_a_checkpoint_and_the_numbers_of_an_epoch(
    checkpoint, tmp_path
):
    from safetensors import safe_open

    save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        metadata = file.metadata()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|$", PAGE, re.M))
    assert metadata.keys() <= rows.keys()
    assert metadata["format"] in rows["format"]
    assert re.findall(r"`(\w+)`", rows["epochs"]) == list(Epoch.__dataclass_fields__)
