"""Every option reaches the backend. The backend in these tests records its calls and needs no framework."""

import inspect
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import random_dataset
from rich.console import Console
from safetensors.numpy import load_file

from common import interface
from common.augmentation.decisions import decide, epoch_order, merged
from common.augmentation.operations import gallery, parse_augmentations
from common.commands import augment
from common.commands import session as sessions
from common.commands import train as command
from common.commands.run_folder import RunFolder
from common.commands.session import Session
from common.commands.train import Trained
from common.commands.training import Predictions
from common.config import AdamConfig, DataConfig, TrainConfig
from common.datasets import Data
from common.drawing.captions import captions, described
from common.interface import Backend, Framework
from common.metrics import Confusion, Epoch, Report, TrainingSummary
from common.reference import State
from common.weights.canonical import initial_weights
from common.weights.files import Stored

CONFIG = TrainConfig(
    preset="book",
    backend="notes",
    augment="flip,crop",
    batch_size=16,
    num_epochs=3,
    adam=AdamConfig(lr=0.5, betas=(0.8, 0.9), eps=1e-3),
    precision="bf16",
    compile=True,
    device="cpu",
    seed=7,
)
IMAGE = random_dataset(1).images[0][:, :24]  # 32 x 24
SUMMARY = TrainingSummary(0.5, 0.75, 0.375, 120, 1.0, 2.0, "[cpu]")


@pytest.fixture
def backend() -> Backend:
    """A backend that computes nothing, reports two numbers per epoch, and trains a weight from 0 to 1."""
    protocols = inspect.get_annotations(Backend, eval_str=True)
    files = {
        name: mock.create_autospec(protocol, instance=True)
        for name, protocol in protocols.items()
        if name != "framework"
    }
    backend = Backend(Framework("notes", "Notes", ()), **files)
    weight = np.zeros(1, np.float32)

    def train(*arguments):
        listener, first_epoch = arguments[-2:]
        assert first_epoch == 0
        for n in range(1, 4):
            listener.on_report(Report(n, 1.0, 0.5 / n, 0.25 * n, 40, 1.0))
            listener.on_epoch(Epoch(n, 0.5 / n, 0.25 * n, 0.125 * n, None, 40, 2.0, 1.0))
        weight[:] = 1
        return replace(SUMMARY, held_out=listener.held_out)

    backend.trainer.train_ch13.side_effect = train
    backend.weights.get_weights.side_effect = lambda net: {"weight": weight.copy()}
    backend.trainer.get_state.return_value = State(3, {"first": {}, "second": {}})
    backend.loaders.get_dataloader_workers.return_value = 3
    backend.processes.rank.return_value = 0
    backend.processes.num_processes.return_value = 1
    backend.processes.total.side_effect = lambda values: values
    backend.devices.to_numpy.return_value = np.zeros((1, 10), np.float32)  # the logits
    return backend


@pytest.fixture
def session(backend: Backend, tmp_path: Path) -> Session:
    train = random_dataset(40, 0)
    train = replace(train, images=train.images[:, :, :24])  # 32 x 24
    data = Data("noise", train, random_dataset(20, 1))
    folder, console = RunFolder(tmp_path / "run", ""), Console(quiet=True)
    return Session("train", backend, CONFIG, ["cpu"], data, folder, console)


def test_every_option_of_a_training_reaches_the_backend(session, backend):
    trained = command.train(session, session.config)
    backend.devices.set_seed.assert_called_once_with(7)
    backend.resnet.resnet18.assert_called_once_with(10, 3, 64)
    net = backend.resnet.resnet18.return_value
    backend.trainer.prepare.assert_called_once_with(net, ["cpu"], "bf16", True, False)
    prepared = backend.trainer.prepare.return_value
    backend.trainer.adam.assert_called_once_with(prepared, 0.5, (0.8, 0.9), 1e-3)
    assert {call.args for call in backend.weights.get_weights.mock_calls} == {(prepared,)}
    signature = inspect.signature(interface.Trainers.train_ch13)
    given = signature.bind(None, *backend.trainer.train_ch13.call_args.args).arguments
    assert given["net"] is prepared
    assert given["trainer"] is backend.trainer.adam.return_value
    assert given["loss"] is backend.trainer.cross_entropy.return_value
    assert given["num_epochs"] == 3
    assert given["devices"] == ["cpu"]
    for name in ("train_iter", "test_iter"):
        assert given[name].batches is backend.loaders.load_batched.return_value
    progress = given["animator"]
    assert progress.num_train == 40
    assert progress.bar.tasks[0].total == 3 * (
        40 * 3 + 20
    )  # a training step costs three forward passes
    assert trained.weights == {"weight": 1}


