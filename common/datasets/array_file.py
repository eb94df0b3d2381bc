"""A file with one uint8 array of images and its checksum: written as a stream, read as a memory map.

It is a file of ``numpy.save``, followed by the SHA-256 of its bytes. NumPy ignores these 32 bytes.
"""

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.datasets.decoding import Chunk
from common.system.files import open_regular

_BLOCK = 2**22  # bytes of one read


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
    check it; ``advance`` gets the number of images, perhaps a fraction, of each block.
    """
    header, digest = _header(shape), hashlib.sha256()
    left = len(header) + math.prod(shape)
    try:
        with open_regular(path) as file:
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


def _header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    # typed in NumPy 2, not in NumPy 1
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call, unused-ignore]
    return file.getvalue()
