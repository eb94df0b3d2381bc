"""The reference, tested without a framework: finite differences, Pillow, colorsys, published numbers."""

import colorsys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from common.augmentation.decisions import FlipsLeftRight, Normalizes
from common.augmentation.resampling import box_weights
from common.parity.adapter import drawn_weights, random_batch
from common.reference import (
    ALIGNED,
    SGD,
    Adam,
    Conventions,
    forward,
    gradients,
    layers,
    logits,
    train_step,
    transforms,
)
from common.reference.layers import Array
from common.reference.resnet import before_batch_norm, parameters, updated_buffers
from common.weights.canonical import is_buffer

SLOPE = 1e-6  # the step of a finite difference
CLOSE = 1e-6  # the relative tolerance of a difference quotient; at most 1e-8 was measured


def quotient(function: Callable[[Array], float], at: Array, direction: Array) -> float:
    """Return the slope of a function in a direction, by a central difference."""
    ahead, behind = function(at + SLOPE * direction), function(at - SLOPE * direction)
    return (ahead - behind) / (2 * SLOPE)


def assert_gradients(
    layer: Callable[..., tuple[Array, layers.Backward]], *arguments: Array
) -> None:
    """Assert that every gradient a layer returns is the slope of a random weighting of its outputs."""
    rng = np.random.default_rng(0)
    Y, backward = layer(*arguments)
    dY = rng.normal(size=Y.shape)
    for i, gradient in enumerate(backward(dY)):
        direction = rng.normal(size=arguments[i].shape)

        def weighted(value: Array, i: int = i) -> float:
            changed = [value if j == i else a for j, a in enumerate(arguments)]
            return float((layer(*changed)[0] * dY).sum())

        found = quotient(weighted, arguments[i], direction)
        assert found == pytest.approx((gradient * direction).sum(), rel=CLOSE, abs=CLOSE)


sizes = st.integers(1, 5)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3),
    inputs=sizes,
    outputs=sizes,
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    k=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    padding=st.sampled_from(["both", "end"]),
)
def test_convolution_values_and_gradients(n, inputs, outputs, height, width, k, stride, padding):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, inputs, height, width))
    weight, bias = rng.normal(size=(outputs, inputs, k, k)), rng.normal(size=outputs)

    def layer(*arguments: Array) -> tuple[Array, layers.Backward]:
        return layers.conv2d(*arguments, stride=stride, padding=padding)

    Y, _ = layer(X, weight, bias)
    assert Y.shape == (n, outputs, -(-height // stride), -(-width // stride))
    before = [
        0 if padding == "end" and stride == 2 and k == 3 and size % 2 == 0 else k // 2
        for size in (height, width)
    ]
    example, channel = n - 1, outputs - 1
    for row, column in np.ndindex(*Y.shape[2:]):
        total = bias[channel]
        for i, j in np.ndindex(k, k):
            y, x = row * stride + i - before[0], column * stride + j - before[1]
            if 0 <= y < height and 0 <= x < width:
                total += X[example, :, y, x] @ weight[channel, :, i, j]
        assert Y[example, channel, row, column] == pytest.approx(total, abs=1e-12)
    assert_gradients(layer, X, weight, bias)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 4), channels=sizes, side=st.integers(1, 4), training=st.booleans())
def test_batch_norm_values_and_gradients(n, channels, side, training):
    rng = np.random.default_rng(0)
    X = rng.normal(2, 3, (n, channels, side, side))
    weight, bias, mean = (rng.normal(size=channels) for _ in range(3))
    variance = rng.uniform(0.5, 2, channels)

    def layer(X: Array, weight: Array, bias: Array) -> tuple[Array, layers.Backward]:
        m, v = (X.mean((0, 2, 3)), X.var((0, 2, 3))) if training else (mean, variance)
        return layers.batch_norm(X, weight, bias, m, v, 1e-3, training)

    Y, _ = layer(X, np.ones(channels), np.zeros(channels))
    if training:
        np.testing.assert_allclose(Y.mean((0, 2, 3)), 0, atol=1e-12)
        spread = X.var((0, 2, 3))
        np.testing.assert_allclose(Y.var((0, 2, 3)), spread / (spread + 1e-3), atol=1e-12)
    assert_gradients(layer, X, weight, bias)


