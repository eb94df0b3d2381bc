"""All parity checks at the size of the chapter, on every backend: minutes, so in a file of their own."""

import os
import shutil

import pytest

from common.commands.parity import FREE_STEPS, QUICK
from common.parity.adapter import Subject
from common.parity.free_running import Envelope, envelope, free_running
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_backend_passes_all_checks_in_bfloat16(backend):
    backend.devices.describe([backend.devices.cpu()], "bf16")
    outcomes = list(run_checks(backend, Extent(), precision="bf16"))
    assert [outcome.sentence() for outcome in outcomes if not outcome.passed] == []
    outcome, _ = free_running(Subject(backend, "bfloat16"), envelope(FREE_STEPS, kind="bfloat16"))
    assert outcome.passed, outcome.sentence()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_backend_passes_the_checks_where_it_is_compiled(backend, precision):
    if backend.name == "pytorch" and shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    outcomes = list(run_checks(backend, QUICK, 0, precision, compile=True))
    assert [outcome.sentence() for outcome in outcomes if not outcome.passed] == []
    assert len(outcomes) >= 16
