"""Promises of the TensorFlow tab only: a quiet import in any order, graphs traced once, and strategies."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import bright_dataset, load_or_skip, python, random_dataset

import backends
from common.augmentation.decisions import decide
from common.augmentation.operations import RandomResizedCrop, parse_augmentations
from common.errors import UserError, UserNotice
from common.interface import Backend
from common.metrics import Listener
from common.weights.canonical import initial_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tab() -> Backend:
    return load_or_skip("tensorflow")


# --- Importing -------------------------------------------------------------------------------------------------------


def test_the_import_is_quiet_and_finds_the_devices(tab):
    result = python("import backends; print(backends.load('tensorflow').devices.try_all_gpus())")
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.startswith("['/")


def test_errors_still_show_during_the_import_also_where_it_ends_in_an_abort():
    """Only the filter, in a process that ends normally or aborts."""
    script = (
        "import os, runpy\n"
        "without_chatter = runpy.run_path('backends/tensorflow/_start.py')['without_chatter']\n"
        "with without_chatter():\n"
        "    for line in ('I0000 00:00:1.2 3 x.cc:4] chat', 'E0000 00:00:1.2 3 x.cc:4] no memory',\n"
        "                 '2026-01-01 00:00:00.1: I x.cc:4] chat', 'F0000 last words'):\n"
        "        os.write(2, line.encode() + b'\\n')\n"
        "    {end}\n"
        "os.write(2, b'I0000 after\\n')"
    )
    kept = ["E0000 00:00:1.2 3 x.cc:4] no memory", "F0000 last words"]
    assert python(script.format(end="pass")).stderr.splitlines() == [*kept, "I0000 after"]
    result = python(script.format(end="os.abort()"))
    assert result.returncode < 0
    assert result.stderr.splitlines() == kept


def test_keras_on_another_framework_is_refused_in_one_line(tab, monkeypatch):
    import keras

    from backends.tensorflow._start import import_tensorflow

    result = python("import run; run.main(['--backend', 'tensorflow'])", KERAS_BACKEND="jax")
    assert result.stderr == "error: KERAS_BACKEND is jax: unset it, or set it to tensorflow\n"
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(UserError, match=r"^Keras runs on torch in this process.*$"):
        import_tensorflow()


def test_settings_of_keras_that_the_tab_needs_are_set_and_said(tab, tmp_path):
    settings = '{"floatx": "float64", "image_data_format": "channels_first", "epsilon": 0.1}'
    (tmp_path / "keras.json").write_text(settings)
    script = (
        "import backends, numpy as np; tab = backends.load('tensorflow')\n"
        "X = tab.devices.from_numpy(np.zeros((1, 8, 8, 3), np.float32))\n"
        "print(tab.trainer.predict(tab.resnet.resnet18(2), X).dtype.name)"
    )
    result = python(script, KERAS_HOME=str(tmp_path), PYTHONWARNINGS="always::UserWarning")
    assert result.stdout == "float32\n", result.stderr
    found = [line for line in result.stderr.splitlines() if "Keras is set to" in line]
    assert len(found) == 2
    assert "floatx float64" in found[0]
    assert "this process uses float32" in found[0]
    assert "image_data_format channels_first" in found[1]


@pytest.mark.parametrize(
    ("settings", "variables", "why"),
    [
        ('{"floatx": "bfloat16"}', {}, "Received: floatx=bfloat16"),
        ("[1]", {}, "'list' object has no attribute 'get'"),
        ("{}", {"KERAS_MAX_EPOCHS": "many"}, "'many'"),
    ],
    ids=["floatx", "list", "variable"],
)
def test_settings_that_keras_refuses_are_one_line(tab, tmp_path, settings, variables, why):
    (tmp_path / "keras.json").write_text(settings)
    script = "import run; print(run.main(['--backend', 'tensorflow']))"
    result = python(script, KERAS_HOME=str(tmp_path), **variables)
    assert result.stdout == "2\n", result.stderr
    assert result.stderr.startswith("error: Keras refuses its settings, in keras.json")
    assert why in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_policy_that_a_notebook_has_set_before_is_replaced_and_said(tab):
    import keras

    from backends.tensorflow._start import import_tensorflow

    keras.config.set_dtype_policy("mixed_float16")
    with pytest.warns(UserNotice, match="dtype_policy mixed_float16.*uses float32"):
        import_tensorflow()
    assert keras.config.dtype_policy().name == "float32"


def test_memory_grows_also_if_tensorflow_was_imported_before(tab, monkeypatch):
    import tensorflow as tf

    from backends.tensorflow import _start

    grown = []

    def grow(gpu, enable):
        grown.append((gpu, enable))
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU 0", "GPU 1"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", grow)
    _start.import_tensorflow()
    assert grown == [("GPU 0", True), ("GPU 1", True)]


def test_native_batches_are_copied_to_a_gpu_ahead(tab, monkeypatch):
    import tensorflow as tf

    targets = []

    def prefetch(device):
        targets.append(device)
        return lambda batches: batches

    monkeypatch.setattr(tf.data.experimental, "prefetch_to_device", prefetch)
    for device in ("/GPU:0", "/CPU:0", None):
        batches = tab.loaders.load_native(random_dataset(4), (), 2, True, device=device)
        assert len(list(batches)) == 2
    assert targets == ["/GPU:0"]


def test_a_driver_whose_gpus_are_hidden_is_no_missing_library(tab, monkeypatch, recwarn):
    from backends.tensorflow import _start

    monkeypatch.setattr(_start, "_nvidia", lambda: True)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _start.import_tensorflow()
    assert not [w for w in recwarn if w.category is UserNotice]


def test_a_driver_without_a_gpu_that_tensorflow_finds_is_said(tab, monkeypatch):
    from backends.tensorflow import _start

    monkeypatch.setattr(_start, "_nvidia", lambda: True)
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.warns(UserNotice, match=r"tensorflow\[and-cuda\]"):
        _start.import_tensorflow()


def with_triton() -> None:
    load_or_skip("pytorch")
    if not backends.find_spec("triton"):
        pytest.skip("this PyTorch comes without Triton")


@pytest.mark.slow
def test_the_tabs_load_in_any_order_and_all_of_pytorch_works_after_that(tab):
    with_triton()
    load_or_skip("mxnet")
    result = python("from backends import tensorflow, mxnet, pytorch; import torchvision")
    assert result.returncode == 0, result.stderr


def test_pytorch_after_the_user_s_own_tensorflow_is_refused_before_it_aborts_the_process(tab):
    with_triton()
    script = "import tensorflow, run; print(run.main(['--backend', 'pytorch']))"
    result = python(script, TF_CPP_MIN_LOG_LEVEL="3")
    assert result.stdout == "2\n"
    assert result.stderr.splitlines()[-1].startswith(
        "error: PyTorch cannot be imported after TensorFlow"
    )


# --- Graphs ----------------------------------------------------------------------------------------------------------


def traces(net) -> dict[str, int]:
    """How often each function of a network has been traced."""
    return {name: g.experimental_get_tracing_count() for name, g in net._graphs.items()}


def test_a_step_is_traced_once_for_each_shape_of_batch(tab):
    """Batches of 8 and a last one of 4, over three epochs."""
    net, load = tab.resnet.resnet18(2), tab.loaders.load_batched
    train_iter = load(bright_dataset(28), (), 8, True)
    test_iter = load(bright_dataset(12), (), 8, False)
    loss, trainer = tab.trainer.cross_entropy(), tab.trainer.adam(net)
    tab.trainer.train_ch13(
        net, train_iter, test_iter, loss, trainer, 3, [tab.devices.cpu()], Listener()
    )
    assert traces(net) == {"train_batch_ch13": 2, "predict": 2}
    X, y = next(iter(train_iter))
    for _ in range(2):  # as when a cell is run again
        loss = tab.trainer.cross_entropy()
        tab.trainer.train_batch_ch13(net, X, y, loss, trainer, [tab.devices.cpu()])
    assert traces(net)["train_batch_ch13"] == 2


def test_a_network_of_one_s_own_without_weights_gets_them_from_the_first_batch(tab):
    import keras

    net = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])  # no Input
    X, y = next(iter(tab.loaders.load_batched(bright_dataset(8), (), 8, True)))
    loss, trainer = tab.trainer.cross_entropy(), keras.optimizers.Adam(0.01)
    step = net, X, y, loss, trainer, [tab.devices.cpu()]
    first, *_, last = [float(tab.trainer.train_batch_ch13(*step)[0]) for _ in range(8)]
    assert last < first


def test_labels_that_are_no_class_numbers_are_refused(tab):
    """keras.datasets returns labels of shape (n, 1): the accuracy would compare each with all."""
    net = tab.resnet.resnet18(2)
    X, y = next(iter(tab.loaders.load_batched(bright_dataset(8), (), 8, True)))
    step = net, X, y[:, None], tab.trainer.cross_entropy(), tab.trainer.adam(net)
    with pytest.raises(ValueError, match=r"class numbers of shape \(n,\)|rank"):
        tab.trainer.train_batch_ch13(*step, [tab.devices.cpu()])


def test_a_network_s_graphs_go_with_it(tab):
    """A plain tf.function would keep all networks (45 MB each) and their optimizers."""
    import gc
    import weakref

    net = tab.resnet.resnet18(2)
    X, y = next(iter(tab.loaders.load_batched(bright_dataset(8), (), 8, True)))
    trainer, loss = tab.trainer.adam(net), tab.trainer.cross_entropy()
    tab.trainer.train_batch_ch13(net, X, y, loss, trainer, [tab.devices.cpu()])
    kept = weakref.ref(net)
    del net, trainer
    gc.collect()
    assert kept() is None


def in_dataset_map(function, *tensors):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensors(tensors).map(function)
    return next(iter(dataset)).numpy()


@pytest.mark.parametrize("kind", ["uint8", "floats"])
def test_batched_operations_give_the_same_in_graphs_and_in_dataset_map(tab, rng, kind):
    import tensorflow as tf

    images = rng.integers(0, 256, (7, 21, 18, 3), dtype=np.uint8)
    X = tab.transforms.from_images(images, None)
    X = X if kind == "uint8" else tab.transforms.to_float(X)
    augs = parse_augmentations("flip,flip_top_bottom,crop,jitter", (9, 12))
    flips, upside_down, crop, jitter = decide(augs, np.arange(7), 0, 0, (21, 18))
    factors = rng.uniform(0.5, 1.5, 7).astype(np.float32)
    cases = {
        "flip_left_right": (flips.flips,),
        "flip_top_bottom": (upside_down.flips,),
        "crop_resize": (crop.rows, crop.columns),
        "adjust_brightness": (factors,),
        "adjust_contrast": (factors,),
        "adjust_saturation": (factors,),
        "adjust_hue": (factors - 1,),
        "color_jitter": (jitter.factors, jitter.order),
        "normalize": (factors[:3], factors[3:6]),
    }
    for name, parameters in cases.items():
        operation = getattr(tab.transforms, name)
        expected = operation(X, *parameters).numpy()
        tensors = [tf.constant(parameter) for parameter in parameters]
        for result in (
            tf.function(operation)(X, *tensors).numpy(),
            in_dataset_map(operation, X, *tensors),
        ):
            assert result.dtype == expected.dtype
            difference = np.abs(result.astype(float) - expected.astype(float)).max()
            assert difference <= (1 if expected.dtype == np.uint8 else 2e-6), name


def test_upstream_s_crops_never_reach_the_lower_or_right_edge_and_ours_do(tab):
    """Boxes of 32 of 40 pixels: TensorFlow's own start at 0 to 7, although 8 fits too."""
    import tensorflow as tf

    image = np.zeros((40, 40, 3), np.uint8)
    image[39, :, 0], image[:, 39, 1] = 255, 255
    transform = tab.transforms.native([RandomResizedCrop((32, 32), (0.63, 0.65), (1, 1))])
    starts, reached = set(), [0, 0]
    for seed in range(200):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            (40, 40, 3),
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            (seed, 0),
            min_object_covered=0.0,
            aspect_ratio_range=(1, 1),
            area_range=(0.63, 0.65),
        )
        assert size.numpy().tolist() == [32, 32, -1]
        starts.update(begin.numpy()[:2].tolist())
        edges = transform(image, tf.constant([seed, 0])).numpy().max((0, 1))[:2]
        reached += edges
    assert starts == set(range(8))
    assert min(reached) > 8  # 22 on average, one in nine
    assert max(reached) < 45


