"""The traps of the book's two chapters, one test each: what its code falls into, this project's does not.

Each is named for what the reader would see. The book's code is that of d2l 1.0.3, in its PyTorch and MXNet tabs.
"""

import ast
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import bright_dataset, load_or_skip, random_dataset
from PIL import Image

import backends
from common.augmentation.operations import kaggle_test_augs
from common.datasets.kaggle import (
    list_test_images,
    read_csv_labels,
    reorg_cifar10_data,
    reorg_train_valid,
)
from common.datasets.submission import write_submission
from common.errors import UserError
from common.metrics import Listener, Timer, TrainingSummary, reporting_points
from common.weights.canonical import initial_weights, is_buffer

TABS = list(backends.FRAMEWORKS)


# --- Devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABS)
def test_a_machine_without_a_gpu_has_a_device(name):
    """`try_all_gpus()` is an empty list there, and `devices[0]` stops the chapter."""
    load_or_skip(name)
    d2l = import_module(f"backends.{name}")
    assert len(d2l.try_all_gpus()) >= 1


@pytest.mark.parametrize("name", TABS)
def test_devices_are_looked_for_when_they_are_needed_not_when_the_tab_is_imported(name):
    """`devices=d2l.try_all_gpus()` as a default argument is evaluated at the import."""
    for path in Path("backends", name).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                defaults = [d for d in (*node.args.defaults, *node.args.kw_defaults) if d]
                assert not any(isinstance(default, ast.Call) for default in defaults), node.name


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_a_batch_need_not_divide_by_the_number_of_devices(n):
    """Gluon's `split_and_load` raises for the last batch of an epoch, and for three GPUs always."""
    load_or_skip("mxnet")
    import mxnet as mx
    from mxnet import np as mnp

    from backends import mxnet as d2l

    devices = [mx.cpu(i) for i in range(3)]
    X_shards, y_shards = d2l.split_batch(mnp.arange(n), mnp.arange(n), devices)
    assert [len(shard) for shard in X_shards] == [n // 3 + (i < n % 3) for i in range(3)]
    assert np.concatenate([shard.asnumpy() for shard in y_shards]).tolist() == list(range(n))


# --- Training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_batches", [1, 2, 3, 4])
def test_fewer_than_five_batches_can_be_reported(num_batches):
    """`(i + 1) % (num_batches // 5)` divides by zero."""
    assert reporting_points(num_batches) == set(range(1, num_batches + 1))


def test_a_new_network_s_running_statistics_are_untouched(backend):
    """The book's lazy layers need a dry run, which in training mode moves them."""
    net = backend.resnet.resnet18(3)
    backend.weights.set_weights(net, initial_weights(3))
    dataset = random_dataset(4, size=8)
    for X, _ in backend.loaders.load_batched(dataset, (), 4, False, device=backend.devices.cpu()):
        backend.trainer.predict(net, X)
    found = backend.weights.get_weights(net)
    for name in filter(is_buffer, found):
        assert set(np.unique(found[name])) == {float(name.endswith("running_var"))}


def test_the_wall_clock_stands_beside_a_timer_that_hides_the_loader():
    """The book starts its timer after a batch has been fetched, and prints that rate alone."""
    timer, total = Timer(), Timer()
    for _ in range(2):
        time.sleep(0.05)  # what a slow loader takes
        timer.start()
        timer.stop()
    summary = TrainingSummary(0.5, 0.5, 0.5, 100, timer.sum(), total.stop(), "[cpu]")
    _, book, wall = str(summary).splitlines()
    assert "on [cpu]" in book
    assert f"{summary.examples / summary.seconds:.1f} examples/sec by the wall clock" in wall
    assert "loading and evaluation included" in wall


# --- The Kaggle chapter ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABS)
def test_the_test_set_is_predicted_in_evaluation_mode(name):
    """After the second training nothing calls `eval()`: an image's label depends on those beside it."""
    backend = load_or_skip(name)
    net = backend.resnet.resnet18(2)
    backend.weights.set_weights(net, initial_weights(2))
    devices, dataset = [backend.devices.cpu()], bright_dataset(24)
    net = backend.trainer.prepare(net, devices)

    def load(data, batch_size, is_train=False):
        return backend.loaders.load_batched(data, kaggle_test_augs(), batch_size, is_train)

    train_iter = load(dataset, 8, True)
    backend.kaggle.train(net, train_iter, None, 1, 0.002, 5e-4, devices, 4, 0.9, Listener())
    if name == "pytorch":
        net.train()  # as the training leaves it
    noise = random_dataset(12, size=8)
    alone = backend.kaggle.predict_labels(net, load(noise, 1))
    np.testing.assert_array_equal(backend.kaggle.predict_labels(net, load(noise, 12)), alone)


def test_the_test_set_is_predicted_without_a_graph():
    """Without `no_grad()` every batch of 300,000 images keeps its activations until its labels are read."""
    backend = load_or_skip("pytorch")
    import torch

    net, seen = backend.resnet.resnet18(2), []
    net.register_forward_hook(lambda module, X, y_hat: seen.append(torch.is_grad_enabled()))
    loader = backend.loaders.load_batched(bright_dataset(8), kaggle_test_augs(), 4, False)
    backend.kaggle.predict_labels(net, loader)
    assert seen == [False, False]


@pytest.mark.parametrize("pipeline", ["batched", "native"])
def test_validation_images_in_class_order_are_all_seen(backend, pipeline):
    """The demo drops the last partial batch: 64 of 80 images, no ship, no truck."""
    dataset = random_dataset(80, size=8)
    order = np.argsort(dataset.labels, kind="stable")
    valid = type(dataset)(dataset.images[order], dataset.labels[order], dataset.classes)
    load = getattr(backend.loaders, f"load_{pipeline}")
    labels = np.concatenate(
        [backend.devices.to_numpy(y) for _, y in load(valid, kaggle_test_augs(), 32, False)]
    )
    assert len(labels) == 80
    assert np.bincount(labels).tolist() == [8] * 10


@pytest.fixture
def competition(tmp_path) -> Path:
    """Twenty labelled images of two classes and three to predict; the ids have gaps."""
    for split, ids in (("train", range(1, 60, 3)), ("test", (2, 10, 31))):
        (tmp_path / split).mkdir()
        for i in ids:
            Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / split / f"{i}.png")
    rows = [f"{i},{'cat' if i % 2 else 'dog'}" for i in range(1, 60, 3)]
    (tmp_path / "trainLabels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    return tmp_path


def tree(root: Path, split: str) -> set[str]:
    folder = root / "train_valid_test" / split
    return {str(path.relative_to(folder)) for path in folder.glob("*/*")}


def test_the_split_does_not_follow_the_order_in_which_a_disk_lists_its_files(
    competition, monkeypatch
):
    """`os.listdir` has another order on every file system: other validation images."""
    import os

    scandir, found = os.scandir, []

    class Listing:
        def __init__(self, path, backwards):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda e: e.name, reverse=backwards)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *error):
            pass

        def __iter__(self):
            return iter(self.entries)

    for backwards in (False, True):
        monkeypatch.setattr(os, "scandir", lambda path=".", b=backwards: Listing(path, b))
        reorg_cifar10_data(competition, 0.2)
        found.append(tree(competition, "valid"))
    assert found[0] == found[1]
    assert found[0] == {"cat/1.png", "cat/7.png", "dog/4.png", "dog/10.png"}


