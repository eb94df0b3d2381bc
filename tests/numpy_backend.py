"""The NumPy tab of docs/add-a-backend.md as a backend for tests: unchanged, or with mistakes planted in its source.

It tests the parity checks. Unchanged, it must pass all of them; each planted mistake must be rejected by the checks
that are meant for it.

The tab refuses bf16. For these tests it also computes in bfloat16 and rounds as the frameworks do: the operands and
results of convolutions and products, and the results of the layers in between.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from backends import FRAMEWORKS
from common.interface import Backend, Framework
from common.reference import ALIGNED, Conventions

ROOT = Path(__file__).parents[1]
TAB = ROOT / "docs" / "examples" / "numpy_tab"
PAGE = (ROOT / "docs" / "add-a-backend.md").read_text(encoding="utf-8")
# The record that the page adds to FRAMEWORKS.
(_RECORD,) = re.findall(r'^FRAMEWORKS\["numpy"\] = (Framework\(.*?^\))$', PAGE, re.M | re.S)
FRAMEWORK: Framework = eval(_RECORD, {"Framework": Framework})

# A planted mistake: the file of the tab, the right text, and the text that replaces it.
Edit = tuple[str, str, str]
USES_CONVENTIONS = "import numpy as np\n\nfrom common.reference import Conventions\n"


def _reference_resizes(conventions: str = "") -> tuple[Edit, Edit]:
    """Return edits that crop and resize with the reference, image by image, instead of the given matrices."""
    resizes = (
        "transforms",
        "case Crops(_, rows, columns) | Resamples(rows, columns):\n"
        "                Y = crop_resize(Y, rows, columns)",
        "case Crops(boxes, rows, columns):\n"
        "                size = rows.shape[1], columns.shape[1]\n"
        f"                wrong = Conventions({conventions})\n"
        "                Y = reference.crop_resize(Y, boxes, size, wrong).astype(Y.dtype)",
    )
    return resizes, ("loaders", "merged(decisions))", "decisions)")


# The colour operations, and the argument of each function.
ADJUSTED = {
    "brightness": "factors",
    "contrast": "factors",
    "saturation": "factors",
    "hue": "shifts",
}
# For each field of `Conventions`, the edits of the tab that replace the aligned meaning by a value.
CONVENTIONS: dict[str, tuple[Edit, ...]] = {
    "padding": (
        ("resnet", "weight, bias, self.strides)", "weight, bias, self.strides, {value!r})"),
    ),
    "bn_epsilon": (("resnet", "1e-5", "{value}"),),
    "bn_momentum": (("resnet", "0.9 * old + 0.1 * now", "{value} * old + (1 - {value}) * now"),),
    "bn_variance": (("resnet", "variance * (count / (count - 1))", "variance"),),
    "objective": (("trainer", "1 / len(y)", "1"),),
    "adam_epsilon": (("trainer", "eps=1e-8", "eps={value}"),),
    "adam_epsilon_place": (
        ("trainer", "betas, eps)\n", "betas, eps, Conventions(adam_epsilon_place={value!r}))\n"),
    ),
    "momentum_rate": (
        ("trainer", "weight_decay)\n", "weight_decay, Conventions(momentum_rate={value!r}))\n"),
    ),
    "weight_decay": (
        ("trainer", "weight_decay)\n", "weight_decay, Conventions(weight_decay={value!r}))\n"),
    ),
    **{
        field: (
            (
                "transforms",
                "factors, order))",
                f"factors, order, Conventions({field}={{value!r}})))",
            ),
            (
                "transforms",
                f"reference.adjust_{field}(to_float(X), {given})",
                f"reference.adjust_{field}(to_float(X), {given}, Conventions({field}={{value!r}}))",
            ),
        )
        for field, given in ADJUSTED.items()
    },
    "antialias": _reference_resizes("antialias={value}"),
    # Computes in float64, where uint8 values stay integers.
    "rounding": (
        (
            "transforms",
            "Y = augment_to_float(X, decisions)",
            "Y = augment_to_float(X / 255 if X.dtype == np.uint8 else X, decisions)\n"
            "    if any(isinstance(decision, Normalizes) for decision in decisions):\n"
            "        return Y.astype(np.float32)",
        ),
        *_reference_resizes(),
        *(
            (
                "transforms",
                f"reference.adjust_{field}(to_float(X), ",
                f"reference.adjust_{field}(X / 255 if X.dtype == np.uint8 else X, ",
            )
            for field in ADJUSTED
        ),
        (
            "transforms",
            "reference.to_uint8(Y)",
            "reference.to_uint8(Y, Conventions(rounding={value!r}))",
        ),
    ),
}


def by(conventions: Conventions) -> list[Edit]:
    """Return the edits that make the tab follow conventions that it does not declare."""
    return [
        (file, right, wrong.format(value=value))
        for name in (field.name for field in fields(Conventions))
        if (value := getattr(conventions, name)) != getattr(ALIGNED, name)
        for file, right, wrong in CONVENTIONS[name]
    ]


def numpy_backend(conventions: Conventions = ALIGNED, *edits: Edit) -> Backend:
    """Return the NumPy tab with ``edits``. It follows ``conventions`` and declares that nothing differs."""
    return with_bfloat16(_imported(*by(conventions), *edits))


_numbers = count()


@cache
def _imported(*edits: Edit) -> Backend:
    """Import a copy of the tab with these edits, under a new name."""
    name = f"numpy_tab_{next(_numbers)}"
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(sys, "path", [folder, *sys.path]),
    ):
        shutil.copytree(TAB, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        for file, right, wrong in edits:
            path = Path(folder, name, f"{file}.py")
            text = path.read_text(encoding="utf-8")
            assert text.count(right) == 1, f"{file}.py has {right!r} {text.count(right)} times"
            text = text.replace(right, wrong)
            if "Conventions(" in wrong and USES_CONVENTIONS not in text:
                text = text.replace("import numpy as np\n", USES_CONVENTIONS, 1)
            path.write_text(text, encoding="utf-8")
        with mock.patch.dict(FRAMEWORKS, numpy=FRAMEWORK):
            backend: Backend = import_module(name).BACKEND
    return backend


def changed(backend: Backend, file: str, **functions: Any) -> Backend:
    """Return the backend with some functions of one file replaced; the tab's own calls are not affected."""
    module = getattr(backend, file)
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("__")}
    return replace(backend, **{file: SimpleNamespace(**(names | functions))})


