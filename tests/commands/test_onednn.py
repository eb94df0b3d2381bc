"""The instructions of MXNet's oneDNN. Few machines have AMX, so processor and kernel are stand-ins."""

import os
import sys
from types import SimpleNamespace

import pytest

import backends
import run
from backends import FRAMEWORKS, onednn
from common.errors import UserError
from common.system import environment

AVX512 = "flags\t\t: fpu sse4_1 avx avx2 avx512f avx512bw avx512_vnni avx512_bf16"
WITH_AMX = f"processor\t: 0\n{AVX512} amx_bf16 amx_tile amx_int8\n"
REQUEST = (158, 0x1023, 18)  # arch_prctl, ARCH_REQ_XCOMP_PERM, the tile data: from Linux's headers


class Machine:
    """Stand-in for a processor and a kernel; records the requests to the kernel."""

    def __init__(self, monkeypatch, cpuinfo: str | None, answer: int = 0, imported: bool = False):
        self.requests, self.answer = [], answer

        def read_text():
            if cpuinfo is None:
                raise FileNotFoundError
            return cpuinfo

        libc = SimpleNamespace(syscall=self.syscall, mallopt=lambda *arguments: 1)
        monkeypatch.setattr(environment, "Path", lambda _: SimpleNamespace(read_text=read_text))
        monkeypatch.setattr(environment.ctypes, "CDLL", lambda _: libc)
        monkeypatch.delitem(sys.modules, "mxnet", raising=False)
        if imported:
            monkeypatch.setitem(sys.modules, "mxnet", SimpleNamespace())
        for name in ("DNNL_MAX_CPU_ISA", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
            monkeypatch.setenv(name, "")  # so that it is restored
            monkeypatch.delenv(name)

    def syscall(self, *arguments):
        self.requests.append(arguments)
        return self.answer

    def prepare(self, precision="bf16", framework="mxnet"):
        environment.prepare(FRAMEWORKS[framework], precision)
        return os.environ.get("DNNL_MAX_CPU_ISA")


def test_amx_permission_is_requested_and_the_instructions_are_set_before_the_import(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX)
    assert machine.prepare() == "AVX512_CORE_AMX"
    assert machine.requests == [REQUEST]
    assert onednn.instructions("bf16") == "AVX512_CORE_AMX"


def test_without_bf16_amx_is_not_used(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX)
    assert machine.prepare("fp32") is None
    assert machine.requests == []
    assert onednn.instructions("fp32") == "AVX512_CORE_BF16"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_description_of_a_run_names_the_instructions_before_the_import(monkeypatch, precision):
    def load(name, precision):
        raise UserError(f"loading {name} for {precision}")

    monkeypatch.setattr(backends, "load", load)
    with pytest.raises(UserError, match=f"loading mxnet for {precision}"):
        run._run(["--backend", "mxnet", "--precision", precision])


def test_if_linux_refuses_amx_it_is_not_used_and_the_run_says_so(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX, answer=-1)
    assert machine.prepare() is None
    assert machine.requests == [REQUEST]
    found = onednn.instructions("bf16")
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
def test_without_amx_nothing_is_requested_or_set(monkeypatch, cpuinfo, instructions):
    machine = Machine(monkeypatch, cpuinfo)
    assert machine.prepare() is None
    assert onednn.instructions("bf16") == instructions
    assert machine.requests == []


def test_only_mxnet_requests_the_permission(monkeypatch):
    for framework in ("pytorch", "tensorflow"):
        machine = Machine(monkeypatch, WITH_AMX)
        assert machine.prepare("bf16", framework) is None
        assert machine.requests == []


@pytest.mark.parametrize(
    ("chosen", "instructions"),
    [
        ("AVX2", "AVX2"),
        ("AVX512_CORE", "AVX512_CORE"),
        ("AVX2_VNNI", "AVX2"),
        ("amx", "AVX512_CORE_BF16"),  # oneDNN ignores unknown names
        ("", "AVX512_CORE_BF16"),
    ],
)
def test_the_user_s_choice_of_instructions_is_kept(monkeypatch, chosen, instructions):
    machine = Machine(monkeypatch, WITH_AMX)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", chosen)
    assert machine.prepare() == chosen
    assert onednn.instructions("bf16") == instructions
    assert machine.requests == []


@pytest.mark.parametrize("imported", [False, True])
def test_if_the_user_chooses_amx_the_permission_is_requested_even_after_the_import(
    monkeypatch, imported
):
    machine = Machine(monkeypatch, WITH_AMX, imported=imported)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert machine.prepare() == "AVX512_CORE_AMX"
    assert machine.requests == [REQUEST]


def test_if_the_user_chooses_amx_and_linux_refuses_it_an_error_comes_before_a_crash(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX, answer=-1)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    with pytest.raises(UserError, match="DNNL_MAX_CPU_ISA=AVX512_CORE_AMX: Linux refuses AMX"):
        machine.prepare()


def test_if_the_user_chooses_amx_without_such_a_processor_its_own_instructions_are_used(
    monkeypatch,
):
    machine = Machine(monkeypatch, AVX512, answer=-1)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE_AMX")
    assert machine.prepare() == "AVX512_CORE_AMX"
    assert onednn.instructions("bf16") == "AVX512_CORE_BF16"


def test_after_the_import_amx_is_not_reported_as_used(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX, imported=True)
    assert machine.prepare() is None
    found = onednn.instructions("bf16")
    assert found == "AVX512_CORE_BF16, without AMX: MXNet was imported before"


@pytest.mark.skipif(sys.platform != "linux", reason="a question to Linux")
def test_linux_answers_the_real_request():
    """Linux may refuse the request on a processor with AMX, and must refuse it on any other."""
    has_amx = environment.cpu_flags() >= onednn.AMX_FLAGS
    assert onednn.amx_allowed() in ((True, False) if has_amx else (False,))


def test_importing_the_tab_keeps_the_settings_for_bf16(monkeypatch):
    machine = Machine(monkeypatch, WITH_AMX)
    machine.prepare("bf16")
    assert machine.prepare("fp32") == "AVX512_CORE_AMX"