def test_sorting_again_leaks_no_validation_image_into_the_training_set(competition):
    """The book adds to what is there: with another ratio, an image is in both."""
    for ratio in (0.1, 0.4, 0.1):
        reorg_cifar10_data(competition, ratio)
        train, valid = tree(competition, "train"), tree(competition, "valid")
        assert not train & valid
        assert train | valid == tree(competition, "train_valid")


def test_a_hidden_file_is_no_image(competition):
    """`.DS_Store` is a KeyError."""
    (competition / "train" / ".DS_Store").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"\.DS_Store"):
        assert reorg_cifar10_data(competition, 0.1).num_train_valid == 20


def test_labels_without_an_image_are_refused(competition):
    """From a csv of 50,000 rows and a folder of 1,000 images, all go to validation and none to training."""
    path = competition / "trainLabels.csv"
    path.write_text(path.read_text() + "".join(f"{i},cat\n" for i in range(1000, 1100)))
    with pytest.raises(UserError, match=r"100 in all"):
        reorg_train_valid(competition, read_csv_labels(path), 0.1)
    assert not (competition / "train_valid_test").exists()


def test_a_prediction_keeps_the_id_of_its_file(competition, tmp_path):
    """The book writes ids 1, 2, 3, ... in the order of their names as text: 1, 10, 100."""
    reorg_cifar10_data(competition, 0.1)
    test = list_test_images(competition)
    assert test.names == ["2.png", "10.png", "31.png"]
    write_submission(tmp_path / "submission.csv", test.ids, np.array([0, 1, 0]), ["cat", "dog"])
    assert (tmp_path / "submission.csv").read_text().split() == [
        "id,label", "2,cat", "10,dog", "31,cat",
    ]  # fmt: skip
