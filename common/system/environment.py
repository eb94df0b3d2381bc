"""Settings that must be made before a framework is imported, and the description of the machine.

Frameworks read environment variables only at their import, and some defaults are slow. `prepare` sets the variables of
the framework's record that the user has not set; a run prints the values in use.
"""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from common.errors import UserError
from common.interface import Engine, Framework
from common.system.cgroups import cpu_quota, memory_limit


def cores() -> int:
    """Return how many processors this process may use: those that it sees, or a container's quota, rounded up."""
    seen, quota = visible_cores(), cpu_quota()
    return seen if quota is None else min(seen, max(math.ceil(quota), 1))


def visible_cores() -> int:
    """Return the number of processors that this process can run on. A library that ignores quotas uses so many."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_limits(*variables: str) -> dict[str, str]:
    """Return environment variables that limit threads to `cores`; none without a quota, which libraries ignore."""
    return dict.fromkeys(variables, str(cores())) if cores() < visible_cores() else {}


# If any of these is set, the user has configured the memory allocator.
ALLOCATOR_VARIABLES = (
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
KEEP_BYTES = 1 << 30


def prepare(framework: Framework, precision: str = "fp32") -> None:
    """Set the environment variables of a framework that the user has not set, and keep freed memory in the process.

    If the framework has already been imported, as in a notebook, it is too late, and the variables are not set. Raises
    UserError for a setting of the user that would change the results or crash the process.
    """
    for name, (accepted, effect) in framework.refused.items():
        if (found := os.environ.get(name, "")).upper() not in ("", accepted.upper()):
            raise UserError(f"with {name}={found}, {framework.title} {effect}: unset it")
    if framework.packages[0] not in sys.modules:
        for name, value in framework.variables.items():
            os.environ.setdefault(name, value)
    if framework.before_import:
        framework.before_import(precision)
    _keep_freed_memory()


def joined_engine(framework: Framework) -> Engine | None:
    """Return the engine of a framework if its variables make this process join others, otherwise None."""
    engine = framework.engine
    return engine if engine and engine.variable in os.environ else None


def draw_to_files() -> None:
    """Keep matplotlib from a backend that the user has set for windows or a notebook. Call this before its import."""
    os.environ["MPLBACKEND"] = "Agg"


def hide_gpus() -> None:
    """Keep this process and its children off the GPUs. Call this before a framework is imported.

    TensorFlow takes memory of each GPU that it sees, also if it computes on the CPU.
    """
    os.environ[VISIBLE_GPUS] = ""


VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def num_visible_gpus() -> int:
    """Return the number of NVIDIA GPUs that a process started here would find. Imports no framework."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


def gpu_of_each(device: str, num_processes: int) -> list[str]:
    """Return the value of CUDA_VISIBLE_DEVICES for each of several processes, [] if all compute on the CPU.

    Each takes one of the GPUs that ``--device`` names, from the user's own list if there is one. Raises UserError if
    they are too few. With 'auto' that is no error, because the framework may not use GPUs.
    """
    num_gpus = 0 if device == "cpu" else num_visible_gpus()
    if device == "auto" and not num_gpus:
        return []
    numbers = gpu_indices("gpu" if device == "auto" else device, num_gpus)
    if device not in ("auto", "cpu") and len(numbers) < num_processes:
        raise UserError(
            f"--device {device} --processes {num_processes}: each process needs a GPU, and there are {len(numbers)}: "
            "use fewer processes, or --device cpu"
        )
    names = os.environ.get(VISIBLE_GPUS, ",".join(map(str, range(num_gpus)))).split(",")
    found = [names[number].strip() for number in numbers]
    return (found + [""] * num_processes)[:num_processes] if found else []


TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"


def switch_tf32_off() -> None:
    """Make NVIDIA's libraries compute fp32 products without TF32. Call this before a framework is imported.

    Raises UserError if the user has set the variable to another value.
    """
    if (found := os.environ.setdefault(TF32_VARIABLE, "0")) != "0":
        raise UserError(f"{TF32_VARIABLE}={found} keeps TF32 on: unset it, or use --precision tf32")


