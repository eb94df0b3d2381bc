"""What is set before a framework is imported, and what the machine is called."""

import os
import sys
from types import SimpleNamespace

import pytest

import backends
import run
from common.errors import UserError
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
def test_devices_that_are_not_there_are_refused(name, num_gpus, message):
    with pytest.raises(UserError, match=message):
        gpu_indices(name, num_gpus)


def test_variables_are_set_only_where_the_user_has_not(monkeypatch):
    monkeypatch.setitem(environment.VARIABLES, "toy", {"TOY_A": "1", "TOY_B": "2"})
    monkeypatch.setenv("TOY_A", "mine")
    monkeypatch.delenv("TOY_B", raising=False)
    environment.prepare("toy", "no_such_module")
    in_force = environment.in_force("toy")
    monkeypatch.delenv("TOY_B")
    assert (in_force["TOY_A"], in_force["TOY_B"]) == ("mine", "2")


def test_variables_that_come_too_late_are_not_claimed_to_be_in_force(monkeypatch):
    monkeypatch.setitem(environment.VARIABLES, "toy", {"TOY_A": "1"})
    monkeypatch.delenv("TOY_A", raising=False)
    environment.prepare("toy", "numpy")
    assert environment.in_force("toy")["TOY_A"] == "not set"


@pytest.mark.parametrize("name", environment.ALLOCATOR_VARIABLES)
def test_the_user_s_allocator_is_left_alone(monkeypatch, name):
    calls = []
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(environment.ctypes, "CDLL", lambda _: calls.append(1))
    monkeypatch.setenv(name, "x")
    environment.prepare("pytorch", "torch")
    assert not calls
    assert environment.in_force("pytorch")["malloc"] == "the user's"


def test_freed_memory_is_kept_where_the_user_has_not_chosen(monkeypatch):
    calls = []
    libc = SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(environment.ctypes, "CDLL", lambda _: libc)
    for name in environment.ALLOCATOR_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    environment.prepare("pytorch", "torch")
    assert sorted(calls) == [(-3, 2**30), (-1, 2**30)]  # mmap and trim thresholds
    assert environment.in_force("pytorch")["malloc"] == "keeps freed memory"


