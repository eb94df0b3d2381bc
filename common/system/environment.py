"""What must be set before a framework is imported, and which machine this is.

Frameworks read environment variables once, when they are imported, and their silent defaults cost speed. `prepare`
sets those of the framework's record that the user has not set, and the run prints what is in force.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.errors import UserError
from common.interface import Framework


def cores() -> int:
    """Return the number of processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Any of these says that the user has chosen how memory is kept.
ALLOCATOR_VARIABLES = (
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
KEEP_BYTES = 1 << 30


def prepare(framework: Framework, precision: str = "fp32") -> None:
    """Set what a framework reads at its import, where the user has not, and keep freed memory in the process.

    If the framework has been imported already, as in a notebook, it is too late for the variables: they stay unset.
    Raises UserError if the user has chosen what would kill the process.
    """
    if framework.packages[0] not in sys.modules:
        for name, value in framework.variables.items():
            os.environ.setdefault(name, value)
    if framework.before_import:
        framework.before_import(precision)
    _keep_freed_memory()


TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"


def switch_tf32_off() -> None:
    """Have NVIDIA's libraries compute fp32 products in full, whatever the framework asks of them; before its import.

    Raises UserError if the user has set the variable to something else.
    """
    if (found := os.environ.setdefault(TF32_VARIABLE, "0")) != "0":
        raise UserError(f"{TF32_VARIABLE}={found} keeps TF32 on: unset it, or use --precision tf32")


def tf32_is_off() -> bool:
    """Return whether `switch_tf32_off`, or the user, has switched TF32 off."""
    return os.environ.get(TF32_VARIABLE) == "0"


def _keep_freed_memory() -> None:
    """Let glibc keep freed blocks: activations come and go with every batch, and returning them costs page faults."""
    if platform.libc_ver()[0] != "glibc" or _allocator_chosen():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


def _allocator_chosen() -> bool:
    return any(name in os.environ for name in ALLOCATOR_VARIABLES)


def in_force(framework: Framework) -> dict[str, str]:
    """Return the environment settings that `prepare` looks after, as they are now."""
    settings = {name: os.environ.get(name, "not set") for name in framework.variables}
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
