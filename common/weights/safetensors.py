"""The canonical weights as safetensors files, which all backends and many other programs can read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, printable
from common.system.files import atomic_write
from common.weights.canonical import Weights
from common.weights.checks import Entry, check_entries, check_weights
from common.weights.digest import with_digest, without_digest

# The safetensors dtypes and the NumPy dtype each is read as. NumPy has no bfloat16, which is widened to float32.
BF16 = "BF16"
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    BF16: np.dtype(np.float32),
    **{f"F{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(np.bool_),
}


def save_weights(path: Path, weights: Weights, metadata: dict[str, str]) -> None:
    """Write ``weights`` as a safetensors file, atomically, with ``metadata`` and a checksum in its header."""
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(weight) for name, weight in weights.items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(contiguous, with_digest(contiguous, metadata)))


def load_weights(path: Path) -> tuple[Weights, dict[str, str]]:
    """Read weights and metadata that `save_weights` wrote. Raises UserError for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no weights file {path}: check the path")
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
            metadata = without_digest(weights, file.metadata() or {}, str(path))
    except (SafetensorError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    return check_weights(weights, str(path)), metadata


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
