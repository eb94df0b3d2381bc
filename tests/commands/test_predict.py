"""`run.py predict`: every backend gives the same answer as the reference."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import filled_weights, load_or_skip, python, random_dataset, write_folder
from PIL import Image

import run
from backends import FRAMEWORKS
from common import cli, reference
from common.augmentation.operations import CIFAR10_NORMALIZE
from common.commands import predict, training
from common.config import PredictConfig
from common.datasets import Data, Dataset
from common.errors import UserError, UserNotice
from common.weights.canonical import Weights
from common.weights.files import Stored, read_stored
from common.weights.gluon import save_params
from common.weights.safetensors import save_weights

CLASSES = ["ant", "bee", "cow"]
# Correct backends' logits differ by at most 1e-6 of the largest (commands/convert.py), which is below 20 here.
TOLERANCE = 2e-5
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # the book's
METADATA = {
    "classes": json.dumps(CLASSES),
    "image_size": "16",
    "normalize": json.dumps([MEAN, STD]),
}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(path, filled_weights(3), METADATA)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, random_dataset(3, 5, size=16).images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def logits(weights: Weights, images: np.ndarray, normalized: bool = True) -> np.ndarray:
    """Return the reference's logits, (n, 3)."""
    X = np.moveaxis(images / 255, -1, 1)
    if normalized:
        mean, std = (np.array(v)[:, None, None] for v in (MEAN, STD))
        X = (X - mean) / std
    return reference.logits(weights, X)


def expected(images: np.ndarray, normalized: bool = True) -> np.ndarray:
    """Return the reference's probabilities, (n, 3)."""
    y_hat = logits(filled_weights(3), images, normalized)
    exps = np.exp(y_hat - y_hat.max(axis=1, keepdims=True))
    return exps / exps.sum(axis=1, keepdims=True)


def lines_of(out: str) -> list[list[str]]:
    """Return the lines below the first, as lists of words."""
    return [line.split() for line in out.splitlines()[1:]]


def classify(backend, weights: Path, images: list[Path], capsys, **options) -> tuple[int, str, str]:
    command = PredictConfig(
        backend=backend.name, weights=weights, images=tuple(images), device="cpu", **options
    )
    code = predict.classify(command, backend, read_stored(weights, {}))
    out, err = capsys.readouterr()
    return code, out, err


def test_every_backend_gives_the_reference_s_class_and_probability(
    backend, weights_file, pictures, capsys
):
    code, out, err = classify(backend, weights_file, pictures, capsys)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith("weights.safetensors: 3 classes, 16 x 16")
    images = np.stack([np.asarray(Image.open(path)) for path in pictures])
    for path, p, words in zip(pictures, expected(images), lines_of(out), strict=True):
        file, name, probability, milliseconds, unit = words
        assert (file, name, unit) == (str(path), CLASSES[p.argmax()], "ms")
        assert float(probability) == pytest.approx(p.max(), abs=TOLERANCE + 0.0005)
        assert float(milliseconds) > 0


def test_probabilities_are_the_reference_s_to_float32(backend):
    image = random_dataset(1, 6, size=16).images
    net = backend.resnet.resnet18(3)
    backend.weights.set_weights(net, filled_weights(3))
    device = backend.devices.cpu()
    net = backend.trainer.prepare(net, [device])
    p = predict.probabilities(training.logits(backend, net, image, [CIFAR10_NORMALIZE], device)[0])
    np.testing.assert_allclose(p, expected(image)[0], atol=TOLERANCE)
    assert p.sum() == pytest.approx(1)


def test_an_image_is_resized_to_the_size_of_the_training_images(weights_file, tmp_path, capsys):
    backend = load_or_skip("pytorch")
    large = random_dataset(1, 7, size=48).images[0]
    small = Image.fromarray(large).resize((16, 16), Image.Resampling.BILINEAR)
    Image.fromarray(large).save(tmp_path / "large.png")
    small.save(tmp_path / "small.png")
    _, out, _ = classify(
        backend, weights_file, [tmp_path / "large.png", tmp_path / "small.png"], capsys
    )
    first, second = lines_of(out)
    assert first[1:-2] == second[1:-2]
    _, out, _ = classify(backend, weights_file, [tmp_path / "large.png"], capsys, image_size=24)
    assert "24 x 24" in out


def test_unreadable_images_are_reported_and_the_others_are_classified(
    weights_file, pictures, tmp_path, capsys
):
    backend = load_or_skip("pytorch")
    (tmp_path / "broken.png").write_bytes(b"no image")
    missing, broken = tmp_path / "missing.png", tmp_path / "broken.png"
    images = [missing, pictures[0], broken, tmp_path, pictures[1]]
    code, out, err = classify(backend, weights_file, images, capsys)
    assert code == 2
    assert [words[0] for words in lines_of(out)] == [str(pictures[0]), str(pictures[1])]
    first, second, third = err.splitlines()
    assert f"there is no image file {missing}" in first
    assert str(broken) in second
    assert f"{tmp_path} is a folder" in third


def test_weights_without_metadata_are_used_with_a_notice(pictures, tmp_path, capsys):
    backend = load_or_skip("pytorch")
    save_params(tmp_path / "net.params", filled_weights(3))
    with pytest.warns(
        UserNotice, match="classes are shown as numbers, and images are 32 x 32 and not normalized"
    ):
        _, out, _ = classify(backend, tmp_path / "net.params", pictures[:1], capsys, image_size=16)
    image = np.asarray(Image.open(pictures[0]))[None]
    p = expected(image, normalized=False)[0]
    _, word, number, probability, *_ = lines_of(out)[0]
    assert (word, int(number)) == ("class", p.argmax())
    assert float(probability) == pytest.approx(p.max(), abs=TOLERANCE + 0.0005)


