"""Promises of the MXNet tab only: the import of an old framework, MXNet's bugs, contexts and old checkpoints."""

import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import bright_dataset, load_or_skip, python, random_dataset

from backends import onednn
from common import metrics
from common.augmentation.operations import (
    ColorJitter,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
)
from common.errors import UserError, UserNotice
from common.interface import Backend
from common.metrics import Listener
from common.system import environment
from common.weights.canonical import initial_weights, is_buffer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tab() -> Backend:
    return load_or_skip("mxnet")


def test_the_native_loader_seeds_the_cpu_only_and_pins_batches_for_a_gpu(tab, monkeypatch):
    """A worker that seeded a GPU's generator would start CUDA in a fork, where it fails."""
    import mxnet as mx

    seeded, made = [], []
    monkeypatch.setattr(mx.npx.random, "seed", lambda *given: seeded.append(given[1]))
    list(tab.loaders.load_native(random_dataset(4), [], 2, True))
    assert seeded == [mx.cpu()] * 2
    monkeypatch.setattr(mx.gluon.data, "DataLoader", lambda *_, **options: made.append(options))
    for device in (mx.gpu(1), mx.cpu(), None):
        tab.loaders.load_native(random_dataset(4), [], 2, True, device=device)
    assert [(o["pin_memory"], o["pin_device_id"]) for o in made] == [
        (True, 1),
        (False, 0),
        (False, 0),
    ]


def test_several_devices_refuse_a_label_that_is_no_class(tab):
    import mxnet as mx

    net, devices = tab.resnet.resnet18(2), [mx.cpu(0), mx.cpu(1)]
    tab.weights.set_weights(net, initial_weights(2))
    net = tab.trainer.prepare(net, devices)
    X, y = next(iter(tab.loaders.load_batched(bright_dataset(8), (), 8, True)))
    y[3] = 2
    step = net, X, y, tab.trainer.cross_entropy(), tab.trainer.adam(net), devices
    with pytest.raises(ValueError, match="label 2 is no class"):
        tab.trainer.train_batch_ch13(*step)


