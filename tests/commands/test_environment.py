"""The settings made before a framework is imported, and the description of the machine."""

import os
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import python

import backends
import run
from backends import FRAMEWORKS
from common.errors import UserError
from common.interface import Framework
from common.system import environment
from common.system.environment import gpu_indices


@pytest.mark.parametrize(
    ("name", "num_gpus", "indices"),
    [
        ("auto", 0, []),
        ("auto", 2, [0, 1]),
        ("cpu", 2, []),
        ("gpu", 1, [0]),
        ("gpu:1", 2, [1]),
        ("gpu:2,0", 3, [2, 0]),
    ],
)
def test_device_names_choose_gpus(name, num_gpus, indices):
    assert gpu_indices(name, num_gpus) == indices


@pytest.mark.parametrize(
    ("name", "num_gpus", "message"),
    [
        ("gpu", 0, "finds no GPU"),
        ("gpu:1", 1, "there is no GPU 1"),
        ("gpu:0,0", 1, "twice"),
        ("tpu", 1, "unknown device"),
        ("gpu:", 1, "unknown device"),
        ("gpu:-1", 1, "unknown device"),
        ("cuda:0", 1, "unknown device"),
        ("1", 2, "unknown device"),
    ],
)
def test_missing_devices_are_refused(name, num_gpus, message):
    with pytest.raises(UserError, match=message):
        gpu_indices(name, num_gpus)


def test_variables_are_set_only_if_the_user_has_not_set_them(monkeypatch):
    toy = Framework("toy", "Toy", ("no_such_module",), variables={"TOY_A": "1", "TOY_B": "2"})
    monkeypatch.setenv("TOY_A", "mine")
    monkeypatch.delenv("TOY_B", raising=False)
    environment.prepare(toy)
    in_force = environment.in_force(toy)
    monkeypatch.delenv("TOY_B")
    assert (in_force["TOY_A"], in_force["TOY_B"]) == ("mine", "2")


@pytest.mark.parametrize(
    ("backend", "name", "value"),
    [
        *((backend, "ONEDNN_DEFAULT_FPMATH_MODE", "BF16") for backend in FRAMEWORKS),
        ("mxnet", "DNNL_DEFAULT_FPMATH_MODE", "any"),
        ("mxnet", "MXNET_CUDA_TENSOR_OP_MATH_ALLOW_CONVERSION", "1"),
        ("mxnet", "DMLC_ROLE", "server"),
        ("tensorflow", "TF_SET_ONEDNN_FPMATH_MODE", "bf16"),
    ],
)
def test_a_variable_that_would_change_the_results_is_refused_in_one_line(
    monkeypatch, capsys, backend, name, value
):
    monkeypatch.setattr(backends, "require", lambda names: None)
    monkeypatch.setenv(name, value)
    assert run.main(["--backend", backend]) == 2
    assert re.fullmatch(f"error: with {name}={value}, .*: unset it\n", capsys.readouterr().err)


def test_the_same_variable_may_say_what_is_the_case_anyway(monkeypatch):
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "strict")
    monkeypatch.setenv("DMLC_ROLE", "worker")
    for framework in FRAMEWORKS.values():
        environment.prepare(framework)


def test_after_the_import_variables_are_not_set(monkeypatch):
    toy = Framework("toy", "Toy", ("numpy",), variables={"TOY_A": "1"})
    monkeypatch.delenv("TOY_A", raising=False)
    environment.prepare(toy)
    assert environment.in_force(toy)["TOY_A"] == "not set"


@pytest.mark.parametrize("name", environment.ALLOCATOR_VARIABLES)
def test_the_user_s_allocator_settings_are_not_changed(monkeypatch, name):
    calls = []
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(environment.ctypes, "CDLL", lambda _: calls.append(1))
    monkeypatch.setenv(name, "x")
    environment.prepare(FRAMEWORKS["pytorch"])
    assert not calls
    assert environment.in_force(FRAMEWORKS["pytorch"])["malloc"] == "the user's"


def test_freed_memory_is_kept_by_default(monkeypatch):
    calls = []
    libc = SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(environment.ctypes, "CDLL", lambda _: libc)
    for name in environment.ALLOCATOR_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    environment.prepare(FRAMEWORKS["pytorch"])
    assert sorted(calls) == [(-3, 2**30), (-1, 2**30)]  # mmap and trim thresholds
    assert environment.in_force(FRAMEWORKS["pytorch"])["malloc"] == "keeps freed memory"


def test_threads_of_pytorch_sleep_while_they_wait(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    environment.prepare(replace(FRAMEWORKS["pytorch"], packages=("no_such_module",)))
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


# --- The machine ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux says which cores are ours")
def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5, 7})
    assert environment.cores() == 3


def test_the_record_names_processor_cores_memory_and_versions():
    hardware = environment.hardware()
    assert hardware["processor"]
    assert int(hardware["cores"]) >= 1
    assert float(hardware["memory"].removesuffix(" GiB")) > 0
    versions = environment.versions(("numpy", "no-such-package"))
    assert versions["numpy"][0].isdigit()
    assert versions["no-such-package"] == "not installed"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say")
def test_peak_memory_grows_with_an_allocation_and_does_not_shrink():
    """In a new process: here, only an allocation above the peak of all earlier tests would show."""
    script = """
from common.system.environment import peak_memory_mib
before = peak_memory_mib()
held = b"x" * (int(before + 64) * 2**20)
assert peak_memory_mib() > len(held) / 2**20
del held
assert peak_memory_mib() > before + 64
"""
    done = python(script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("platform", "mebibytes"), [("linux", 3072), ("darwin", 3)])
def test_peak_memory_is_converted_from_the_system_s_unit(platform, mebibytes, monkeypatch):
    resource = pytest.importorskip("resource")
    usage = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(environment.sys, "platform", platform)
    assert environment.peak_memory_mib() == mebibytes


def test_peak_memory_is_none_if_the_system_has_no_such_function(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert environment.peak_memory_mib() is None
