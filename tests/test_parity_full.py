"""All parity checks at the size of the chapter, on every backend: minutes, so in a file of their own."""

import pytest

from common.parity.command import FREE_STEPS
from common.parity.free_running import Envelope, envelope, free_running
from common.parity.subject import Subject
from common.parity.suite import Extent, run_checks


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_backend_passes_all_checks_at_the_chapter_s_size(backend):
    outcomes = list(run_checks(backend, Extent()))
    assert [outcome.sentence() for outcome in outcomes if not outcome.passed] == []


@pytest.fixture(scope="module")
def full_envelope() -> Envelope:
    return envelope(FREE_STEPS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_backend_trains_freely_within_the_envelope(backend, full_envelope):
    outcome, _ = free_running(Subject(backend, "float32"), full_envelope)
    assert outcome.passed, outcome.sentence()