def test_the_learning_rate_falls_by_one_ratio_to_its_end_and_is_in_the_metrics(session, backend):
    command.train(session, replace(CONFIG, adam=AdamConfig(lr=0.5, lr_end_factor=0.25)))
    trainer = backend.trainer.adam.return_value
    falls = [mock.call(trainer, rate) for rate in (0.5, 0.25, 0.125)]
    assert backend.trainer.set_learning_rate.call_args_list == falls
    assert [line["lr"] for line in metrics_of(session)] == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("augment", ["none", "flip,crop"])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_initial_weights_depend_on_the_seed_and_not_on_the_augmentation(
    session, backend, seed, augment
):
    command.train(session, replace(CONFIG, seed=seed, augment=augment))
    ((net, weights), _) = backend.weights.set_weights.call_args
    assert net is backend.resnet.resnet18.return_value
    for name, weight in initial_weights(10, seed=seed).items():
        np.testing.assert_array_equal(weights[name], weight)


@pytest.mark.parametrize("augment", ["none", "flip,crop"])
def test_the_batched_pipeline_augments_and_shuffles_only_training_images(session, backend, augment):
    command.train(session, replace(CONFIG, augment=augment))
    augs, load = parse_augmentations(augment, (32, 24)), backend.loaders.load_batched
    assert load.call_args_list == [
        mock.call(session.data.train, augs, 16, True, 7, "cpu", 0, (0, 1)),
        mock.call(session.data.test, (), 16, False, 7, "cpu", 0, (0, 1)),
    ]
    assert not backend.loaders.load_native.called


@pytest.mark.parametrize(("workers", "expected"), [(None, 3), (0, 0), (2, 2)])
def test_the_native_pipeline_uses_the_given_number_of_workers(session, backend, workers, expected):
    config = replace(CONFIG, pipeline="native", workers=workers)
    command.train(replace(session, config=config), config)
    augs, load = parse_augmentations("flip,crop", (32, 24)), backend.loaders.load_native
    assert load.call_args_list == [
        mock.call(session.data.train, augs, 16, True, 7, expected, "cpu", 0, (0, 1)),
        mock.call(session.data.test, (), 16, False, 7, expected, "cpu", 0, (0, 1)),
    ]
    assert not backend.loaders.load_batched.called


