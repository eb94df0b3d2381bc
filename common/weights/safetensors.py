"""The canonical weights as safetensors files, which all backends and many other programs can read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, printable
from common.system.files import atomic_write
from common.weights.canonical import Weights
from common.weights.checks import Entry, check_entries, check_weights
from common.weights.digest import with_digest, without_digest

CHECKPOINT = "three-tabs checkpoint 1"  # the format in the metadata of common.weights.checkpoint
OF_CHECKPOINTS = ("format", "steps", "epochs")  # the other keys of its metadata
OPTIMIZER = "optimizer."  # begins the names of its optimizer's arrays

# The safetensors dtypes and the NumPy dtype each is read as. NumPy has no bfloat16, which is widened to float32.
BF16 = "BF16"
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    BF16: np.dtype(np.float32),
    **{f"F{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(np.bool_),
}
TYPE_NAMES = {dtype: name for name, dtype in NUMPY_TYPES.items() if name != BF16}


def save_weights(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    """Write ``weights`` as a safetensors file, atomically, with ``metadata`` and a checksum in its header."""
    write_arrays(path, weights, metadata)


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write arrays as a safetensors file, atomically, with ``metadata`` and a checksum in its header.

    Differs from the library's `save`: nothing is copied in memory, which takes longer than writing. Its `save_file`
    does not raise OSError if the disk is full.
    """
    # Larger elements come first, so that all are aligned.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in order}
    header: dict[str, Any] = {"__metadata__": with_digest(contiguous, metadata)}
    end = 0
    for name, array in contiguous.items():
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": TYPE_NAMES[array.dtype],
            "shape": array.shape,
            "data_offsets": (begin, end),
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path, sync=True) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in contiguous.values():
            file.write(array.data.cast("B"))


def load_weights(path: Path) -> tuple[Weights, dict[str, str]]:
    """Read the weights and metadata of a file of weights or of a checkpoint. Raises UserError for any other file."""
    weights, _, metadata = read_arrays(path)
    if metadata.get("format") == CHECKPOINT:
        metadata = {k: v for k, v in metadata.items() if k not in OF_CHECKPOINTS}
    return weights, metadata


def read_arrays(path: Path) -> tuple[Weights, dict[str, NDArray[Any]], dict[str, str]]:
    """Read the weights, the arrays of a checkpoint's optimizer, and the metadata of a file.

    Raises UserError if it does not hold the weights of a ResNet-18, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no weights file {path}: check the path")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            is_checkpoint = metadata.get("format") == CHECKPOINT
            kept = [name for name in slices if is_checkpoint and name.startswith(OPTIMIZER)]
            if is_checkpoint and any(part.get_dtype() != "F32" for part in slices.values()):
                raise UserError(f"{path} is a damaged checkpoint (not all of it is float32)")
            entries = {name: _entry(name, part, path) for name, part in slices.items()}
            check_entries({n: entry for n, entry in entries.items() if n not in kept}, str(path))
            arrays = {
                name: _bfloat16(path, name) if part.get_dtype() == BF16 else file.get_tensor(name)
                for name, part in slices.items()
            }
            metadata = without_digest(arrays, metadata, str(path))
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    weights = {name: array for name, array in arrays.items() if name not in kept}
    return check_weights(weights, str(path)), {name: arrays[name] for name in kept}, metadata


def _entry(name: str, part: Any, path: Path) -> Entry:
    kind = part.get_dtype()
    if kind not in NUMPY_TYPES:
        raise UserError(f"{path}: {printable(name)} has the dtype {kind}: save it as F32")
    return Entry(tuple(part.get_shape()), NUMPY_TYPES[kind])


def _bfloat16(path: Path, name: str) -> NDArray[np.float32]:
    """Read an array of bfloat16, which is the upper half of float32, from a file whose header has been checked."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        file.seek(8 + length + begin)
        halves = np.frombuffer(file.read(end - begin), "<u2")
    return (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
