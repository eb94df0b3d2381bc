"""One record for each framework; which are installed; loading one."""

import platform
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from backends import onednn
from common.errors import UserError, UserNotice
from common.interface import Framework
from common.system import environment

if TYPE_CHECKING:
    from common.interface import Backend

# Packages that `common` imports, which every backend needs.
COMMON = ("matplotlib", "numpy", "rich", "safetensors", "skimage")

# Colours are Okabe and Ito's, which colour-blind readers can tell apart; the
# dashes and markers need no colour. Where curves meet, the wide line below
# and the hollow markers above it stay visible.
PYTORCH = Framework(
    name="pytorch",
    title="PyTorch",
    packages=("torch", "torchvision"),
    # Threads that wait should sleep: spinning ones keep the processors from
    # other programs. ResNet-18 on 8 x 8 images beside another training:
    # 5 images/s by default, 90 with this.
    variables={"OMP_WAIT_POLICY": "PASSIVE"},
    suffixes=(".pt", ".pth"),
    style={
        "color": "#0072B2",
        "linestyle": "-",
        "marker": "o",
        "linewidth": 2.4,
        "markersize": 5,
    },
)
MXNET = Framework(
    name="mxnet",
    title="MXNet",
    packages=("mxnet",),
    # By default MXNet computes on half of the processors. Sleeping threads:
    # 15 to 20 images/s by default beside another training, 64 to 77 with
    # this; batches of 16 without another training are 6 % slower.
    variables={
        "OMP_NUM_THREADS": str(environment.cores()),
        "OMP_WAIT_POLICY": "PASSIVE",
    },
    before_import=onednn.allow_amx,
    suffixes=(".params",),
    wheels=(("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64")),
    style={
        "color": "#D55E00",
        "linestyle": "--",
        "marker": "s",
        "markersize": 7,
        "fillstyle": "none",
    },
)
TENSORFLOW = Framework(
    name="tensorflow",
    title="TensorFlow",
    packages=("tensorflow", "keras"),
    # Log only errors; take GPU memory as it is needed, not all at once.
    variables={
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    },
    suffixes=(".weights.h5",),
    style={
        "color": "#000000",
        "linestyle": ":",
        "marker": "^",
        "markersize": 9,
        "fillstyle": "none",
    },
)
# In the order in which one process can import them: PyTorch cannot follow
# TensorFlow.
FRAMEWORKS = {
    framework.name: framework for framework in (PYTORCH, MXNET, TENSORFLOW)
}


def installed(name: str) -> bool:
    """Tell whether a backend's packages are there, without importing them."""
    return not missing_packages(name)


def missing_packages(name: str) -> list[str]:
    """Return the packages of a backend that are not there."""
    packages = (*FRAMEWORKS[name].packages, *COMMON)
    return [package for package in packages if not find_spec(package)]


def require(names: Sequence[str]) -> None:
    """Raise UserError where packages of these backends are not there."""
    missing = [name for name in names if not installed(name)]
    place = sys.platform, platform.machine()
    for name in missing:
        wheels = FRAMEWORKS[name].wheels
        if wheels and place not in wheels:
            raise UserError(
                f"backend {name}: there are no wheels of {name} for "
                f"{' '.join(place)}, only for "
                + ", ".join(" ".join(wheel) for wheel in wheels)
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


def load(name: str, precision: str = "fp32") -> "Backend":
    """Import a backend, and with it its framework.

    `precision` is what the process will compute in: some frameworks must know
    it before their import. Raises UserError for an unknown name and for a
    framework that is not installed. A framework that is installed and fails
    to import is broken, not absent: its own error passes through.
    """
    if name not in FRAMEWORKS:
        choices = ", ".join(FRAMEWORKS)
        raise UserError(f"unknown backend '{name}': choose from {choices}")
    require([name])
    environment.prepare(FRAMEWORKS[name], precision)
    backend: Backend = import_module(f"backends.{name}").BACKEND
    return backend


def load_several(
    needed: Sequence[str],
    wanted: Sequence[str] = (),
    precision: str = "fp32",
) -> dict[str, "Backend"]:
    """Import several backends in the one order that a process allows.

    It is that of FRAMEWORKS. What is only wanted, and cannot be had or is
    broken, is left out with a notice. Raises for what is needed as `load`
    does.
    """
    loaded = {}
    order = [*FRAMEWORKS, *needed]  # an unknown name comes last
    for name in sorted({*needed, *wanted}, key=order.index):
        try:
            loaded[name] = load(name, precision)
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
