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
from common.commands.training import describe_machine
from common.config import TrainConfig
from common.errors import UserError
from common.interface import Framework
from common.system import environment
from common.system.environment import gpu_indices


@pytest.mark.parametrize(
    ("name", "num_gpus", "indices"),
    [
        ("auto", 0, []),
        ("auto", 2, [0]),
        ("gpu", 2, [0, 1]),
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


@pytest.mark.parametrize(
    ("device", "num_gpus", "listed", "given"),
    [
        ("cpu", 2, None, []),
        ("auto", 0, None, []),
        ("auto", 2, None, ["0", "1"]),
        ("auto", 1, None, ["0", ""]),  # MXNet's package for the CPU uses none anyway
        ("gpu", 2, "5,3", ["5", "3"]),
        ("gpu", 3, "GPU-a, GPU-b,GPU-c", ["GPU-a", "GPU-b"]),
        ("gpu:2,0", 3, None, ["2", "0"]),
        ("gpu:2,0", 3, "7,8,9", ["9", "7"]),
    ],
)
def test_each_of_two_processes_sees_a_gpu_of_its_own(monkeypatch, device, num_gpus, listed, given):
    monkeypatch.setattr(environment, "num_visible_gpus", lambda: num_gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert environment.gpu_of_each(device, 2) == given


@pytest.mark.parametrize(("device", "words"), [("gpu", "there are 1"), ("gpu:0", "there are 1")])
def test_too_few_gpus_for_the_processes_are_refused(monkeypatch, device, words):
    monkeypatch.setattr(environment, "num_visible_gpus", lambda: 1)
    with pytest.raises(UserError, match=words):
        environment.gpu_of_each(device, 2)


@pytest.mark.parametrize(
    ("name", "local_rank", "number"),
    [("auto", "1", 1), ("gpu", "0", 0), ("gpu:2,1", "1", 1), ("gpu:2,1", "0", 2)],
)
def test_a_process_of_pytorch_takes_the_gpu_of_its_local_rank(
    monkeypatch, pytorch, name, local_rank, number
):
    devices = sys.modules["backends.pytorch.devices"]
    monkeypatch.setattr(devices, "num_processes", lambda: 3)
    monkeypatch.setattr(pytorch.cuda, "device_count", lambda: 3)
    chosen = []
    monkeypatch.setattr(pytorch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert devices.get_devices(name) == [pytorch.device(f"cuda:{number}")]
    assert chosen == [number]
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UserError, match="LOCAL_RANK 3"):
        devices.get_devices(name)


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


@pytest.mark.parametrize(
    ("arguments", "hidden"),
    [
        (["augment", "--backend", "pytorch", "--device", "cpu"], True),
        (["convert", "a.pt", "b.params"], True),
        (["parity"], True),
        (["augment", "--backend", "pytorch"], False),
        (["augment", "--backend", "pytorch", "--device", "gpu:0"], False),
    ],
)
def test_commands_that_compute_on_the_cpu_hide_the_gpus_from_the_frameworks(
    monkeypatch, arguments, hidden
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(run, "import_module", lambda name: SimpleNamespace(run=lambda *_: 0))
    monkeypatch.setattr(backends, "require", lambda names: None)
    assert run.main(arguments) == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("" if hidden else "0,1")


def test_a_backend_of_matplotlib_that_does_not_exist_ends_no_run(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.setattr(run, "import_module", lambda name: SimpleNamespace(run=lambda *_: 0))
    assert run.main(["check-submission", "a.csv", "--data-dir", "."]) == 0
    assert os.environ["MPLBACKEND"] == "Agg"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_opening_block_says_that_auto_takes_one_of_several_gpus(count):
    devices = SimpleNamespace(describe=lambda *_: {"device": "cuda:0"}, num_gpus=lambda: count)
    processes = SimpleNamespace(num_processes=lambda: 1)
    backend = SimpleNamespace(framework=FRAMEWORKS["pytorch"], devices=devices, processes=processes)
    shown = describe_machine(backend, TrainConfig(device="auto"), ["cuda:0"])["device"]
    several = f"cuda:0 (1 of {count} GPUs; --device gpu takes all)"
    assert shown == ("cuda:0" if count == 1 else several)


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


def test_a_framework_whose_distribution_has_another_name_has_a_version(tmp_path, monkeypatch):
    """As mxnet-cu112 installs mxnet."""
    folder = tmp_path / "toynet_cu112-1.9.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toynet-cu112\nVersion: 1.9.1\n")
    (folder / "top_level.txt").write_text("toynet\n")
    (tmp_path / "toynet").mkdir()
    (tmp_path / "toynet" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.versions(("toynet",))["toynet"] == "1.9.1 (toynet-cu112)"


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
