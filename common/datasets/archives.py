"""Unpack zip files as streams, within a limit of size, and only below the wanted folder."""

import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from common.errors import UserError
from common.system.files import atomic_write

MAX_UNPACKED = 4 * 10**9  # bytes of all files in an archive
_CHUNK = 1 << 20  # bytes read at a time

# The errors that zipfile raises for damaged and unusual files.
_UNREADABLE = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError),
    *(zlib.error, lzma.LZMAError, struct.error),
)


def unpack_zip(path: Path, root: Path) -> None:
    """Write the files of a zip below ``root``, which may be the only folder in it or not.

    Files that are already there are only checked. Raises UserError, before anything is written, for a file that is not
    a zip, for more than `MAX_UNPACKED` bytes, and for names outside ``root``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _unpack(archive, path, root)
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be unpacked ({error}): unpack it by hand") from error


def _unpack(archive: zipfile.ZipFile, path: Path, root: Path) -> None:
    wanted = {
        _safe(member.filename): member
        for member in archive.infolist()
        # A zip made on a Mac has a second tree of resource forks.
        if not member.is_dir() and not member.filename.startswith("__MACOSX/")
    }
    size = sum(member.file_size for member in wanted.values())
    if size > MAX_UNPACKED:
        raise UserError(
            f"{path} would unpack to {size:,} bytes, more than {MAX_UNPACKED:,}: unpack it by hand"
        )
    if all(len(name.parts) > 1 and name.parts[0] == root.name for name in wanted):
        root = root.parent
    for name, member in wanted.items():
        if not _is_unpacked(root / name, member):
            _extract(archive, member, root / name)


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    with (
        atomic_write(target) as temporary,
        archive.open(member) as source,
        temporary.open("wb") as file,
    ):
        for chunk in _chunks(source):
            file.write(chunk)


def _is_unpacked(target: Path, member: zipfile.ZipInfo) -> bool:
    if not os.path.isfile(target) or target.stat().st_size != member.file_size:  # noqa: PTH113
        return False  # Path's is_file raises for names that are too long
    found = 0
    with target.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found == member.CRC


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a member. zipfile checks its size and, at the end, its checksum."""
    try:
        while chunk := source.read(_CHUNK):
            yield chunk
    except OSError as error:  # of bz2; one of the disk is another matter
        raise zipfile.BadZipFile(str(error)) from error


def _safe(name: str) -> PurePosixPath:
    """Return the path ``name``. Raises UserError if it leaves the folder on any operating system."""
    foreign = PureWindowsPath(name)  # parses both kinds of slash, and drive letters
    if foreign.is_absolute() or foreign.drive or foreign.root or ".." in foreign.parts:
        raise UserError(
            f"the zip contains '{name}', which would be written outside the folder: do not use this zip"
        )
    return PurePosixPath(*foreign.parts)
