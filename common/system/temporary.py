"""Temporary folders that do not stay after a killed run: the next one removes them."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".three-tabs-"
LOCK = "lock"  # a file; its lock shows that the process of the folder lives
NEW = "new"  # the folder for files

_swept: set[Path] = set()


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder below ``parent``, by default the system's folder for temporary files; then remove it.

    Once per process, also remove the folders that killed processes left in ``parent``.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    if parent.absolute() not in _swept:
        _swept.add(parent.absolute())
        _remove_left(parent)
    own, handle = _make_locked(parent)
    try:
        inner = own / NEW
        inner.mkdir()
        yield inner
    finally:
        os.close(handle)  # first, because network file systems keep an open file
        _remove(own)


def _make_locked(parent: Path) -> tuple[Path, int]:
    """Return a new folder and its locked file. The system releases the lock when the process ends, however it ends.

    Process ids would not do: those of two containers that share a folder may be the same.
    """
    while True:
        own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Another process may remove the folder before it is locked.
        with suppress(FileNotFoundError):
            handle = os.open(own / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
            _lock(handle)
            if (own / LOCK).exists():
                return own, handle
            os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a temporary folder, its lock last: without one, the next run would not finish a removal that is killed."""
    shutil.rmtree(folder / NEW, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_left(parent: Path) -> None:
    """Remove the temporary folders of ended processes."""
    with suppress(OSError), os.scandir(parent) as entries:
        left = [e.path for e in entries if e.name.startswith(PREFIX)]
        for folder in left:
            _remove_unless_locked(Path(folder))


def _remove_unless_locked(folder: Path) -> None:
    with suppress(OSError):  # such as the folder of another user
        try:
            handle = os.open(folder / LOCK, os.O_RDWR)
        except FileNotFoundError:
            folder.rmdir()  # its owner, if it lives, makes another one
            return
        try:
            if _lock(handle, wait=False):
                _remove(folder)
        finally:
            os.close(handle)


def _lock(handle: int, wait: bool = True) -> bool:
    """Lock a file and return True; return False if another process holds the lock, or if the system has no locks."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # such as a network file system without locks
        return False
    return True
