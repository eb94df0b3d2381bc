"""The traps of docs/traps.md: each failing example fails as the page says, and the one beside it does not.

What this project does about the book's traps is in tests/test_traps.py. Here the examples themselves are run.
"""

import ast
import json
import os
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip, python

from docs.examples.traps import (
    adam_epsilon,
    added_brightness,
    batch_norm_defaults,
    batch_norm_momentum,
    compose_appends,
    crop_edges,
    default_argument,
    dry_run,
    few_batches,
    flip_probability,
    hidden_file,
    ids_by_position,
    import_mxnet,
    kvstore_none,
    last_batch_dropped,
    lazy_layers,
    listing_order,
    mean_twice,
    no_antialiasing,
    no_gpu,
    odd_flip,
    parallel_map,
    random_rotation,
    rate_in_momentum,
    rows_without_images,
    same_padding,
    saturation,
    shadowed,
    sorted_twice,
    statistics_on_backward,
    sum_of_losses,
    tensorflow_first,
    thread_pool,
    three_generators,
    timer_after_fetch,
    training_argument,
    training_mode,
    uneven_batch,
    weight_decay,
    worker_flips,
    zero_jitter,
)

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "docs" / "examples" / "traps").glob("*.py"))
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(scope="module")
def pytorch():
    load_or_skip("pytorch")
    import torch

    return torch


@pytest.fixture(scope="module")
def mxnet():
    load_or_skip("mxnet")
    import mxnet

    return mxnet


@pytest.fixture(scope="module")
def tensorflow():
    load_or_skip("tensorflow")  # and with it Triton, before TensorFlow
    import tensorflow

    return tensorflow


def run_alone(function, script=""):
    """Call an example in a process of its own, after a script."""
    call = f"from {function.__module__} import {function.__name__} as example\nexample()\n"
    return python(script + call)


# --- The page --------------------------------------------------------------------------------------------------------


def page() -> str:
    return (ROOT / "docs" / "traps.md").read_text()


