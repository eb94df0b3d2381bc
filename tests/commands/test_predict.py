"""`run.py predict`: every backend gives the same answer as the reference."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
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
    """Return the lines of the images, as lists of words: those below the first, but not the summary."""
    return [line.split() for line in out.splitlines()[1:] if "images/s" not in line]


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
    for path, p, words in zip(pictures, expected(stacked(pictures)), lines_of(out), strict=True):
        file, name, probability = words
        assert (file, name) == (str(path), CLASSES[p.argmax()])
        assert float(probability) == pytest.approx(p.max(), abs=TOLERANCE + 0.0005)
    assert out.splitlines()[-1].startswith("3 images in ")


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
    assert first[1:] == second[1:]
    _, out, _ = classify(backend, weights_file, [tmp_path / "large.png"], capsys, image_size=24)
    assert "24 x 24" in out


def test_unreadable_images_are_reported_and_the_others_are_classified(
    weights_file, pictures, tmp_path, capsys
):
    backend = load_or_skip("pytorch")
    (tmp_path / "broken.png").write_bytes(b"no image")
    missing, broken = tmp_path / "missing.png", tmp_path / "broken.png"
    (empty := tmp_path / "empty").mkdir()
    images = [missing, pictures[0], broken, empty, pictures[1]]
    code, out, err = classify(backend, weights_file, images, capsys)
    assert code == 2
    assert [words[0] for words in lines_of(out)] == [str(pictures[0]), str(pictures[1])]
    assert out.splitlines()[-1].startswith("2 of 3 images in ")
    first, second, third = err.splitlines()
    assert f"there is no image file {missing}" in first
    assert f"{empty} has no images: check the path" in second
    assert f"cannot read the image {broken} (not an image" in third
    assert classify(backend, weights_file, [missing, empty], capsys)[0] == 2


def test_weights_without_metadata_are_used_with_a_notice(pictures, tmp_path, capsys):
    backend = load_or_skip("pytorch")
    save_params(tmp_path / "net.params", filled_weights(3))
    with pytest.warns(
        UserNotice, match="classes are shown as numbers, and images are 32 x 32 and not normalized"
    ):
        _, out, _ = classify(backend, tmp_path / "net.params", pictures[:1], capsys, image_size=16)
    image = np.asarray(Image.open(pictures[0]))[None]
    p = expected(image, normalized=False)[0]
    _, word, number, probability = lines_of(out)[0]
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with 45 images at several depths, five of them broken, and files that are not images."""
    root = tmp_path_factory.mktemp("folder")
    places = [root, root / "b", root / "b/c", root / "d"]
    for i, image in enumerate(random_dataset(45, 9, size=16).images):
        place = places[i % 4]
        place.mkdir(exist_ok=True)
        path = place / f"{i}.png"
        if i % 9 == 1:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(image).save(path)
    (root / "b/notes.txt").touch()
    (root / "labels.csv").touch()
    (root / ".hidden.png").write_bytes(b"no image")
    (root / ".git").mkdir()
    (root / ".git/x.png").write_bytes(b"no image")
    return root


BROKEN = {f"{i}.png" for i in (1, 10, 19, 28, 37)}


def readable(folder: Path) -> list[Path]:
    """Return the images of a folder that can be read, in the order of their paths."""
    shown = [p for p in folder.rglob("*.png") if ".git" not in p.parts and p.name != ".hidden.png"]
    names = sorted(path.relative_to(folder).as_posix() for path in shown)
    return [folder / name for name in names if Path(name).name not in BROKEN]


