"""A record for each framework, and functions to find and load them."""

import platform
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from backends import engines, onednn
from common.errors import UserError, UserNotice
from common.interface import Framework
from common.system import environment

if TYPE_CHECKING:
    from common.interface import Backend

# Packages that `common` imports, which every backend needs.
COMMON = ("matplotlib", "numpy", "rich", "safetensors", "skimage")

# oneDNN, the library on the CPU, reads the precision of fp32 products from it.
# Processors with AMX then compute them in bfloat16.
FPMATH = ("STRICT", "computes fp32 in a lower precision")
ONEDNN_PRECISION = {
    "ONEDNN_DEFAULT_FPMATH_MODE": FPMATH,
    "DNNL_DEFAULT_FPMATH_MODE": FPMATH,
}


def _before_mxnet(precision: str) -> None:
    onednn.allow_amx(precision)
    engines.serve_until_signal()


# The colours are Okabe and Ito's, which colour-blind readers can tell apart.
# Dashes and markers work without colour. Where curves meet, the wide line
# below and the hollow markers above it stay visible.
PYTORCH = Framework(
    name="pytorch",
    title="PyTorch",
    packages=("torch", "torchvision"),
    # Waiting threads should sleep: spinning ones take processor time from
    # other programs. ResNet-18 on 8 x 8 images beside another training: 5
    # images/s by default, 90 with this.
    variables={
        "OMP_WAIT_POLICY": "PASSIVE",
        **environment.thread_limits(
            "OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"
        ),
    },
    refused=ONEDNN_PRECISION,
    engine=engines.TORCHRUN,
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
    # By default MXNet uses half of the processors, and waiting threads spin.
    # Beside another training: 15 to 20 images/s by default, 64 to 77 with
    # this. Without one, batches of 16 are 6 % slower.
    variables={
        "OMP_NUM_THREADS": str(environment.cores()),
        "OMP_WAIT_POLICY": "PASSIVE",
    },
    refused=ONEDNN_PRECISION
    | {
        "MXNET_CUDA_TENSOR_OP_MATH_ALLOW_CONVERSION": (
            "0",
            "computes fp32 in float16 on a GPU",
        ),
    },
    before_import=_before_mxnet,
    engine=engines.PS_LITE,
    suffixes=(".params",),
    wheels=(("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "x86_64")),
    newest_python=(3, 12),  # of NumPy 1
    newest_numpy=1,
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
        **environment.thread_limits(
            "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"
        ),
    },
    refused=ONEDNN_PRECISION | {"TF_SET_ONEDNN_FPMATH_MODE": FPMATH},
    engine=engines.TF_CONFIG,
    suffixes=(".weights.h5",),
    newest_python=(3, 13),
    style={
        "color": "#000000",
        "linestyle": ":",
        "marker": "^",
        "markersize": 9,
        "fillstyle": "none",
    },
)
# In an order in which one process can import them: PyTorch before TensorFlow.
FRAMEWORKS = {
    framework.name: framework for framework in (PYTORCH, MXNET, TENSORFLOW)
}


def installed(name: str) -> bool:
    """Return whether a backend can be imported here, without importing it."""
    return not missing_packages(name) and not obstacle(name)


def missing_packages(name: str) -> list[str]:
    """Return the packages of a backend that are not installed."""
    packages = (*FRAMEWORKS[name].packages, *COMMON)
    return [package for package in packages if not find_spec(package)]


def obstacle(name: str) -> str:
    """Return why a framework cannot run here and what to do, "" if it can.

    To be installed, it needs wheels for this Python and this system. Once
    installed, it needs a NumPy that it works with.
    """
    framework = FRAMEWORKS[name]
    if all(find_spec(package) for package in framework.packages):
        return _newer_numpy(framework)
    place = sys.platform, platform.machine()
    if framework.wheels and place not in framework.wheels:
        return (
            f"backend {name}: there are no wheels of {name} for "
            f"{' '.join(place)}, only for "
            f"{', '.join(' '.join(wheel) for wheel in framework.wheels)}: "
            "choose another backend"
        )
    return _newer_python(framework)


def _newer_numpy(framework: Framework) -> str:
    newest = framework.newest_numpy
    if newest is None or not find_spec("numpy"):
        return ""
    numpy = version("numpy")
    if int(numpy.partition(".")[0]) <= newest:
        return ""
    return (
        f"backend {framework.name} needs NumPy {newest}, and NumPy {numpy} "
        f"is installed: pip install 'numpy<{newest + 1}'"
    )


def _newer_python(framework: Framework) -> str:
    this = sys.version_info[:2]
    if framework.newest_python is None or this <= framework.newest_python:
        return ""
    newest = "{}.{}".format(*framework.newest_python)
    return (
        f"backend {framework.name} needs Python {newest} or older, and this "
        f"is Python {this[0]}.{this[1]}: choose another backend, or start "
        f"with uv run --python {newest} --extra {framework.name}"
    )


def without_obstacle(names: Sequence[str]) -> list[str]:
    """Return the backends that can run here, and warn about the others.

    These include backends that are not installed yet. Raises UserError
    if no backend can run here.
    """
    obstacles = {name: obstacle(name) for name in names}
    possible = [name for name in names if not obstacles[name]]
    if not possible:
        raise UserError("; ".join(obstacles.values()))
    for why in filter(None, obstacles.values()):
        warnings.warn(UserNotice(f"left out: {why}"), stacklevel=2)
    return possible


def require(names: Sequence[str]) -> None:
    """Raise UserError if one of these backends cannot be imported here."""
    for name in names:
        if why := obstacle(name):
            raise UserError(why)
    missing = [name for name in names if not installed(name)]
    if missing:
        packages = [p for name in missing for p in missing_packages(name)]
        extras = ["all"] if set(names) == set(FRAMEWORKS) else names
        raise UserError(
            f"backend {', '.join(missing)} needs "
            f"{', '.join(dict.fromkeys(packages))}: install the extra "
            f"'{','.join(extras)}', with pip install '.[{','.join(extras)}]' "
            f"or uv run {' '.join(f'--extra {extra}' for extra in extras)}"
        )


def require_sync_batch_norm(names: Sequence[str]) -> None:
    """Raise UserError if one of these cannot synchronise BatchNorm."""
    for name in names:
        engine = FRAMEWORKS[name].engine
        if engine and (why := engine.no_sync_batch_norm):
            raise UserError(f"--sync-batch-norm: in {name}, {why}")


def load(name: str, precision: str = "fp32") -> "Backend":
    """Import a backend and its framework.

    Some frameworks must know the `precision` of this process before their
    import. Raises UserError for an unknown name or a framework that is not
    installed. An installed framework that fails to import is broken: its own
    error is raised.
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
    """Import several backends, in the order of FRAMEWORKS.

    A process cannot import them in every order. A backend that is only wanted,
    and is missing or broken, is left out with a notice. For a needed one,
    raises as `load` does.
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
    """Raise UserError if importing PyTorch would abort the process.

    PyTorch imports its Triton late. After TensorFlow, Triton aborts the
    process, because both contain LLVM and register its options. The TensorFlow
    tab therefore imports Triton first; `import tensorflow` does not.
    """
    late = "tensorflow" in sys.modules and "triton" not in sys.modules
    if late and find_spec("triton"):
        raise UserError(
            "PyTorch cannot be imported after TensorFlow: its Triton would "
            "abort the process. Import PyTorch first, or use two processes"
        )