def test_threads_of_pytorch_sleep_while_they_wait(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    environment.prepare("pytorch", "no_such_module")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


# --- AMX: few machines have it, so processor and kernel are stand-ins -----------------------------------------------

AVX512 = "flags\t\t: fpu sse4_1 avx avx2 avx512f avx512bw avx512_vnni avx512_bf16"
WITH_AMX = f"processor\t: 0\n{AVX512} amx_bf16 amx_tile amx_int8\n"
REQUEST = (158, 0x1023, 18)  # arch_prctl, ARCH_REQ_XCOMP_PERM, the tile data: from Linux's headers


class Machine:
    """Stands for a processor and a kernel; keeps what the kernel was asked."""

    def __init__(self, monkeypatch, cpuinfo: str | None, answer: int = 0):
        self.requests, self.answer = [], answer

        def read_text():
            if cpuinfo is None:
                raise FileNotFoundError
            return cpuinfo

        libc = SimpleNamespace(syscall=self.syscall, mallopt=lambda *arguments: 1)
        monkeypatch.setattr(environment, "Path", lambda _: SimpleNamespace(read_text=read_text))
        monkeypatch.setattr(environment.ctypes, "CDLL", lambda _: libc)
        monkeypatch.setattr(environment, "wanted_precisions", {"bf16"})
        for name in ("DNNL_MAX_CPU_ISA", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
            monkeypatch.setenv(name, "")  # so that it is put back
            monkeypatch.delenv(name)

    def syscall(self, *arguments):
        self.requests.append(arguments)
        return self.answer

    def prepare(self, framework="mxnet", module="no_such_module"):
        environment.prepare(framework, module)
        return os.environ.get("DNNL_MAX_CPU_ISA")


def test_amx_is_asked_for_and_then_named_before_the_import(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX)
    assert machine.prepare() == "AVX512_CORE_AMX"
    assert machine.requests == [REQUEST]
    assert environment.onednn_instructions() == "AVX512_CORE_AMX"


def test_who_does_not_want_bf16_goes_without_amx(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX)
    monkeypatch.setattr(environment, "wanted_precisions", {"fp32"})
    assert machine.prepare() is None
    assert machine.requests == []
    assert environment.onednn_instructions() == "AVX512_CORE_BF16"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_says_what_it_will_compute_in_before_the_framework_is_imported(
    monkeypatch, precision
):
    monkeypatch.setattr(environment, "wanted_precisions", set())

    def load(name):
        raise UserError(f"loading {name} for {environment.wanted_precisions}")

    monkeypatch.setattr(backends, "load", load)
    with pytest.raises(UserError, match=f"loading mxnet for {{'{precision}'}}"):
        run._run(["--backend", "mxnet", "--precision", precision])


def test_amx_that_linux_refuses_is_left_alone_and_the_run_says_so(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX, answer=-1)
    assert machine.prepare() is None
    assert machine.requests == [REQUEST]
    found = environment.onednn_instructions()
    assert found == "AVX512_CORE_BF16, without AMX: Linux refuses it"


@pytest.mark.parametrize(
    ("cpuinfo", "instructions"),
    [
        (f"processor\t: 0\n{AVX512}\n", "AVX512_CORE_BF16"),
        (f"{AVX512} amx_int8\n", "AVX512_CORE_BF16"),
        (f"{AVX512} amx_int8 amx_tile\n", "AVX512_CORE_BF16"),
        ("flags\t: sse4_1 avx avx2 avx512f avx512bw\n", "AVX512_CORE"),
        ("flags\t: sse4_1 avx avx2\n", "AVX2"),
        ("flags\t: fpu\n", ""),
        ("Features\t: fp asimd bf16 i8mm\n", ""),  # an ARM
        (None, ""),  # not Linux
    ],
)
def test_without_amx_nothing_is_asked_and_nothing_set(monkeypatch, cpuinfo, instructions):
    machine = Machine(monkeypatch, cpuinfo)
    assert machine.prepare() is None
    assert environment.onednn_instructions() == instructions
    assert machine.requests == []


def test_only_mxnet_needs_the_permission_asked_for(monkeypatch):
    for framework in ("pytorch", "tensorflow"):
        machine = Machine(monkeypatch, WITH_AMX)
        assert machine.prepare(framework) is None
        assert machine.requests == []


@pytest.mark.parametrize(
    ("chosen", "instructions"),
    [
        ("AVX2", "AVX2"),
        ("AVX512_CORE", "AVX512_CORE"),
        ("AVX2_VNNI", "AVX2"),
        ("amx", "AVX512_CORE_BF16"),  # oneDNN ignores what it does not know
        ("", "AVX512_CORE_BF16"),
    ],
)
def test_who_chooses_other_instructions_keeps_them(monkeypatch, chosen, instructions):
    machine = Machine(monkeypatch, WITH_AMX)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", chosen)
    assert machine.prepare() == chosen
    assert environment.onednn_instructions() == instructions
    assert machine.requests == []


@pytest.mark.parametrize("module", ["no_such_module", "numpy"])
def test_who_names_amx_gets_the_permission_also_after_the_import(monkeypatch, module):
    machine = Machine(monkeypatch, WITH_AMX)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert machine.prepare(module=module) == "AVX512_CORE_AMX"
    assert machine.requests == [REQUEST]


def test_who_names_amx_that_linux_refuses_is_told_before_the_process_would_die(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX, answer=-1)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    with pytest.raises(UserError, match="DNNL_MAX_CPU_ISA=AVX512_CORE_AMX: Linux refuses AMX"):
        machine.prepare()


def test_who_names_amx_on_another_processor_gets_what_it_has(monkeypatch):
    machine = Machine(monkeypatch, AVX512, answer=-1)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert machine.prepare() == "AVX512_CORE_AMX"
    assert environment.onednn_instructions() == "AVX512_CORE_BF16"


def test_after_the_import_amx_is_not_claimed_to_be_in_force(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX)
    assert machine.prepare(module="numpy") is None
    found = environment.onednn_instructions()
    assert found == "AVX512_CORE_BF16, without AMX: MXNet was imported before"


@pytest.mark.skipif(sys.platform != "linux", reason="a question to Linux")
def test_linux_answers_the_question():
    """Where the processor has AMX it may be refused, elsewhere it must be."""
    has_amx = environment.cpu_flags() >= environment.AMX_FLAGS
    assert environment._amx_allowed() in ((True, False) if has_amx else (False,))


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


def test_peak_memory_grows_by_what_is_held_and_stays():
    before = environment.peak_memory_mib()
    if before is None:
        pytest.skip("Windows does not say")
    held = bytearray(os.urandom(1)) * int((before + 64) * 2**20)
    assert environment.peak_memory_mib() > len(held) / 2**20
    del held
    assert environment.peak_memory_mib() > before + 64


@pytest.mark.parametrize(("platform", "mebibytes"), [("linux", 3072), ("darwin", 3)])
def test_peak_memory_is_read_in_the_system_s_unit(platform, mebibytes, monkeypatch):
    resource = pytest.importorskip("resource")
    usage = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(environment.sys, "platform", platform)
    assert environment.peak_memory_mib() == mebibytes


def test_peak_memory_is_unknown_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert environment.peak_memory_mib() is None
