"""A backend may differ in a known way if it declares it. A declared difference that it does not have is rejected."""

import pytest
from mistakes import KNOWN, NUM_CHANNELS
from numpy_backend import changed, numpy_backend

from common.commands.parity_backend import declared
from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.checks.network import evaluation_accuracy
from common.reference import ALIGNED, KNOWN_DIFFERENCES, Conventions

# An 8-bit hue amplifies the last bit of a float to a whole step. Two float32 computations of it therefore differ after
# other operations. No backend declares it.
MAY_DIFFER = {"hue in 8 bits": {"batches, augmented"}}
BY_NAME = {difference.name: difference for difference in KNOWN_DIFFERENCES}


def declaring(conventions: Conventions, computed: Conventions) -> Backend:
    """Return a backend that computes by ``computed`` and declares ``conventions``."""
    return changed(numpy_backend(computed), "probes", CONVENTIONS=conventions)


def failed(backend: Backend, name: str) -> dict[str, str]:
    """Return the failures of the checks of a known difference's group, by check."""
    checks, _ = KNOWN[name]
    return {result.check: result.sentence() for result in checks(backend) if not result.passed}


@pytest.mark.parametrize("name", KNOWN)
def test_a_declared_difference_passes(name):
    conventions = BY_NAME[name].conventions()
    backend = declaring(conventions, computed=conventions)
    found = failed(backend, name)
    assert found.keys() <= MAY_DIFFER.get(name, set()), found
    assert declared(backend) == (f"{name}: {BY_NAME[name].meaning}",)


@pytest.mark.parametrize("name", KNOWN)
def test_a_difference_that_is_declared_but_not_computed_is_rejected(name):
    """test_planted_mistakes.py tests the other half: an undeclared difference is rejected and named."""
    _, expected = KNOWN[name]
    assert failed(declaring(BY_NAME[name].conventions(), computed=ALIGNED), name).keys() >= expected


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_evaluation_accuracy_follows_the_declared_conventions(kind):
    """BatchNorm's epsilon changes predicted classes, so the correct accuracy depends on it."""
    keras = Conventions(bn_epsilon=1e-3)
    own = [
        Adapter(declaring(conventions, computed=keras), kind, num_channels=NUM_CHANNELS[kind])
        for conventions in (keras, ALIGNED)
    ]
    assert [evaluation_accuracy(adapter, 0).passed for adapter in own] == [True, False]
