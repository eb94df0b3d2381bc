"""`python -m docs differences` measures and prints the differences, and the page shows them."""

import json
import re
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import load_or_skip, needs, python
from numpy_backend import numpy_backend

import backends
from common.errors import UserNotice
from common.reference import (
    ALIGNED,
    KNOWN_DIFFERENCES,
    SGD,
    Adam,
    Conventions,
    layers,
    transforms,
)
from common.weights.canonical import initial_weights
from docs import __main__ as command
from docs.__main__ import main
from docs.differences import effects, measure, native, notes, tables, workers
from docs.differences.initialization import START_NAMES, gluon_start, pytorch_start

ROOT = Path(__file__).resolve().parents[2]
TEXT = tables.PAGE.read_text(encoding="utf-8")
PLANTED = [known for known in KNOWN_DIFFERENCES if not known.holds(ALIGNED)]
TRIED = [name for names in native.TRIALS for name in names]


# --- A framework left alone ------------------------------------------------------------------------------------------


def left_alone(conventions: Conventions = ALIGNED, **others: Any) -> SimpleNamespace:
    """Return a framework that computes like the reference with ``conventions``, and returns uint8 images.

    ``others`` replace its functions.
    """

    def batch_norm(X):
        X, axes, keep = X.astype(np.float64), (0, 2, 3), conventions.bn_momentum
        mean, variance, one = X.mean(axes), X.var(axes), np.ones(X.shape[1])
        Y, _ = layers.batch_norm(X, one, 0 * one, mean, variance, conventions.bn_epsilon, True)
        variance = X.var(axes, ddof=conventions.bn_variance == "unbiased")
        return Y, (1 - keep) * mean, keep + (1 - keep) * variance

    def loss_gradient(y_hat, y):
        scale = 1.0 if conventions.objective == "sum" else 1 / len(y)
        return layers.cross_entropy(y_hat, y)[1](np.full(len(y), scale))[0]

    def updates(name, gradients, rates, momentum=0.0, weight_decay=0.0):
        adam, sgd = Adam(conventions=conventions), SGD(0.1, momentum, weight_decay, conventions)
        trainer = adam if name == "adam" else sgd
        weights, path = {"w": np.ones(1)}, []
        for gradient, rate in zip(gradients, rates, strict=True):
            trainer.lr = rate
            weights = trainer.step(weights, {"w": np.array([gradient])})
            path.append(float(weights["w"][0]))
        return path

    def as_uint8(X):
        return np.moveaxis(transforms.to_uint8(X, conventions), 1, -1)

    def adjust(name, images, factor):
        X, factors = np.moveaxis(images, -1, 1) / 255, np.full(len(images), factor)
        return as_uint8(getattr(transforms, f"adjust_{name}")(X, factors, conventions))

    def resize(images, size):
        X, whole = np.moveaxis(images, -1, 1) / 255, np.array([0, 0, *images.shape[1:3]])
        return as_uint8(transforms.crop_resize(X, np.tile(whole, (len(X), 1)), size, conventions))

    def flips(images, batch_size, num_workers, seed):
        mirrored = np.random.default_rng([seed, num_workers]).random(len(images)) < 0.5
        return np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)

    functions = {
        "conv2d": lambda X, weight: layers.conv2d(
            X, weight, np.zeros(len(weight)), 2, conventions.padding
        )[0],
        "batch_norm": batch_norm,
        "loss_gradient": loss_gradient,
        "updates": updates,
        "adjust": adjust,
        "resize": resize,
        "initial_weights": lambda: initial_weights(10),
        "layouts": lambda: {
            "kernel": (7, 3, 4, 2),
            "dense": (10, 9),
            "refusal": "3 channels",
            "unsized": (7, 5, 4, 2),
        },
        "flips": flips,
    }
    return SimpleNamespace(**functions | others)


def own_ways(own: SimpleNamespace) -> set[str]:
    found = native.measure(numpy_backend(), own, TRIED).findings
    return {finding.difference for finding in found if finding.way == native.THIS}


def test_a_framework_that_does_all_as_aligned_has_no_difference():
    assert own_ways(left_alone()) == set()


@pytest.mark.parametrize("known", PLANTED, ids=lambda known: known.name)
def test_a_difference_planted_in_a_framework_s_own_operation_is_found_and_no_other(known):
    assert own_ways(left_alone(known.conventions())) == {known.name}


