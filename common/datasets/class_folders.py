"""Sort the files of one folder into class folders, in a temporary place that then replaces the old ones.

Images are links to the originals if the file system has links, so they take no space.
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

NEW, OLD = ".new", ".old"  # folders of the splits that are being sorted, and being removed
SET_ASIDE = "set_aside"


def arrange(source: Path, root: Path, plan: Plan) -> Counter[str]:
    """Put the images of ``plan``, which are in ``source``, into the folders ``root/<split>/<class>/``.

    A split that already holds its images is not changed. Any other is sorted in ``root/.new``; then the old splits are
    removed and the new ones renamed. So a split is always complete or missing, and no image is ever in both train and
    valid. Files in the old splits that may be the user's only copy are moved to ``root/set_aside``, with a
    `UserNotice`. Processes that sort into the same ``root`` wait for each other.

    Returns the numbers of files already in place, hard links, symbolic links and copies. Raises UserError if the disk
    is full or ``root`` cannot be written. Also raises it, before anything is changed, if a link puts ``root`` inside
    ``source`` or the reverse, or is in the place of a split or class folder.
    """
    total = _size(plan)
    with progress_bar(f"sorting {source}", total, "files") as advance, writing(root):
        raise_problems(str(root), _link_problems(source, root, plan))
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
        with _lock_folder(root):
            _remove_temporary(source, root, plan)  # left by a killed process
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
    """Return the problems with links: those into the originals, and those that would be removed as old splits."""
    base, real = root.resolve(), source.resolve()
    if base == real or base in real.parents or real in base.parents:
        return [f"{root} and {source} contain each other: remove the link between them"]
    splits = [root / split for split in plan]
    inner = [p for s in splits if s.is_dir() and not s.is_symlink() for p in sorted(s.iterdir())]
    # A broken link may point to a disk that is not mounted.
    links = [str(p) for p in (*splits, *inner) if p.is_symlink() and not p.is_file()]
    fix = f"remove the links; to sort onto another disk, make {root} a link to a folder there"
    return [f"links in the place of folders, {listed(links)}: {fix}"] if links else []


@contextmanager
def _lock_folder(root: Path) -> Iterator[None]:
    """Lock ``root`` against other processes that sort into it; with other ratios they would mix the splits.

    The operating system releases the lock when the process ends.
    """
    if sys.platform == "win32":  # has no locks of folders
        yield
        return
    import fcntl

    handle = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_sorted(source: Path, folder: Path, classes: Classes) -> bool:
    """Return whether the class folders in ``folder`` hold exactly these images."""
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
    """Return whether torchvision's ImageFolder would read the file; it reads hidden ones too."""
    extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - faster than a Path per file
    return extension in image_extensions() and not entry.is_dir(follow_symlinks=False)


def is_same(source: str, target: str) -> bool:
    """Return whether ``target`` is a link to ``source``, or a file with the same bytes."""
    with suppress(OSError):  # also for broken and circular links
        return os.path.samefile(source, target) or _equal(source, target)  # noqa: PTH121
    return False


def _put(
    source: Path, root: Path, inner: str, names: Sequence[str], advance: Callable[[int], None]
) -> Counter[str]:
    """Put the files into the temporary folder that will become ``root/inner``."""
    folder = root / NEW / inner
    folder.mkdir(parents=True)
    # Links within the competition's folder are relative, so that it can be moved as a whole.
    real, base = source.resolve(), (root / inner).resolve()
    pointer = os.path.relpath(real, base) if real.parent in base.parents else str(real)
    placed: Counter[str] = Counter()
    for name in names:
        placed[link_or_copy(f"{source}/{name}", f"{folder}/{name}", f"{pointer}/{name}")] += 1
        advance(1)
    return placed


def link_or_copy(source: str, target: str, pointer: str = "") -> str:
    """Make ``target`` a hard link, a symbolic link to ``pointer`` (if given) or a copy; return which.

    The first that works is used.
    """
    with _unless_refused(source):
        # Linux would make a hard link to a symbolic link, which breaks if that is relative.
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
    """Suppress the error of a file system without such links."""
    try:
        yield
    except (OSError, NotImplementedError) as error:
        if not os.path.exists(source):  # noqa: PTH110
            raise UserError(
                f"{source} disappeared: do not move or remove files while they are sorted"
            ) from error
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise


def _replace(root: Path, splits: list[str]) -> None:
    """Replace the old splits by the new ones: move all old ones away, then move the new ones in."""
    (root / OLD).mkdir(exist_ok=True)  # may exist with splits that are not in the plan
    for split in splits:
        if os.path.lexists(root / split):
            (root / split).rename(root / OLD / split)
    for split in splits:
        (root / NEW / split).rename(root / split)


def _remove_temporary(source: Path, root: Path, plan: Plan) -> None:
    """Remove incomplete new splits, and the plan's old splits except the user's own files.

    Those files are moved to `SET_ASIDE`. Old splits that are not in the plan stay until they are sorted, because only
    then the names of their images are known.
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
        else:  # a file that has other links, or a link to a file
            path.unlink(missing_ok=True)
    with suppress(OSError):  # not empty
        (root / OLD).rmdir()
    if moved:
        text = f"moved to {root / SET_ASIDE}, because they may be your only copies: {listed(sorted(moved))}"
        warnings.warn(UserNotice(text), stacklevel=4)


def _only_copies(source: Path, old: Path, plan: Plan) -> list[Path]:
    """Return the files of the plan's old splits that may be the user's only copies, one path per inode.

    Leaves out links, files with a hard link outside these splits, and files with the same bytes as the original of that
    name. Also leaves out files at ``<split>/<class>/<name>`` with the class and name of an image in the plan.
    """
    sorted_here = {
        (label, name)
        for classes in plan.values()
        for label, names in classes.items()
        for name in names
    }
    links: Counter[int] = Counter()  # number of links to each inode in these splits
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
        if path.lstat().st_nlink <= links[inode] and not _equal(f"{source}/{path.name}", str(path))
    ]


def _equal(original: str, path: str) -> bool:
    """Return whether ``original`` exists and has the same bytes."""
    filecmp.clear_cache()  # it remembers files by their size and time
    with suppress(OSError):
        return filecmp.cmp(original, path, shallow=False)
    return False