def test_augment_works_in_a_graph(tab, rng):
    import tensorflow as tf

    images = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    decisions = decide(parse_augmentations("flip,jitter", (16, 16)), np.arange(5), 0, 0, (16, 16))
    augment = tab.transforms.augment
    X = tab.transforms.to_float(tab.transforms.from_images(images, None))
    in_graph = tf.function(lambda X: augment(X, decisions))(X)
    np.testing.assert_allclose(in_graph, augment(X, decisions), atol=2e-6)


# --- Several devices -------------------------------------------------------------------------------------------------

STRATEGY = """
import sys
import numpy as np
import tensorflow as tf
num_devices = int(sys.argv[1])
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
import backends, keras
from common.weights.canonical import initial_weights
tab = backends.load("tensorflow")
devices = [f"/CPU:{i}" for i in range(num_devices)]
rng = np.random.default_rng(0)

def steps(net, sizes, size, same, sync=False):
    net = tab.trainer.prepare(net, devices, sync_batch_norm=sync)
    with net.distribute_strategy.scope():
        trainer = keras.optimizers.SGD(2**-7, momentum=0.875)
        trainer.build(net.trainable_variables)
    loss, metrics = tab.trainer.cross_entropy(), []
    for n in sizes:
        images = rng.random((2 if same else n, size, size, 3), np.float32)
        X = tf.constant(np.tile(images, (n // 2, 1, 1, 1)) if same else images)
        y = tf.constant(np.arange(n) % 2 if same else rng.integers(0, 2, n))
        l, acc = tab.trainer.train_batch_ch13(net, X, y, loss, trainer, devices)
        metrics.append((float(l), int(acc)))
    return net, X, metrics

plain = keras.Sequential([
    keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, activation="relu"),
    keras.layers.Flatten(), keras.layers.Dense(2)])
keras.utils.set_random_seed(0)
for layer in plain.layers:
    if layer.weights:
        layer.kernel.assign(keras.initializers.GlorotUniform(seed=1)(layer.kernel.shape))
net, X, uneven = steps(plain, (9, 8, 7, 2, 1, 10, 4), 8, False)
arrays = {"uneven": uneven, "plain": np.concatenate([w.flatten() for w in net.get_weights()])}
arrays["plain_logits"] = tab.trainer.predict(net, X)

if num_devices < 3:
    exact = tab.resnet.resnet18(2, 3, 8)
    tab.weights.set_weights(exact, initial_weights(2, 3, 8))
    net, X, synchronised = steps(tab.probes.in_float64(exact), (5, 1), 16, False, True)
    arrays |= {"synchronised": synchronised, "synchronised_logits": tab.trainer.predict(net, X)}
    for name, weight in tab.weights.get_weights(net).items():
        arrays["synchronised_" + name] = weight
rng = np.random.default_rng(1)

if num_devices == 2:  # enough
    outside = keras.optimizers.Adam(0.01)
    try:
        y = tf.zeros(len(X), tf.int64)
        tab.trainer.train_batch_ch13(net, X, y, tab.trainer.cross_entropy(), outside, devices)
    except ValueError as error:
        arrays["refusal"] = str(error)
    np.savez(sys.argv[2], **{name: np.asarray(array) for name, array in arrays.items()})
    sys.exit()
resnet = tab.resnet.resnet18(2)
tab.weights.set_weights(resnet, initial_weights(2))
net, X, even = steps(resnet, (6, 6), 16, True)
weights = tab.weights.get_weights(net)
arrays |= {"even": even, "resnet": weights["fc.weight"], "buffer": weights["bn.running_mean"]}
net, X, small = steps(net, (1,), 16, False)  # leaves devices without an example
again = tab.trainer.prepare(net, devices[:1])
arrays["strategies"] = [n.distribute_strategy.num_replicas_in_sync for n in (net, again)]
arrays["logits"] = [tab.trainer.predict(n, X) for n in (net, again)]
net, X, apart = steps(net, (7,), 16, False)
_ = tab.trainer.predict(net, X[:1], training=True)
means = net.get_layer("bn").moving_mean.value
values = means.values if num_devices > 1 else [means]
arrays["means"] = [value.numpy() for value in values]
one = tf.concat([X[:1]] * 6, axis=0)
arrays["same"] = tab.trainer.predict(net, one)
arrays["finite"] = [np.isfinite(w).all() for w in tab.weights.get_weights(net).values()]
np.savez(sys.argv[2], **{name: np.asarray(array) for name, array in arrays.items()})
"""


