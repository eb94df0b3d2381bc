"""MXNet's `.params` files, read and written with NumPy alone.

A file is a list of arrays and a list of their names. All numbers are little-endian:

    uint64 0x112, uint64 0, uint64 number of arrays, the arrays, uint64 number of names, the names
    name:   uint64 length, UTF-8
    array:  uint32 magic, int32 storage (0: dense), int32 axes, int64 sizes, int32 device type, int32 device number,
            int32 type of the values, the values in C order

The magic of an array tells its version: V2 is what the old interface of MXNet 1.x writes (`mx.nd.save`), V3 what its
NumPy interface writes (`npx.save`), where arrays may have no axis or no value. V1 has no storage; the first files had
no magic either, and sizes of 32 bits. MXNet's own loader believes what a file says of itself; `read_params` believes
nothing: every number is held against the bytes that the file has, before memory is taken.

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
CPU = (1, 0)  # device type and number; of no use to a reader
TYPES = {
    number: np.dtype(name).newbyteorder("<")
    for number, name in enumerate(
        ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")
    )
}


@dataclass(frozen=True)
class _Entry(Entry):
    """What the file says about an array, and where its values lie."""

    offset: int  # of the first value, bytes from the beginning of the file


class _Bytes:
    """The bytes of a file that have not been read yet; nothing beyond its end is believed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.left = file.seek(0, 2)
        file.seek(0)

    def refuse(self, why: str) -> UserError:
        """Return the error that names the file and what is wrong with it."""
        return UserError(f"{self.path} is not a .params file, or is damaged: {why}")

    def _spend(self, size: int) -> None:
        if size > self.left:
            raise self.refuse("it ends early")
        self.left -= size

    def take(self, kinds: str) -> tuple[int, ...]:
        """Return the next numbers, by the letters of `struct`."""
        size = struct.calcsize(f"<{kinds}")
        self._spend(size)
        return struct.unpack(f"<{kinds}", self.file.read(size))

    def text(self, size: int) -> str:
        """Return the next ``size`` bytes as text."""
        self._spend(size)
        try:
            return self.file.read(size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse("a name in it is not UTF-8") from None

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes and return where they begin."""
        self._spend(size)
        offset = self.file.tell()
        self.file.seek(size, 1)
        return offset


def read_params(path: Path, check: Callable[[Mapping[str, Entry]], None] | None = None) -> Arrays:
    """Return the arrays of a `.params` file by their names, in the order of the file.

    ``check`` sees names, shapes and types before any value is read, and may refuse them. Raises UserError for a file
    that is missing, damaged or of another kind, for arrays without names, and for sparse ones.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        with path.open("rb") as file:
            entries = _index(_Bytes(file, path))
            if check is not None:
                check(entries)
            return {name: _values(file, entry, path) for name, entry in entries.items()}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _index(content: _Bytes) -> dict[str, _Entry]:
    """Return what a file holds. Reads everything but the values."""
    if content.left < 24 or content.take("QQ")[0] != LIST_MAGIC:
        raise content.refuse("it does not begin as one")
    # Each array takes bytes, so that a count beyond the file's end ends there.
    entries = [_entry(content) for _ in _counted(content)]
    names = [content.text(*content.take("Q")) for _ in _counted(content)]
    if content.left:
        raise content.refuse(f"{content.left:,} bytes follow its end")
    if entries and not names:
        raise UserError(f"{content.path} holds arrays without names")
    if len(names) != len(entries):
        raise content.refuse(f"it has {len(entries):,} arrays and {len(names):,} names")
    if len(set(names)) < len(names):
        raise content.refuse("a name in it comes twice")
    return dict(zip(names, entries, strict=True))


def _counted(content: _Bytes) -> range:
    (count,) = content.take("Q")
    if count > content.left // 8:  # no array and no name is shorter
        raise content.refuse("it ends early")
    return range(count)


def _entry(content: _Bytes) -> _Entry:
    (magic,) = content.take("I")
    if magic in (V2, V3):
        (storage,) = content.take("i")
        if storage != DENSE:
            raise content.refuse("it holds a sparse array, and only dense ones are read")
    shape = _shape(content, magic)
    if magic != V3 and 0 in (len(shape), *shape):
        raise content.refuse("it holds an array without values")
    _, _, kind = content.take("iii")  # after the device, which is the reader's to choose
    if kind not in TYPES:
        raise content.refuse(f"its values are of the unknown type {kind}")
    dtype = TYPES[kind]
    return _Entry(shape, dtype, content.skip(math.prod(shape) * dtype.itemsize))


def _shape(content: _Bytes, magic: int) -> tuple[int, ...]:
    legacy = magic not in (V1, V2, V3)
    axes = magic if legacy else content.take("i")[0]
    if not 0 <= axes <= MAX_AXES:
        raise content.refuse("it holds an array of unknown shape")
    shape = content.take(("I" if legacy else "q") * axes)
    if any(size < 0 for size in shape):
        raise content.refuse("it holds an array of unknown shape")
    if math.prod(size for size in shape if size) > np.iinfo(np.intp).max // 8:
        raise content.refuse("it holds an array of impossible size")
    return shape


def _values(file: BinaryIO, entry: _Entry, path: Path) -> NDArray[Any]:
    file.seek(entry.offset)
    size = math.prod(entry.shape)
    values = np.fromfile(file, entry.dtype, size)
    if values.size != size:
        raise UserError(f"{path} changed while it was read")
    native = entry.dtype.newbyteorder("=")
    return values.astype(native, copy=False).reshape(entry.shape)


def write_params(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write ``arrays`` as a `.params` file, whole or not at all: byte for byte what MXNet's old interface writes.

    That is V2, which both of MXNet's interfaces read through `load_parameters`. Raises ValueError for what V2 cannot
    hold.
    """
    types = {dtype: number for number, dtype in TYPES.items()}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<") not in types:
            raise ValueError(f"{name}: a .params file holds no {array.dtype}")
        if 0 in (array.ndim, *array.shape):
            raise ValueError(f"{name}: V2 holds no array of shape {array.shape}")
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
