"""Each known difference is what the framework that it is said of does by itself: its own operation proves it.

The aligned way is proved by tests/meta/test_planted_mistakes.py; here are the native ways, left at their defaults. What
measures them, and the page, are in tests/docs/test_differences_page.py.
"""

import numpy as np
import pytest
from conftest import load_or_skip

from common.parity import initialization
from common.parity.data_checks import example_images
from common.reference import (
    ALIGNED,
    KNOWN_DIFFERENCES,
    SGD,
    Adam,
    Conventions,
    layers,
    transforms,
)
from docs.differences import native

RATES = [0.1, 0.1, 0.01, 0.01]


def images() -> np.ndarray:
    """Floats 0..1, (8, 3, 16, 16)."""
    return example_images(16, 16, 0) / 255


def channels_last(X: np.ndarray) -> np.ndarray:
    return np.moveaxis(X, 1, -1)


def one_weight(optimizer) -> list[float]:
    """The arbiter's weight of 1 with gradient 1 after each step."""
    weights, path = {"w": np.array([1.0])}, []
    for rate in RATES:
        optimizer.lr = rate
        weights = optimizer.step(weights, {"w": np.array([1.0])})
        path.append(float(weights["w"][0]))
    return path


# --- TensorFlow and Keras --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 8])
def test_tensorflows_same_padding_pads_the_end_of_even_sizes(tensorflow, size):
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(2, 3, size, size)), rng.normal(size=(4, 3, 3, 3))
    native = tensorflow.nn.conv2d(channels_last(X), weight.transpose(2, 3, 1, 0), 2, "SAME")
    ours, _ = layers.conv2d(X, weight, np.zeros(4), 2, "end")
    np.testing.assert_allclose(native, channels_last(ours), atol=1e-12)
    aligned, _ = layers.conv2d(X, weight, np.zeros(4), 2)
    assert np.allclose(ours, aligned) == (size % 2 == 1)


