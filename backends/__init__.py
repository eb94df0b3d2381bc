"""The frameworks: which there are, which are installed, and loading one."""

import platform
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from common.errors import UserError, UserNotice

if TYPE_CHECKING:  # NumPy comes with it, and --help should not wait for that
    from common.interface import Backend

# What every backend needs beside its framework, of what `common` imports.
COMMON = ("matplotlib", "numpy", "rich", "safetensors", "skimage")
# Backend: the packages that it imports.
FRAMEWORKS = {
    "pytorch": ("torch", "torchvision"),
    "mxnet": ("mxnet",),
    "tensorflow": ("tensorflow", "keras"),
}
# Where wheels of a framework exist, if not everywhere: (system, processor).
WHEELS = {
    "mxnet": (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64"))
}


def installed(name: str) -> bool:
    """Tell whether a backend's packages are there, without importing them."""
    return not missing_packages(name)


def missing_packages(name: str) -> list[str]:
    """Return the packages of a backend that are not there."""
    packages = (*FRAMEWORKS[name], *COMMON)
    return [package for package in packages if not find_spec(package)]


def require(names: Sequence[str]) -> None:
    """Raise UserError where packages of these backends are not there."""
    missing = [name for name in names if not installed(name)]
    place = sys.platform, platform.machine()
    for name in missing:
        if place not in WHEELS.get(name, [place]):
            raise UserError(
                f"backend {name}: there are no wheels of {name} for "
                f"{' '.join(place)}, only for "
                + ", ".join(" ".join(wheel) for wheel in WHEELS[name])
            )
    if missing:
        packages = [p for name in missing for p in missing_packages(name)]
        extras = ["all"] if set(names) == set(FRAMEWORKS) else names
        raise UserError(
            f"backend {', '.join(missing)} needs "
            f"{', '.join(dict.fromkeys(packages))}: install the extra "
            f"'{','.join(extras)}', with pip install '.[{','.join(extras)}]' "
            f"or uv run {' '.join(f'--extra {extra}' for extra in extras)}"
        )


def load(name: str) -> "Backend":
    """Import a backend, and with it its framework.

    Raises UserError for an unknown name and for a framework that is not
    installed. A framework that is installed and fails to import is broken,
    not absent: its own error passes through.
    """
    if name not in FRAMEWORKS:
        choices = ", ".join(FRAMEWORKS)
        raise UserError(f"unknown backend '{name}': choose from {choices}")
    require([name])
    backend: Backend = import_module(f"backends.{name}").BACKEND
    return backend


def load_several(
    needed: Sequence[str], wanted: Sequence[str] = ()
) -> dict[str, "Backend"]:
    """Import several backends in the one order that a process allows.

    It is that of FRAMEWORKS, as PyTorch cannot follow TensorFlow. What is
    only wanted, and cannot be had or is broken, is left out with a notice.
    Raises for what is needed as `load` does.
    """
    loaded = {}
    order = [*FRAMEWORKS, *needed]  # an unknown name comes last
    for name in sorted({*needed, *wanted}, key=order.index):
        try:
            loaded[name] = load(name)
        except UserError as error:
            if name in needed:
                raise
            warnings.warn(UserNotice(str(error)), stacklevel=2)
        except Exception as error:  # a broken framework raises anything
            if name in needed:
                raise
            why = (str(error).splitlines() or [type(error).__name__])[0]
            notice = f"backend {name} is left out, as its import fails: {why}"
            warnings.warn(UserNotice(notice), stacklevel=2)
    return loaded


def refuse_triton_after_tensorflow() -> None:
    """Raise UserError where PyTorch would end the process.

    Triton comes with PyTorch, which imports it late; after TensorFlow it
    aborts the process, as both bring LLVM and register its options. The
    TensorFlow tab imports it first; who imports TensorFlow alone does not.
    """
    late = "tensorflow" in sys.modules and "triton" not in sys.modules
    if late and find_spec("triton"):
        raise UserError(
            "PyTorch cannot follow TensorFlow in this process, as its Triton "
            "would end it: import PyTorch first, or use a process for each"
        )
