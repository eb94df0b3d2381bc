"""The files of one folder sorted into class folders: beside the old ones, which they then replace.

Images are links to the originals where the file system has them, so they cost no space.
"""

import filecmp
import os
import shutil
import stat
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from common.datasets.images import image_extensions
from common.drawing.progress import progress_bar
from common.errors import UserError, UserNotice, listed, raise_problems
from common.system.files import DISK_FULL, free_name, writing

Classes: TypeAlias = Mapping[str, Sequence[str]]  # {class: names of files}
Plan: TypeAlias = Mapping[str, Classes]  # {split: {class: names of files}}

NEW, OLD = ".new", ".old"  # splits while they are sorted, and while they are removed
SET_ASIDE = "set_aside"


def arrange(source: Path, root: Path, plan: Plan) -> Counter[str]:
    """Make each folder ``root/<split>/<class>/`` hold the images of ``plan``, which lie in ``source``.

    A split that does so already is left alone, with whatever else lies there. Any other is sorted anew in
    ``root/.new``. Then all old splits go, and the new ones take their places. So each split is whole or not there, and
    no image is ever in two. Files in the old splits that may be the user's only copy move to ``root/set_aside``, with
    a `UserNotice`. Processes that sort into the same ``root`` wait for each other.

    Returns how many files were in place already, hard links, symbolic links and copies. Raises UserError when the disk
    is full and when ``root`` cannot be written. Raises it before anything is changed when a link makes one of ``root``
    and ``source`` part of the other, or stands in the place of a split or class folder.
    """
    total = _size(plan)
    with progress_bar(f"sorting {source}", total, "files") as advance, writing(root):
        raise_problems(str(root), _link_problems(source, root, plan))
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
        with _lock_folder(root):
            _remove_temporary(source, root, plan)  # what a killed process left
            missing = {s: c for s, c in plan.items() if not _is_sorted(source, root / s, c)}
            kept = total - _size(missing)
            advance(kept)
            placed = Counter({"in place already": kept})
            try:
                for split, classes in missing.items():
                    for label, names in classes.items():
                        placed += _put(source, root, f"{split}/{label}", names, advance)
                if missing:
                    _replace(root, list(missing))
            finally:
                _remove_temporary(source, root, plan)
    return placed


def _size(plan: Plan) -> int:
    return sum(len(names) for classes in plan.values() for names in classes.values())


def _link_problems(source: Path, root: Path, plan: Plan) -> list[str]:
    """Return what is wrong with links: they lead into the originals, or would be removed as old splits."""
    base, real = root.resolve(), source.resolve()
    if base == real or base in real.parents or real in base.parents:
        return [f"{root} and {source} lead into each other: remove the link between them"]
    splits = [root / split for split in plan]
    inner = [p for s in splits if s.is_dir() and not s.is_symlink() for p in sorted(s.iterdir())]
    # A link that leads nowhere may lead to a disk that is not mounted.
    links = [str(p) for p in (*splits, *inner) if p.is_symlink() and not p.is_file()]
    fix = f"remove the links; to sort onto another disk, let {root} be a link to a folder there"
    return [f"links in the place of folders, {listed(links)}: {fix}"] if links else []


@contextmanager
def _lock_folder(root: Path) -> Iterator[None]:
    """Wait until no other process sorts into ``root``: two of other ratios would mix the splits.

    The system ends the lock with the process, however that ends.
    """
    if sys.platform == "win32":  # knows no locks of folders
        yield
        return
    import fcntl

    handle = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have none
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_sorted(source: Path, folder: Path, classes: Classes) -> bool:
    """Return whether the class folders in ``folder`` hold just these images."""
    if not folder.is_dir():
        return False
    found = {}
    for inner in filter(Path.is_dir, folder.iterdir()):
        if names := {entry.name for entry in os.scandir(inner) if _is_image_file(entry)}:
            found[inner.name] = names
    return found == {label: set(names) for label, names in classes.items()} and all(
        is_same(f"{source}/{name}", f"{folder}/{label}/{name}")
        for label, names in classes.items()
        for name in names
    )


def _is_image_file(entry: "os.DirEntry[str]") -> bool:
    """Return whether torchvision's ImageFolder would read it: a hidden one too."""
    extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - no Path for each file
    return extension in image_extensions() and not entry.is_dir(follow_symlinks=False)