def test_keras_batch_norm_has_its_epsilon_momentum_and_biased_variance(tensorflow):
    from keras.layers import BatchNormalization

    layer = BatchNormalization()
    assert layer.epsilon == known("BatchNorm's epsilon").value
    assert layer.momentum == known("BatchNorm's momentum").value
    X = np.random.default_rng(0).normal(2, 3, (2, 3, 3, 4)).astype(np.float32)
    layer(X, training=True)
    expected = 0.99 + 0.01 * X.var((0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance.numpy(), expected, rtol=1e-5)


def test_keras_adam_has_its_epsilon_inside_the_correction(tensorflow):
    import keras

    weight = keras.Variable(np.array([1.0], np.float32))
    keras.optimizers.Adam(0.1).apply([np.array([1e-6], np.float32)], [weight])
    native = Conventions(adam_epsilon=1e-7, adam_epsilon_place="inside")
    ours = Adam(0.1, conventions=native).step({"w": np.array([1.0])}, {"w": np.array([1e-6])})
    np.testing.assert_allclose(weight.numpy(), ours["w"], atol=1e-6)
    aligned = Adam(0.1).step({"w": np.array([1.0])}, {"w": np.array([1e-6])})
    assert abs(aligned["w"] - ours["w"]) > 1e-2


def test_keras_sgd_bakes_the_learning_rate_into_the_momentum(tensorflow):
    import keras

    weight, path = keras.Variable(np.array([1.0], np.float32)), []
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    for rate in RATES:
        optimizer.learning_rate = rate
        optimizer.apply([np.array([1.0], np.float32)], [weight])
        path.append(float(weight.numpy()[0]))
    inside = one_weight(SGD(0.1, 0.9, conventions=Conventions(momentum_rate="inside")))
    assert path == pytest.approx(inside, abs=1e-6)


def test_keras_sgd_decays_the_weights_past_the_momentum(tensorflow):
    import keras

    weight = keras.Variable(np.array([1.0], np.float32))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        optimizer.apply([np.array([1.0], np.float32)], [weight])
    decoupled = SGD(0.1, 0.9, 0.5, Conventions(weight_decay="decoupled"))
    assert weight.numpy()[0] == pytest.approx(one_weight(decoupled)[1], abs=1e-6)
    assert abs(one_weight(SGD(0.1, 0.9, 0.5))[1] - weight.numpy()[0]) > 1e-3


@pytest.mark.parametrize(
    ("name", "adjust", "operation", "argument"),
    [
        ("brightness added", "adjust_brightness", "adjust_brightness", lambda f: f - 1),
        ("contrast by channel", "adjust_contrast", "adjust_contrast", lambda f: f),
        ("saturation of HSV", "adjust_saturation", "adjust_saturation", lambda f: f),
    ],
)
@pytest.mark.parametrize("factor", [0.5, 1.4])
def test_tensorflows_colours_are_as_the_known_difference_says(
    tensorflow, name, adjust, operation, argument, factor
):
    X, factors = images(), np.full(8, factor)
    native = getattr(tensorflow.image, operation)(channels_last(X), argument(factor))
    native = np.clip(native, 0, 1)
    ours = getattr(transforms, adjust)(X, factors, known(name).conventions())
    np.testing.assert_allclose(native, channels_last(ours), atol=1e-5)
    assert np.abs(ours - getattr(transforms, adjust)(X, factors)).max() > 0.01


def test_tensorflow_resizes_without_antialiasing(tensorflow):
    X, box = images(), np.tile([0, 0, 16, 16], (8, 1))
    native = tensorflow.image.resize(channels_last(X), (5, 6))
    ours = transforms.crop_resize(X, box, (5, 6), Conventions(antialias=False))
    np.testing.assert_allclose(native, channels_last(ours), atol=1e-5)
    assert np.abs(ours - transforms.crop_resize(X, box, (5, 6))).max() > 0.1


# --- PyTorch ---------------------------------------------------------------------------------------------------------


def test_pytorchs_running_variance_is_unbiased_and_its_momentum_one_minus_ours(pytorch):
    layer = pytorch.nn.BatchNorm2d(4)
    assert 1 - layer.momentum == ALIGNED.bn_momentum
    assert layer.momentum == known("BatchNorm's momentum swapped").value
    X = np.random.default_rng(0).normal(2, 3, (2, 4, 3, 3))
    layer.double()(pytorch.tensor(X))
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * X.var((0, 2, 3), ddof=1))


def test_pytorch_adds_adams_epsilon_outside_and_keeps_the_rate_out_of_the_momentum(pytorch):
    weight = pytorch.nn.Parameter(pytorch.tensor([1.0], dtype=pytorch.float64))
    optimizer = pytorch.optim.Adam([weight], lr=0.1)
    weight.grad = pytorch.tensor([1e-8], dtype=pytorch.float64)
    optimizer.step()
    ours = Adam(0.1).step({"w": np.array([1.0])}, {"w": np.array([1e-8])})
    np.testing.assert_allclose(weight.detach(), ours["w"], atol=1e-12)
    path = []
    weight = pytorch.nn.Parameter(pytorch.tensor([1.0], dtype=pytorch.float64))
    optimizer = pytorch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    for rate in RATES:
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = pytorch.ones_like(weight)
        optimizer.step()
        path.append(float(weight))
    assert path == pytest.approx(one_weight(SGD(0.1, 0.9, 0.5)))


def test_pytorch_rounds_levels_down_on_brightness(pytorch):
    from torchvision.transforms.functional import adjust_brightness

    levels = example_images(16, 16, 0)
    native = adjust_brightness(pytorch.tensor(levels), 0.77).numpy()
    assert_rounded_down(native, transforms.adjust_brightness(levels / 255, np.full(8, 0.77)))