def metrics_of(session: Session) -> list[dict]:
    lines = (session.folder.path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def predictions(session, monkeypatch) -> Predictions:
    """Predictions of the held-out images; the first of them is wrong."""
    labels = session.data.test.labels.copy()
    labels[0] = 9
    found = Predictions(labels, np.full(20, 0.75))
    monkeypatch.setattr(command, "predict_all", predict := mock.Mock(return_value=found))
    yield found
    prepared = session.backend.trainer.prepare.return_value
    arguments = session.backend, session.config, prepared, session.data.test, (), "cpu"
    predict.assert_called_once_with(*arguments)


@pytest.mark.parametrize(("reader", "own"), [("mxnet", False), ("", True)])
@pytest.mark.usefixtures("predictions")
def test_start_up_and_memory_are_none_if_another_framework_read_the_weights(
    session, monkeypatch, reader, own
):
    net = session.backend.trainer.prepare.return_value
    epoch = Epoch(1, 0.5, 0.5, 0.5, None, 40, 2.0, 1.0)
    trained = Trained(SUMMARY, [epoch], net, {"weight": np.zeros(1, np.float32)})
    monkeypatch.setattr(command, "train", lambda *arguments: trained)
    monkeypatch.setattr(command.results.plots, "save_confusion", mock.Mock())
    monkeypatch.setattr(command.plots, "save_curves", mock.Mock())
    monkeypatch.setattr(command.environment, "peak_memory_mib", lambda: 123.5)
    stored = Stored(Path("x.pt"), {}, {}, reader)
    command.train_and_record(replace(session, weights=stored, startup_seconds=1.5))
    summary = json.loads((session.folder.path / "summary.json").read_text())
    found = summary["startup_seconds"], summary["peak_memory_mib"]
    assert found == ((1.5, 123.5) if own else (None, None))


@pytest.mark.parametrize("held_out", ["test", "valid"])
def test_a_training_saves_its_summary_metrics_curves_weights_and_results(
    session, predictions, monkeypatch, held_out
):
    monkeypatch.setattr(command.plots, "save_curves", save_curves := mock.Mock())
    monkeypatch.setattr(command.results.plots, "save_confusion", save_confusion := mock.Mock())
    monkeypatch.setattr(command.environment, "peak_memory_mib", lambda: 123.5)
    data, console = replace(session.data, held_out=held_out), Console(file=io.StringIO(), width=200)
    session = replace(session, data=data, console=console)
    command.train_and_record(replace(session, startup_seconds=1.5))
    folder, accuracy = session.folder.path, f"{held_out}_acc"
    used = {"startup_seconds": 1.5, "peak_memory_mib": 123.5}
    test = session.data.test
    confusion = Confusion.of(test.labels, predictions.labels, test.classes)
    numbers = asdict(SUMMARY)
    del numbers["held_out"]
    numbers[accuracy] = numbers.pop("test_acc")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == numbers | used | confusion.plain()
    assert summary["per_class"]["a"] == 0.5
    assert save_confusion.call_args.args[0] == folder / "confusion.png"
    assert (folder / "mistakes.png").exists()
    lines = console.file.getvalue().splitlines()
    assert f"  a  {held_out} acc 0.500  1 of 2" in lines
    word = {"test": "test", "valid": "validation"}[held_out]
    optimistic = ", so this accuracy is optimistic" if held_out == "test" else ""
    assert lines[-2:] == [
        f"1 mistake on 20 {word} images, in mistakes.png",
        f"best epoch 3, {held_out} acc 0.375, in best.safetensors: chosen by the {word} images{optimistic}",
    ]
    assert load_file(folder / "weights.safetensors") == {"weight": 1}
    wanted = ("augment", "seed", "epoch", "train_loss", "train_acc", accuracy)
    assert [tuple(line[name] for name in wanted) for line in metrics_of(session)] == [
        ("flip,crop", 7, epoch, 0.5 / epoch, 0.25 * epoch, 0.125 * epoch) for epoch in (1, 2, 3)
    ]
    path, epochs, shown, _ = save_curves.call_args.args
    assert path == folder / "curves.png"
    assert [epoch.held_out_acc for epoch in epochs] == [0.125, 0.25, 0.375]
    assert shown == f"{held_out} acc"


def test_the_best_epoch_of_a_folder_s_test_images_names_the_option_that_holds_out_others(session):
    epochs = [Epoch(n, 0.5, 0.5, acc, None, 40, 2.0, 1.0) for n, acc in ((1, 0.5), (2, 0.5))]
    test = replace(session.data.test, names=[f"test/{i}.png" for i in range(20)])
    line = command.best_epoch(epochs, replace(session.data, test=test))
    assert line == (
        "best epoch 1, test acc 0.500, in best.safetensors: chosen by the test images, so this accuracy is "
        "optimistic; --valid-ratio 0.2 holds out validation images"
    )


def test_ctrl_c_keeps_finished_epochs_and_curves_and_says_where(
    backend, monkeypatch, small_folder, tmp_path
):
    def train(*arguments):
        listener = arguments[-2]
        listener.on_report(Report(1, 1.0, 0.5, 0.5, 40, 1.0))
        listener.on_epoch(Epoch(1, 0.5, 0.5, 0.5, None, 40, 2.0, 1.0))
        listener.on_report(Report(2, 0.5, 0.5, 0.5, 20, 1.0))
        raise KeyboardInterrupt

    backend.trainer.train_ch13.side_effect = train
    backend.devices.get_devices.return_value = ["cpu"]
    backend.devices.describe.return_value = {"device": "a device"}
    monkeypatch.setattr(command, "show", lambda session: None)
    output = tmp_path / "out"
    data = DataConfig(name=str(small_folder), cache_dir=tmp_path, image_size=8)
    config = replace(CONFIG, data=data, batch_size=8, output=output)
    frameworks = mock.Mock(**{"load.return_value": backend})
    with pytest.raises(KeyboardInterrupt, match="interrupted: 1 finished epoch, ") as interrupt:
        command.run(config, frameworks)
    frameworks.load.assert_called_once_with("notes", "bf16")
    assert str(output) in str(interrupt.value)
    line = json.loads((output / "metrics.jsonl").read_text())
    assert line["epoch"] == 1
    names = ["best.safetensors", "checkpoints", "config.json", "curves.png", "metrics.jsonl"]
    assert sorted(path.name for path in output.iterdir()) == names


def test_a_comparison_reports_mean_and_range_of_each(session, monkeypatch):
    monkeypatch.setattr(command.plots, "save_comparison", save := mock.Mock())
    ended = {"none": [(0.9, 0.5), (0.8, 0.6)], "flip,crop": [(0.7, 0.65), (0.75, 0.75)]}
    for name, accuracies in ended.items():
        for seed, (train_acc, test_acc) in enumerate(accuracies, start=7):
            run = {"augment": name, "seed": seed}
            session.folder.add_metrics(run | {"epoch": 1, "train_acc": 0.0, "test_acc": 0.1})
            session.folder.add_metrics(
                run | {"epoch": 2, "train_acc": train_acc, "test_acc": test_acc}
            )
    config = replace(CONFIG, compare_augmentation=True, seeds=2)
    console = Console(file=io.StringIO(), width=200)
    session = replace(session, config=config, console=console)
    command.report_comparison(session)
    assert session.console.file.getvalue().splitlines() == [
        "     none: train acc 0.850 (0.800 to 0.900, 2 seeds), "
        "test acc 0.550 (0.500 to 0.600, 2 seeds)",
        "flip,crop: train acc 0.725 (0.700 to 0.750, 2 seeds), "
        "test acc 0.700 (0.650 to 0.750, 2 seeds)",
    ]
    assert json.loads((session.folder.path / "comparison.json").read_text()) == {
        "none": {"train_acc": [0.9, 0.8], "test_acc": [0.5, 0.6]},
        "flip,crop": {"train_acc": [0.7, 0.75], "test_acc": [0.65, 0.75]},
    }
    _, drawn, _, ylabel = save.call_args.args
    assert ylabel == "test accuracy"
    assert drawn["none"].tolist() == [[0.1, 0.5], [0.1, 0.6]]
    assert drawn["flip,crop"].tolist() == [[0.1, 0.65], [0.1, 0.75]]


def test_a_comparison_gives_both_the_same_seeds(session, monkeypatch):
    monkeypatch.setattr(command, "report_comparison", lambda session: None)
    train = mock.Mock(return_value=Trained(SUMMARY, [], None, {}))
    monkeypatch.setattr(command, "train", train)
    command.compare(replace(session, config=replace(CONFIG, compare_augmentation=True)))
    configs = [call.args[1] for call in train.mock_calls]
    assert configs == [
        replace(CONFIG, seed=seed, augment=augment)
        for seed in (7, 8, 9)
        for augment in ("none", "flip,crop")
    ]


def test_the_opening_block_says_what_will_run(session, backend):
    backend.devices.describe.return_value = {"device": "a device"}
    config = replace(CONFIG, pipeline="native", compare_augmentation=True, seeds=2)
    block = sessions.describe(replace(session, config=config, command="compare"))
    assert block["data"] == "shapes: 40 training images, 20 test images, 32 x 24, 10 classes"
    assert (
        block["training"] == "ResNet-18, batch 16, 3 epochs, Adam lr 0.5, betas 0.8 0.9, eps 0.001"
    )
    assert (block["augment"], block["pipeline"]) == ("flip,crop", "native, 3 workers")
    assert (block["seed"], block["device"]) == ("7, 8", "a device")
    backend.devices.describe.assert_called_once_with(["cpu"], "bf16", True)


def test_the_sheet_of_training_images_shows_the_first_of_the_first_epoch(session, monkeypatch):
    """Also: another sheet shows them as --augment makes them."""
    monkeypatch.setattr(augment, "draw", lambda *arguments: ([], []))
    monkeypatch.setattr(augment, "save_augmented", save_augmented := mock.Mock())
    monkeypatch.setattr(augment.image_grid, "save_sheet", save_sheet := mock.Mock())
    augment.show(session)
    shown, train = save_sheet.call_args, session.data.train
    first = epoch_order(40, 7, 0)[:32]
    np.testing.assert_array_equal(shown.args[1], train.images[first])
    assert shown.kwargs["names"] == [train.classes[label] for label in train.labels[first]]
    augs, path = parse_augmentations("flip,crop", (32, 24)), session.folder.path
    save_augmented.assert_called_once_with(
        path / "augmented-images.png", session.backend, CONFIG, "cpu", train, augs, "noise"
    )


def test_without_augmentations_there_is_no_sheet_of_augmented_images(session, monkeypatch):
    monkeypatch.setattr(augment, "draw", lambda *arguments: ([], []))
    monkeypatch.setattr(augment, "save_augmented", save_augmented := mock.Mock())
    monkeypatch.setattr(augment.image_grid, "save_sheet", mock.Mock())
    augment.show(replace(session, config=replace(CONFIG, augment="none")))
    assert not save_augmented.called


def test_training_images_are_augmented_as_in_the_first_seven_epochs(session, backend, monkeypatch):
    monkeypatch.setattr(augment.image_grid, "save_sheet", save_sheet := mock.Mock())
    augs, train = parse_augmentations("flip,crop", (20, 20)), session.data.train
    backend.transforms.from_images.side_effect = lambda images, device: images
    backend.transforms.augment_to_float.side_effect = lambda X, decisions: (X, decisions)
    drawn = []

    def to_images(augmented):
        drawn.append(augmented)
        return augmented[0]

    backend.transforms.to_images.side_effect = to_images
    augment.save_augmented(Path("x.png"), backend, CONFIG, "cpu", train, augs, "noise")
    indices = np.array([0, 10, 20, 30])
    texts = save_sheet.call_args.kwargs["captions"]
    assert texts[8] == f"original\n{train.classes[train.labels[10]]}"
    for epoch, (X, decisions) in enumerate(drawn):
        np.testing.assert_array_equal(X, train.images[indices])
        wanted = decide(augs, indices, 7, epoch, (32, 24))
        for mine, theirs in zip(decisions, merged(wanted), strict=True):
            for a, b in zip(vars(mine).values(), vars(theirs).values(), strict=True):
                np.testing.assert_array_equal(a, b)
        assert texts[8 + 1 + epoch] == captions(wanted, 1, short=True)
    assert len(drawn) == 7
    assert len(save_sheet.call_args.args[1]) == 32


def test_the_batched_pipeline_draws_with_the_decisions_of_the_seed(session, backend):
    augs = parse_augmentations("flip,crop", (20, 20))
    drawn = backend.transforms.augment.return_value
    backend.transforms.to_images.side_effect = lambda X: [X]
    expected = decide(augs, np.arange(2, 7), 7, 0, (32, 24))
    said = [captions(expected, i) for i in range(5)]
    assert augment.draw(backend, IMAGE, augs, 5, CONFIG, "cpu", 2) == ([drawn], said)
    _, decisions = backend.transforms.augment.call_args.args
    for mine, theirs in zip(decisions, expected, strict=True):
        for a, b in zip(vars(mine).values(), vars(theirs).values(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_native_pipeline_draws_with_the_framework_s_own_transforms(session, backend, layout):
    pixels = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
    floats = (pixels - 0.4) / 255  # must be rounded, not truncated
    backend.devices.image_layout = layout
    backend.devices.to_numpy.return_value = (
        np.moveaxis(floats, -1, 0) if layout == "NCHW" else floats
    )
    augs = parse_augmentations("flip,crop", (20, 20))
    config = replace(CONFIG, pipeline="native")
    images, said = augment.draw(backend, IMAGE, augs, 2, config, "cpu")
    backend.devices.set_seed.assert_called_once_with(7)
    backend.transforms.native.assert_called_once_with(augs)
    np.testing.assert_array_equal(images, [pixels] * 2)
    assert said == ["", ""]


@pytest.mark.parametrize("pipeline", ["batched", "native"])
def test_each_sheet_shows_the_original_first_and_has_captions(session, monkeypatch, pipeline):
    original, config = IMAGE, replace(CONFIG, pipeline=pipeline)
    height, width = original.shape[:2]
    monkeypatch.setattr(augment, "example_image", lambda path: IMAGE)
    monkeypatch.setattr(augment, "draw", lambda *arguments: ([original] * 7, list("abcdefg")))
    monkeypatch.setattr(augment, "save_augmented", mock.Mock())
    monkeypatch.setattr(augment.image_grid, "save_sheet", save_sheet := mock.Mock())
    augment.show(replace(session, config=config))
    *calls, _ = save_sheet.call_args_list
    assert [call.args[0].name for call in calls][3] == "augment-4-brightness.png"
    for call, augs in zip(calls, gallery().values(), strict=True):
        assert call.args[1][0] is original
        assert call.kwargs["captions"] == [f"original, {height} × {width}", *"abcdefg"]
        assert call.args[4] == described(augs, "Notes" if pipeline == "native" else "")