def is_same(source: str, target: str) -> bool:
    """Return whether ``target`` is a link to ``source``, or a copy by its size and time."""
    try:
        new, old = os.stat(source), os.stat(target)  # noqa: PTH116
    except OSError:  # a link that leads nowhere or in a circle, too
        return False
    return os.path.samestat(new, old) or (
        (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
    )


def _put(
    source: Path, root: Path, inner: str, names: Sequence[str], advance: Callable[[int], None]
) -> Counter[str]:
    """Put the files into the folder that will be ``root/inner``."""
    folder = root / NEW / inner
    folder.mkdir(parents=True)
    # Links are relative within the competition's folder, which can then be moved as a whole.
    real, base = source.resolve(), (root / inner).resolve()
    pointer = os.path.relpath(real, base) if real.parent in base.parents else str(real)
    placed: Counter[str] = Counter()
    for name in names:
        placed[link_or_copy(f"{source}/{name}", f"{folder}/{name}", f"{pointer}/{name}")] += 1
        advance(1)
    return placed


def link_or_copy(source: str, target: str, pointer: str = "") -> str:
    """Make ``target`` a hard link, else a symbolic link that holds ``pointer``, if given, else a copy; return which."""
    with _unless_refused(source):
        # Linux would link a link, and a relative one would lead elsewhere.
        original = os.path.realpath(source) if os.path.islink(source) else source  # noqa: PTH114
        os.link(original, target)
        return "hard links"
    if pointer:
        with _unless_refused(source):
            os.symlink(pointer, target)  # noqa: PTH211
            return "symbolic links"
    shutil.copy2(source, target)
    return "copies"


@contextmanager
def _unless_refused(source: str) -> Iterator[None]:
    """Go on where the file system has no such links."""
    try:
        yield
    except (OSError, NotImplementedError) as error:
        if not os.path.exists(source):  # noqa: PTH110
            raise UserError(
                f"{source} is gone: leave the files alone while they are sorted"
            ) from error
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise


def _replace(root: Path, splits: list[str]) -> None:
    """Put the new splits in the places of the old ones, of which none is left when the first new one comes."""
    (root / OLD).mkdir(exist_ok=True)  # may hold splits that are not in the plan
    for split in splits:
        if os.path.lexists(root / split):
            (root / split).rename(root / OLD / split)
    for split in splits:
        (root / NEW / split).rename(root / split)


def _remove_temporary(source: Path, root: Path, plan: Plan) -> None:
    """Remove new splits that are not whole, and the plan's old ones except the user's own files.

    These move to `SET_ASIDE`. Old splits that are not in the plan stay until they are sorted, when the
    names of their images are known.
    """
    if (root / NEW).exists():
        shutil.rmtree(root / NEW)
    if not (root / OLD).exists():
        return
    moved = []
    for path in _only_copies(source, root / OLD, plan):
        target = free_name(root / SET_ASIDE / path.relative_to(root / OLD))
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        moved.append(path.relative_to(root / OLD).as_posix())
    for path in [root / OLD / split for split in plan]:
        if path.is_dir():
            shutil.rmtree(path)
        else:  # a file with links elsewhere, or a link to one
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        (root / OLD).rmdir()
    if moved:
        text = (
            f"moved to {root / SET_ASIDE}, as they may be the only copies: {listed(sorted(moved))}"
        )
        warnings.warn(UserNotice(text), stacklevel=4)


def _only_copies(source: Path, old: Path, plan: Plan) -> list[Path]:
    """Return the files of the plan's old splits that may be the user's only copies: one path for each content.

    Leaves out links, files with a hard link outside these splits, files with the bytes of the original of that name,
    and files where sorting puts images: at ``<split>/<class>/<name>`` with the class and name of an image in the plan.
    """
    sorted_here = {
        (label, name)
        for classes in plan.values()
        for label, names in classes.items()
        for name in names
    }
    links: Counter[int] = Counter()  # of each inode, in these splits
    others: dict[int, Path] = {}
    for path in sorted(old.rglob("*")):  # of two links, every Python keeps the first
        split, *inner = path.relative_to(old).parts
        if split in plan and stat.S_ISREG((status := path.lstat()).st_mode):
            links[status.st_ino] += 1
            if tuple(inner) not in sorted_here:
                others.setdefault(status.st_ino, path)
    return [
        path
        for inode, path in others.items()
        if path.lstat().st_nlink <= links[inode] and not _equal(source / path.name, path)
    ]


def _equal(original: Path, path: Path) -> bool:
    """Return whether ``original`` is there and has the same bytes."""
    with suppress(OSError):
        return filecmp.cmp(original, path, shallow=False)
    return False
