"""A known difference is no mistake where the backend declares it, and is one where it does not compute so."""

import pytest
from mistakes import KNOWN, NUM_CHANNELS
from numpy_backend import changed, numpy_backend

from common.commands.parity_backend import declared
from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.checks.network import evaluation_accuracy
from common.reference import ALIGNED, KNOWN_DIFFERENCES, Conventions

# A hue in 8 bits turns the last bit of a float into a whole step, so that two float32 computations of it differ where
# other operations come first. No tab declares it.
MAY_DIFFER = {"hue in 8 bits": {"batches, augmented"}}
BY_NAME = {difference.name: difference for difference in KNOWN_DIFFERENCES}


def declaring(conventions: Conventions, computed: Conventions) -> Backend:
    """A backend that computes by some conventions and declares these."""
    return changed(numpy_backend(computed), "probes", CONVENTIONS=conventions)


def failed(backend: Backend, name: str) -> dict[str, str]:
    """What the checks of a known difference's group say of the backend."""
    checks, _ = KNOWN[name]
    return {result.check: result.sentence() for result in checks(backend) if not result.passed}


@pytest.mark.parametrize("name", KNOWN)
def test_a_difference_that_is_declared_and_computed_is_no_false_alarm(name):
    conventions = BY_NAME[name].conventions()
    backend = declaring(conventions, computed=conventions)
    found = failed(backend, name)
    assert found.keys() <= MAY_DIFFER.get(name, set()), found
    assert declared(backend) == (f"{name}: {BY_NAME[name].meaning}",)


@pytest.mark.parametrize("name", KNOWN)
def test_a_difference_that_is_declared_and_not_computed_is_rejected(name):
    """The other half: that an undeclared difference is rejected and named is in test_planted_mistakes.py."""
    _, expected = KNOWN[name]
    assert failed(declaring(BY_NAME[name].conventions(), computed=ALIGNED), name).keys() >= expected


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_evaluation_accuracy_follows_the_conventions_that_are_declared(kind):
    """BatchNorm's epsilon changes which class is predicted, so the right accuracy is another number."""
    keras = Conventions(bn_epsilon=1e-3)
    own = [
        Adapter(declaring(conventions, computed=keras), kind, num_channels=NUM_CHANNELS[kind])
        for conventions in (keras, ALIGNED)
    ]
    assert [evaluation_accuracy(adapter, 0).passed for adapter in own] == [True, False]
