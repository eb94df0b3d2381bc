"""A file with one uint8 array of images and its checksum: written as a stream, read as a memory map.

It is a file of ``numpy.save``, followed by the SHA-256 of its bytes. NumPy ignores these 32 bytes.
"""

import ctypes
import hashlib
import io
import math
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.datasets.decoding import Chunk
from common.system.files import open_regular

if TYPE_CHECKING:
    from common.datasets.image_files import ImageFiles

_BLOCK = 2**22  # bytes of one read
LARGE = 2**30  # bytes of an array that may not be in memory as a whole


def write_array(
    path: Path,
    shape: tuple[int, ...],
    chunks: Iterator[Chunk],
    advance: Callable[[int], object],
) -> None:
    """Write uint8 images of ``shape`` to ``path`` as they are decoded, with only a few in memory.

    The file is not memory-mapped: on a full disk, writing to a mapped file kills the process, but a write raises.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def write(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        write(_header(shape))
        for _, images in chunks:
            write(images.data)
            advance(len(images))
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def read_array(
    path: Path, shape: tuple[int, ...], advance: Callable[[float], object]
) -> NDArray[np.uint8] | None:
    """Return the array in ``path`` as a memory map, copy-on-write, or None unless it is intact.

    It is intact if `write_array` wrote it with this ``shape``, and no byte has changed since. All bytes are read to
    check it; ``advance`` gets the number of images, perhaps a fraction, of each block. `unlink_unused` keeps the file
    as long as the array exists.
    """
    header, digest = _header(shape), hashlib.sha256()
    left = len(header) + math.prod(shape)
    try:
        with open_regular(path) as file:
            _lock(file, shared=True)  # the memory map keeps its own handle, and so the lock
            if os.fstat(file.fileno()).st_size != left + digest.digest_size:
                return None
            # The header is compared, not parsed: a damaged one can raise almost any exception.
            if file.read(len(header)) != header:
                return None
            digest.update(header)
            left -= len(header)
            while block := file.read(min(left, _BLOCK)):
                digest.update(block)
                left -= len(block)
                advance(len(block) / math.prod(shape[1:]))
            if left or file.read() != digest.digest():
                return None
            return np.asarray(np.memmap(file, np.uint8, "c", offset=len(header), shape=shape))
    except OSError:  # missing, unreadable, or on a failing disk
        return None


def unlink_unused(path: Path) -> bool:
    """Remove the file of an array unless a process has it mapped; return whether it was removed."""
    try:
        with open_regular(path) as file:
            if not _lock(file, shared=False):
                return False
            path.unlink()
    except OSError:  # removed by another process, or a system that removes no files in use
        return False
    return True


def _lock(file: BufferedReader, shared: bool) -> bool:
    """Lock a file until its last handle is closed; return whether that was possible without waiting."""
    if sys.platform == "win32":  # which does not remove mapped files
        return True
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:  # locked by another process, or a network file system without locks
        return False
    return True


def images_at(
    images: "NDArray[np.uint8] | ImageFiles", indices: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return ``images[indices]``. Images of a large memory-mapped array are read from the disk together.

    Otherwise the process would wait for the disk at every few pages. That took 13 times as long for images of 224 x 224
    pixels that were not in memory yet. Indices in sorted order made no difference.
    """
    if isinstance(images, np.ndarray) and images.nbytes >= LARGE and hasattr(mmap, "MADV_WILLNEED"):
        advise = ctypes.CDLL(None).madvise
        start, stride = images.ctypes.data, images.strides[0]
        for index in indices.tolist():
            address = start + index * stride
            before = address % mmap.PAGESIZE
            length = ctypes.c_size_t(before + stride)
            # Only advice: an error, such as for memory that is no file, changes nothing.
            advise(ctypes.c_void_p(address - before), length, mmap.MADV_WILLNEED)
    return images[indices]


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # typed in NumPy 2, not in NumPy 1
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call, unused-ignore]
    return file.getvalue()
