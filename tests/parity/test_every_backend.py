"""Every backend passes the parity checks: on small images, at the chapter's size, compiled and in bfloat16.

The network has the chapter's width once for each backend, in few steps. Elsewhere it has a quarter of the channels,
which makes a step of the reference ten times faster. In bfloat16 it has half of them, because norms over fewer values
vary more. Checks that use much memory run in a process of their own.
"""

import contextlib
import os
import shutil
from dataclasses import replace

import pytest
from conftest import without_tracing
from numpy_backend import numpy_backend

import backends
from common.commands.parity_backend import FREE_STEPS, declared
from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.checks.free_running import envelope, free_running
from common.parity.checks.transforms import operation_pictures, reference_pictures
from common.parity.suite import QUICK, Extent, run_checks
from common.system.processes import call_in_process

NUM_CHANNELS = {"fp32": 16, "bf16": 32}
# Half of all steps; the nightly run takes all of them, with 20 seeds.
HALF_THE_STEPS = Extent(locked_steps=6, float32_steps=2)


def assert_all_pass(backend: Backend, extent: Extent, precision: str):
    narrow = replace(extent, num_channels=NUM_CHANNELS[precision])
    results = list(run_checks(backend, narrow, 0, precision))
    assert [result.sentence() for result in results if not result.passed] == []
    assert len(results) >= 16


def check(name: str, extent: Extent, precision: str, compile: bool) -> int:
    """Check a backend in this process, print the failures, and return the exit code."""
    results = list(run_checks(backends.load(name, precision), extent, 0, precision, compile))
    failed = [result.sentence() for result in results if not result.passed]
    print(*failed, f"{len(results)} checks", sep="\n")
    return int(bool(failed) or len(results) < 16)


def untraced(backend: Backend, precision: str) -> contextlib.AbstractContextManager[None]:
    """Run TensorFlow eagerly in fp32. In bf16 trace the functions, as a run does: eager execution rounds more often."""
    return without_tracing(backend.name if precision == "fp32" else "")


@pytest.mark.parametrize("precision", NUM_CHANNELS)
def test_every_backend_passes_the_quick_checks(backend, precision):
    with untraced(backend, precision):
        assert_all_pass(backend, QUICK, precision)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_backend_passes_the_checks_at_the_chapter_s_size_in_bfloat16(backend):
    assert_all_pass(backend, Extent(), "bf16")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_backend_passes_the_checks_at_the_chapter_s_size_and_width(backend):
    assert call_in_process(check, backend.name, HALF_THE_STEPS, "fp32", False) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", NUM_CHANNELS)
def test_every_backend_passes_the_checks_when_compiled(backend, precision):
    if backend.name == "pytorch" and shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    narrow = replace(QUICK, num_channels=NUM_CHANNELS[precision])
    assert call_in_process(check, backend.name, narrow, precision, True) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_free_running_training_stays_within_the_envelope(backend, kind):
    # With 16 channels too few ReLUs flip: the perturbed runs can miss the first flip of a correct backend.
    around = envelope(FREE_STEPS, kind=kind, num_channels=32)
    result, _ = free_running(Adapter(backend, kind, num_channels=32), around)
    assert result.passed, result.sentence()


def test_each_backend_declares_exactly_its_known_differences(backend):
    expected = {
        "mxnet": {"biased running variance", "Adam's epsilon inside"},
        "tensorflow": {"Adam's epsilon inside"},
    }.get(backend.name, set())
    assert {line.partition(":")[0] for line in declared(backend)} == expected


def test_the_pictures_of_the_report_are_images_without_normalization():
    found, true = operation_pictures(Adapter(numpy_backend(), "float32")), reference_pictures()
    assert list(found) == list(true)
    assert "resize" in found
    for picture in (*found.values(), *true.values()):
        assert picture.shape in ((3, 100, 100), (3, 80, 80))
        assert picture.min() >= 0
        assert picture.max() <= 1 + 1e-6