def test_gradients_of_the_other_layers():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 4, 5, 2))
    assert_gradients(layers.relu, X)
    assert_gradients(layers.global_avg_pool, X)
    assert_gradients(
        layers.dense, rng.normal(size=(3, 4)), rng.normal(size=(2, 4)), rng.normal(size=2)
    )
    y = np.array([0, 4, 2])
    assert_gradients(lambda y_hat: layers.cross_entropy(y_hat, y), rng.normal(0, 5, (3, 5)))


def test_cross_entropy_is_minus_the_log_of_the_softmax_even_for_huge_logits():
    y_hat = np.array([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4]])
    losses, _ = layers.cross_entropy(y_hat, np.array([2, 1]))
    assert losses[0] == pytest.approx(-np.log(np.exp(3) / np.exp([1, 2, 3]).sum()))
    assert losses[1] == 1e4


def test_every_gradient_of_the_network_equals_a_finite_difference():
    """Each parameter moves in a random direction of its own."""
    weights, batch = drawn_weights(num_channels=16), random_batch(4, 8)
    found, losses, _ = gradients(weights, batch.X, batch.y)
    assert list(found) == list(parameters(weights))
    rng = np.random.default_rng(0)

    for name, gradient in found.items():
        direction = rng.normal(size=gradient.shape)
        direction *= np.abs(weights[name]).max() / np.abs(direction).max()

        def mean_loss(value: Array, name: str = name) -> float:
            passed = forward(weights | {name: value}, batch.X, training=True)
            return float(layers.cross_entropy(passed.logits, batch.y)[0].mean())

        slope = quotient(mean_loss, weights[name], direction)
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-4, abs=1e-7), name
    assert losses.shape == (4,)


def test_biases_before_a_batch_norm_have_no_gradient():
    weights, batch = drawn_weights(num_channels=16), random_batch(4, 8)
    found, _, _ = gradients(weights, batch.X, batch.y)
    silent = {name for name, gradient in found.items() if np.abs(gradient).max() < 1e-12}
    assert silent == {name for name in found if before_batch_norm(name)}
    assert len(silent) == 17


def test_running_statistics_move_by_a_tenth_and_are_unbiased_by_default():
    weights, batch = drawn_weights(num_channels=16), random_batch(4, 8)
    passed = forward(weights, batch.X, training=True)
    mean, variance, count = passed.statistics["bn"]
    first = passed.activations["conv"]
    np.testing.assert_allclose(mean, first.mean((0, 2, 3)))
    assert count == 4 * 8 * 8
    buffers = updated_buffers(weights, passed)
    assert set(buffers) == {name for name in weights if is_buffer(name)}
    expected = 0.9 * weights["bn.running_var"] + 0.1 * first.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(buffers["bn.running_var"], expected)
    biased = updated_buffers(weights, passed, Conventions(bn_variance="biased"))
    expected = 0.9 * weights["bn.running_var"] + 0.1 * first.var((0, 2, 3))
    np.testing.assert_allclose(biased["bn.running_var"], expected)
    np.testing.assert_allclose(variance, first.var((0, 2, 3)))