def test_the_csv_of_a_folder_has_the_reference_s_probabilities(
    backend, weights_file, folder, tmp_path, capsys
):
    """In batches of 7: with the broken files, chunks end in batches of other sizes."""
    output = tmp_path / "new/predictions.csv"
    with pytest.warns(UserNotice) as notes:
        code, out, err = classify(
            backend, weights_file, [folder], capsys, output=output, top_k=2, batch_size=7
        )
    assert code == 2
    (note,) = notes
    assert str(note.message) == f"left out of {folder}: 1 CSV (labels.csv), 1 TXT (b/notes.txt)"
    assert len(err.splitlines()) == len(BROKEN)
    for name in BROKEN:
        assert f"{name} (not an image, or damaged" in err
    paths = readable(folder)
    p = expected(stacked(paths))
    table = pd.read_csv(output)
    assert list(table) == ["path", "class", "probability", "class_2", "probability_2"]
    assert list(table["path"]) == [str(path) for path in paths]
    order = np.argsort(-p, axis=1)
    for column, k in (("", 0), ("_2", 1)):
        assert list(table[f"class{column}"]) == [CLASSES[i] for i in order[:, k]]
        found = table[f"probability{column}"]
        wanted = np.take_along_axis(p, order, 1)[:, k]
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE + 0.5e-6)
    _, summary, wrote = out.splitlines()  # no line for each image
    assert summary.startswith("40 of 45 images in ")
    counts = [f"{CLASSES[i]} {(order[:, 0] == i).sum()}" for i in set(order[:, 0])]
    assert set(summary.partition(": ")[2].split(", ")) == set(counts)
    assert wrote == f"wrote {output}: 40 rows"


def test_a_prediction_does_not_depend_on_the_batch(backend, weights_file, folder, capsys):
    weights = read_stored(weights_file, {})
    net = training.make_network(backend, [backend.devices.cpu()], weights.weights)
    classifier = predict.Classifier(
        backend, net, backend.devices.cpu(), CLASSES, [CIFAR10_NORMALIZE], 16, 1, 3
    )
    names = [str(path) for path in readable(folder)[:12]]
    alone = [found for found, _ in classifier.predictions(names, pytest.fail)]
    for size in (5, 12):
        together = classifier._replace(batch_size=size).predictions(names, pytest.fail)
        for (found, _), wanted in zip(together, alone, strict=True):
            assert found[:2] == wanted[:2]
            np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=TOLERANCE)


def test_the_most_probable_classes_are_printed_on_one_line(weights_file, pictures, capsys):
    backend = load_or_skip("pytorch")
    _, out, _ = classify(backend, weights_file, pictures, capsys, top_k=3)
    for path, p in zip(pictures, expected(stacked(pictures)), strict=True):
        order = np.argsort(-p)
        line = "  ".join([str(path), *(f"{CLASSES[i]} {p[i]:.3f}" for i in order)])
        assert line in out
    with pytest.raises(UserError, match=r"--top-k 4: .* has 3 classes; use that many or fewer"):
        classify(backend, weights_file, pictures, capsys, top_k=4)


def test_the_sheet_shows_the_first_images(
    weights_file, folder, pictures, tmp_path, capsys, monkeypatch
):
    backend = load_or_skip("pytorch")
    sheets = []
    monkeypatch.setattr(predict.image_grid, "save_sheet", lambda *a, **kw: sheets.append((a, kw)))
    monkeypatch.setattr(predict, "SHEET", (2, 3))
    paths = readable(folder)
    _, out, _ = classify(backend, weights_file, paths, capsys, sheet=tmp_path / "a.png")
    assert out.splitlines()[-1] == f"wrote {tmp_path / 'a.png'}: the first 6 of 40 images"
    (((path, images, rows, columns, title), more),) = sheets
    assert (path, rows, columns) == (tmp_path / "a.png", 2, 3)
    assert title.startswith("the first 6 of 40 images")
    np.testing.assert_array_equal(np.stack(images), stacked(paths[:6]))
    assert more["names"] == [path.name for path in paths[:6]]
    p = expected(stacked(paths[:6]))
    for caption, row in zip(more["captions"], p, strict=True):
        name, probability = caption.split("\n")
        assert name == CLASSES[row.argmax()]
        assert float(probability) == pytest.approx(row.max(), abs=TOLERANCE + 0.0005)
    monkeypatch.undo()
    _, out, _ = classify(backend, weights_file, pictures, capsys, sheet=tmp_path / "a.png")
    assert out.splitlines()[-1].endswith("a.png: 3 images")
    with Image.open(tmp_path / "a.png") as sheet:
        assert 3 * 150 < sheet.width < 4 * 150