@pytest.fixture(scope="module")
def by_devices(tmp_path_factory) -> dict[int, dict[str, np.ndarray]]:
    """Run the same steps on 1, 2 and 3 logical CPUs, each in a new process, because devices are fixed at the start."""
    load_or_skip("tensorflow")
    folder, results = tmp_path_factory.mktemp("devices"), {}
    for num_devices in (1, 2, 3):
        file = folder / f"{num_devices}.npz"
        command = [sys.executable, "-c", STRATEGY, str(num_devices), str(file)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        results[num_devices] = dict(np.load(file))
    return results


# Measured over the steps below: 2e-7 for weights of about 1. Sums over shards round differently from sums over a batch.
SHARD_ERROR = 4e-6


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 3])
def test_several_devices_take_the_steps_of_one_also_with_uneven_batches(by_devices, num_devices):
    one, several = by_devices[1], by_devices[num_devices]
    np.testing.assert_allclose(several["uneven"], one["uneven"], rtol=1e-5)
    np.testing.assert_allclose(several["plain"], one["plain"], atol=SHARD_ERROR)
    np.testing.assert_allclose(several["plain_logits"], one["plain_logits"], atol=1e-5)


@pytest.mark.slow
def test_an_optimizer_that_is_not_of_the_network_s_devices_is_refused(by_devices):
    assert "with net.distribute_strategy.scope():" in str(by_devices[2]["refusal"])