@pytest.mark.parametrize("shift", [-0.3, 0.2])
def test_pytorch_turns_the_hue_of_pil_images_in_8_bits(pytorch, shift):
    from PIL import Image
    from torchvision.transforms.functional import adjust_hue

    levels = example_images(16, 16, 0)
    native = np.stack(
        [np.asarray(adjust_hue(Image.fromarray(np.moveaxis(x, 0, -1)), shift)) for x in levels]
    )
    ours = transforms.adjust_hue(levels / 255, np.full(8, shift), Conventions(hue="8-bit"))
    exact = transforms.adjust_hue(levels / 255, np.full(8, shift))
    apart = np.abs(native - 255 * channels_last(ours))
    # Pillow itself computes in integers of its own: where its hue is a level off, a colour is up to 6 levels off.
    assert apart.mean() < 0.7
    assert apart.mean() < 0.5 * np.abs(native - 255 * channels_last(exact)).mean()


def test_pytorchs_own_initialisation_is_the_one_that_is_measured(pytorch):
    d2l = load_or_skip("pytorch")
    pytorch.manual_seed(0)
    native = d2l.weights.get_weights(d2l.resnet.resnet18(10))
    ours = initialization.pytorch_start()
    for name in (
        "conv.weight",
        "resnet_block3.1.conv1.weight",
        "resnet_block3.1.conv1.bias",
        "fc.weight",
    ):
        assert native[name].std() == pytest.approx(ours[name].std(), rel=0.1), name
        assert np.abs(native[name]).max() == pytest.approx(np.abs(ours[name]).max(), rel=0.05), name


# --- MXNet -----------------------------------------------------------------------------------------------------------


def test_mxnets_running_variance_is_biased_and_adams_epsilon_inside(mxnet):
    from mxnet import autograd, gluon, np

    layer = gluon.nn.BatchNorm(in_channels=4)
    layer.initialize()
    X = numpy_normal((2, 4, 3, 3))
    with autograd.record():
        Y = layer(np.array(X))
    Y.backward()
    mxnet.npx.waitall()
    assert_close(layer.running_var.data(), 0.9 + 0.1 * X.var((0, 2, 3)), 1e-5)
    weight = gluon.Parameter("w", shape=(1,), init="ones")
    weight.initialize()
    trainer = gluon.Trainer([weight], "adam", {"learning_rate": 0.1})
    with autograd.record():
        l = weight.data() * 1e-6
    l.backward()
    trainer.step(1)
    native = Conventions(adam_epsilon_place="inside")
    start, gradient = {"w": X[0, 0, :1, 0] * 0 + 1.0}, {"w": X[0, 0, :1, 0] * 0 + 1e-6}
    assert_close(weight.data(), Adam(0.1, conventions=native).step(start, gradient)["w"], 1e-5)


