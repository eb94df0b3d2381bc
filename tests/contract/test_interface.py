"""The backends follow the contract and agree with each other: names, arguments, defaults, first docstring lines.

Read from the sources with `ast`, so that no framework is needed. mypy, which CI runs, checks the rest.
"""

import ast

import pytest
from contract_sources import FILES, contract, departures, first_lines, functions, source

import backends


@pytest.mark.parametrize(("file", "protocol"), FILES.items())
@pytest.mark.parametrize("backend", backends.FRAMEWORKS)
def test_every_function_has_the_contract_s_arguments_and_defaults(backend, file, protocol):
    assert departures(source(backend, file), protocol, backend) == []


@pytest.mark.parametrize(("file", "protocol"), FILES.items())
@pytest.mark.parametrize("backend", backends.FRAMEWORKS)
def test_every_public_function_says_what_it_does_as_in_the_first_backend(backend, file, protocol):
    first, *_ = backends.FRAMEWORKS
    wanted, found = first_lines(source(first, file)), first_lines(source(backend, file))
    assert all(found.values())
    assert {name: found.get(name) for name in contract(protocol)} == {
        name: wanted.get(name) for name in contract(protocol)
    }


@pytest.mark.parametrize(("file", "protocol"), FILES.items())
@pytest.mark.parametrize("backend", backends.FRAMEWORKS)
def test_functions_of_the_contract_come_in_the_same_order(backend, file, protocol):
    first, *_ = backends.FRAMEWORKS
    wanted = contract(protocol)
    orders = [
        [name for name in functions(ast.parse(source(b, file)).body) if name in wanted]
        for b in (first, backend)
    ]
    assert orders[0] == orders[1]


# The columns of docs/three-columns.md; a backend without a framework has none.
COMPARED = ("pytorch", "mxnet", "tensorflow")


@pytest.mark.parametrize("file", ["trainer", "kaggle"])
@pytest.mark.parametrize("backend", COMPARED)
def test_the_files_that_readers_compare_hold_the_contract_s_functions_and_no_others(backend, file):
    body = ast.parse(source(backend, file)).body
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert defined == list(contract(FILES[file]))


@pytest.mark.parametrize("backend", COMPARED)
def test_the_network_is_the_book_s_four_definitions(backend):
    body = ast.parse(source(backend, "resnet")).body
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert defined == ["Residual", "resnet_block", "resnet18", "init_cnn"]


# The book's cells are 14 to 16 lines for a step and 24 for a training.


@pytest.mark.parametrize("backend", COMPARED)
@pytest.mark.parametrize(
    ("file", "name", "most"),
    [
        ("trainer", "train_batch_ch13", 16),
        ("trainer", "train_ch13", 10),
        ("kaggle", "train", 16),
    ],
)
def test_the_step_and_the_loops_are_as_long_as_a_cell_of_the_book(backend, file, name, most):
    function = functions(ast.parse(source(backend, file)).body)[name]
    _docstring, *body = function.body
    assert body[-1].end_lineno - body[0].lineno + 1 <= most


@pytest.mark.parametrize(
    ("before", "after", "caught"),
    [
        ("def accuracy(y_hat, y)", "def accuracy(y_hat, labels)", "accuracy"),
        ("lr=1e-3", "lr=1e-2", "adam"),
        ("def predict(", "def predictions(", "predict"),
        ("animator=None", "animator=None, verbose=True", "train_ch13"),
    ],
)
def test_a_drifted_copy_is_caught(before, after, caught):
    text = source("pytorch", "trainer")
    assert before in text
    assert departures(text.replace(before, after), "Trainers") == [caught]


def test_a_backend_s_record_holds_its_own_files(backend):
    assert backend.framework is backends.FRAMEWORKS[backend.name]
    for file in FILES:
        assert getattr(backend, file).__name__ == f"backends.{backend.name}.{file}"
    assert backend.devices.image_layout in ("NCHW", "NHWC")