def stacked(paths: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def test_names_of_any_bytes_are_kept_in_the_csv(weights_file, pictures, tmp_path, capsys):
    backend = load_or_skip("pytorch")
    names = [b'comma, "quotes".png', "größe 猫.png".encode(), b"two\nlines.png"]
    if sys.platform == "linux":  # others refuse it
        names.append(b"latin-\xe9.png")
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(pictures[0].read_bytes())
    output = tmp_path / "p.csv"
    code, _, _ = classify(backend, weights_file, [tmp_path], capsys, output=output)
    assert code == 0
    with output.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.reader(file))
    found = [os.fsencode(Path(row[0]).name) for row in rows[1:]]
    assert sorted(found) == sorted(names)


def test_an_interrupt_leaves_no_half_csv(weights_file, folder, tmp_path, capsys, monkeypatch):
    backend = load_or_skip("pytorch")
    batches = []

    def interrupted(*arguments):
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(arguments)
        return training.logits(*arguments)

    monkeypatch.setattr(predict, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserNotice):
        classify(backend, weights_file, [folder], capsys, output=tmp_path / "p.csv", batch_size=8)
    assert list(tmp_path.iterdir()) == []


def test_chunks_are_read_while_the_network_computes_and_few_are_in_memory(
    weights_file, pictures, tmp_path, capsys, monkeypatch
):
    """At most the chunk in use and three more are decoded, of 300 images."""
    backend = load_or_skip("pytorch")
    decoded, seen = [], []
    monkeypatch.setattr(predict, "whole_batches", lambda *_: 16)
    monkeypatch.setattr(
        "common.datasets.decoding.decode_into", lambda out, path: decoded.append(path)
    )
    real = training.logits
    monkeypatch.setattr(
        predict, "logits", lambda *a: (seen.append((len(decoded), len(a[2]))), real(*a))[1]
    )
    images = [pictures[0]] * 300
    assert classify(backend, weights_file, images, capsys, batch_size=8)[0] == 0
    assert [size for _, size in seen] == [8] * 37 + [4]
    for number, (ahead, _) in enumerate(seen):
        assert ahead <= (number // 2 + 4) * 16


def test_the_command_line_takes_a_run_folder_and_refuses_to_replace_files(
    weights_file, pictures, tmp_path, capsys
):
    load_or_skip("pytorch")
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "weights.safetensors").write_bytes(weights_file.read_bytes())
    output, sheet = tmp_path / "p.csv", tmp_path / "p.png"
    files = ["--output", output, "--sheet", sheet]
    words = ["--backend", "pytorch", "--weights", run_folder, "--device", "cpu", *files]
    arguments = ["predict", *map(str, [*words, pictures[0].parent])]
    assert run.main(arguments) == 0
    out = capsys.readouterr().out
    assert f"{run_folder / 'weights.safetensors'}: 3 classes" in out
    first = output.read_bytes()
    output.write_bytes(b"mine")
    assert run.main(arguments) == 2
    assert (
        f"{output} already exists: choose another name, or add --force" in capsys.readouterr().err
    )
    assert output.read_bytes() == b"mine"
    assert run.main([*arguments, "--force"]) == 0
    assert output.read_bytes() == first


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
        ("normalize", f"[[0, 0, 0], [1, 1, 1{400 * '0'}]]", "no valid mean and standard deviation"),
        ("normalize", "[[0, 0, 0], [1, 1, 1e-46]]", "no valid mean and standard deviation"),
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
        ("--backend pytorch --weights w.pt --batch-size 0 a.png", "--batch-size 0"),
        ("--backend pytorch --weights w.pt --top-k 0 a.png", "--top-k 0"),
        ("--backend pytorch --weights w.pt --output a.txt a.png", "ends in .csv"),
        ("--backend pytorch --weights w.pt --sheet a.jpg a.png", "ends in .png"),
        ("--backend all --weights w.pt --output a.csv a.png", "--backend all"),
        ("--backend pytorch,mxnet --weights w.pt --sheet b.png a.png", "results of one backend"),
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