def tf32_is_off() -> bool:
    """Return whether `switch_tf32_off` or the user has disabled TF32."""
    return os.environ.get(TF32_VARIABLE) == "0"


def _keep_freed_memory() -> None:
    """Make glibc keep freed blocks: activations are freed with every batch, and returning them costs page faults."""
    if platform.libc_ver()[0] != "glibc" or _allocator_chosen():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


def _allocator_chosen() -> bool:
    return any(name in os.environ for name in ALLOCATOR_VARIABLES)


def in_force(framework: Framework) -> dict[str, str]:
    """Return the current values of the settings that `prepare` makes."""
    settings = {name: os.environ.get(name, "not set") for name in framework.variables}
    if platform.libc_ver()[0] == "glibc":
        settings["malloc"] = "the user's" if _allocator_chosen() else "keeps freed memory"
    return settings


def processor() -> str:
    """Return the name of the processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the processor's feature flags on Linux x86-64, else an empty set."""
    return set(_cpuinfo("flags").split())


def _cpuinfo(name: str) -> str:
    """Return the first value of ``name`` in /proc/cpuinfo, '' if there is none."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def hardware() -> dict[str, str]:
    """Return the description of the machine for the run's ``config.json``."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": str(cores()),
        "memory": f"{_memory_bytes() / 2**30:.1f} GiB",
    }


def _memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or a container's limit; 0 if it is not known."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    limit = memory_limit()
    return memory if limit is None else min(memory, limit)


def peak_memory_mib() -> float | None:
    """Return the peak memory of this process in MiB, without its children; None on Windows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    # Kibibytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of Python, the libraries of `common`, and ``packages``, without importing them."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "pillow", "matplotlib", "scikit-image", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = _version_under_another_name(package)
    return found


def _version_under_another_name(package: str) -> str:
    """Return the version of a package whose distribution has another name, such as mxnet-cu112 for mxnet."""
    others = packages_distributions().get(package, [])
    return ", ".join(f"{version(other)} ({other})" for other in others) or "not installed"


def measured_with(versions: Mapping[str, str], hardware: Mapping[str, str]) -> str:
    """Return the sentence for measured numbers: the versions, and the machine."""
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured with {named}, on {hardware['cores']} cores of {hardware['processor']}, {hardware['memory']}, "
        f"{hardware['system']}."
    )


def gpu_indices(name: str, num_gpus: int) -> list[int]:
    """Return the numbers of the GPUs that ``--device`` asks for; an empty list for the CPU.

    ``name`` is 'auto' (the first GPU, if any), 'cpu', 'gpu' (all GPUs, at least one) or numbers such as 'gpu:0,1'.
    'auto' takes one GPU, because with several each computes BatchNorm's statistics of a part of the batch: the results
    would depend on the machine. Raises UserError for any other name and for a missing GPU.
    """
    if name == "auto":
        return [0] if num_gpus else []
    if name == "gpu":
        if num_gpus == 0:
            raise UserError("--device gpu: the framework finds no GPU; use --device cpu or auto")
        return list(range(num_gpus))
    if name == "cpu":
        return []
    numbers = name.removeprefix("gpu:").split(",")
    if not name.startswith("gpu:") or not all(number.isdecimal() for number in numbers):
        raise UserError(
            f"unknown device '{name}': choose auto, cpu, gpu, or GPU numbers such as gpu:0,1"
        )
    indices = [int(number) for number in numbers]
    if len(set(indices)) < len(indices):
        raise UserError(f"--device {name} names a GPU twice: name each GPU once")
    if missing := [i for i in indices if i >= num_gpus]:
        raise UserError(
            f"--device {name}: there is no GPU {missing[0]}; the framework finds {num_gpus}"
        )
    return indices