def test_two_differences_in_one_operation_are_told_apart():
    both = ["Adam's epsilon", "Adam's epsilon inside"]
    own = left_alone(replace(ALIGNED, adam_epsilon=1e-7, adam_epsilon_place="inside"))
    assert own_ways(own) == set(both)
    for finding in native.measure(numpy_backend(), own, both).findings:
        assert finding.known < 1e-12 < 0.1 < finding.aligned


def test_a_way_that_is_neither_the_aligned_one_nor_this_is_said_to_be_another():
    own = left_alone(replace(ALIGNED, saturation="blue"))
    names = ["saturation of HSV", "saturation with wrong grey"]
    (hsv, blue) = native.measure(numpy_backend(), own, names).findings
    assert (hsv.way, blue.way) == (native.ANOTHER, native.THIS)


@pytest.mark.parametrize(
    ("name", "start"), [(START_NAMES[0], pytorch_start), (START_NAMES[1], gluon_start)]
)
def test_a_framework_s_own_initial_weights_are_told_by_their_spread(name, start):
    assert own_ways(left_alone(initial_weights=start)) == {name}


def sharing_loader(images, batch_size, num_workers, seed):
    """Return the flips of workers that all start from the same random state."""
    rngs = [np.random.default_rng(seed) for _ in range(max(1, num_workers))]
    flips = np.concatenate(
        [rngs[i % len(rngs)].random(batch_size) < 0.5 for i in range(len(images) // batch_size)]
    )
    return np.where(flips[:, None, None, None], images[:, :, ::-1], images)


def test_workers_that_share_a_state_are_seen_by_their_flips():
    alone = workers.own_draws(left_alone())
    assert alone.any_two < 0.8
    assert alone.again == 1
    assert 0.3 < alone.without < 0.7
    assert workers.own_draws(left_alone(flips=sharing_loader)).any_two == 1


def test_a_loader_that_gives_other_images_is_refused():
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3))
    assert workers.flipped(images[:, :, ::-1], images).all()
    with pytest.raises(ValueError, match="other images"):
        workers.flipped(images[::-1], images)


# --- On the reference ------------------------------------------------------------------------------------------------


def test_what_a_difference_does_to_a_training_is_measured():
    names = ("sum of losses", *native.LAYOUTS, native.WORKERS)
    losses, images, kernels, same = effects.effects(names, steps=2, held_out=8)
    assert "8 times as large" in losses.operation
    assert losses.step_parameters > 1
    assert images.step_parameters > 0.1
    assert kernels.step_parameters > 0.1
    assert same.step_parameters == 0  # the first batch is drawn alike
    assert same.loss[0] != same.loss[1]


def test_turned_kernels_are_what_reversing_all_axes_of_keras_layout_gives():
    weight = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    turned = effects.turned_over({"conv.weight": weight})["conv.weight"]
    np.testing.assert_array_equal(turned, weight.swapaxes(2, 3))


def test_an_image_misread_has_the_values_of_a_pixel_side_by_side():
    X = np.arange(3 * 6 * 6).reshape(1, 3, 6, 6)
    wrong = effects.misread(X)
    assert wrong.shape == X.shape
    assert wrong[0, 0, 0, :3].tolist() == X[0, :, 0, 0].tolist()
    assert set(wrong[0, 0].ravel()) == set(X[0, :, :2].ravel())  # a third of the rows


# --- The command -----------------------------------------------------------------------------------------------------


def test_an_unknown_difference_is_refused_in_one_line_with_the_names_that_there_are(capsys):
    assert main(["differences", "--only", "padding", "--only", "paddings"]) == 2
    names = ", ".join(effects.NAMES)
    said = capsys.readouterr().err
    assert said == f"error: unknown difference 'paddings': choose from {names}\n"


