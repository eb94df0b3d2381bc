"""Every backend's ResNet-18 is the book's, layer by layer."""

import numpy as np
import pytest

from common.interface import Backend
from common.parity.adapter import drawn_weights
from common.reference import forward
from common.weights.canonical import (
    Weights,
    initial_weights,
    is_buffer,
    num_parameters,
    weight_shapes,
)


def logits(backend: Backend, net, images: np.ndarray, training: bool = False) -> np.ndarray:
    transforms = backend.transforms
    X = transforms.to_float(transforms.from_images(images, backend.devices.cpu()))
    return backend.devices.to_numpy(backend.trainer.predict(net, X, training))


def network(backend: Backend, weights, **arguments):
    net = backend.resnet.resnet18(10, **arguments)
    backend.weights.set_weights(net, weights)
    return net


def single_weights() -> Weights:
    """Weights in float32, none of them 0 or 1."""
    return {name: weight.astype(np.float32) for name, weight in drawn_weights().items()}


@pytest.mark.parametrize("training", [False, True])
def test_logits_are_those_of_the_book_s_network_in_numpy(backend, rng, training):
    """The same network in the reference and in the tab."""
    weights = single_weights()
    images = rng.integers(0, 256, (8, 10, 7, 3), dtype=np.uint8)  # even and odd sides at stride 2

    X = np.moveaxis(images / 255, -1, 1)  # (n, 3, height, width)
    wanted = forward(weights, X, training).logits

    net = backend.resnet.resnet18(10)
    backend.weights.set_weights(net, weights)
    X = backend.transforms.to_float(backend.transforms.from_images(images, backend.devices.cpu()))
    found = backend.devices.to_numpy(backend.trainer.predict(net, X, training))

    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_network_has_the_books_number_of_parameters(backend):
    weights = backend.weights.get_weights(backend.resnet.resnet18(10))
    assert num_parameters(weights) == 11_176_970


def test_names_and_shapes_are_canonical_and_exist_at_once(backend):
    for sizes in ((10,), (4, 1), (4, 3, 8)):
        weights = backend.weights.get_weights(backend.resnet.resnet18(*sizes))
        shapes = {name: weight.shape for name, weight in weights.items()}
        assert shapes == weight_shapes(*sizes)
        assert list(shapes) == list(weight_shapes(*sizes))


def test_twenty_convolutions_each_with_a_bias_and_one_dense_layer():
    shapes = weight_shapes(10)
    convolutions = [name for name, shape in shapes.items() if len(shape) == 4]
    assert len(convolutions) == 20
    assert all(name.replace("weight", "bias") in shapes for name in convolutions)
    assert [name for name, shape in shapes.items() if len(shape) == 2] == ["fc.weight"]


@pytest.mark.parametrize("size", [8, 32, 33])
def test_logits_have_one_column_a_class_for_images_of_any_size(backend, rng, size):
    images = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    assert logits(backend, backend.resnet.resnet18(7), images).shape == (2, 7)


def test_weights_go_in_and_come_out_unchanged(backend):
    weights = initial_weights(10, seed=3)
    rng = np.random.default_rng(0)
    for name in weights:
        if is_buffer(name):
            weights[name] = rng.uniform(0.5, 2, weights[name].shape).astype(np.float32)
    returned = backend.weights.get_weights(network(backend, weights))
    for name, weight in weights.items():
        np.testing.assert_array_equal(returned[name], weight)


def test_get_weights_returns_a_copy(backend):
    net = network(backend, initial_weights(10))
    backend.weights.get_weights(net)["fc.bias"] += 1
    assert not backend.weights.get_weights(net)["fc.bias"].any()


def test_wrong_weights_are_refused_by_name(backend):
    net = backend.resnet.resnet18(10)
    weights = initial_weights(10)
    with pytest.raises(ValueError, match=r"fc\.bias"):
        backend.weights.set_weights(net, {k: w for k, w in weights.items() if k != "fc.bias"})
    with pytest.raises(ValueError, match="extra"):
        backend.weights.set_weights(net, weights | {"extra": weights["fc.bias"]})
    with pytest.raises(ValueError, match=r"fc\.weight"):
        backend.weights.set_weights(net, weights | {"fc.weight": weights["fc.weight"][:9]})


def test_the_shortcut_is_a_plain_sum(backend, rng):
    """If all convolutions of the first stage are zero and BatchNorm is the identity, the stage returns ReLU(x)."""
    weights = initial_weights(10)
    for name in weights:
        if name.startswith("resnet_block1") and "conv" in name:
            weights[name] = np.zeros_like(weights[name])
    images = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    once = logits(backend, network(backend, weights), images)
    weights["resnet_block1.0.bn2.bias"] = np.full(
        64, -1e6, np.float32
    )  # a block that only subtracts: ReLU gives 0
    silent = logits(backend, network(backend, weights), images)
    assert np.abs(once).max() > 0
    np.testing.assert_allclose(
        silent[0], silent[1], atol=1e-6
    )  # the output no longer depends on the images


def test_a_step_moves_the_running_statistics_by_a_tenth(backend, rng):
    """The new variance is the batch's or the unbiased one: the frameworks differ here."""
    weights = single_weights()
    images = rng.integers(0, 256, (8, 10, 7, 3), dtype=np.uint8)
    passed = forward(weights, np.moveaxis(images / 255, -1, 1), training=True)
    net = network(backend, weights)
    devices = [backend.devices.cpu()]
    X = backend.transforms.to_float(backend.transforms.from_images(images, devices[0]))
    y = backend.devices.from_numpy(np.arange(8))
    loss, trainer = backend.trainer.cross_entropy(), backend.trainer.adam(net)
    backend.trainer.train_batch_ch13(net, X, y, loss, trainer, devices)
    after = backend.weights.get_weights(net)
    for name, (mean, variance, size) in passed.statistics.items():
        expected = 0.9 * weights[f"{name}.running_mean"] + 0.1 * mean
        np.testing.assert_allclose(after[f"{name}.running_mean"], expected, atol=1e-4, err_msg=name)
        moved = (after[f"{name}.running_var"] - 0.9 * weights[f"{name}.running_var"]) / 0.1
        ratio = moved / variance
        assert ratio.min() > 0.995, name
        assert ratio.max() < 1.005 * size / (size - 1), name


def test_init_cnn_is_xavier_with_zero_biases_on_every_layer(backend):
    net = backend.resnet.resnet18(10)
    backend.devices.set_seed(1)
    if hasattr(net, "apply"):
        net.apply(backend.resnet.init_cnn)
    else:  # Keras visits the layers itself
        backend.resnet.init_cnn(net)
    for name, weight in backend.weights.get_weights(net).items():
        if weight.ndim > 1:
            outputs, inputs, area = weight.shape[0], weight.shape[1], int(np.prod(weight.shape[2:]))
            bound = np.sqrt(6 / ((inputs + outputs) * area))
            assert 0.95 * bound < np.abs(weight).max() <= bound * 1.0001, name
            assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05), name
        elif name.endswith("bias"):
            assert not weight.any(), name
    weights = backend.weights.get_weights(net)
    alike = weights["resnet_block1.0.conv1.weight"], weights["resnet_block1.0.conv2.weight"]
    assert (alike[0] != alike[1]).any()
