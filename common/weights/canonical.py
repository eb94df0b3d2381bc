"""Canonical names, layouts and first values of ResNet-18's weights, and their safetensors files.

One form for all frameworks: the names below; convolutions as (output channels, input channels, height, width), dense
layers as (outputs, inputs), float32. Each backend's ``weights.py`` brings its own layout to this one and back, so that
a file written by one backend is read by every other.
"""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, UserNotice
from common.system.files import written_whole

# float32; float64 where a parity check has its network in float64.
Weights = dict[str, NDArray[np.floating[Any]]]
Shape = tuple[int, ...]

# ResNet-18 (He et al. 2016) as the book builds it for small images: (block name, channels, first stride).
STAGES = (
    ("resnet_block1", 64, 1),
    ("resnet_block2", 128, 2),
    ("resnet_block3", 256, 2),
    ("resnet_block4", 512, 2),
)


def weight_shapes(num_classes: int, in_channels: int = 3) -> dict[str, Shape]:
    """Return the canonical name and shape of every parameter and buffer of ``resnet18``, from input to output."""
    shapes: dict[str, Shape] = {}
    _add_conv(shapes, "conv", in_channels, 64, 3)
    _add_batch_norm(shapes, "bn", 64)
    channels = 64
    for stage, num_channels, stride in STAGES:
        for i in range(2):
            name = f"{stage}.{i}"
            _add_conv(shapes, f"{name}.conv1", channels, num_channels, 3)
            _add_conv(shapes, f"{name}.conv2", num_channels, num_channels, 3)
            if i == 0 and stride != 1:
                _add_conv(shapes, f"{name}.conv3", channels, num_channels, 1)
            _add_batch_norm(shapes, f"{name}.bn1", num_channels)
            _add_batch_norm(shapes, f"{name}.bn2", num_channels)
            channels = num_channels
    shapes["fc.weight"], shapes["fc.bias"] = (num_classes, channels), (num_classes,)
    return shapes


def _add_conv(shapes: dict[str, Shape], name: str, inputs: int, outputs: int, kernel: int) -> None:
    shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
    shapes[f"{name}.bias"] = (outputs,)


def _add_batch_norm(shapes: dict[str, Shape], name: str, channels: int) -> None:
    for kind in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{kind}"] = (channels,)


def is_buffer(name: str) -> bool:
    """Tell BatchNorm's running statistics from parameters that are trained."""
    return name.endswith(("running_mean", "running_var"))


def num_parameters(weights: Mapping[str, NDArray[np.floating[Any]]]) -> int:
    """Return the number of trained parameters: 11,176,970 for 10 classes and 3 channels."""
    return sum(weight.size for name, weight in weights.items() if not is_buffer(name))


def network_sizes(weights: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """Return the number of classes and of input channels, which is what ``resnet18`` takes."""
    return weights["fc.bias"].size, weights["conv.weight"].shape[1]


def initial_weights(num_classes: int, in_channels: int = 3, seed: int = 0) -> Weights:
    """Draw the weights that every backend starts from.

    Xavier-uniform for convolutions and the dense layer (Glorot and Bengio 2010), zero biases, BatchNorm at the
    identity with running mean 0 and variance 1. The chapter asks for Xavier; PyTorch's own biases would be random.
    """
    rng = np.random.default_rng(seed)
    return {
        name: _initial(name, shape, rng)
        for name, shape in weight_shapes(num_classes, in_channels).items()
    }


def _initial(name: str, shape: Shape, rng: np.random.Generator) -> NDArray[np.float32]:
    if len(shape) > 1:
        outputs, inputs, area = shape[0], shape[1], int(np.prod(shape[2:]))
        bound = np.sqrt(6 / ((inputs + outputs) * area))
        return np.float32(2 * bound) * rng.random(shape, np.float32) - np.float32(bound)
    ones = name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1)
    return np.ones(shape, np.float32) if ones else np.zeros(shape, np.float32)


def check_weights(weights: Mapping[str, NDArray[Any]], source: str) -> Weights:
    """Return ``weights`` from input to output, as float32.

    Raises UserError as `check_entries` does. Warns where values of more than 32 bits are rounded.
    """
    check_entries({n: Entry(w.shape, w.dtype) for n, w in weights.items()}, source)
    return _as_float32({name: weights[name] for name in weight_shapes(1)}, source)


@dataclass(frozen=True)
class Entry:
    """What the index of a file says of an array, before any value is read."""

    shape: Shape  # in the canonical layout
    dtype: np.dtype[Any]


def check_entries(entries: Mapping[str, Entry], source: str) -> None:
    """Raise UserError, naming ``source``, unless names, shapes and types are those of ResNet-18.

    All that is not as it should be is listed, up to `MOST_FAULTS` lines; beyond, ten of each kind.
    """
    shapes = weight_shapes(_size(entries, "fc.weight", 0, 2), _size(entries, "conv.weight", 1, 4))
    what = f"{source} does not hold the weights of this project's ResNet-18"
    if not shapes.keys() & entries.keys():
        raise UserError(
            f"{what}: none of its {len(entries):,} names is known, the first are "
            f"{', '.join(map(shown, list(entries)[:3]))}"
        )
    wrong = [
        [f"{name} is missing" for name in shapes if name not in entries],
        [f"{shown(name)} is not wanted" for name in entries if name not in shapes],
        [
            fault
            for name in shapes
            if name in entries
            for fault in _faults(name, entries[name], shapes[name])
        ],
    ]
    if any(wrong):
        raise UserError(f"{what}: {_listed(wrong)}")


