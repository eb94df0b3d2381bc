"""The parity checks reject every planted mistake, and name each known difference as the cause."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import without_tracing
from input_mistakes import INPUT_MISTAKES, batches
from mistakes import (
    IN_BFLOAT16,
    KNOWN,
    MISTAKES,
    OTHER_MISTAKES,
    THOUSANDTHS,
    cases,
    data,
    frozen,
    initial,
    model,
    model_in_bfloat16,
    model_in_float32,
    steps,
    steps_in_bfloat16,
)
from native_mistakes import NATIVE_MISTAKES, native
from numpy_backend import numpy_backend
from run_mistakes import IN_RUNS, runs
from test_process_mistakes import MISTAKES as IN_PROCESSES

from common.parity import adapter
from common.parity.comparison import CheckResult
from common.reference import ALIGNED, KNOWN_DIFFERENCES


def rejected(results: Iterator[CheckResult]) -> dict[str, CheckResult]:
    return {result.check: result for result in results if not result.passed}


@pytest.mark.parametrize(
    "checks",
    [
        data,
        batches,
        cases,
        frozen,
        initial,
        native,
        model,
        model_in_float32,
        steps,
        runs,
        model_in_bfloat16,
        steps_in_bfloat16,
    ],
)
def test_the_numpy_backend_passes_every_group_of_checks(checks):
    assert rejected(checks(numpy_backend())) == {}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_difference_is_rejected_and_named_as_the_cause(name):
    (known,) = [difference for difference in KNOWN_DIFFERENCES if difference.name == name]
    checks, expected = KNOWN[name]
    found = rejected(checks(numpy_backend(known.conventions())))
    assert set(found) == expected
    assert any(result.cause for result in found.values())
    for result in found.values():
        if result.cause is None:  # a check that cannot tell causes apart
            continue
        assert result.cause.startswith(f"{name} ("), result.sentence()


def test_every_known_difference_from_the_defaults_is_planted():
    assert set(KNOWN) == {d.name for d in KNOWN_DIFFERENCES if not d.holds(ALIGNED)}


@pytest.mark.parametrize("name", OTHER_MISTAKES)
def test_an_other_mistake_is_rejected(name):
    make, checks, expected = OTHER_MISTAKES[name]
    assert set(rejected(checks(make(numpy_backend())))) == expected


@pytest.mark.slow  # each runs all checks of its group
@pytest.mark.parametrize("name", INPUT_MISTAKES)
def test_a_mistake_on_some_inputs_is_rejected(name):
    make, checks, expected = INPUT_MISTAKES[name]
    assert set(rejected(checks(make(numpy_backend())))) == expected


@pytest.mark.slow  # each runs all checks of the native pipeline
@pytest.mark.parametrize("name", NATIVE_MISTAKES)
def test_a_mistake_in_the_native_pipeline_is_rejected(name):
    edits, expected = NATIVE_MISTAKES[name]
    assert set(rejected(native(numpy_backend(ALIGNED, *edits)))) == expected


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_every_backend_is_rejected(backend, name):
    make, checks, expected = MISTAKES[name]
    with without_tracing(backend.name):
        assert set(rejected(checks(make(backend)))) == expected


@pytest.mark.slow  # each trains four times
@pytest.mark.parametrize("name", IN_RUNS)
def test_a_mistake_in_a_whole_run_is_rejected(name, monkeypatch):
    # Do not search for a cause: the reference would train once more for each known difference.
    monkeypatch.setattr(adapter, "KNOWN_DIFFERENCES", ())
    edits, expected = IN_RUNS[name]
    assert expected - set(rejected(runs(numpy_backend(ALIGNED, *edits)))) == set()


@pytest.mark.slow  # rounding in NumPy takes five times as long as float32
@pytest.mark.parametrize("name", IN_BFLOAT16)
def test_a_mistake_in_bfloat16_is_rejected(name):
    make, checks, expected = IN_BFLOAT16[name]
    assert expected <= set(rejected(checks(make())))


@pytest.mark.parametrize("name", THOUSANDTHS)
def test_a_result_0_1_percent_too_large_is_rejected(name):
    make, checks, expected = THOUSANDTHS[name]
    found = rejected(checks(make()))
    assert set(found) == expected
    if "activation" in name:
        assert all(r.first and r.first.place == "resnet_block3.1.bn1" for r in found.values())


def rows() -> list[str]:
    """Return the rows of the table of mistakes in docs/parity.md."""
    tables = {
        "known difference": {name: expected for name, (_, expected) in KNOWN.items()},
        "other mistake": {name: expected for name, (_, _, expected) in OTHER_MISTAKES.items()},
        "some inputs only": {name: expected for name, (_, _, expected) in INPUT_MISTAKES.items()},
        "native pipeline": {n: w for n, (_, w) in NATIVE_MISTAKES.items()},
        "every backend": {name: expected for name, (_, _, expected) in MISTAKES.items()},
        "whole run": {name: expected for name, (_, expected) in IN_RUNS.items()},
        "0.1% too large": {name: expected for name, (_, _, expected) in THOUSANDTHS.items()},
        "bfloat16": {name: expected for name, (_, _, expected) in IN_BFLOAT16.items()},
        "two processes": {name: expected for name, (_, expected) in IN_PROCESSES.items()},
    }
    return [
        f"| {name} | {kind} | {'; '.join(sorted(expected))} |"
        for kind, table in tables.items()
        for name, expected in table.items()
    ]


def test_the_page_lists_every_mistake_and_the_checks_that_reject_it():
    page = (Path(__file__).parents[2] / "docs" / "parity.md").read_text().splitlines()
    assert [line for line in page if line in rows()] == rows()