def test_metadata_of_another_program_are_treated_as_missing(pictures, capsys):
    """safetensors.torch saves the metadata {'format': 'pt'}."""
    backend = load_or_skip("pytorch")
    stored = Stored(Path("w.safetensors"), filled_weights(3), {"format": "pt"})
    command = PredictConfig(weights=stored.path, images=(pictures[0],), device="cpu")
    with pytest.warns(UserNotice, match="32 x 32 and not normalized"):
        assert predict.classify(command, backend, stored) == 0
    assert lines_of(capsys.readouterr().out)[0][1] == "class"


def test_control_characters_in_names_do_not_break_the_lines(pictures, tmp_path, capsys):
    backend = load_or_skip("pytorch")
    two_lines = tmp_path / "two\nlines.png"
    two_lines.write_bytes(pictures[0].read_bytes())
    too_long = tmp_path / ("a" * 300 + ".png")
    classes = [f"\x1b[31m[b]cow[/b]\n{i}" for i in range(3)]  # any of them may be predicted
    metadata = METADATA | {"classes": json.dumps(classes)}
    stored = Stored(Path("w.safetensors"), filled_weights(3), metadata)
    command = PredictConfig(weights=stored.path, images=(two_lines, too_long), device="cpu")
    assert predict.classify(command, backend, stored) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "   " not in out  # the long name does not shift the other lines
    for words in (r"two\nlines.png", r"\x1b[31m[b]cow[/b]\n"):
        assert words in out
    assert "\x1b" not in out
    assert err.startswith("error: there is no image file ")
    assert err.count("\n") == 1


def test_evaluate_normalizes_images_as_in_the_training_of_the_weights(tmp_path, capsys):
    load_or_skip("pytorch")
    images, weights = random_dataset(24, 8, size=16).images, filled_weights(3)
    # So that each class is predicted for some images, and another one if they are not normalized.
    weights["fc.bias"] -= logits(weights, images).mean(axis=0).astype(np.float32)
    labels = logits(weights, images).argmax(axis=1)
    assert len(set(labels)) == 3
    assert np.mean(logits(weights, images, normalized=False).argmax(axis=1) == labels) < 0.9
    save_weights(tmp_path / "net.safetensors", weights, METADATA)
    dataset = Dataset(images, labels, tuple(CLASSES))
    folder = write_folder(tmp_path / "noise", Data("noise", dataset, dataset))
    arguments = ["--backend", "pytorch", "--weights", tmp_path / "net.safetensors"]
    data = ["--data", folder, "--image-size", "16", "--output", tmp_path / "out"]
    assert run.main(["evaluate", "--device", "cpu", *map(str, [*arguments, *data])]) == 0
    out = capsys.readouterr().out
    assert "test acc 1.000 on 24 images" in out
    assert "images  normalized" in out


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("classes", '["a", "b"]', "has 2 class names, but weights for 3 classes"),
        ("classes", '"abc"', "no valid list of classes"),
        ("classes", "[1, 2, 3]", "no valid list of classes"),
        ("image_size", '"large"', "no valid image size"),
        ("image_size", "1000000", "no valid image size"),
        ("image_size", "{", "no valid image size"),
        ("normalize", "[[0.5, 0.5, 0.5], [0, 1, 1]]", "no valid mean and standard deviation"),
        ("normalize", "[0.5, 0.5]", "no valid mean and standard deviation"),
        ("normalize", '[["a"], {}]', "no valid mean and standard deviation"),
        ("normalize", "[[NaN, 0, 0], [1, 1, 1]]", "no valid mean and standard deviation"),
    ],
)
def test_invalid_metadata_are_refused(pictures, capsys, name, value, words):
    backend = load_or_skip("pytorch")
    stored = Stored(Path("w.safetensors"), filled_weights(3), METADATA | {name: value})
    command = PredictConfig(weights=stored.path, images=tuple(pictures), device="cpu")
    with pytest.raises(UserError, match=words):
        predict.classify(command, backend, stored)


def test_weights_for_grey_images_are_refused(pictures):
    backend = load_or_skip("pytorch")
    stored = Stored(Path("w.safetensors"), filled_weights(3, in_channels=1), {})
    command = PredictConfig(weights=stored.path, images=tuple(pictures), device="cpu")
    with pytest.raises(UserError, match="is for images with 1 channel"):
        predict.classify(command, backend, stored)


def test_the_command_line_classifies_in_any_backend(weights_file, pictures, capsys):
    load_or_skip("pytorch")
    arguments = ["--backend", "pytorch", "--weights", weights_file, "--device", "cpu", *pictures]
    assert run.main(["predict", *map(str, arguments)]) == 0
    assert len(lines_of(capsys.readouterr().out)) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--backend pytorch --weights w.pt", "IMAGE"),
        ("--backend pytorch a.png", "--weights"),
        ("--backend pytorch --weights w.pt --image-size 7 a.png", "--image-size 7"),
        ("--backend pytorch --weights w.pt --image-size 5000 a.png", "--image-size 5000"),
    ],
)
def test_an_invalid_option_raises_one_line_that_names_it(options, words):
    with pytest.raises(UserError) as error:
        cli.parse(["predict", *options.split()], FRAMEWORKS)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_checking_a_submission_imports_no_framework():
    script = (
        "import sys, run\n"
        "code = run.main(['check-submission', 'none.csv', '--data-dir', 'nowhere'])\n"
        "print(code, sorted({'torch', 'mxnet', 'tensorflow'} & set(sys.modules)))"
    )
    done = python(script)
    assert done.stdout.split(maxsplit=1) == ["2", "[]\n"]
    assert done.stderr.startswith("error: ")
