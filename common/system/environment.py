"""What must be set before a framework is imported, and what machine this is. All of it in this one place.

Frameworks read environment variables once, when they are imported, and their silent defaults cost speed. `prepare`
sets what the user has not set, and the run prints what is in force.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.errors import UserError


def cores() -> int:
    """Return the number of processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# framework: variables to set where the user has not set them.
VARIABLES: dict[str, dict[str, str]] = {
    # Threads that wait should sleep, not spin: where anything else runs on the machine, spinning ones keep each other
    # from the cores. ResNet-18 on 8 x 8 images beside another training: 5 images/s as it comes, 90 with this.
    "pytorch": {"OMP_WAIT_POLICY": "PASSIVE"},
    # Left alone, MXNet computes on half of the processors. Waiting threads cost it likewise: the small training beside
    # another makes 15 to 20 images/s as it comes and 64 to 77 with this; alone, batches of 16 are 6 % slower.
    "mxnet": {"OMP_NUM_THREADS": str(cores()), "OMP_WAIT_POLICY": "PASSIVE"},
    # Log errors alone; take GPU memory as it is needed, not all of it at once.
    "tensorflow": {
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    },
}

# Any of these says that the user has chosen how memory is kept.
ALLOCATOR_VARIABLES = (
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
KEEP_BYTES = 1 << 30

# oneDNN, which computes for MXNet on the CPU, reads in this variable the newest instructions that it may take. By its
# own names, newest first, and Linux's flag for each; it takes AMX only where it is named.
ONEDNN_VARIABLE = "DNNL_MAX_CPU_ISA"
AMX = "AVX512_CORE_AMX"
INSTRUCTIONS = {
    AMX: "amx_bf16",
    "AVX512_CORE_BF16": "avx512_bf16",
    "AVX512_CORE_VNNI": "avx512_vnni",
    "AVX512_CORE": "avx512bw",
    "AVX2_VNNI": "avx_vnni",
    "AVX2": "avx2",
    "AVX": "avx",
    "SSE41": "sse4_1",
}
AMX_FLAGS = {"amx_tile", "amx_bf16"}
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA = 158, 0x1023, 18  # Linux on x86-64

# What this process will compute in, where that is known before the import: AMX is for who wants bf16, and nobody else.
wanted_precisions: set[str] = set()


def prepare(framework: str, module: str) -> None:
    """Set what ``framework`` reads at import, where the user has not, and keep freed memory in the process.

    Where its ``module`` has been imported already, as in a notebook, it is too late for the variables: they stay unset.
    Raises UserError where the user has chosen what would kill the process.
    """
    imported = module in sys.modules
    if not imported:
        for name, value in VARIABLES.get(framework, {}).items():
            os.environ.setdefault(name, value)
    if framework == "mxnet" and cpu_flags() >= AMX_FLAGS:
        _let_onednn_take_amx(imported)
    _keep_freed_memory()


def _let_onednn_take_amx(imported: bool) -> None:
    """Name AMX to oneDNN where bf16 is wanted, Linux allows it and the user has chosen nothing.

    Raises UserError where the user has named it and Linux refuses it.
    """
    chosen = os.environ.get(ONEDNN_VARIABLE)
    if chosen not in (None, AMX) or (chosen is None and "bf16" not in wanted_precisions):
        return
    allowed = _amx_allowed()
    if chosen == AMX and not allowed:
        raise UserError(
            f"{ONEDNN_VARIABLE}={AMX}: Linux refuses AMX to this process, which would die of it: unset the variable"
        )
    if allowed and not imported:
        os.environ[ONEDNN_VARIABLE] = AMX


def _amx_allowed() -> bool:
    """Ask Linux for AMX's registers, and return whether this process and its threads may use them.

    The oneDNN 2.4 of MXNet does not ask: without the permission the process dies of SIGILL.
    """
    libc = ctypes.CDLL(None)
    return libc.syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0


def onednn_instructions() -> str:
    """Return the newest instructions that oneDNN takes in MXNet, '' where Linux does not say what the processor has."""
    flags, names = cpu_flags(), list(INSTRUCTIONS)
    chosen = os.environ.get(ONEDNN_VARIABLE)
    # It ignores a name that it does not know.
    allowed = names[names.index(chosen) if chosen in names else 1 :]
    found = next((name for name in allowed if INSTRUCTIONS[name] in flags), "")
    if chosen is None and "bf16" in wanted_precisions and flags >= AMX_FLAGS:
        why = "MXNet was imported before" if _amx_allowed() else "Linux refuses it"
        return f"{found}, without AMX: {why}"
    return found


def _keep_freed_memory() -> None:
    """Let glibc keep freed blocks: activations come and go with every batch, and returning them costs page faults."""
    if platform.libc_ver()[0] != "glibc" or _allocator_chosen():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


def _allocator_chosen() -> bool:
    return any(name in os.environ for name in ALLOCATOR_VARIABLES)


def in_force(framework: str) -> dict[str, str]:
    """Return the environment settings that `prepare` looks after, as they are now."""
    settings = {name: os.environ.get(name, "not set") for name in VARIABLES.get(framework, {})}
    if platform.libc_ver()[0] == "glibc":
        settings["malloc"] = "the user's" if _allocator_chosen() else "keeps freed memory"
    return settings


def processor() -> str:
    """Return the processor's name, as the operating system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the processor's features as Linux names them on x86-64, nothing elsewhere."""
    return set(_cpuinfo("flags").split())


def _cpuinfo(name: str) -> str:
    """Return the first value of that name in Linux's list of processors, '' where there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def hardware() -> dict[str, str]:
    """Return what the run's record says of the machine."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": str(cores()),
        "memory": f"{_memory_bytes() / 2**30:.1f} GiB",
    }


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def peak_memory_mib() -> float | None:
    """Return the most memory that this process has held at once, in MiB, without its children; None on Windows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    # Kibibytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of Python, of what draws and computes, and of ``packages``, without importing them."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "pillow", "matplotlib", "scikit-image", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def measured_with(versions: Mapping[str, str], hardware: Mapping[str, str]) -> str:
    """Return the sentence that stands with measured numbers: what they were measured with, and on which machine."""
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured with {named}, on {hardware['cores']} cores of {hardware['processor']}, {hardware['memory']}, "
        f"{hardware['system']}."
    )


def gpu_indices(name: str, num_gpus: int) -> list[int]:
    """Return the GPUs that ``--device`` asks for, none for the CPU.

    ``name`` is 'auto' (every GPU there is), 'cpu', 'gpu' (every GPU, at least one) or numbers as 'gpu:0,1'. Raises
    UserError for any other name and for a GPU that is not there.
    """
    if name in ("auto", "gpu"):
        if name == "gpu" and num_gpus == 0:
            raise UserError("--device gpu: the framework finds no GPU; use --device cpu or auto")
        return list(range(num_gpus))
    if name == "cpu":
        return []
    numbers = name.removeprefix("gpu:").split(",")
    if not name.startswith("gpu:") or not all(number.isdecimal() for number in numbers):
        raise UserError(f"unknown device '{name}': choose auto, cpu, gpu, or numbers as gpu:0,1")
    indices = [int(number) for number in numbers]
    if len(set(indices)) < len(indices):
        raise UserError(f"--device {name} names a GPU twice")
    if missing := [i for i in indices if i >= num_gpus]:
        raise UserError(
            f"--device {name}: there is no GPU {missing[0]}; the framework finds {num_gpus}"
        )
    return indices