@pytest.mark.slow
def test_shards_of_the_same_examples_take_resnet_18_s_steps_of_one_device(by_devices):
    """Each device gets the same two images, so its BatchNorm statistics are those of the whole batch."""
    one, several = by_devices[1], by_devices[3]
    np.testing.assert_allclose(several["even"], one["even"], rtol=1e-3)
    np.testing.assert_allclose(several["resnet"], one["resnet"], atol=1e-3)
    np.testing.assert_allclose(several["buffer"], one["buffer"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 3])
def test_a_device_without_an_example_spoils_no_weight(by_devices, num_devices):
    assert by_devices[num_devices]["finite"].all()


@pytest.mark.slow
def test_all_devices_have_the_same_batch_norm_statistics(by_devices):
    """Each device has seen other images. The mean of their statistics is kept, and evaluates every shard."""
    several = by_devices[3]
    assert len(several["means"]) == 3
    assert np.isfinite(several["means"]).all()
    for mean in several["means"][1:]:
        np.testing.assert_array_equal(mean, several["means"][0])
    logits = several["same"]
    np.testing.assert_allclose(logits, logits[:1].repeat(6, axis=0), rtol=1e-4, atol=1e-4)


def test_a_frozen_batch_norm_neither_moves_nor_uses_the_batch_s_statistics(tab, rng):
    net = tab.resnet.resnet18(2)
    for layer in net._flatten_layers():
        layer.trainable = False
    before = tab.weights.get_weights(net)
    X = tab.devices.from_numpy(rng.random((4, 8, 8, 3), np.float32))
    frozen = tab.trainer.predict(net, X, training=True)
    np.testing.assert_allclose(frozen, tab.trainer.predict(net, X), atol=1e-6)
    for name, weight in tab.weights.get_weights(net).items():
        np.testing.assert_array_equal(weight, before[name], err_msg=name)


