"""Results that are not finite end every command with an error; none is printed or saved as a result."""

import json
import math

import numpy as np
import pytest
from conftest import filled_weights, load_or_skip, random_dataset, write_folder
from PIL import Image

import run
from common.commands import predict
from common.config import PredictConfig
from common.datasets import Data, Dataset
from common.errors import UserError
from common.finite import check_finite, check_logits, labels_of
from common.weights.files import read_stored
from common.weights.safetensors import save_weights

CLASSES = ["ant", "bee", "cow"]
METADATA = {"classes": json.dumps(CLASSES), "image_size": "16"}


@pytest.fixture(scope="module")
def too_large(tmp_path_factory):
    """A file of finite weights whose logits are too large for float32, except for a black image."""
    weights = filled_weights(3)
    for name in weights:  # without the biases and BatchNorm's shifts, black stays zero
        if name.endswith(("bias", "running_mean")):
            weights[name][:] = 0
    weights["fc.weight"][:] = np.float32(3e38)
    weights["fc.bias"][:] = (0, 1, 0)
    path = tmp_path_factory.mktemp("large") / "net.safetensors"
    save_weights(path, weights, METADATA)
    return path


def test_one_image_with_logits_that_are_not_finite_has_no_label():
    logits = np.array([[1, 2.0], [np.nan, 0], [3, -np.inf]])
    np.testing.assert_array_equal(labels_of(logits[:1]), [1])
    with pytest.raises(UserError, match="the logits of 2 of 3 images are not finite"):
        labels_of(logits)
    with pytest.raises(UserError, match=r"the logits of a\.png are not finite"):
        check_logits(logits, "a.png")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named_with_its_value(value):
    assert check_finite(0.5, "loss") == 0.5
    with pytest.raises(UserError, match=f"the loss is {value}: .*--lr"):
        check_finite(value, "loss")


def test_predict_names_each_image_without_finite_logits_and_classifies_the_others(
    backend, too_large, tmp_path, capsys
):
    paths = [tmp_path / "black.png", tmp_path / "noise.png"]
    for path, image in zip(
        paths,
        (np.zeros((16, 16, 3), np.uint8), random_dataset(1, 4, size=16).images[0]),
        strict=True,
    ):
        Image.fromarray(image).save(path)
    command = PredictConfig(
        backend=backend.name, weights=too_large, images=tuple(paths), device="cpu"
    )
    assert predict.classify(command, backend, read_stored(too_large, {})) == 2
    out, err = capsys.readouterr()
    assert "bee 0.576" in out.splitlines()[1]  # softmax of (0, 1, 0)
    assert out.splitlines()[2].startswith("1 of 2 images in ")
    assert "nan" not in out
    assert err.startswith(f"error: the logits of {paths[1]} are not finite")
    assert err.count("\n") == 1


def test_kaggle_s_labels_are_refused_if_one_image_has_no_finite_logits(backend, too_large):
    net = backend.resnet.resnet18(3)
    backend.weights.set_weights(net, read_stored(too_large, {}).weights)
    net = backend.trainer.prepare(net, [backend.devices.cpu()])
    images = random_dataset(5, 4, size=16).images
    images[:4] = 0

    def batches(dataset):
        return backend.loaders.load_batched(dataset, (), 2, False, 0, backend.devices.cpu())

    black = Dataset(images[:4], np.zeros(4, np.int64), tuple(CLASSES))
    np.testing.assert_array_equal(backend.kaggle.predict_labels(net, batches(black)), [1] * 4)
    data = Dataset(images, np.zeros(5, np.int64), tuple(CLASSES))
    with pytest.raises(UserError, match="the logits of 1 of 5 images are not finite"):
        backend.kaggle.predict_labels(net, batches(data))


def test_evaluate_prints_no_accuracy_of_logits_that_are_not_finite(too_large, tmp_path, capsys):
    load_or_skip("pytorch")
    images = random_dataset(10, 8, size=16).images
    images[:9] = 0  # one image of ten spoils the result
    dataset = Dataset(images, np.arange(10) % 3, tuple(CLASSES))
    folder = write_folder(tmp_path / "noise", Data("noise", dataset, dataset))
    arguments = ["--backend", "pytorch", "--weights", too_large, "--data", folder]
    options = ["--image-size", "16", "--output", tmp_path / "out", "--device", "cpu"]
    assert run.main(["evaluate", *map(str, [*arguments, *options])]) == 2
    out, err = capsys.readouterr()
    assert "test acc" not in out
    assert "error: the logits of 1 of 10 images are not finite: " in err
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_training_that_diverges_in_its_last_step_prints_no_accuracy(
    backend, small_folder, tmp_path, monkeypatch, capsys
):
    """The loss of that step is still finite, but the network would predict one class for all images."""
    options = ["--data", small_folder, "--image-size", "8", "--epochs", "1", "--batch-size", "8"]
    output, sizes, step = tmp_path / "out", list[int](), backend.trainer.train_batch_ch13

    def spoiling(net, X, y, *others):
        result = step(net, X, y, *others)
        sizes.append(len(y))
        if len(sizes) == 5:
            weights = backend.weights.get_weights(net)
            weights["fc.bias"][0] = np.nan
            backend.weights.set_weights(net, weights)
        return result

    monkeypatch.setattr(backend.trainer, "train_batch_ch13", spoiling)
    arguments = ["--backend", backend.name, *options, "--output", output]
    assert run.main(list(map(str, arguments))) == 2
    out, err = capsys.readouterr()
    assert sizes == [8] * 5
    assert "acc" not in out
    assert "error: the logits of 8 of 8 images are not finite: training diverged" in err
    assert not (output / "metrics.jsonl").exists()
    assert not (output / "weights.safetensors").exists()


def test_a_size_in_a_file_that_costs_gigabytes_must_be_passed_as_an_option(tmp_path):
    backend = load_or_skip("pytorch")
    path = tmp_path / "net.safetensors"
    save_weights(path, filled_weights(3), METADATA | {"image_size": "4096"})
    command = PredictConfig(weights=path, images=(path,), device="cpu")
    with pytest.raises(UserError, match=r"4096 x 4096.* pass --image-size 4096"):
        predict.classify(command, backend, read_stored(path, {}))