def test_mxnets_sgd_bakes_the_learning_rate_into_the_momentum(mxnet):
    from mxnet import autograd, gluon

    weight, path = gluon.Parameter("w", shape=(1,), init="ones"), []
    weight.initialize()
    trainer = gluon.Trainer([weight], "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    for rate in RATES:
        trainer.set_learning_rate(rate)
        with autograd.record():
            l = weight.data() * 1.0
        l.backward()
        trainer.step(1)
        path.append(float(weight.data().asnumpy()[0]))
    inside = one_weight(SGD(0.1, 0.9, conventions=Conventions(momentum_rate="inside")))
    assert path == pytest.approx(inside, abs=1e-6)


def test_mxnets_saturation_takes_a_share_of_blue_for_the_grey(mxnet):
    levels = example_images(16, 16, 0)
    adjust = mxnet.npx.image.random_saturation
    native = [
        adjust(mxnet.np.array(np.moveaxis(x, 0, -1)), min_factor=0.4, max_factor=0.4).asnumpy()
        for x in levels
    ]
    ours = transforms.adjust_saturation(
        levels / 255, np.full(8, 0.4), Conventions(saturation="blue")
    )
    assert np.abs(np.stack(native) - 255 * channels_last(ours)).max() <= 1


def test_mxnet_rounds_levels_down(mxnet):
    levels = example_images(16, 16, 0)
    adjust = mxnet.npx.image.random_brightness
    native = [
        adjust(mxnet.np.array(np.moveaxis(x, 0, -1)), min_factor=0.77, max_factor=0.77).asnumpy()
        for x in levels
    ]
    X = transforms.adjust_brightness(levels / 255, np.full(8, 0.77))
    assert_rounded_down(np.stack(native), channels_last(X))


def assert_rounded_down(native, X):
    down = transforms.to_levels(X + 1e-6, Conventions(rounding="down"))
    np.testing.assert_array_equal(native, down)
    assert (transforms.to_levels(X) != native).mean() > 0.2


def test_mxnet_resizes_without_antialiasing(mxnet):
    X, box = images(), np.tile([0, 0, 16, 16], (8, 1))
    native = mxnet.npx.image.resize(mxnet.np.array(channels_last(X)), size=(6, 5)).asnumpy()
    ours = transforms.crop_resize(X, box, (5, 6), Conventions(antialias=False))
    np.testing.assert_allclose(native, channels_last(ours), atol=1e-5)


def test_gluons_own_initialisation_is_the_one_that_is_measured(mxnet):
    d2l = load_or_skip("mxnet")
    net = d2l.resnet.resnet18(10)
    net.initialize()
    native, ours = d2l.weights.get_weights(net), initialization.gluon_start()
    for name in ("conv.weight", "resnet_block3.1.conv1.weight", "fc.weight"):
        assert np.abs(native[name]).max() == pytest.approx(np.abs(ours[name]).max(), rel=0.05), name


def numpy_normal(shape):
    return np.random.default_rng(0).normal(2, 3, shape).astype(np.float32)


def assert_close(native, ours, tolerance):
    np.testing.assert_allclose(native.asnumpy(), ours, rtol=tolerance)


def known(name: str):
    (found,) = [difference for difference in KNOWN_DIFFERENCES if difference.name == name]
    return found


# --- What the command finds ------------------------------------------------------------------------------------------

# What each framework does by itself, of all that is known.
OWN = {
    "pytorch": {"hue in 8 bits", "levels rounded down", "PyTorch's initial weights"},
    "mxnet": {
        "biased running variance",
        "sum of losses",
        "Adam's epsilon inside",
        "learning rate inside the momentum",
        "saturation with wrong grey",
        "no antialiasing",
        "levels rounded down",
        "Gluon's initial weights",
    },
    "tensorflow": {
        "padding",
        "BatchNorm's epsilon",
        "BatchNorm's momentum",
        "biased running variance",
        "Adam's epsilon",
        "Adam's epsilon inside",
        "learning rate inside the momentum",
        "decoupled weight decay",
        "brightness added",
        "contrast by channel",
        "saturation of HSV",
        "no antialiasing",
    },
}


def test_a_framework_left_alone_does_what_is_said_of_it_and_nothing_else_that_is_known(backend):
    names = [name for names in native.TRIALS for name in names]
    found = native.measure(backend, {}, names).findings
    if backend.name == "tensorflow":  # whose floats are never rounded to levels
        names.remove("levels rounded down")
    assert [finding.difference for finding in found] == names
    assert {f.difference for f in found if f.way == native.THIS} == OWN[backend.name]
    for finding in found:
        near, far = sorted((finding.aligned, finding.known))
        if finding.way != native.ANOTHER:
            assert near < far / 2, finding


def test_a_framework_has_its_layouts_and_refuses_the_other_where_it_knows_its_inputs(backend):
    layouts = backend.probes.native_layouts()
    canonical = {"kernel": (7, 3, 4, 2), "dense": (10, 9), "unsized": (7, 5, 4, 2)}
    keras = {"kernel": (4, 2, 3, 7), "dense": (9, 10), "unsized": (4, 2, 6, 7)}
    refusal = layouts.pop("refusal")
    assert layouts == (keras if backend.devices.image_layout == "NHWC" else canonical)
    assert "\n" not in refusal
    assert 20 < len(refusal) < 300


def test_two_workers_draw_the_same_in_mxnet_alone_and_nowhere_in_this_project(backend):
    own, here = native.own_draws(backend), native.draws_here(backend)
    if backend.name == "mxnet":
        assert own.any_two == 1
    else:
        assert own.any_two < 0.8
    assert here.any_two < 0.8
    assert here.again == here.without == 1
