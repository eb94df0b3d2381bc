"""MXNet's `.params` files, read and written with NumPy only.

A file is a list of arrays and a list of their names. All numbers are little-endian:

    uint64 0x112, uint64 0, uint64 number of arrays, the arrays, uint64 number of names, the names
    name:   uint64 length, UTF-8
    array:  uint32 magic, int32 storage (0: dense), int32 axes, int64 sizes, int32 device type, int32 device number,
            int32 type of the values, the values in C order

The magic number of an array is its version. The old interface of MXNet 1.x (`mx.nd.save`) writes V2. Its NumPy
interface (`npx.save`) writes V3, where arrays may have no axes or no values. V1 has no storage field. The first files
also had no magic number, and 32-bit sizes. MXNet's own loader trusts the numbers in a file; `read_params` compares each
with the size of the file before it allocates memory.

Source: `NDArray::Save` and `NDArray::Load` of MXNet 1.9.1, and the files that it writes.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.system.files import atomic_write
from common.weights.checks import Entry

Arrays = dict[str, NDArray[Any]]

LIST_MAGIC = 0x112
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
MAX_AXES = 32  # of NumPy 1's arrays, and of MXNet's
DENSE = 0
CPU = (1, 0)  # device type and number; readers ignore it
TYPES = {
    number: np.dtype(name).newbyteorder("<")
    for number, name in enumerate(
        ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")
    )
}


@dataclass(frozen=True)
class _Entry(Entry):
    """Shape, dtype and position of an array in the file."""

    offset: int  # of the first value, in bytes from the beginning of the file


class _Bytes:
    """The unread bytes of a file. Raises UserError for a size that goes beyond its end."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.left = file.seek(0, 2)
        file.seek(0)

    def refuse(self, why: str) -> UserError:
        """Return the error for a damaged file, with the reason."""
        return UserError(f"{self.path} is not a .params file, or is damaged: {why}")

    def _spend(self, size: int) -> None:
        if size > self.left:
            raise self.refuse("it ends early")
        self.left -= size

    def take(self, kinds: str) -> tuple[int, ...]:
        """Read the next numbers, in a format of `struct`."""
        size = struct.calcsize(f"<{kinds}")
        self._spend(size)
        return struct.unpack(f"<{kinds}", self.file.read(size))

    def text(self, size: int) -> str:
        """Read the next ``size`` bytes as text."""
        self._spend(size)
        try:
            return self.file.read(size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse("a name in it is not UTF-8") from None

    def skip(self, size: int) -> int:
        """Skip ``size`` bytes and return their offset."""
        self._spend(size)
        offset = self.file.tell()
        self.file.seek(size, 1)
        return offset


def read_params(path: Path, check: Callable[[Mapping[str, Entry]], None] | None = None) -> Arrays:
    """Return the arrays of a `.params` file by name, in the order of the file.

    ``check`` gets names, shapes and types before any value is read, and may raise. Raises UserError for a file that is
    missing, damaged or of another format, for arrays without names, and for sparse arrays.
    """
    if not path.is_file():
        raise UserError(f"there is no weights file {path}: check the path")
    try:
        with path.open("rb") as file:
            entries = _index(_Bytes(file, path))
            if check is not None:
                check(entries)
            return {name: _values(file, entry, path) for name, entry in entries.items()}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _index(content: _Bytes) -> dict[str, _Entry]:
    """Return the entries of a file by name. Reads everything except the values."""
    if content.left < 24 or content.take("QQ")[0] != LIST_MAGIC:
        raise content.refuse("it does not begin like one")
    # Each array takes some bytes, so a wrong count fails at the end of the file.
    entries = [_entry(content) for _ in _counted(content)]
    names = [content.text(*content.take("Q")) for _ in _counted(content)]
    if content.left:
        raise content.refuse(f"{content.left:,} bytes follow its end")
    if entries and not names:
        raise UserError(
            f"{content.path} has arrays without names: save the network with save_parameters"
        )
    if len(names) != len(entries):
        raise content.refuse(f"it has {len(entries):,} arrays and {len(names):,} names")
    if len(set(names)) < len(names):
        raise content.refuse("it has a repeated name")
    return dict(zip(names, entries, strict=True))


def _counted(content: _Bytes) -> range:
    (count,) = content.take("Q")
    if count > content.left // 8:  # every array and every name takes at least 8 bytes
        raise content.refuse("it ends early")
    return range(count)


def _entry(content: _Bytes) -> _Entry:
    (magic,) = content.take("I")
    if magic in (V2, V3):
        (storage,) = content.take("i")
        if storage != DENSE:
            raise content.refuse("it has a sparse array, and only dense arrays can be read")
    shape = _shape(content, magic)
    if magic != V3 and 0 in (len(shape), *shape):
        raise content.refuse("it has an array without values")
    _, _, kind = content.take("iii")  # the device is ignored
    if kind not in TYPES:
        raise content.refuse(f"its values are of the unknown type {kind}")
    dtype = TYPES[kind]
    return _Entry(shape, dtype, content.skip(math.prod(shape) * dtype.itemsize))


def _shape(content: _Bytes, magic: int) -> tuple[int, ...]:
    legacy = magic not in (V1, V2, V3)
    axes = magic if legacy else content.take("i")[0]
    if not 0 <= axes <= MAX_AXES:
        raise content.refuse("it has an array of unknown shape")
    shape = content.take(("I" if legacy else "q") * axes)
    if any(size < 0 for size in shape):
        raise content.refuse("it has an array of unknown shape")
    if math.prod(size for size in shape if size) > np.iinfo(np.intp).max // 8:
        raise content.refuse("it has an array of impossible size")
    return shape


def _values(file: BinaryIO, entry: _Entry, path: Path) -> NDArray[Any]:
    file.seek(entry.offset)
    size = math.prod(entry.shape)
    values = np.fromfile(file, entry.dtype, size)
    if values.size != size:
        raise UserError(f"{path} changed while it was read: run again")
    native = entry.dtype.newbyteorder("=")
    return values.astype(native, copy=False).reshape(entry.shape)


def write_params(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``arrays`` as a `.params` file, atomically, with the same bytes as MXNet's old interface.

    That is V2, which `load_parameters` reads with both of MXNet's interfaces. Raises ValueError for arrays that V2
    cannot hold.
    """
    types = {dtype: number for number, dtype in TYPES.items()}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<") not in types:
            raise ValueError(f"{name}: a .params file cannot hold {array.dtype}")
        if 0 in (array.ndim, *array.shape):
            raise ValueError(f"{name}: V2 cannot hold an array of shape {array.shape}")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays)))
        for array in arrays.values():
            shape, dtype = array.shape, array.dtype.newbyteorder("<")
            file.write(struct.pack("<IiI", V2, DENSE, len(shape)))
            file.write(struct.pack(f"<{len(shape)}q", *shape))
            file.write(struct.pack("<iii", *CPU, types[dtype]))
            file.write(np.ascontiguousarray(array, dtype).tobytes())
        file.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            encoded = name.encode()
            file.write(struct.pack("<Q", len(encoded)) + encoded)