def shown(text: str) -> list[tuple[str, str]]:
    """The functions and classes that the page takes from the examples, as (file, name)."""
    pairs = re.findall(r"^```\{trap\} (\w+)$", text, re.MULTILINE)
    others = re.findall(
        r"\{literalinclude\} /\.\./docs/examples/traps/(\w+)\.py\n:pyobject: (\w+)\n", text
    )
    return [(file, name) for file in pairs for name in ("trap", "fixed")] + others


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_all_of_an_example_is_on_the_page_once(path):
    defined = [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert defined[:2] == ["trap", "fixed"]
    assert sorted(name for file, name in shown(page()) if file == path.stem) == sorted(defined)


def test_the_page_shows_no_other_files():
    assert {file for file, _ in shown(page())} == {path.stem for path in EXAMPLES}


def test_the_contents_at_the_top_lead_to_every_trap_in_its_order():
    contents, _, sections = page().partition("\n## ")
    sections = re.findall(r"^\(([\w-]+)\)=\n### ", sections, re.M)
    assert re.findall(r"^\| \[[^\]]+\]\(#([\w-]+)\) \|", contents, re.M) == sections
    assert sorted(sections) == sorted(path.stem.replace("_", "-") for path in EXAMPLES)


def test_a_section_shows_the_example_that_it_is_named_for():
    for section in re.split(r"^\((?=[\w-]+\)=\n### )", page(), flags=re.M)[1:]:
        stem = section.partition(")")[0].replace("-", "_")
        assert {file for file, _ in shown(section)} == {stem}


def test_every_trap_and_what_mends_it_are_run_by_a_test_of_this_file():
    tests = [
        node
        for node in ast.parse(Path(__file__).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    run = {
        (node.value.id, node.attr)
        for test in tests
        for node in ast.walk(test)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for path in EXAMPLES:
        assert {(path.stem, "trap"), (path.stem, "fixed")} <= run, path.stem


def test_examples_import_no_framework_until_they_are_called():
    names = ", ".join(path.stem for path in EXAMPLES)
    loaded = "{'torch', 'mxnet', 'tensorflow', 'keras'} & set(sys.modules)"
    done = python(f"import sys\nfrom docs.examples.traps import {names}\nprint({loaded})")
    assert done.stdout.strip() == "set()", done.stderr


# --- Data and files --------------------------------------------------------------------------------------------------


def test_64_of_80_validation_images_are_seen_and_no_ship_and_no_truck(pytorch):
    valid = [(pytorch.zeros(1), label) for label in range(10) for _ in range(8)]
    seen = last_batch_dropped.trap(valid)
    assert len(seen) == 64
    assert [CIFAR10[label] for label in range(10) if label not in seen] == ["ship", "truck"]
    assert Counter(last_batch_dropped.fixed(valid)) == dict.fromkeys(range(10), 8)


def test_gluon_s_discard_loses_the_same_images(mxnet):
    valid = [(mxnet.np.zeros(1), label) for label in range(10) for _ in range(8)]
    batches = mxnet.gluon.data.DataLoader(valid, 32, last_batch="discard")
    seen = np.concatenate([y.asnumpy() for _, y in batches])
    assert np.bincount(seen.astype(int)).tolist() == [8] * 8


def test_the_order_of_the_listing_chooses_the_validation_images(monkeypatch):
    found = {"trap": [], "fixed": []}
    for names in (["1.png", "2.png", "10.png"], ["10.png", "2.png", "1.png"]):
        monkeypatch.setattr(os, "listdir", lambda folder, names=names: list(names))
        found["trap"].append(listing_order.trap("train", 2))
        found["fixed"].append(listing_order.fixed("train", 2))
    assert found["trap"] == [["1.png", "2.png"], ["10.png", "2.png"]]
    assert found["fixed"] == [["1.png", "2.png"]] * 2


@pytest.mark.parametrize(("sort", "num_both"), [(sorted_twice.trap, 6), (sorted_twice.fixed, 0)])
def test_of_20_images_that_are_sorted_again_6_are_in_both_folders(tmp_path, sort, num_both):
    images = [tmp_path / f"{i}.png" for i in range(20)]
    for image in images:
        image.touch()
    for num_valid in (8, 2):
        sort(images, tmp_path / "out", num_valid)
    train, valid = (set(os.listdir(tmp_path / "out" / split)) for split in ("train", "valid"))
    assert len(train & valid) == num_both
    assert len(train | valid) == 20


def test_sorting_again_with_the_same_ratio_is_harmless(tmp_path):
    images = [tmp_path / f"{i}.png" for i in range(20)]
    for image in images:
        image.touch()
    for _ in range(2):
        sorted_twice.trap(images, tmp_path / "out", 8)
    assert len(os.listdir(tmp_path / "out" / "valid")) == 8
    assert len(os.listdir(tmp_path / "out" / "train")) == 12


def test_a_hidden_file_is_looked_up_as_an_image():
    names, labels = ["1.png", ".DS_Store", "2.png"], {"1": "cat", "2": "dog"}
    with pytest.raises(KeyError, match=r"^''$"):
        hidden_file.trap(names, labels)
    assert hidden_file.fixed(names, labels) == ["cat", "dog"]


def test_1000_images_beside_50000_labels_leave_none_to_train_on():
    labels = {i: CIFAR10[i % 10] for i in range(50_000)}
    ids = range(1_000)
    train, valid = rows_without_images.trap(ids, labels, 0.1)
    assert (len(train), len(valid)) == (0, 1_000)
    train, valid = rows_without_images.fixed(ids, labels, 0.1)
    assert (len(train), len(valid)) == (900, 100)
    assert rows_without_images.split(ids, labels, 10) == (train, valid)


def test_counted_ids_are_right_until_one_is_missing():
    def rows(ids):
        """What both write for files of these ids, each labelled with its own id."""
        names = sorted(f"{i}.png" for i in ids)  # as a dataset reads a folder
        labels = [name.removesuffix(".png") for name in names]
        return ids_by_position.trap(names, labels), ids_by_position.fixed(names, labels)

    trap, fixed = rows(range(1, 13))
    assert trap == fixed
    trap, fixed = rows([i for i in range(1, 13) if i != 9])
    assert sum(str(i) != label for i, label in trap) == 8
    assert all(str(i) == label for i, label in fixed)
    assert len(fixed) == 11


# --- The network -----------------------------------------------------------------------------------------------------


def lazy_resnet18():
    """This project's network with the layers that are lazy in the book's: the convolutions of its blocks."""
    from torch import nn

    net = load_or_skip("pytorch").resnet.resnet18(10)
    for block in net.modules():
        for name in ("conv1", "conv2", "conv3"):
            conv = getattr(block, name, None)
            if conv is not None:
                settings = {"stride": conv.stride, "padding": conv.padding}
                setattr(block, name, nn.LazyConv2d(conv.out_channels, conv.kernel_size, **settings))
    return net


@pytest.mark.parametrize(("make", "reached"), [(lazy_layers.trap, 2), (lazy_layers.fixed, 21)])
def test_an_initialization_reaches_2_layers_of_21(pytorch, make, reached):
    from torch import nn

    def init_cnn(module):
        if type(module) in (nn.Linear, nn.Conv2d):
            nn.init.constant_(module.weight, 0.5)

    net = lazy_resnet18()
    make(net, pytorch.rand(2, 3, 8, 8), init_cnn)
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 21
    assert sum(bool((layer.weight == 0.5).all()) for layer in layers) == reached
    assert net.training


def test_isinstance_would_have_found_out(pytorch):
    from torch import nn

    with pytest.raises(ValueError, match="uninitialized parameter"):
        nn.init.xavier_uniform_(nn.LazyConv2d(4, 3).weight)
    assert isinstance(nn.LazyConv2d(4, 3), nn.Conv2d)


def test_a_dry_run_leaves_a_tenth_of_its_batch_in_the_statistics(pytorch):
    from torch import nn

    X = pytorch.full((4, 3, 2, 2), 10.0)
    for make, mean, variance in ((dry_run.trap, 1, 0.9), (dry_run.fixed, 0, 1)):
        net = nn.Sequential(nn.LazyBatchNorm2d())
        make(net, X)
        np.testing.assert_allclose(net[0].running_mean, [mean] * 3)
        np.testing.assert_allclose(net[0].running_var, [variance] * 3)
        assert net.training


@pytest.mark.parametrize("size", [7, 8])
def test_same_padding_shifts_the_grid_by_one_pixel_where_the_size_is_even(
    pytorch, tensorflow, size
):
    X = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
    middle = np.zeros((3, 3, 1, 1), np.float32)
    middle[1, 1] = 1  # the layer returns the pixels on which it is centred

    def centres(layer):
        layer(X)  # makes the weights
        layer.set_weights([middle, np.zeros(1)])
        return layer(X).numpy()[0, :, :, 0]

    theirs = pytorch.nn.functional.conv2d(
        pytorch.tensor(X[:, None, :, :, 0]),
        pytorch.tensor(middle[None, None, :, :, 0, 0]),
        None,
        2,
        1,
    )
    np.testing.assert_array_equal(theirs[0, 0], X[0, ::2, ::2, 0])
    np.testing.assert_array_equal(centres(same_padding.fixed(1)), X[0, ::2, ::2, 0])
    first = 1 if size % 2 == 0 else 0
    np.testing.assert_array_equal(centres(same_padding.trap(1)), X[0, first::2, first::2, 0])


def test_a_copied_momentum_keeps_a_tenth_where_nine_were_meant(pytorch):
    X = pytorch.ones(2, 4, 3, 3)  # the mean is 1, the running one begins at 0
    for make, kept in ((batch_norm_momentum.trap, 0.9), (batch_norm_momentum.fixed, 0.1)):
        layer = make(4)
        layer(X)
        np.testing.assert_allclose(layer.running_mean, [kept] * 4, rtol=1e-6)


def test_a_momentum_of_nine_tenths_takes_a_tenth_in_gluon_and_in_keras(mxnet, tensorflow):
    from keras.layers import BatchNormalization

    layer = mxnet.gluon.nn.BatchNorm(momentum=0.9, in_channels=4)
    layer.initialize()
    with mxnet.autograd.record():
        y = layer(mxnet.np.ones((2, 4, 3, 3)))
    y.backward()
    mxnet.npx.waitall()
    np.testing.assert_allclose(layer.running_mean.data().asnumpy(), [0.1] * 4, rtol=1e-6)
    layer = BatchNormalization(momentum=0.9)
    layer(np.ones((2, 3, 3, 4), np.float32), training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [0.1] * 4, rtol=1e-6)


def test_keras_batch_norm_shrinks_what_varies_little_and_moves_a_tenth_as_fast(tensorflow):
    X = 1 + np.sqrt(0.001) * np.array([[-1.0], [1.0]], np.float32)  # mean 1, variance .001
    for make, spread, mean in (
        (batch_norm_defaults.trap, 0.707, 0.01),
        (batch_norm_defaults.fixed, 0.995, 0.1),
    ):
        layer = make()
        Y = layer(X, training=True).numpy()
        assert Y.std() == pytest.approx(spread, abs=0.0005)
        assert layer.moving_mean.numpy() == pytest.approx(mean, rel=1e-4)


def test_gluon_s_statistics_wait_for_the_backward_pass(mxnet):
    layer = mxnet.gluon.nn.BatchNorm(in_channels=3)
    layer.initialize()
    X = mxnet.np.ones((2, 3, 4, 4))

    def mean():
        mxnet.npx.waitall()
        return layer.running_mean.data().asnumpy().tolist()

    for _ in range(5):
        statistics_on_backward.trap(layer, X)
    assert mean() == [0, 0, 0]
    statistics_on_backward.fixed(layer, X)
    assert mean() == pytest.approx([0.1] * 3)


# --- The optimizer ---------------------------------------------------------------------------------------------------


def distance(pytorch, take_step, make_optimizer, num_examples, num_steps=1, start=1.0):
    """How far from its best value, 0, a weight is after some steps on the losses w * w / 2."""
    weight = pytorch.nn.Parameter(pytorch.tensor([start], dtype=pytorch.float64))
    optimizer = make_optimizer([weight])
    for _ in range(num_steps):
        losses = weight.expand(num_examples) ** 2 / 2
        take_step(losses, optimizer)
    return abs(weight.item())


def sgd(pytorch, lr, **settings):
    return lambda weights: pytorch.optim.SGD(weights, lr=lr, **settings)


def test_the_sum_of_32_losses_takes_32_times_the_step_and_diverges(pytorch):
    tenth = sgd(pytorch, 0.1)
    assert distance(pytorch, sum_of_losses.fixed, tenth, 32) == pytest.approx(1 - 0.1)
    assert distance(pytorch, sum_of_losses.trap, tenth, 32) == pytest.approx(abs(1 - 3.2))
    assert distance(pytorch, sum_of_losses.fixed, tenth, 32, 20) == pytest.approx(0.12, abs=0.005)
    assert distance(pytorch, sum_of_losses.trap, tenth, 32, 20) == pytest.approx(7.05e6, rel=1e-3)


@pytest.mark.parametrize(("rate", "num_examples", "other"), [(2e-4, 32, 6.4e-3), (0.1, 128, 12.8)])
def test_a_rate_for_the_sum_is_one_for_the_mean_times_the_batch(pytorch, rate, num_examples, other):
    of_sum = distance(pytorch, sum_of_losses.trap, sgd(pytorch, rate), num_examples)
    of_mean = distance(pytorch, sum_of_losses.fixed, sgd(pytorch, other), num_examples)
    assert of_sum == pytest.approx(of_mean, rel=1e-9)


def test_adam_hides_the_sum(pytorch):
    def adam(weights):
        return pytorch.optim.Adam(weights, lr=0.01)

    of_sum = distance(pytorch, sum_of_losses.trap, adam, 32, 10)
    assert of_sum == pytest.approx(distance(pytorch, sum_of_losses.fixed, adam, 32, 10), abs=1e-6)


def test_weight_decay_is_a_hundredth_at_a_hundredth_of_the_rate(pytorch):
    shrunk = []
    for rate in (0.02, 2e-4):
        weight = pytorch.nn.Parameter(pytorch.ones(1, dtype=pytorch.float64))
        weight.grad = pytorch.zeros_like(weight)
        sgd(pytorch, rate, weight_decay=5e-4)([weight]).step()
        shrunk.append(1 - weight.item())
    assert shrunk[0] / shrunk[1] == pytest.approx(100)


def test_gluon_s_trainer_divides_a_mean_by_the_batch_again(mxnet):
    from mxnet import gluon, np

    lengths = {}
    for take_step in (mean_twice.trap, mean_twice.fixed):
        net = gluon.nn.Dense(1, in_units=3)
        net.initialize("ones")
        before = net.weight.data().asnumpy()
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        X, y = np.ones((32, 3)), np.zeros((32, 1))
        take_step(net, X, y, gluon.loss.L2Loss(), trainer)
        lengths[take_step] = np.abs(net.weight.data() - np.array(before)).max().item()
    assert lengths[mean_twice.fixed] / lengths[mean_twice.trap] == pytest.approx(32, rel=1e-4)


def test_keras_weight_decay_is_another_than_pytorchs(pytorch, tensorflow):
    import keras

    ends = {}
    for make in (weight_decay.trap, weight_decay.fixed):
        weight, step = keras.Variable([1.0]), make(0.1, 0.5)
        for _ in range(2):
            step(np.ones(1, np.float32), weight)
        ends[make] = weight.numpy().item()
    theirs = pytorch.nn.Parameter(pytorch.ones(1))
    optimizer = pytorch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        theirs.grad = pytorch.ones(1)
        optimizer.step()
    assert theirs.item() == pytest.approx(0.5725)
    assert ends[weight_decay.fixed] == pytest.approx(0.5725)
    assert ends[weight_decay.trap] == pytest.approx(0.6175)


def test_in_adam_the_two_decays_are_further_apart(pytorch, tensorflow):
    import keras

    ours, theirs = keras.Variable([1.0]), pytorch.nn.Parameter(pytorch.ones(1))
    keras.optimizers.Adam(0.1, weight_decay=0.5).apply([np.zeros(1, np.float32)], [ours])
    theirs.grad = pytorch.zeros(1)
    pytorch.optim.Adam([theirs], lr=0.1, weight_decay=0.5).step()
    assert 1 - ours.numpy().item() == pytest.approx(0.05, rel=1e-4)
    assert 1 - theirs.item() == pytest.approx(0.1, rel=1e-4)


RATES = (0.1, 0.1, 0.01, 0.01)
INSIDE = [0.9, 0.71, 0.5290, 0.3561]
OUTSIDE = [0.9, 0.71, 0.6829, 0.6485]


@pytest.mark.parametrize(
    ("change", "path"), [(rate_in_momentum.trap, INSIDE), (rate_in_momentum.fixed, OUTSIDE)]
)
def test_keras_momentum_keeps_the_rate_that_was(tensorflow, change, path):
    import keras

    weight, optimizer = keras.Variable([1.0]), keras.optimizers.SGD(RATES[0], momentum=0.9)
    optimizer.build([weight])
    found = []
    for rate in RATES:
        change(optimizer, rate)
        optimizer.apply([np.ones(1, np.float32)], [weight])
        found.append(weight.numpy().item())
    assert found == pytest.approx(path, abs=5e-5)


def test_so_does_gluon_s_and_pytorchs_does_not(pytorch, mxnet):
    weight = mxnet.gluon.Parameter("w", shape=(1,), init="ones")
    weight.initialize()
    settings = {"learning_rate": RATES[0], "momentum": 0.9}
    trainer = mxnet.gluon.Trainer([weight], "sgd", settings)
    theirs = pytorch.nn.Parameter(pytorch.ones(1))
    optimizer = pytorch.optim.SGD([theirs], lr=RATES[0], momentum=0.9)
    inside, outside = [], []
    for rate in RATES:
        trainer.set_learning_rate(rate)
        with mxnet.autograd.record():
            l = weight.data() * 1
        l.backward()
        trainer.step(1)
        inside.append(weight.data().asnumpy().item())
        optimizer.param_groups[0]["lr"] = rate
        theirs.grad = pytorch.ones(1)
        optimizer.step()
        outside.append(theirs.item())
    assert inside == pytest.approx(INSIDE, abs=5e-5)
    assert outside == pytest.approx(OUTSIDE, abs=5e-5)


def test_adams_first_step_by_a_small_gradient_depends_on_its_epsilon(pytorch, tensorflow):
    import keras

    for make, step in ((adam_epsilon.trap, 0.0031), (adam_epsilon.fixed, 0.0240)):
        weight = keras.Variable([1.0])
        make(0.1).apply([np.full(1, 1e-7, np.float32)], [weight])
        assert 1 - weight.numpy().item() == pytest.approx(step, abs=5e-5)
    theirs = pytorch.nn.Parameter(pytorch.ones(1))
    optimizer = pytorch.optim.Adam([theirs], lr=0.1)
    theirs.grad = pytorch.full((1,), 1e-7)
    optimizer.step()
    assert 1 - theirs.item() == pytest.approx(0.0909, abs=5e-5)


# --- The training loop and its devices -------------------------------------------------------------------------------


def test_a_list_of_gpus_is_empty_without_one(pytorch, monkeypatch):
    monkeypatch.setattr(pytorch.cuda, "device_count", lambda: 0)
    with pytest.raises(IndexError):
        no_gpu.trap()
    assert no_gpu.fixed() == pytorch.device("cpu")


def test_a_default_argument_is_evaluated_when_the_function_is_defined():
    there, searches = [], []

    def find_devices():
        searches.append(1)
        return list(there)

    fresh = default_argument.fixed(find_devices)
    assert fresh(["gpu(1)"]) == "trained on ['gpu(1)']"
    assert len(searches) == 0
    stale = default_argument.trap(find_devices)
    assert len(searches) == 1
    there.append("gpu(0)")
    assert stale() == "trained on []"
    assert fresh() == "trained on ['gpu(0)']"


def test_gluon_refuses_a_batch_that_does_not_divide_by_the_devices(mxnet):
    devices = [mxnet.cpu(i) for i in range(3)]
    for n in (256, 7):
        with pytest.raises(ValueError, match="cannot be evenly split"):
            uneven_batch.trap(mxnet.np.arange(n), devices)
    parts = uneven_batch.fixed(mxnet.np.arange(256), devices)
    assert [len(part) for part in parts] == [86, 85, 85]


@pytest.mark.parametrize("num_batches", range(1, 12))
def test_below_five_batches_the_report_divides_by_zero(num_batches):
    batches = few_batches.fixed(num_batches)
    if num_batches < 5:
        with pytest.raises(ZeroDivisionError):
            few_batches.trap(num_batches)
        assert batches == list(range(1, num_batches + 1))
    else:
        assert batches == few_batches.trap(num_batches)


def test_a_timer_that_starts_after_the_loader_shows_four_times_the_rate():
    now = 0

    def loader():
        nonlocal now
        for _ in range(10):
            now += 3
            yield range(8)

    def train_batch(X):
        nonlocal now
        now += 1

    rates = [
        rate(loader(), train_batch, lambda: now)
        for rate in (timer_after_fetch.trap, timer_after_fetch.fixed)
    ]
    assert rates == [8, 2]


@pytest.fixture
def small_net(pytorch):
    from torch import nn

    pytorch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


def dark_and_bright(pytorch):
    """Eight noise images, each brighter than the one before."""
    return pytorch.rand(8, 3, 8, 8) * pytorch.linspace(0.2, 1, 8).reshape(8, 1, 1, 1)


def test_in_training_mode_an_image_is_predicted_by_its_neighbours(pytorch, small_net):
    X = dark_and_bright(pytorch)
    together, alone = training_mode.trap(small_net, X), training_mode.trap(small_net, X[:1])
    assert (together[0] - alone[0]).abs().max() > 0.01
    assert together.requires_grad
    assert small_net[1].running_mean.abs().max() > 0


def test_in_evaluation_mode_it_is_not(pytorch, small_net):
    X = dark_and_bright(pytorch)
    together, alone = training_mode.fixed(small_net, X), training_mode.fixed(small_net, X[:1])
    pytorch.testing.assert_close(together[:1], alone)
    assert not together.requires_grad
    assert small_net[1].running_mean.abs().max() == 0


def test_a_keras_network_that_is_only_called_evaluates(tensorflow):
    import keras

    X = 3 + np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    found = {}
    for call in (training_argument.trap, training_argument.fixed):
        net = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        with tensorflow.GradientTape():
            Y = call(net, X)
        found[call] = np.abs(Y.numpy().mean(0)), net.layers[-1].moving_mean.numpy()
    mean, moving = found[training_argument.trap]
    assert mean.min() > 2.5
    assert (moving == 0).all()
    mean, moving = found[training_argument.fixed]
    assert mean.max() < 1e-3
    assert moving.min() > 0.02


@pytest.mark.parametrize(
    ("make", "together"), [(kvstore_none.trap, False), (kvstore_none.fixed, True)]
)
def test_devices_without_a_store_drift_apart(mxnet, make, together):
    from mxnet import gluon, np

    devices = [mxnet.cpu(0), mxnet.cpu(1)]
    net = gluon.nn.Dense(1, in_units=3)
    net.initialize("ones", ctx=devices)
    trainer, loss = make(net, 0.1), gluon.loss.L2Loss()
    with mxnet.autograd.record():
        losses = [
            loss(net(np.full((4, 3), i + 1, ctx=device)), np.zeros((4, 1), ctx=device))
            for i, device in enumerate(devices)
        ]
    for l in losses:
        l.backward()
    trainer.step(8)
    first, second = (weight.asnumpy() for weight in net.weight.list_data())
    assert bool(abs(first - second).max() < 1e-6) == together


# --- Augmentations ---------------------------------------------------------------------------------------------------


def test_mxnet_s_saturation_of_0_is_nearly_black(mxnet):
    X = mxnet.np.array([[[200, 100, 50]]], dtype="uint8")
    assert saturation.trap(X, 0).asnumpy().tolist() == [[[5, 5, 5]]]
    assert saturation.fixed(X, 0).asnumpy().tolist() == [[[124, 124, 124]]]
    assert saturation.fixed(X, 1).asnumpy().tolist() == X.asnumpy().tolist()


def count_unwritten(mxnet, change, width):
    """Return in how many of 200 results a grey image does not stay what it is."""
    X, wrong = mxnet.np.full((32, width, 3), 7, "uint8"), 0
    for _ in range(200):
        used = mxnet.np.full(X.shape, 200, "uint8")  # memory that a result may be put into
        used.wait_to_read()
        del used
        wrong += bool((change(X).asnumpy() != 7).any())
    return wrong


@pytest.mark.parametrize("width", [31, 33])
def test_mxnet_s_flip_leaves_the_middle_of_an_odd_width_unwritten(mxnet, width):
    assert count_unwritten(mxnet, odd_flip.trap, width) > 0
    assert count_unwritten(mxnet, odd_flip.fixed, width) == 0
    assert count_unwritten(mxnet, odd_flip.trap, width + 1) == 0


def test_so_do_its_random_flip_and_its_flip_of_top_and_bottom(mxnet):
    from mxnet.gluon.data.vision import transforms

    assert count_unwritten(mxnet, transforms.RandomFlipLeftRight(), 33) > 0

    def upside_down(X):
        return mxnet.npx.image.flip_top_bottom(X.transpose(1, 0, 2))

    assert count_unwritten(mxnet, upside_down, 33) > 0
    assert count_unwritten(mxnet, upside_down, 32) == 0


def test_only_the_middle_column_is_wrong(mxnet):
    X = mxnet.np.array(np.random.default_rng(0).integers(0, 256, (8, 9, 3)), dtype="uint8")
    apart = odd_flip.trap(X).asnumpy() != odd_flip.fixed(X).asnumpy()
    assert not np.delete(apart, 4, axis=1).any()
    np.testing.assert_array_equal(odd_flip.fixed(X).asnumpy(), X.asnumpy()[:, ::-1])


def test_mxnet_s_jitter_of_zeros_writes_nothing(mxnet):
    zeros = (0, 0, 0, 0)
    assert count_unwritten(mxnet, lambda X: zero_jitter.trap(X, *zeros), 32) > 0
    assert count_unwritten(mxnet, lambda X: zero_jitter.fixed(X, *zeros), 32) == 0
    assert zero_jitter.fixed(mxnet.np.full((2, 2, 3), 7, "uint8"), 0.5, 0, 0, 0).shape == (2, 2, 3)


@pytest.mark.parametrize("p", [0, 1])
def test_mxnet_s_flip_forgets_its_probability(mxnet, p):
    X = mxnet.np.array([[[0] * 3, [1] * 3]], dtype="uint8")
    mxnet.npx.random.seed(0)

    def count(flip):
        return sum(flip(X, p).asnumpy()[0, 0, 0] for _ in range(100))

    assert 30 < count(flip_probability.trap) < 70
    assert count(flip_probability.fixed) == 100 * p


def test_mxnet_s_rotation_refuses_floats_for_being_floats(mxnet):
    X = mxnet.np.array(np.random.default_rng(0).random((3, 9, 9)), dtype="float32")
    with pytest.raises(TypeError, match="only supports float32"):
        random_rotation.trap(X, 179.99, 180.01)
    turned = random_rotation.fixed(X, 179.99, 180.01).asnumpy()
    np.testing.assert_allclose(turned, X.asnumpy()[:, ::-1, ::-1], atol=0.01)


def test_compose_appends_none_to_its_argument(mxnet):
    from mxnet.gluon.data.vision import transforms

    augs = [transforms.RandomFlipLeftRight(), transforms.ToTensor()]
    compose_appends.fixed(augs)
    assert len(augs) == 2
    compose_appends.trap(augs)
    assert augs[2:] == [None]
    with pytest.raises(AttributeError, match="append"):
        compose_appends.trap(tuple(augs[:2]))
    compose_appends.fixed(tuple(augs[:2]))


def stripes():
    """Floats (1, 8, 8, 1): columns 255, 0, 0, 255, twice. Half of the image is white."""
    columns = np.array([255, 0, 0, 255] * 2, np.float32)
    return np.broadcast_to(columns[:, None], (1, 8, 8, 1)).copy()


def test_what_is_not_antialiased_may_miss_all_that_is_white(tensorflow):
    assert no_antialiasing.trap(stripes(), (2, 2)).numpy().max() == 0
    mean = no_antialiasing.fixed(stripes(), (2, 2)).numpy().mean()
    assert 100 < mean < 155


def test_gluon_s_resize_misses_it_too_and_pytorch_s_does_not(mxnet, pytorch):
    from torchvision.transforms import functional

    X = mxnet.np.array(stripes()[0])
    small = mxnet.gluon.data.vision.transforms.Resize(2)(X)
    assert small.asnumpy().max() == 0
    small = functional.resize(pytorch.tensor(stripes()).permute(0, 3, 1, 2), [2, 2])
    assert 100 < small.mean() < 155


def test_tensorflow_s_brightness_lifts_black(tensorflow):
    X = np.array([0, 0.5], np.float32)
    for factor, added, multiplied in ((1.5, [0.5, 1], [0, 0.75]), (0.5, [0, 0], [0, 0.25])):
        assert added_brightness.trap(X, factor).numpy().tolist() == added
        assert added_brightness.fixed(X, factor).numpy().tolist() == multiplied


def test_tensorflow_s_crops_stop_one_pixel_short_of_the_edge(tensorflow):
    trap, fixed = (
        Counter(int(start) for seed in range(200) for start in place(seed))
        for place in (crop_edges.trap, crop_edges.fixed)
    )
    assert set(trap) == set(range(8))
    assert set(fixed) == set(range(9))


# --- Randomness and workers ------------------------------------------------------------------------------------------

WORKERS = """
import json, sys
from multiprocessing import Barrier
import backends.mxnet
from mxnet import np
from mxnet.gluon.data.vision import transforms
from docs.examples.traps import worker_flips

class Images:
    '''Images of two pixels; a batch begins when two workers have one.'''
    meet = Barrier(2)
    flip = transforms.RandomFlipLeftRight()
    def __len__(self):
        return 64
    def __getitem__(self, i):
        if i % 16 == 0:
            self.meet.wait(60)
        return self.flip(np.array([[[0] * 3, [1] * 3]], dtype='uint8'))

def flips(loader):
    return ["".join(str(x) for x in X.asnumpy()[:, 0, 0, 0]) for X in loader]

"""


def test_mxnet_s_workers_mirror_the_same_images_of_their_batches():
    load_or_skip("mxnet")
    calls = [f"worker_flips.{worker_flips.trap.__name__}(Images(), 16)"]
    calls += [
        f"worker_flips.{worker_flips.fixed.__name__}(Images(), 16, {epoch})" for epoch in (0, 0, 1)
    ]
    done = python(
        WORKERS + f"print(json.dumps([flips(loader) for loader in ({', '.join(calls)})]))"
    )
    trap, first, again, second = json.loads(done.stdout.splitlines()[-1])
    assert trap[0] == trap[1] != trap[2] == trap[3]
    assert len(set(first + second)) == 8
    assert first == again
    assert 0.3 < np.mean([int(x) for x in "".join(first + second)]) < 0.7


def test_one_seed_of_mxnet_s_fixes_neither_crops_nor_the_order(mxnet):
    from mxnet import gluon, image

    X = mxnet.np.zeros((100, 100, 3), "uint8")
    picture = mxnet.np.array([[[0] * 3, [1] * 3]], dtype="uint8")
    flip = gluon.data.vision.transforms.RandomFlipLeftRight()

    def draws():
        flips = [int(flip(picture).asnumpy()[0, 0, 0]) for _ in range(30)]
        boxes = [image.random_size_crop(X, (8, 8), (0.1, 1), (0.5, 2))[1] for _ in range(5)]
        return flips, boxes, list(gluon.data.RandomSampler(30))

    states = random.getstate(), np.random.get_state()
    found = []
    for seed in (three_generators.trap, three_generators.fixed):
        for _ in range(2):
            seed(0)
            found.append(draws())
    random.setstate(states[0])
    np.random.set_state(states[1])
    same = [first == second for first, second in zip(found[0], found[1], strict=True)]
    assert same == [True, False, False]
    assert found[2] == found[3]


THREADS = """
import threading
import backends.mxnet
from mxnet import np
from mxnet.gluon import HybridBlock
from mxnet.gluon.data import SimpleDataset
from mxnet.gluon.data.vision import transforms
from docs.examples.traps import thread_pool

class Meet(HybridBlock):
    '''Changes nothing; while the graph is built, a thread waits here for another.'''
    meet = threading.Barrier(2)
    def hybrid_forward(self, F, x):
        if threading.current_thread() is not threading.main_thread():
            self.meet.wait(60)
        return x

images = SimpleDataset([(np.full((4, 4, 3), i, dtype='uint8'), i) for i in range(8)])
transform = transforms.Compose([Meet(), transforms.ToTensor()])
"""


@pytest.mark.parametrize("load", [thread_pool.trap, thread_pool.fixed])
def test_threads_that_build_one_graph_at_once_end_the_loading(load):
    load_or_skip("mxnet")
    call = f"loader = thread_pool.{load.__name__}(images, transform)\n"
    done = python(THREADS + call + "print([y.item() for _, y in loader])")
    if load is thread_pool.trap:
        assert "AttributeError: 'NoneType' object has no attribute '__exit__'" in done.stderr
    else:
        assert done.stdout.strip() == str(list(range(8))), done.stderr


def test_a_parallel_map_draws_otherwise_each_time(tensorflow):
    def runs(flips):
        return [tuple(bool(x) for x in flips(3000, 0)) for _ in range(5)]

    assert len(set(runs(parallel_map.trap))) > 1
    (flips,) = set(runs(parallel_map.fixed))
    assert 0.4 < np.mean(flips) < 0.6


# --- Importing -------------------------------------------------------------------------------------------------------


def test_mxnet_s_import_fails_and_not_with_an_import_error():
    load_or_skip("mxnet")
    trap, fixed = run_alone(import_mxnet.trap), run_alone(import_mxnet.fixed)
    message = r"^AttributeError: module 'numpy' has no attribute 'bool'"
    assert re.search(message, trap.stderr, re.M), trap.stderr
    assert (fixed.returncode, fixed.stdout) == (0, ""), fixed.stderr
    assert not issubclass(AttributeError, ImportError)


@pytest.mark.slow
def test_triton_after_tensorflow_aborts_the_process():
    load_or_skip("tensorflow")
    pytest.importorskip("triton", reason="it comes with PyTorch for Linux")
    trap, fixed = run_alone(tensorflow_first.trap), run_alone(tensorflow_first.fixed)
    assert trap.returncode == -6  # SIGABRT: no exception, nothing to catch
    assert "LLVM ERROR: inconsistency in registered CommandLine options" in trap.stderr
    assert fixed.returncode == 0, fixed.stderr


def test_a_script_beside_a_folder_named_after_a_framework_imports_the_folder(tmp_path):
    for path, text in {
        "mxnet.py": "name = 'the framework'",
        "backends/mxnet/__init__.py": "name = 'the folder'",
        "backends/train.py": "import mxnet\nprint(mxnet.name)",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert shadowed.trap(tmp_path).stdout.strip() == "the folder"
    assert shadowed.fixed(tmp_path).stdout.strip() == "the framework"