# --- bfloat16 and TF32 -----------------------------------------------------------------------------------------------


def to_bfloat16(X: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16: its upper 16 bits."""
    return without_bits(X, 16)


def to_tf32(X: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest TF32: 10 of its 23 bits after the point."""
    return without_bits(X, 13)


def without_bits(X: np.ndarray, count: int) -> np.ndarray:
    """Round float32 so that its last bits are 0; ties go to the even value."""
    bits = np.ascontiguousarray(X, np.float32).view(np.uint32)
    odd, half = (bits >> count) & 1, (1 << count - 1) - 1
    kept = 0xFFFFFFFF << count & 0xFFFFFFFF
    return ((bits + half + odd) & kept).astype(np.uint32).view(np.float32)


def with_bfloat16(backend: Backend) -> Backend:
    """Return the backend with a `prepare` that also accepts bf16, and ignores ``compile``."""

    def prepare(net, devices, precision="fp32", compile=False, sync_batch_norm=False):
        if precision == "bf16":
            for layer in layers_of(net).values():
                round_layer(layer)
        return net

    describe_numpy = backend.devices.describe

    def describe(devices, precision="fp32", compile=False, sync_batch_norm=False):
        return describe_numpy(devices) | {"precision": precision}

    backend = changed(backend, "devices", describe=describe)
    return changed(backend, "trainer", prepare=prepare)


def with_tf32(backend: Backend, rounded: Callable[[Any], Any] = to_tf32) -> Backend:
    """Return the backend with a `prepare` like that of a GPU with TF32: only products round their operands."""

    def prepare(net, devices, precision="fp32", compile=False, sync_batch_norm=False):
        for layer in layers_of(net).values():
            if "weight" in layer.weights and "running_mean" not in layer.weights:
                round_operands(layer, rounded)
        return net

    return changed(backend, "trainer", prepare=prepare)


def round_operands(layer: Any, rounded: Callable[[Any], Any]) -> None:
    """Make a layer round the operands of its products, forward and backward."""
    right = layer.compute

    def compute(X):
        Y, backward = right(rounded(X))
        return Y, lambda dY: backward(rounded(dY))

    layer.compute = compute
    compute_with(layer, lambda weights: weights | {"weight": rounded(weights["weight"])})


def layers_of(net: Any) -> dict[str, Any]:
    """Return the layers of the tab's network by canonical name, without blocks."""
    found = {}
    for name, child in getattr(net, "children", {}).items():
        if hasattr(child, "compute"):
            found[name] = child
        found |= {f"{name}.{below}": layer for below, layer in layers_of(child).items()}
    return found


def round_layer(layer: Any) -> None:
    """Make a layer round its input, the weights of its product, its result, and its gradients."""
    right = layer.compute

    def compute(X):
        Y, backward = right(to_bfloat16(X))
        return to_bfloat16(Y), lambda dY: tuple(map(to_bfloat16, backward(to_bfloat16(dY))))

    layer.compute = compute
    if "running_mean" not in layer.weights:  # a BatchNorm keeps float32 weights
        compute_with(layer, lambda weights: {k: to_bfloat16(w) for k, w in weights.items()})


def compute_with(layer: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Make a layer compute with changed weights, and keep its own."""
    right = layer.compute

    def compute(X):
        kept = layer.weights
        layer.weights = changed_weights = change(kept)
        result = right(X)
        # A BatchNorm has replaced its statistics.
        moved = {k: w for k, w in changed_weights.items() if "running" in k}
        layer.weights = kept | moved
        return result

    layer.compute = compute
