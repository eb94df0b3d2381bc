"""By default, each framework has exactly the known differences that docs/differences.md lists for it."""

import ast
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import backends
from common.reference import layers
from docs.differences import native, workers
from docs.differences.initialization import START_NAMES

FOLDER = Path(native.__file__).parent
# The known differences that each framework has by default.
OWN = {
    "pytorch": {"hue in 8 bits", "uint8 values rounded down", "PyTorch's initial weights"},
    "mxnet": {
        "biased running variance",
        "sum of losses",
        "Adam's epsilon inside",
        "learning rate inside the momentum",
        "saturation with wrong grey",
        "no antialiasing",
        "uint8 values rounded down",
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
# How close an operation must be to its own convention: 2 to 5 times the largest measured distances.
NEAR = {native.SHARE: 4e-5, native.OF_255: 0.6}  # float32's Adam with a gradient of 1e-7: 7.4e-6
NEAR_STARTS = 0.2  # spreads of random weights: measured 0.09


def own(backend):
    return import_module(f"docs.differences.{backend.name}")


def test_a_framework_left_alone_does_what_is_said_of_it_and_nothing_else_that_is_known(backend):
    names = [name for names in native.TRIALS for name in names]
    found = native.measure(backend, own(backend), names).findings
    if backend.name == "tensorflow":  # it computes in floats without rounding
        names.remove("uint8 values rounded down")
    assert [finding.difference for finding in found] == names
    assert {f.difference for f in found if f.way == native.THIS} == OWN[backend.name]
    for finding in found:
        near, far = sorted((finding.aligned, finding.known))
        if finding.way != native.ANOTHER:
            limit = NEAR_STARTS if finding.difference in START_NAMES else NEAR[finding.unit]
            assert near < limit, finding
            assert near < far / 2, finding


@pytest.mark.parametrize("size", [7, 8])
def test_same_padding_differs_on_even_sizes_only(tensorflow, size):
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(2, 3, size, size)), rng.normal(size=(4, 3, 3, 3))
    found = import_module("docs.differences.tensorflow").conv2d(X, weight)
    at_the_end, _ = layers.conv2d(X, weight, np.zeros(4), 2, "end")
    np.testing.assert_allclose(found, at_the_end, atol=1e-12)
    aligned, _ = layers.conv2d(X, weight, np.zeros(4), 2)
    assert np.allclose(found, aligned) == (size % 2 == 1)


def test_a_framework_has_its_layouts_and_refuses_the_other_where_it_knows_its_inputs(backend):
    layouts = own(backend).layouts()
    canonical = {"kernel": (7, 3, 4, 2), "dense": (10, 9), "unsized": (7, 5, 4, 2)}
    keras = {"kernel": (4, 2, 3, 7), "dense": (9, 10), "unsized": (4, 2, 6, 7)}
    refusal = layouts.pop("refusal")
    assert layouts == (keras if backend.devices.image_layout == "NHWC" else canonical)
    assert "\n" not in refusal
    assert 20 < len(refusal) < 300


def test_two_workers_draw_the_same_in_mxnet_only_and_nowhere_in_this_project(backend):
    alone, here = workers.own_draws(own(backend)), workers.draws_here(backend)
    if backend.name == "mxnet":
        assert alone.any_two == 1
    else:
        assert alone.any_two < 0.8
    assert here.any_two < 0.8
    assert here.again == here.without == 1


def signatures(name: str) -> list[tuple[str, str, str]]:
    """Return the public functions of a framework's file in order: name, arguments, first docstring line."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    return [
        (f.name, ast.unparse(f.args), (ast.get_docstring(f) or "").partition("\n")[0])
        for f in tree.body
        if isinstance(f, ast.FunctionDef)
    ]


@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_the_frameworks_files_define_the_same_functions(name):
    first, *_ = backends.FRAMEWORKS
    assert signatures(name) == signatures(first)
    assert all(doc for _, _, doc in signatures(name))