def _listed(kinds: Sequence[Sequence[str]]) -> str:
    """Return one fault alone, or a line for each: all, or of more than `MOST_FAULTS` the first ten of each kind."""
    lines = [line for kind in kinds for line in kind]
    if len(lines) == 1:
        return lines[0]
    count = len(lines)
    if count > MOST_FAULTS:
        lines = [line for kind in kinds for line in kind[:10]]
        lines.append(f"and {count - len(lines):,} more")
    return f"{count:,} faults" + "".join(f"\n  {line}" for line in lines)


ANY = -1  # a size that is not known
MOST_FAULTS = 30  # that are all listed: a file may have any number


def _size(entries: Mapping[str, Entry], name: str, axis: int, axes: int) -> int:
    """Return the size of an axis that is not the same in all networks, ANY where it cannot be told."""
    known = name in entries and len(entries[name].shape) == axes
    return entries[name].shape[axis] if known else ANY


def _faults(name: str, entry: Entry, shape: Shape) -> list[str]:
    fits = len(entry.shape) == len(shape) and all(
        right in (ANY, size) for size, right in zip(entry.shape, shape, strict=True)
    )
    if not fits:
        wanted = str(shape).replace(str(ANY), "any")
        return [f"{name} has shape {entry.shape}, not {wanted}"]
    if 0 in entry.shape:
        return [f"{name} has no values"]
    if not np.issubdtype(entry.dtype, np.floating):
        return [f"{name} holds {entry.dtype}, not floating-point numbers"]
    return []


def renamed(names: Iterable[str], canonical: Mapping[str, str], source: str) -> dict[str, str]:
    """Return the canonical name for each name of a file, or the name itself where it has none.

    Raises UserError, naming ``source`` and both, where two would become one: the last would win in silence.
    """
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(canonical.get(name, name), name)
        if other != name:
            raise UserError(
                f"{source} holds {shown(other)} and {shown(name)}, which both stand for "
                f"{shown(canonical.get(name, name))}: save one network alone"
            )
    return {name: new for new, name in found.items()}


def few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names as a terminal can show them, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def require_fit(shapes: Mapping[str, Shape], weights: Weights) -> None:
    """Raise ValueError unless ``weights`` have the names and shapes of a network, which are ``shapes``."""
    if wrong := sorted(shapes.keys() ^ weights.keys()):
        raise ValueError(f"weights missing or not wanted: {wrong}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(f"{name} has shape {weights[name].shape}, not {shape}")


def shown(name: str) -> str:
    """Return a name from a file as a terminal can show it."""
    short = name if len(name) <= 80 else f"{name[:77]}..."
    return short if short.isprintable() else ascii(short)


def _as_float32(weights: Mapping[str, NDArray[Any]], source: str) -> Weights:
    with np.errstate(over="ignore"):
        result = {name: weight.astype(np.float32, copy=False) for name, weight in weights.items()}
    rounded = [
        name
        for name, weight in weights.items()
        if weight.dtype.itemsize > 4 and not np.array_equal(result[name], weight, equal_nan=True)
    ]
    if rounded:
        notice = f"{source} holds more than 32 bits, rounded to float32, in {few(rounded)}"
        warnings.warn(UserNotice(notice), stacklevel=3)
    return result


def check_values(weights: Weights, source: str) -> None:
    """Raise UserError, naming ``source``, for weights that no network can compute with."""
    wrong = [
        name
        for name, weight in weights.items()
        if not np.isfinite(weight).all() or (name.endswith("running_var") and weight.min() < 0)
    ]
    if wrong:
        raise UserError(
            f"{source} holds values that a network cannot compute with (not finite, or a variance below 0) in "
            f"{few(wrong)}"
        )


def save_weights(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    """Write ``weights`` as a safetensors file, whole or not at all, with ``metadata`` in its header."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(weight) for name, weight in weights.items()}
    with written_whole(path) as temporary:
        temporary.write_bytes(save(contiguous, metadata))


def load_weights(path: Path) -> tuple[Weights, dict[str, str]]:
    """Read weights and metadata that `save_weights` wrote. Raises UserError for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            check_entries(
                {name: _entry(name, part, path) for name, part in slices.items()}, str(path)
            )
            weights = {
                name: _bfloat16(path, name) if part.get_dtype() == BF16 else file.get_tensor(name)
                for name, part in slices.items()
            }
            metadata = file.metadata() or {}
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    return check_weights(weights, str(path)), metadata


# Types of safetensors: NumPy's. Others are no weights; NumPy has no bfloat16, which becomes float32.
BF16 = "BF16"
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    BF16: np.dtype(np.float32),
    **{f"F{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(np.bool_),
}


def _entry(name: str, part: Any, path: Path) -> Entry:
    kind = part.get_dtype()
    if kind not in NUMPY_TYPES:
        raise UserError(f"{path}: {shown(name)} holds {kind}: save it as F32")
    return Entry(tuple(part.get_shape()), NUMPY_TYPES[kind])


def _bfloat16(path: Path, name: str) -> NDArray[np.float32]:
    """Return an array of bfloat16, the upper half of float32, from a file whose header has been found lawful."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        halves = np.frombuffer(file.read(end - begin), "<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