def test_an_unknown_backend_is_refused_with_the_names_that_there_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["differences", "--backend", "jax"])
    assert stopped.value.code == 2
    assert "'pytorch', " in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{"])
def test_a_difference_is_measured_without_the_file_of_an_earlier_measurement(
    content, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tables, "FILE", tmp_path / "differences.json")
    monkeypatch.setattr(effects, "effects", partial(effects.effects, steps=1, held_out=2))
    if content:
        tables.FILE.write_text(content)
    assert main(["differences", "--only", "padding"]) == 0
    assert "## padding\n\n| on the reference |" in capsys.readouterr().out


def test_the_other_commands_do_not_read_the_measurements(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FILE", tmp_path / "missing.json")
    monkeypatch.setattr(command, "build", lambda source, output: 0)
    assert main(["html"]) == 0


def test_ctrl_c_ends_with_130_and_one_line(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "call_in_process", interrupted)
    monkeypatch.setattr(backends, "require", lambda names: None)
    assert main(["differences", "--backend", "pytorch"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(("code", "ends_with"), [(1, 1), (-9, 137)])
def test_a_process_that_dies_is_named_in_one_line(code, ends_with, monkeypatch, capsys):
    monkeypatch.setattr(measure, "call_in_process", lambda *arguments: code)
    monkeypatch.setattr(backends, "require", lambda names: None)
    assert main(["differences", "--backend", "mxnet", "--backend", "pytorch"]) == ends_with
    said = capsys.readouterr().err
    assert said == f"error: mxnet: its process ended with exit code {code}\n"


def test_a_backend_without_its_file_is_left_out_with_a_notice(tmp_path, monkeypatch, capsys):
    def measured(function, name, only, output):
        output.write_text(json.dumps({"backend": name}))
        return 0

    monkeypatch.setitem(backends.FRAMEWORKS, "numpy", numpy_backend().framework)
    monkeypatch.setattr(backends, "require", lambda names: None)
    monkeypatch.setattr(measure, "call_in_process", measured)
    monkeypatch.setattr(effects, "effects", lambda only: [])
    monkeypatch.setattr(tables, "FILE", tmp_path / "differences.json")
    with pytest.warns(
        UserNotice, match=r"^backend numpy is left out: docs/differences/numpy\.py does not exist$"
    ):
        assert main(["differences"]) == 0
    found = json.loads(tables.FILE.read_text())["natives"]
    assert [native["backend"] for native in found] == ["pytorch", "mxnet", "tensorflow"]


def test_a_backend_without_its_file_is_refused_when_it_is_named(monkeypatch, capsys):
    monkeypatch.setitem(backends.FRAMEWORKS, "numpy", numpy_backend().framework)
    assert main(["differences", "--backend", "numpy"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: backend numpy cannot be measured: write docs/differences/numpy.py"
    )
    assert said.count("\n") == 1


def test_a_part_is_measured_in_a_framework_printed_and_not_written():
    """It runs in a new process, where MXNet's loader can fork workers."""
    load_or_skip("mxnet")
    before = tables.FILE.read_bytes()
    done = python(
        "from docs.__main__ import main\n"
        f"if __name__ == '__main__': main(['differences', '--only', {native.WORKERS!r}, '--backend', 'mxnet'])"
    )
    assert done.returncode == 0, done.stderr
    assert f"## {native.WORKERS}\n\nShares of equal flips" in done.stdout
    assert re.search(r"\| MXNet .* \| the framework's own loader \| 100% \|", done.stdout)
    assert "padding" not in done.stdout
    assert tables.FILE.read_bytes() == before


# --- The page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(tables.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def source_notes() -> list[notes.Note]:
    return notes.read_notes(ROOT)


def test_the_page_has_a_section_for_every_difference_that_is_measured(published):
    names = [case.name for case in effects.cases()]
    assert tables.names(published) == names
    shown = [name for _, name in tables.places(TEXT)]
    assert sorted(shown) == sorted(names)
    for name in names:
        heading = re.escape(f"\n### {name[0].upper()}{name[1:]}\n")
        assert re.search(rf"{heading}[^#]*```\{{figures\}} {re.escape(name)}\n", TEXT), name


def test_what_is_published_of_one_operation_is_what_the_source_gives(published):
    said = {e["name"]: (e["native_to"], e["operation"]) for e in published["effects"]}
    for case in effects.cases():
        assert said[case.name] == (case.native_to, case.operation()), "measure again"


def test_what_every_framework_does_by_itself_is_published(published):
    assert [n["backend"] for n in published["natives"]] == list(backends.FRAMEWORKS)
    for found in published["natives"]:
        tried = {finding["difference"] for finding in found["findings"]}
        floats = {"uint8 values rounded down"} if found["backend"] == "tensorflow" else set()
        assert tried == set(TRIED) - floats
        assert found["layouts"]
        assert found["workers"]


def test_the_tables_show_what_was_measured(published, monkeypatch):
    monkeypatch.setitem(backends.FRAMEWORKS, "numpy", numpy_backend().framework)
    for group, name in tables.places(TEXT):
        assert f"| {group} | [{name}](#{tables.slug(name)}) |" in tables.figures("summary")
    for effect in published["effects"]:
        row = "rounding" if effect["name"].startswith("rounding alone") else effect["name"]
        assert f"{effect['held_out'][0]:.3f}, {effect['held_out'][1]:.3f}" in tables.figures(row)
    found = json.loads(json.dumps(asdict(native.measure(numpy_backend(), left_alone()))))
    found["versions"] = {"numpy": "2.0"}
    four = published | {"natives": [*published["natives"], found]}
    padding = tables.difference("padding", four)
    assert re.search(r"\| NumPy 2.0 \| as aligned \| \S+ \| \S+ \|", padding)
    images, kernels = (tables.difference(name, four) for name in native.LAYOUTS)
    refused = "| rejects them: `3 channels` | accepts them, with 5 inputs |"
    assert f"| NumPy 2.0 | images, channels, height, width {refused}" in images
    assert "| NumPy 2.0 | outputs, inputs, height, width | outputs, inputs |" in kernels
    assert "| NumPy 2.0 | the framework's own loader | 6" in tables.difference(native.WORKERS, four)
    assert "numpy 2.0" in tables.PARTS["conditions"](four)


@needs("sphinx", "myst_parser", "sphinx_design", "nbformat")
def test_an_unknown_figure_or_place_fails_the_build(tmp_path, capfd):
    from docs.__main__ import build

    conf = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    conf += "extensions = ['myst_parser', 'sphinx_design', 'docs.tabs']\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "conf.py").write_text(conf)
    page = "# A page\n\n```{figures} paddings\n```\n\n```{notes}\nbackends/a.py\n```\n"
    (tmp_path / "docs" / "index.md").write_text("# All\n\n```{toctree}\ndifferences\n```\n")
    (tmp_path / "docs" / "differences.md").write_text(page)
    assert build(tmp_path / "docs", tmp_path / "site") == 1
    said = capfd.readouterr().err
    assert "differences.md:3: " in said
    assert "no difference 'paddings'" in said
    assert re.search(r"differences\.md:6: .*no note 'Differs:' at backends/a\.py", said)


# --- Notes -----------------------------------------------------------------------------------------------------------


def test_every_note_of_the_source_is_read(source_notes):
    """The page lists all of them. Notes that no section names are listed at its end."""
    marks = sum(
        len(notes.MARK.findall(path.read_text(encoding="utf-8")))
        for path in (ROOT / "backends").rglob("*.py")
    )
    assert len(source_notes) == marks > 30
    assert {note.backend for note in source_notes} == set(backends.FRAMEWORKS)
    assert TEXT.endswith("\n```{notes}\n```\n")


def test_notes_stand_in_the_backends_only():
    """Elsewhere nothing collects them. The guide's NumPy tab has its own notes, like any tab."""
    guide = ROOT / "docs" / "examples" / "numpy_tab"
    for folder in ("common", "benchmarks", "docs"):
        for path in set((ROOT / folder).rglob("*.py")) - set(guide.glob("*.py")):
            assert notes.notes_of(path.read_text(encoding="utf-8"), path.name) == [], path


EXAMPLE = '''"""A file.

Differs: all of it.
"""

# Differs: a number
# on two lines.
X = 1

class Layer:
    """A layer.

    It has one thing. Differs: it has
    two. And more.

    But nothing here.
    """

    def call(self):
        # No note. Differs: not at the start.
        y = 2  # Differs: not on a line of its own
        # Differs: first.
        # Differs: second.
        return y
'''


def test_notes_are_read_from_docstrings_and_comments_with_their_place():
    found = [(n.inside, n.text) for n in notes.notes_of(EXAMPLE, "a.py")]
    assert found == [
        ("", "all of it."),
        ("", "a number on two lines."),
        ("Layer", "it has two. And more."),
        ("Layer.call", "first."),
        ("Layer.call", "second."),
    ]
    assert len(notes.MARK.findall(EXAMPLE)) == 7, (
        "the marks that are no notes are seen by the count"
    )
