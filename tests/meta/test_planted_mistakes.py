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
    checks, wanted = KNOWN[name]
    found = rejected(checks(numpy_backend(known.conventions())))
    assert set(found) == wanted
    assert any(result.cause for result in found.values())
    for result in found.values():
        if result.cause is None:  # a check that cannot tell causes apart
            continue
        assert result.cause.startswith(f"{name} ("), result.sentence()


def test_every_known_difference_from_the_defaults_is_planted():
    assert set(KNOWN) == {d.name for d in KNOWN_DIFFERENCES if not d.holds(ALIGNED)}


@pytest.mark.parametrize("name", OTHER_MISTAKES)
def test_an_other_mistake_is_rejected(name):
    make, checks, wanted = OTHER_MISTAKES[name]
    assert set(rejected(checks(make(numpy_backend())))) == wanted


@pytest.mark.slow  # each runs all checks of its group
@pytest.mark.parametrize("name", INPUT_MISTAKES)
def test_a_mistake_on_some_inputs_is_rejected(name):
    make, checks, wanted = INPUT_MISTAKES[name]
    assert set(rejected(checks(make(numpy_backend())))) == wanted


@pytest.mark.slow  # each runs all checks of the native pipeline
@pytest.mark.parametrize("name", NATIVE_MISTAKES)
def test_a_mistake_in_the_native_pipeline_is_rejected(name):
    edits, wanted = NATIVE_MISTAKES[name]
    assert set(rejected(native(numpy_backend(ALIGNED, *edits)))) == wanted


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_every_backend_is_rejected(backend, name):
    make, checks, wanted = MISTAKES[name]
    with without_tracing(backend.name):
        assert set(rejected(checks(make(backend)))) == wanted


@pytest.mark.slow  # each trains four times
@pytest.mark.parametrize("name", IN_RUNS)
def test_a_mistake_in_a_whole_run_is_rejected(name, monkeypatch):
    # Do not search for a cause: the reference would train once more for each known difference.
    monkeypatch.setattr(adapter, "KNOWN_DIFFERENCES", ())
    edits, wanted = IN_RUNS[name]
    assert wanted - set(rejected(runs(numpy_backend(ALIGNED, *edits)))) == set()


@pytest.mark.slow  # rounding in NumPy takes five times as long as float32
@pytest.mark.parametrize("name", IN_BFLOAT16)
def test_a_mistake_in_bfloat16_is_rejected(name):
    make, checks, wanted = IN_BFLOAT16[name]
    assert wanted <= set(rejected(checks(make())))


@pytest.mark.parametrize("name", THOUSANDTHS)
def test_a_result_0_1_percent_too_large_is_rejected(name):
    make, checks, wanted = THOUSANDTHS[name]
    found = rejected(checks(make()))
    assert set(found) == wanted
    if "activation" in name:
        assert all(r.first and r.first.place == "resnet_block3.1.bn1" for r in found.values())


def rows() -> list[str]:
    """Return the rows of the table of mistakes in docs/parity.md."""
    tables = {
        "known difference": {name: wanted for name, (_, wanted) in KNOWN.items()},
        "other mistake": {name: wanted for name, (_, _, wanted) in OTHER_MISTAKES.items()},
        "some inputs only": {name: wanted for name, (_, _, wanted) in INPUT_MISTAKES.items()},
        "native pipeline": {n: w for n, (_, w) in NATIVE_MISTAKES.items()},
        "every backend": {name: wanted for name, (_, _, wanted) in MISTAKES.items()},
        "whole run": {name: wanted for name, (_, wanted) in IN_RUNS.items()},
        "0.1% too large": {name: wanted for name, (_, _, wanted) in THOUSANDTHS.items()},
        "bfloat16": {name: wanted for name, (_, _, wanted) in IN_BFLOAT16.items()},
    }
    return [
        f"| {name} | {kind} | {'; '.join(sorted(wanted))} |"
        for kind, table in tables.items()
        for name, wanted in table.items()
    ]


def test_the_page_lists_every_mistake_and_the_checks_that_reject_it():
    page = (Path(__file__).parents[2] / "docs" / "parity.md").read_text().splitlines()
    assert [line for line in page if line in rows()] == rows()