def test_evaluation_uses_the_running_statistics_and_treats_each_image_independently():
    weights, batch = drawn_weights(num_channels=16), random_batch(4, 8)
    together = logits(weights, batch.X)
    alone = np.concatenate([logits(weights, batch.X[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-12)
    assert not np.allclose(together, forward(weights, batch.X, training=True).logits, atol=0.1)


def test_the_arithmetic_uses_the_dtype_of_the_images():
    weights, batch = drawn_weights(num_channels=16), random_batch(2, 8)
    single = {name: weight.astype(np.float32) for name, weight in weights.items()}
    step = train_step(single, batch.X.astype(np.float32), batch.y, Adam())
    assert {weight.dtype for weight in step.weights.values()} == {np.dtype(np.float32)}
    assert forward(weights, batch.X).logits.dtype == np.float64


def test_a_step_does_not_change_the_given_weights():
    weights, batch = drawn_weights(num_channels=16), random_batch(2, 8)
    before = {name: weight.copy() for name, weight in weights.items()}
    train_step(weights, batch.X, batch.y, SGD(0.1, 0.9, 0.1))
    assert all((weights[name] == before[name]).all() for name in weights)


# --- Optimisers ------------------------------------------------------------------------------------------------------


def path(optimizer: SGD | Adam, rates: list[float], gradient: float = 1.0) -> list[float]:
    weights: dict[str, Array] = {"w": np.array([1.0])}
    found = []
    for rate in rates:
        optimizer.lr = rate
        weights = optimizer.step(weights, {"w": np.array([gradient])})
        found.append(float(weights["w"][0]))
    return found


RATES = [0.1, 0.1, 0.01, 0.01]


def test_momentum_equals_the_frameworks_for_each_place_of_the_learning_rate():
    """A weight of 1 with gradient 1: the numbers come from PyTorch ("outside") and from MXNet and Keras ("inside")."""
    outside = path(SGD(0.1, 0.9), RATES)
    assert outside == pytest.approx([0.9, 0.71, 0.6829, 0.64851])
    inside = path(SGD(0.1, 0.9, conventions=Conventions(momentum_rate="inside")), RATES)
    assert inside == pytest.approx([0.9, 0.71, 0.529, 0.3561])


def test_coupled_decay_enters_the_momentum_and_decoupled_decay_does_not():
    coupled = path(SGD(0.1, 0.9, 0.5), [0.1, 0.1])
    assert coupled[0] == pytest.approx(1 - 0.1 * 1.5)
    assert coupled[1] == pytest.approx(0.85 - 0.1 * (0.9 * 1.5 + 1 + 0.5 * 0.85))
    decoupled = path(SGD(0.1, 0.9, 0.5, Conventions(weight_decay="decoupled")), [0.1, 0.1])
    assert decoupled[0] == pytest.approx(coupled[0])
    assert decoupled[1] == pytest.approx(0.85 * (1 - 0.05) - 0.1 * 1.9)


def test_adam_is_algorithm_1_of_its_paper():
    m = v = 0.0
    w, expected = 1.0, []
    for t, g in enumerate([1.0] * 4, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        expected.append(w)
    assert path(Adam(0.1), [0.1] * 4) == pytest.approx(expected, abs=1e-15)


def test_adams_epsilon_affects_gradients_of_its_size_and_more_so_inside():
    """With gradient g the first step is lr g / (g + eps); inside the correction, eps is divided by sqrt(1 - beta2)."""
    g, eps = 1e-8, 1e-8
    assert path(Adam(0.1), [0.1], g)[0] == pytest.approx(1 - 0.1 * g / (g + eps))
    inside = Adam(0.1, conventions=Conventions(adam_epsilon_place="inside"))
    assert path(inside, [0.1], g)[0] == pytest.approx(1 - 0.1 * g / (g + eps / np.sqrt(0.001)))


# --- Transforms ------------------------------------------------------------------------------------------------------


def photograph() -> Array:
    """Return a uint8 image (1, 3, 40, 48), smooth in places and noisy in others."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :48]
    image = np.stack([rows * 6, columns * 5, 120 + 60 * np.sin(rows / 4)])
    image[:, :20, :20] += rng.integers(-60, 60, (3, 20, 20))
    return image.clip(0, 255).astype(np.uint8)[None]


def pillow(images: Array) -> Image.Image:
    return Image.fromarray(np.moveaxis(images[0], 0, -1))


def back(image: Image.Image) -> Array:
    return np.moveaxis(np.asarray(image), -1, 0)[None]


def largest_difference(found: Array, expected: Array) -> int:
    return int(np.abs(found.astype(int) - expected).max())


boxes = st.tuples(st.integers(0, 39), st.integers(0, 47), st.integers(1, 40), st.integers(1, 48))


@settings(max_examples=60, deadline=None)
@given(box=boxes, size=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_crops_differ_by_at_most_1_from_pillow_and_match_the_matrices_of_the_backends(box, size):
    top, left = box[0], box[1]
    height, width = min(box[2], 40 - top), min(box[3], 48 - left)
    image = photograph()
    found = transforms.crop_resize(image / 255, np.array([[top, left, height, width]]), size)
    cut = pillow(image).crop((left, top, left + width, top + height))
    expected = cut.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    assert largest_difference(transforms.to_uint8(found), back(expected)) <= 1
    rows = box_weights(np.array([top]), np.array([height]), 40, size[0])[0]
    own = np.zeros_like(rows)
    own[:, top : top + height] = transforms.resize_matrix(height, size[0])
    np.testing.assert_allclose(rows, own, atol=1e-7)


def test_without_antialiasing_only_the_nearest_pixels_count():
    matrix = transforms.resize_matrix(40, 4, antialias=False)
    assert ((matrix > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    enlarged = transforms.resize_matrix(4, 9, antialias=False)
    np.testing.assert_allclose(enlarged, transforms.resize_matrix(4, 9))


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0, 2))
@pytest.mark.parametrize(
    ("adjust", "enhance"),
    [
        (transforms.adjust_brightness, ImageEnhance.Brightness),
        (transforms.adjust_contrast, ImageEnhance.Contrast),
        (transforms.adjust_saturation, ImageEnhance.Color),
    ],
)
def test_blends_differ_by_at_most_2_from_pillow(adjust, enhance, factor):
    """The difference of up to 2 has two causes: one rounding here, and the grey that Pillow rounds before it blends."""
    image = photograph()
    found = transforms.to_uint8(adjust(image / 255, np.array([factor])))
    assert largest_difference(found, back(enhance(pillow(image)).enhance(factor))) <= 2


@given(colour=st.tuples(*[st.integers(0, 255)] * 3), shift=st.floats(-0.5, 0.5))
def test_hue_equals_colorsys(colour, shift):
    X = np.array(colour).reshape(1, 3, 1, 1) / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*X.ravel())
    expected = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
    found = transforms.adjust_hue(X, np.array([shift])).ravel()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(transforms.to_hsv(X)[0].ravel() % 1, hue % 1, atol=1e-12)


def test_flips_and_jitter_orders_differ_per_image():
    X = np.random.default_rng(0).random((3, 3, 4, 5))
    flips = np.array([True, False, True])
    mirrored = transforms.flip_left_right(X, flips)
    np.testing.assert_array_equal(mirrored[0], X[0, :, :, ::-1])
    np.testing.assert_array_equal(mirrored[1], X[1])
    turned = transforms.flip_top_bottom(X, flips)
    np.testing.assert_array_equal(turned[2], X[2, :, ::-1])
    factors = np.array([[1.8, 0.3, 1, 0], [1.8, 0.3, 1, 0]])
    order = np.array([[0, 1], [1, 0]])
    first, second = transforms.color_jitter(X[:2], factors, order)
    twice = transforms.adjust_contrast(
        transforms.adjust_brightness(X[:1], factors[:1, 0]), factors[:1, 1]
    )
    np.testing.assert_array_equal(first, twice[0])
    other = transforms.adjust_brightness(
        transforms.adjust_contrast(X[1:2], factors[:1, 1]), factors[:1, 0]
    )
    np.testing.assert_array_equal(second, other[0])


MEAN, STD = np.array([0.25, 0.5, 1.0]), np.array([0.125, 0.5, 0.25])


def test_normalize_uses_the_mean_and_standard_deviation_of_each_channel():
    X = np.broadcast_to(np.array([0.5, 1.0, 0.5])[:, None, None], (2, 3, 4, 5))
    found = transforms.normalize(X, MEAN, STD)
    np.testing.assert_array_equal(found, np.array([2.0, 1.0, -2.0])[:, None, None] + 0 * X)


def test_normalize_applies_to_the_result_of_earlier_operations():
    X = np.random.default_rng(0).random((2, 3, 4, 5))
    flips = FlipsLeftRight(np.array([True, False]))
    found = transforms.augment(X, [flips, Normalizes(MEAN, STD)])
    back_again = found * STD[:, None, None] + MEAN[:, None, None]
    np.testing.assert_allclose(back_again, transforms.augment(X, [flips]), atol=1e-15)


def test_the_defaults_are_the_aligned_conventions():
    assert Conventions() == ALIGNED
