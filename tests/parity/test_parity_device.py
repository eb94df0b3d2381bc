"""`parity --device`: an error without a GPU, the same checks with one, and TF32 off or on.

No GPU is needed: the NumPy backend reports two GPUs and rounds to TF32 in NumPy.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import load_or_skip
from numpy_backend import numpy_backend, to_bfloat16, to_tf32, with_tf32

from common.commands import parity
from common.commands.parity_backend import describe
from common.config import ParityConfig
from common.errors import UserError
from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.checks import steps as training
from common.parity.checks.free_running import envelope, free_running
from common.parity.checks.network import model_checks
from common.parity.comparison import CheckResult
from common.parity.tolerances import TOLERANCES
from common.system import environment

ROOT = Path(__file__).parents[2]
VARIABLE = environment.TF32_VARIABLE


@pytest.mark.parametrize("name", ["pytorch"])
def test_a_missing_gpu_is_a_one_line_error_before_anything_is_written(name, tmp_path):
    if load_or_skip(name).devices.num_gpus():
        pytest.skip("there is a GPU")
    output = tmp_path / "out"
    words = ["parity", "--quick", "--backend", name, "--device", "gpu", "--output", str(output)]
    process = subprocess.run(
        [sys.executable, "run.py", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == (
        f"error: backend {name}: --device gpu: the framework finds no GPU; use --device cpu or auto\n"
    )
    assert not output.exists()


def test_tf32_without_a_gpu_is_an_error():
    with pytest.raises(UserError, match="add --device gpu"):
        ParityConfig(precision="tf32")
    with pytest.raises(UserError, match="the framework finds none"):
        describe(numpy_backend(), ParityConfig(precision="tf32", device="auto"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": "gpu"}, ("fp32", "0")),
        ({"device": "gpu", "precision": "tf32"}, ("fp32", None)),
        ({"device": "gpu", "precision": "bf16"}, ("bf16", None)),
        ({}, ("fp32", None)),
    ],
)
def test_fp32_on_a_gpu_switches_tf32_off_before_the_import(options, expected, monkeypatch):
    package = ModuleType("registry")
    package.load = lambda name, precision: (precision, os.environ.get(VARIABLE))
    monkeypatch.setitem(sys.modules, "registry", package)
    monkeypatch.setenv(VARIABLE, "a value to restore")
    monkeypatch.delenv(VARIABLE)
    assert parity.load("registry", "pytorch", ParityConfig(**options)) == expected


def test_an_environment_variable_that_keeps_tf32_on_is_an_error(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(UserError, match=r"unset it, or use --precision tf32"):
        environment.switch_tf32_off()


@pytest.mark.parametrize("off", [False, True])
def test_the_description_of_a_gpu_tells_whether_tf32_is_on(off, monkeypatch):
    devices = load_or_skip("pytorch").devices
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a GPU")
    monkeypatch.setenv(VARIABLE, "0" if off else "1")
    expected = "fp32" if off else "fp32, TF32 in convolutions"
    assert devices.describe([devices.gpu()])["precision"] == expected


def test_tensorflow_allocates_gpu_memory_on_demand(monkeypatch):
    """The registry's `load` sets the variable in the process that runs the checks, before the import."""
    import backends

    name = "TF_FORCE_GPU_ALLOW_GROWTH"
    monkeypatch.setenv(name, "a value to restore")
    monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(backends, "require", lambda names: None)
    found = []
    monkeypatch.setattr(
        backends,
        "import_module",
        lambda name_: found.append(os.environ.get(name)) or ModuleType("BACKEND"),
    )
    with pytest.raises(AttributeError, match="BACKEND"):
        parity.load("backends", "tensorflow", ParityConfig(device="gpu", precision="tf32"))
    assert found == ["true"]


def test_tensorflow_places_operations_without_a_gpu_kernel_on_the_cpu(tensorflow):
    """Some uint8 operations have no GPU kernel. The tab keeps TensorFlow's default, soft device placement."""
    assert tensorflow.config.get_soft_device_placement()


# --- TF32, rounded in NumPy ------------------------------------------------------------------------------------------

SIZE = 16
NUM_CHANNELS = 32  # as in the tests of bfloat16, from whose tolerances those of TF32 are derived


def in_tf32(backend: Backend) -> list[CheckResult]:
    adapter = Adapter(backend, "tf32", num_channels=NUM_CHANNELS)
    found = list(model_checks(adapter, SIZE))
    for recipe in (training.sgd(1), training.adam(1)):
        found += training.locked_steps(adapter, recipe, SIZE, 2)
    return found


def test_products_with_operands_rounded_to_tf32_pass():
    assert [r.sentence() for r in in_tf32(with_tf32(numpy_backend())) if not r.passed] == []


def test_float32_is_rejected_if_tf32_is_requested():
    (failed,) = (r for r in in_tf32(numpy_backend()) if not r.passed)
    assert failed.check == "precision in use"


def test_bfloat16_is_rejected_if_tf32_is_requested():
    rounded = with_tf32(numpy_backend(), to_bfloat16)
    adapter = Adapter(rounded, "tf32", num_channels=NUM_CHANNELS)
    failed = {result.check for result in model_checks(adapter, SIZE) if not result.passed}
    assert {"logits, evaluation", "activations, evaluation"} <= failed


def test_tf32_is_rejected_if_float32_is_requested():
    adapter = Adapter(with_tf32(numpy_backend()), "float32", num_channels=16)
    failed = {result.check for result in model_checks(adapter, 8) if not result.passed}
    assert {"logits, evaluation", "logits, training", "activations, evaluation"} <= failed


def test_free_running_training_in_tf32_stays_within_its_envelope():
    around = envelope(4, kind="tf32", num_channels=16)
    result, _ = free_running(Adapter(with_tf32(numpy_backend()), "tf32", num_channels=16), around)
    assert result.passed, result.sentence()


def test_tf32_has_a_derived_tolerance_for_each_check_of_bfloat16():
    rounded = {check: t for (check, kind), t in TOLERANCES.items() if kind == "bfloat16"}
    for check, bfloat16 in rounded.items():
        tf32 = TOLERANCES[check, "tf32"]
        assert tf32.limit in (bfloat16.limit, bfloat16.limit / 4)
        assert (tf32.limit < bfloat16.limit) == tf32.reason.startswith("derived")
    assert any(tf32.reason.startswith("derived") for tf32 in TOLERANCES.values())


@pytest.mark.parametrize(("value", "expected"), [(1 + 2**-10, 1 + 2**-10), (1 + 2**-12, 1.0)])
def test_tf32_keeps_ten_bits_after_the_point(value, expected):
    assert to_tf32([value]) == expected
