"""Atomic writes, and checks of files and folders."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import chain, count
from pathlib import Path

from common.errors import UserError
from common.system.temporary import temporary_folder

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_write(path: Path, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path; rename it to ``path`` after the block, or remove it after an exception.

    With ``sync``, the file is on the disk at the end, also after a power cut.

    The temporary file has the name of ``path``, in a temporary folder next to it. Folders are made if necessary; after
    an exception they are removed again. Raises UserError if the disk is full or the folder cannot be written.
    """
    missing: list[Path] = []
    try:
        with writing(path):
            # Innermost first.
            missing = [folder for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(path.parent) as folder:
                yield folder / path.name
                if sync:
                    with (folder / path.name).open("r+b") as file:
                        os.fsync(file.fileno())
                (folder / path.name).replace(path)
            if sync:
                _sync_names(path.parent)
    except BaseException:
        with suppress(OSError):  # report the first error, not one of the cleaning up
            for folder in missing:
                folder.rmdir()
        raise


def _sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, on the systems that can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an OSError that occurs while ``path`` is written into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"the disk is full: {path} was not written; free some space or choose another folder"
            ) from error
        raise UserError(
            f"cannot write {path} ({error.strerror or error}): choose another folder"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises OSError for anything else: a pipe would wait for ever for its writer, and a device may never end.
    """

    def without_waiting(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows lacks

    file = open(path, "rb", opener=without_waiting)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return file


def free_name(path: Path) -> Path:
    """Return ``path`` if it is free, else with the first free number after its stem: a.png, a-2.png, a-3.png."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(name for name in chain([path], names) if not os.path.lexists(name))


def check_file(path: Path, what: str) -> None:
    """Raise UserError unless ``path`` is a readable file; ``what`` names its content, such as "weights"."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: pass a file")
        if not path.is_file():
            raise UserError(f"there is no {what} file {path}: check the path")
    except OSError as error:  # such as a name that is too long
        raise UserError(f"there is no {what} file {path}: {error.strerror}") from error
    if not os.access(path, os.R_OK):
        raise UserError(f"cannot read {path}: no permission; change its permissions")


def check_target(path: Path, force: bool = False) -> None:
    """Raise UserError unless ``path`` can be written as a new file, or, with ``force``, in place of an old one."""
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder: give the name of a file")
        if os.path.lexists(path) and not force:
            raise UserError(f"{path} already exists: choose another name, or add --force")
        folder = path.resolve().parent
    except (OSError, RuntimeError) as error:  # RuntimeError: circular links
        why = error.strerror if isinstance(error, OSError) else "its links form a circle"
        raise UserError(f"cannot write {path}: {why}; choose another name") from error
    check_folder(folder, f"cannot write {path}", "choose another folder")


def check_folder(folder: Path, problem: str, fix: str) -> None:
    """Raise UserError with ``problem`` and ``fix`` if ``folder`` cannot be written. Creates nothing."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{problem}: {folder} is a file; {fix}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{problem}: no permission in {folder}; {fix}")