# --- Importing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("library", "package"), [("libquadmath.so.0", "libquadmath0"), ("libgomp.so.1", "libgomp1")]
)
def test_a_missing_system_library_is_named_with_its_package(tab, monkeypatch, library, package):
    from backends.mxnet import _compat

    def load(name, *arguments):
        raise OSError(f"{library}: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "mxnet")
    monkeypatch.setattr("builtins.__import__", load)
    with pytest.raises(UserError, match=f"{library}.*apt-get install {package}"):
        _compat.import_mxnet()


def test_another_failure_to_load_is_not_called_a_missing_library(tab, monkeypatch):
    from backends.mxnet import _compat

    def load(name, *arguments):
        raise OSError("libmxnet.so: file too short")

    monkeypatch.delitem(sys.modules, "mxnet")
    monkeypatch.setattr("builtins.__import__", load)
    with pytest.raises(OSError, match="file too short"):
        _compat.import_mxnet()


@pytest.mark.parametrize(
    ("before", "chosen", "expected"),
    [
        ("", {}, environment.cores()),
        ("", {"OMP_NUM_THREADS": "3"}, 3),
        # If it was imported before, MXNet has chosen its threads already: half of the cores on x86.
        ("backends.load('mxnet'); del os.environ['OMP_NUM_THREADS'];", {}, None),
    ],
)
def test_the_run_says_how_many_threads_compute(tab, before, chosen, expected):
    script = (
        f"import backends, os; {before} devices = backends.load('mxnet').devices;"
        "print(devices.describe([devices.cpu()])['threads'])"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", script]
    out = subprocess.run(command, cwd=ROOT, env=env | chosen, check=True, stdout=subprocess.PIPE)
    half = max(environment.visible_cores() // (2 if platform.machine() == "x86_64" else 1), 1)
    assert int(out.stdout) == (half if expected is None else expected)


NO_BFLOAT16 = "--precision bf16: MXNet needs a processor with AVX-512 for it"


def test_bf16_is_refused_on_a_processor_without_avx_512(tab, monkeypatch):
    monkeypatch.setattr(tab.devices, "cpu_flags", lambda: {"sse2", "avx2"})
    with pytest.raises(UserError, match=NO_BFLOAT16):
        tab.devices.describe([tab.devices.cpu()], "bf16")


def test_bf16_is_refused_where_onednn_may_not_use_avx_512(tab):
    result = python(
        "import run; run.main(['--backend', 'mxnet', '--precision', 'bf16'])",
        DNNL_MAX_CPU_ISA="AVX2",
    )
    assert result.stderr.splitlines()[-1] == f"error: {NO_BFLOAT16}"


ONEDNN_SAYS = {
    "AVX512_CORE_AMX": "Intel AVX-512 with Intel DL Boost and bfloat16 support "
    "and Intel AMX with bfloat16 and 8-bit integer support",
    "AVX512_CORE_BF16": "Intel AVX-512 with Intel DL Boost and bfloat16 support",
    "AVX512_CORE_VNNI": "Intel AVX-512 with Intel DL Boost",
    "AVX512_CORE": "Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions",
    "AVX2_VNNI": "Intel AVX2 with Intel DL Boost",
    "AVX2": "Intel AVX2",
}


def instructions(precision: str = "fp32", **chosen: str) -> tuple[str, str]:
    """Run a network; return the instructions that the tab reports and those that oneDNN reports.

    ``precision`` is what the tab is loaded for; ``chosen`` are variables of the environment.
    """
    script = (
        f"import backends; tab = backends.load('mxnet', {precision!r}); cpu = tab.devices.cpu();"
        "net = tab.resnet.resnet18(2);"
        "net(tab.devices.from_numpy(__import__('numpy').ones((1, 3, 8, 8), 'f'))).wait_to_read();"
        "print('described,' + tab.devices.describe([cpu])['instructions'])"
    )
    env = {name: value for name, value in os.environ.items() if name != "DNNL_MAX_CPU_ISA"}
    env |= {"DNNL_VERBOSE": "1"} | chosen
    command = [sys.executable, "-c", script]
    out = subprocess.run(
        command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    (described,) = (line.partition(",")[2] for line in out if line.startswith("described,"))
    (says,) = (line.partition("isa:")[2] for line in out if "info,cpu,isa:" in line)
    return described, says


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64")
@pytest.mark.parametrize("chosen", [None, "AVX512_CORE", "AVX2", "avx2"])
def test_the_run_says_which_instructions_onednn_takes(tab, chosen):
    """oneDNN ignores a lower-case name."""
    described, says = instructions(**({"DNNL_MAX_CPU_ISA": chosen} if chosen else {}))
    assert says == ONEDNN_SAYS[described.partition(",")[0]]


@pytest.mark.skipif(not environment.cpu_flags() >= onednn.AMX_FLAGS, reason="no AMX here")
def test_amx_computes_where_bf16_is_wanted_and_the_processor_has_it(tab):
    if not onednn.amx_allowed():
        pytest.skip("Linux refuses AMX")
    described, says = instructions("bf16")
    assert (described, says) == ("AVX512_CORE_AMX", ONEDNN_SAYS["AVX512_CORE_AMX"])


def test_amx_that_is_named_and_refused_ends_the_run_in_one_line(tab):
    result = python(
        "from backends import onednn; onednn.cpu_flags = lambda: {'amx_tile', 'amx_bf16'};"
        "onednn.amx_allowed = lambda: False; import run; run.main(['--backend', 'mxnet'])",
        DNNL_MAX_CPU_ISA="AVX512_CORE_AMX",
    )
    assert result.stderr == (
        "error: DNNL_MAX_CPU_ISA=AVX512_CORE_AMX: Linux refuses AMX to this process, "
        "which would crash: unset the variable\n"
    )


# --- Speed: what keeps a batch in oneDNN's layout ---------------------------------------------------------------------


def graph(net) -> list[dict]:
    """The operators of a hybridized network; their inputs are indices into this list."""
    import json

    import mxnet as mx

    symbol = net(mx.sym.var("data").as_np_ndarray())
    return json.loads(symbol.tojson(remove_amp_cast=False))["nodes"]


ONEDNN = {"Convolution", "BatchNorm", "Activation", "elemwise_add", "Pooling", "FullyConnected"}


def test_every_operator_of_the_network_is_one_that_onednn_has(tab):
    """Any other operator would copy each batch out of oneDNN's layout and back."""
    net = tab.trainer.prepare(tab.resnet.resnet18(10), [tab.devices.cpu()])
    assert {node["op"] for node in graph(net)} - {"null"} == ONEDNN


def test_in_bf16_a_batch_is_cast_at_the_ends_alone(tab):
    net = tab.trainer.prepare(tab.resnet.resnet18(10), [tab.devices.cpu()], "bf16")
    nodes = graph(net)
    assert {node["op"] for node in nodes} - {"null"} == ONEDNN | {"amp_cast"}
    cast = [nodes[node["inputs"][0][0]] for node in nodes if node["op"] == "amp_cast"]
    names = {node["name"] for node in cast}
    weights = {name for name in names if name.endswith(("_weight", "_bias"))}
    assert len(weights) == 2 * 21  # for the convolutions and the dense layer
    assert names - weights == {"data", nodes[-2]["name"]}  # the input and the logits


# Relative to all logits: four times the measured errors, 7e-3 in evaluation and 4.6e-2 in training. PyTorch's autocast
# has the same.
BF16_ERRORS = {False: 0.03, True: 0.2}


@pytest.mark.parametrize("training", [False, True])
def test_bf16_differs_from_fp32_by_rounding(tab, training):
    images = bright_dataset(32, 0, 8).images
    X = tab.transforms.to_float(tab.transforms.from_images(images, None))
    logits = []
    for precision in ("fp32", "bf16"):
        net = tab.resnet.resnet18(10)
        tab.weights.set_weights(net, initial_weights(10))
        net = tab.trainer.prepare(net, [tab.devices.cpu()], precision)
        logits.append(tab.trainer.predict(net, X, training).asnumpy())
        assert logits[-1].dtype == np.float32
    exact, rounded = logits
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 0 < error < BF16_ERRORS[training], error


# --- Upstream's bugs -------------------------------------------------------------------------------------------------


def repeated_batches(data_iter) -> int:
    """Return how many batches repeat the flips of another one; all images are the same."""
    patterns = [(X[:, 0, 0, 0].asnumpy() > 0.5).tolist() for X, _ in data_iter]
    return len(patterns) - len({tuple(pattern) for pattern in patterns})


def test_workers_draw_apart_here_and_the_same_upstream(tab):
    from mxnet import gluon

    dataset = random_dataset(128)
    dataset.images[:] = 0
    dataset.images[:, :, -1] = 255  # white on the right; on the left, when flipped
    augs = [RandomFlipLeftRight()]
    examples = gluon.data.SimpleDataset(list(zip(dataset.images, range(128), strict=True)))
    examples = examples.transform_first(tab.transforms.native(augs))
    repeated = 0
    for _ in range(5):  # 8 batches each; if one worker makes all of them, none repeats
        repeated += repeated_batches(gluon.data.DataLoader(examples, 16, num_workers=2))
    ours = tab.loaders.load_native(dataset, augs, 16, True, num_workers=2)
    assert repeated >= 2  # by chance, two batches of 16 flips agree once in 65,536 times
    assert repeated_batches(ours) == 0


def test_the_loader_leaves_python_s_random_numbers_alone(tab):
    import random

    random.seed(4)
    expected = random.random()
    random.seed(4)
    list(tab.loaders.load_native(random_dataset(20), [ColorJitter(hue=0.1)], 4, True))
    assert random.random() == expected


def test_without_forks_the_loader_says_that_it_has_no_workers(tab, monkeypatch):
    monkeypatch.setattr(tab.loaders, "get_start_method", lambda: "spawn")
    with pytest.warns(UserNotice, match="no workers here"):
        data_iter = tab.loaders.load_native(random_dataset(4), [], 2, True, num_workers=2)
    assert len(list(data_iter)) == 2


def test_native_saturation_is_upstream_s_wrong_one_and_says_so_and_batched_is_right(tab):
    """MXNet's grey is 0.114 x blue. With a strength of 1 the factor f is in 0..2; it is read from the red channel."""
    image = np.full((2, 2, 3), (100, 80, 50), np.uint8)
    with pytest.warns(UserNotice, match="saturation is wrong"):
        transform = tab.transforms.native([ColorJitter(saturation=1)])
    tab.devices.set_seed(3)
    wrong_grey = 0.114 * 50
    for _ in range(8):
        red, green, blue = transform(image).asnumpy()[:, 0, 0] * 255
        factor = (red - wrong_grey) / (100 - wrong_grey)
        assert green == pytest.approx(80 * factor + wrong_grey * (1 - factor), abs=2)
        assert blue == pytest.approx(50 * factor + wrong_grey * (1 - factor), abs=2)
    X = tab.transforms.from_images(image[None], tab.devices.cpu())
    grey = tab.transforms.to_images(tab.transforms.adjust_saturation(X, np.zeros(1, np.float32)))
    assert (grey == round(0.299 * 100 + 0.587 * 80 + 0.114 * 50)).all()


@pytest.mark.parametrize("flip", [RandomFlipLeftRight(), RandomFlipTopBottom()])
@pytest.mark.parametrize("shape", [(31, 32), (32, 31), (1, 1), (33, 17)])
def test_native_flips_of_odd_sizes_leave_no_line_unwritten(tab, rng, flip, shape):
    image = rng.integers(1, 256, (*shape, 3), dtype=np.uint8)
    axis = 1 if flip == RandomFlipLeftRight() else 0
    transform, seen = tab.transforms.native([flip]), set()
    tab.devices.set_seed(0)
    for _ in range(40):
        result = np.rint(transform(image).asnumpy().transpose(1, 2, 0) * 255)
        flipped = (result != image).any()
        np.testing.assert_array_equal(result, np.flip(image, axis) if flipped else image)
        seen.add(bool(flipped))
    assert len(seen) == (2 if shape[axis] > 1 else 1)


def test_a_native_jitter_survives_hues_that_round_to_a_whole_turn():
    """For a tiny negative turn of red, MXNet's jitter reads past the end of a table (see docs/traps.md).

    It runs in a new process, because it would crash.
    """
    script = """
import numpy as np
from backends import mxnet as tab
from common.augmentation.operations import ColorJitter
image = np.full((8, 8, 3), (200, 0, 0), np.uint8)
jitter = tab.BACKEND.transforms.native([ColorJitter(hue=1e-9)])
for _ in range(1000):
    result = np.rint(jitter(image).asnumpy() * 255)
    assert (result[0] > 190).all() and (result[1:] < 10).all(), result[:, 0, 0]
print("alive")
"""
    assert python(script).stdout.splitlines()[-1:] == ["alive"]


def test_a_native_jitter_comes_in_every_order_equally_often(tab):
    from backends.mxnet import _native

    jitter = _native.RandomColorJitter(ColorJitter(0.5, 0.5, 0.5, 0.5))
    orders = Counter()
    for _ in range(2400):
        order = []
        jitter.changes = [lambda x, name=name, order=order: order.append(name) for name in "bcsh"]
        jitter.forward(None)
        orders["".join(order)] += 1
    assert len(orders) == 24
    assert max(abs(count - 100) for count in orders.values()) < 50  # five standard deviations


def test_a_native_jitter_of_nothing_changes_nothing(tab, rng):
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    transform = tab.transforms.native([ColorJitter()])
    for _ in range(10):
        result = np.rint(transform(image).asnumpy().transpose(1, 2, 0) * 255)
        np.testing.assert_array_equal(result, image)


@pytest.mark.parametrize(
    ("scale", "ratio", "shape"),
    [
        ((0.64, 1.0), (1, 1), (40, 40)),
        ((0.1, 1.0), (0.5, 2.0), (31, 44)),
        ((1, 1), (0.5, 2), (20, 100)),  # no box fits: the middle
    ],
)
def test_a_native_crop_is_gluons_own_box_from_the_same_random_numbers(tab, scale, ratio, shape):
    """Away from the edges, antialiasing does not change a ramp."""
    import random

    from mxnet import np as mxnp
    from mxnet.gluon.data.vision import transforms

    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = np.arange(shape[0])[:, None] * 255 // shape[0]
    image[..., 1] = np.arange(shape[1]) * 255 // shape[1]
    theirs = transforms.RandomResizedCrop((16, 12), scale, ratio)
    ours = tab.transforms.native([RandomResizedCrop((12, 16), scale, ratio)])
    states = []
    for seed in range(20):
        random.seed(seed)
        wanted = theirs(mxnp.array(image, dtype=np.uint8)).asnumpy().astype(int)
        states.append(random.getstate())
        random.seed(seed)
        found = np.rint(ours(image).asnumpy().transpose(1, 2, 0) * 255)
        assert random.getstate() == states[-1]
        # 1 for rounding, and 1 for the floor in the ramps.
        assert np.abs(found - wanted)[3:-3, 3:-3].max() <= 2


# --- Several devices -------------------------------------------------------------------------------------------------

# Measured over the steps below: 4e-7 for weights of about 1. Sums over shards round differently from sums over a batch.
SHARD_ERROR = 4e-6


def small_net(devices):
    """A network without BatchNorm, whose statistics would differ between shards."""
    from mxnet import init
    from mxnet.gluon import nn

    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, in_channels=3, activation="relu"), nn.Flatten())
    net.add(nn.Dense(10, in_units=8 * 36))
    net.initialize(init.Xavier(), ctx=devices)
    return net


def train_small(tab, num_devices: int, sizes: tuple[int, ...], **settings) -> tuple[list, dict]:
    import mxnet as mx

    devices = [mx.cpu(i) for i in range(num_devices)]
    tab.devices.set_seed(0)
    net = small_net(devices)
    net.hybridize(static_alloc=True, static_shape=True)
    trainer = mx.gluon.Trainer(
        net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9}, **settings
    )
    rng, metrics = np.random.default_rng(1), []
    for size in sizes:
        X = mx.np.array(rng.random((size, 3, 8, 8), np.float32))
        y = mx.np.array(rng.integers(0, 10, size))
        l, acc = tab.trainer.train_batch_ch13(
            net, X, y, tab.trainer.cross_entropy(), trainer, devices
        )
        metrics.append((float(l), int(acc)))
    names = net._collect_params_with_prefix()
    return metrics, {
        name: [array.asnumpy() for array in parameter.list_data()]
        for name, parameter in names.items()
    }


@pytest.mark.parametrize("kvstore", ["device", "local"])
def test_three_devices_take_the_steps_of_one_also_with_uneven_batches(tab, kvstore):
    """The batches of 2 and 1 leave devices without an example."""
    sizes = (9, 8, 7, 2, 1, 10, 4)
    metrics, weights = train_small(tab, 1, sizes)
    shard_metrics, shards = train_small(tab, 3, sizes, kvstore=kvstore)
    np.testing.assert_allclose(shard_metrics, metrics, rtol=1e-5)
    for name, (weight,) in weights.items():
        for shard in shards[name]:
            np.testing.assert_allclose(shard, weight, atol=SHARD_ERROR, err_msg=name)


def test_devices_keep_in_step_also_where_each_updates_itself(tab):
    _, shards = train_small(tab, 3, (9, 2, 1, 8), update_on_kvstore=False)
    _, weights = train_small(tab, 1, (9, 2, 1, 8))
    for name, arrays in shards.items():
        for array in arrays:
            np.testing.assert_array_equal(array, arrays[0])
        np.testing.assert_allclose(arrays[0], weights[name][0], atol=SHARD_ERROR)


def test_a_trainer_that_does_not_add_gradients_up_is_refused(tab):
    for _ in range(2):
        with pytest.raises(ValueError, match="kvstore=None"):
            train_small(tab, 2, (8,), kvstore=None)
    train_small(tab, 1, (8,), kvstore=None)


@pytest.mark.parametrize("n", [2, 3, 5, 9])  # one of 9 shards is empty
def test_a_batch_is_split_into_parts_that_differ_by_one_at_most(tab, n):
    import mxnet as mx

    from backends.mxnet import split_batch

    X, y = mx.np.random.uniform(size=(8, 3, 8, 8)), mx.np.arange(8)
    Xs, ys = split_batch(X, y, [mx.cpu()] * n)
    sizes = [len(part) for part in ys]
    assert sum(sizes) == 8
    assert max(sizes) - min(sizes) <= 1
    assert [len(part) for part in Xs] == sizes
    np.testing.assert_array_equal(np.concatenate([part.asnumpy() for part in ys]), np.arange(8))


def test_after_an_epoch_all_devices_have_the_statistics_that_are_saved(tab):
    """The last batch, of 1 image, leaves two devices without an example."""
    import mxnet as mx

    devices, load = [mx.cpu(i) for i in range(3)], tab.loaders.load_batched
    net = tab.trainer.prepare(tab.resnet.resnet18(2), devices)
    train_iter = load(bright_dataset(25, 0, 16), (), 12, True)
    test_iter = load(bright_dataset(21, 1, 16), (), 21, False)
    loss, trainer = tab.trainer.cross_entropy(), tab.trainer.adam(net)
    tab.trainer.train_ch13(net, train_iter, test_iter, loss, trainer, 2, devices, Listener())
    saved = tab.resnet.resnet18(2)
    tab.weights.set_weights(saved, tab.weights.get_weights(net))
    X, _ = next(iter(test_iter))
    expected = tab.trainer.predict(saved, X).asnumpy()
    for device in devices:
        result = tab.trainer.predict(net, X.as_in_ctx(device)).asnumpy()
        np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


def test_shards_of_the_same_examples_take_resnet_18_s_step_of_one_device(tab):
    """Each device gets the same two images, so its BatchNorm statistics are those of the whole batch."""
    import mxnet as mx

    images = random_dataset(2, size=16).images
    steps = []
    for num_devices in (1, 3):
        devices = [mx.cpu(i) for i in range(num_devices)]
        net = tab.resnet.resnet18(10)
        tab.weights.set_weights(net, initial_weights(10))
        net = tab.trainer.prepare(net, devices)
        X = tab.transforms.to_float(tab.transforms.from_images(np.tile(images, (3, 1, 1, 1)), None))
        y = mx.np.array(np.arange(6) % 2)
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
        l, _ = tab.trainer.train_batch_ch13(
            net, X, y, tab.trainer.cross_entropy(), trainer, devices
        )
        steps.append((float(l), tab.weights.get_weights(net)))
    assert steps[0][0] == pytest.approx(steps[1][0], rel=1e-5)
    for name, weight in steps[0][1].items():
        atol = 1e-5 * max(1, np.abs(weight).max())
        np.testing.assert_allclose(steps[1][1][name], weight, atol=atol, err_msg=name)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_step_waits_for_nothing(tab, monkeypatch, num_devices):
    """No value but the labels is read, and nothing is waited for, so that the host stays ahead of the device."""
    import mxnet as mx

    read = mx.np.ndarray.asnumpy

    def forbidden(*arguments):
        if arguments and arguments[0] is y:
            return read(y)
        raise AssertionError("the step waits for a result")

    devices = [mx.cpu(i) for i in range(num_devices)]
    net = small_net(devices)
    X, y = mx.np.zeros((4, 3, 8, 8)), mx.np.zeros(4, dtype="int64")
    trainer = mx.gluon.Trainer(net.collect_params(), "adam")
    step = net, X, y, tab.trainer.cross_entropy(), trainer, devices
    tab.trainer.train_batch_ch13(*step)
    for name in ("asnumpy", "asscalar", "item", "wait_to_read"):
        for kind in (mx.nd.NDArray, mx.np.ndarray):
            monkeypatch.setattr(kind, name, forbidden, raising=False)
    monkeypatch.setattr(mx.npx, "waitall", forbidden)
    tab.trainer.train_batch_ch13(*step)
    with pytest.raises(AssertionError, match="waits"):
        float(tab.trainer.train_batch_ch13(*step)[0])


def test_the_timer_of_a_step_stops_when_the_step_is_done(tab, monkeypatch):
    """MXNet is asynchronous: the loader would wait instead of the timer, and the rate would be much too high."""
    events = []
    steps = lambda *arguments: events.append("step") or (0, 0)  # noqa: E731
    monkeypatch.setattr(tab.trainer, "train_batch_ch13", steps)
    monkeypatch.setattr(tab.trainer, "evaluate_accuracy_gpu", lambda *arguments: 0.5)
    monkeypatch.setattr(tab.trainer.npx, "waitall", lambda: events.append("wait"))

    stop = metrics.Timer.stop
    monkeypatch.setattr(metrics.Timer, "stop", lambda timer: events.append("stop") or stop(timer))
    net = small_net([tab.devices.cpu()])
    batches = [(np.zeros(1), np.zeros(1))] * 3
    tab.trainer.train_ch13(net, batches, batches, None, None, 1, [tab.devices.cpu()], Listener())
    assert events == [
        *["step", "wait", "stop"] * 3,
        "stop",
    ]  # the last one is for the whole training


def test_weights_are_those_after_the_step_although_mxnet_computes_behind_python_s_back(
    tab, monkeypatch
):
    """MXNet's static graphs allow reading BatchNorm's statistics before the backward pass has written them."""
    import mxnet as mx

    devices = [tab.devices.cpu()]
    net = tab.trainer.prepare(tab.resnet.resnet18(10), devices)
    # Usually weights come first, and reading them waits for the step. Here buffers come first.
    parameters = tab.weights.parameters_by_name
    monkeypatch.setattr(
        tab.weights,
        "parameters_by_name",
        lambda net: dict(sorted(parameters(net).items(), key=lambda item: not is_buffer(item[0]))),
    )
    X, y = mx.np.random.uniform(size=(8, 3, 32, 32)), mx.np.zeros(8, dtype="int64")
    trainer = tab.trainer.adam(net)
    tab.trainer.train_batch_ch13(net, X, y, tab.trainer.cross_entropy(), trainer, devices)
    at_once = {name: w for name, w in tab.weights.get_weights(net).items() if is_buffer(name)}
    mx.npx.waitall()
    weights = tab.weights.get_weights(net)
    for name, buffer in at_once.items():
        np.testing.assert_array_equal(buffer, weights[name], err_msg=name)


def test_several_devices_keep_the_optimizer_s_state_from_epoch_to_epoch(tab):
    """Each device sees the same two images, so its BatchNorm statistics are those of one device."""
    import mxnet as mx

    images, results = random_dataset(2, size=16).images, []
    for num_devices in (1, 2):
        devices = [mx.cpu(i) for i in range(num_devices)]
        net = tab.resnet.resnet18(10)
        tab.weights.set_weights(net, initial_weights(10))
        net = tab.trainer.prepare(net, devices)
        settings = {"learning_rate": 2**-7, "momentum": 0.875}
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", settings)
        X = tab.transforms.to_float(tab.transforms.from_images(np.tile(images, (2, 1, 1, 1)), None))
        batch = X, mx.np.array(np.arange(4) % 2)
        loss = tab.trainer.cross_entropy()
        tab.trainer.train_ch13(net, [batch], [batch], loss, trainer, 3, devices, Listener())
        results.append(tab.weights.get_weights(net)["fc.weight"])
    moved = np.abs(results[0] - initial_weights(10)["fc.weight"]).max()
    # If the momentum were lost, they would differ by 0.6 of the change.
    assert np.abs(results[1] - results[0]).max() < 0.02 * moved


# --- Other networks --------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_network_is_refused_by_name(tab, tmp_path):
    path = tmp_path / "other.params"
    small_net([tab.devices.cpu()]).save_parameters(str(path))
    with pytest.raises(UserError, match=r"other\.params"):
        tab.weights.load_file(path)


def test_another_network_has_no_canonical_weights(tab):
    net = small_net([tab.devices.cpu()])
    for convert in (tab.weights.get_weights, lambda net: tab.weights.set_weights(net, {})):
        with pytest.raises(ValueError, match="not a resnet18"):
            convert(net)


def test_initialize_starts_a_network_anew_on_the_devices_that_it_is_given(tab):
    """The book's cell initializes its network. Gluon would ignore that for weights that exist."""
    import mxnet as mx

    net, devices = tab.resnet.resnet18(10), [mx.cpu(0), mx.cpu(1)]
    before = tab.weights.get_weights(net)["fc.weight"]
    net.initialize(init=mx.init.Xavier(), ctx=devices)
    assert (tab.weights.get_weights(net)["fc.weight"] != before).any()
    assert all(p.list_ctx() == devices for p in net.collect_params().values())
