"""The result of a check: which differences pass, and which one is named."""

from dataclasses import replace

import numpy as np
import pytest

from common.parity.comparison import CheckResult, Difference, Tolerance


def result(*values: float, limit: float = 1.0) -> CheckResult:
    found = tuple(Difference(f"layer {i}", value) for i, value in enumerate(values))
    return CheckResult("logits", "float64", found, Tolerance(limit, 1.0, "for a test"))


def test_the_first_difference_above_the_tolerance_is_named_not_the_largest():
    failed = result(0.5, 2.0, 9.0)
    assert failed.first == Difference("layer 1", 2.0)
    assert failed.largest == Difference("layer 2", 9.0)
    assert not failed.passed
    assert "layer 1" in failed.sentence()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_never_pass(value):
    failed = result(0.5, value, 0.1)
    assert failed.first is not None
    assert failed.first.place == "layer 1"
    assert failed.largest.place == "layer 1"


def test_a_difference_at_the_limit_passes():
    assert result(1.0, 0.0).passed
    assert replace(result(0.0), tolerance=Tolerance(0.0, 1.0, "exact")).passed


def test_a_check_without_differences_is_an_error():
    with pytest.raises(ValueError, match="nothing"):
        result()