# The largest difference of a weight, logit or loss, all of about 1. Measured: 1.6e-14; ten times that.
SYNCHRONISED = 1.6e-13


@pytest.mark.slow
def test_synchronised_batch_norm_takes_the_steps_of_one_device(by_devices):
    """In float64, also if a device has no example of a batch."""
    one, several = by_devices[1], by_devices[2]
    names = [name for name in one if name.startswith("synchronised")]
    assert len(names) > 100
    for name in names:
        np.testing.assert_allclose(
            several[name], one[name], rtol=SYNCHRONISED, atol=SYNCHRONISED, err_msg=name
        )


@pytest.mark.slow
def test_a_network_of_several_devices_may_go_back_to_one(by_devices):
    several = by_devices[3]
    assert several["strategies"].tolist() == [3, 1]
    mirrored, alone = several["logits"]
    np.testing.assert_allclose(mirrored, alone, atol=1e-5 * np.abs(alone).max())


def test_training_on_devices_that_the_network_is_not_prepared_for_is_refused(tab):
    net = tab.resnet.resnet18(2)
    X, y = next(iter(tab.loaders.load_batched(bright_dataset(8), (), 8, True)))
    step = net, X, y, tab.trainer.cross_entropy(), tab.trainer.adam(net)
    with pytest.raises(ValueError, match="the network is not on"):
        tab.trainer.train_batch_ch13(*step, [tab.devices.cpu()] * 2)


# --- Files -----------------------------------------------------------------------------------------------------------


def test_keras_files_carry_batch_norm_s_buffers_both_ways(tab, tmp_path):
    net, path = tab.resnet.resnet18(10), tmp_path / "keras.weights.h5"
    tab.weights.set_weights(net, initial_weights(10, seed=2))
    tab.trainer.predict(net, tab.transforms.to_float(
        tab.transforms.from_images(random_dataset(4).images, None)), training=True)  # fmt: skip
    expected = tab.weights.get_weights(net)
    assert expected["bn.running_mean"].any()
    net.save_weights(path)
    for name, weight in tab.weights.load_file(path).items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)
    other = tab.resnet.resnet18(10)
    path.unlink()
    tab.weights.save_file(path, expected)
    other.load_weights(path)
    for name, weight in tab.weights.get_weights(other).items():
        np.testing.assert_array_equal(weight, expected[name], err_msg=name)


def test_weights_of_another_keras_network_are_refused_by_name(tab, tmp_path):
    import keras

    path = tmp_path / "other.weights.h5"
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    net.save_weights(path)
    with pytest.raises(UserError, match=r"other\.weights\.h5"):
        tab.weights.load_file(path)
