"""The files of one folder put into class folders: by links where the file system has them."""

import os
import re
import shutil
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TypeAlias

from common.datasets.images import image_extensions
from common.drawing.progress import job_bar
from common.errors import UserError, UserNotice, listed, raise_problems
from common.system.files import DISK_FULL, writing, written_whole

Plan: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]  # {split: {class: names of files}}

SET_ASIDE = "set_aside"
_TEMPORARY = re.compile(r"\.(.+)\.[0-9]+(\.[^.]+)")  # as `written_whole` calls it
_STEP = 500  # files between two moves of the bar


@dataclass(frozen=True)
class Placed:
    """How many files were there already, were put there and in which way, and were removed."""

    kept: int = 0
    hard_links: int = 0
    symbolic_links: int = 0
    copies: int = 0
    removed: int = 0
    set_aside: int = 0  # images that are no original's, moved out of the splits

    def __add__(self, other: "Placed") -> "Placed":
        names = [field.name for field in fields(self)]
        return Placed(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def __str__(self) -> str:
        names = {
            "kept": "in place already",
            "hard_links": "hard links",
            "symbolic_links": "symbolic links",
            "copies": "copies",
            "removed": "old ones removed",
            "set_aside": "others set aside",
        }
        counts = {text: getattr(self, name) for name, text in names.items()}
        return ", ".join(f"{count:,} {text}" for text, count in counts.items() if count)


def arrange(source: Path, root: Path, plan: Plan) -> Placed:
    """Make the images in ``root/<split>/<class>/`` those of ``plan``, which lie in ``source``.

    First all that is wrong goes from all splits of the plan, then what is missing comes: so that no
    image is ever in two splits. Only images and empty class folders are removed, and of an image
    that is none of ``source`` never the last copy: it moves to ``root/set_aside/``, with a
    `UserNotice`. A file counts as in place if it is the original's link, or a copy of its size and
    time. Processes that sort into the same ``root`` wait for each other.

    Hard links where the file system makes them, else symbolic links (``train/`` may be a link to
    another disk), else copies. Raises UserError when the disk is full, a folder cannot be written,
    and for links where the folders of the plan should be, before anything is changed.
    """
    total = sum(len(names) for classes in plan.values() for names in classes.values())
    with job_bar(f"sorting {source}", total) as advance, writing(root):
        raise_problems(str(root), _folder_problems(source, root, plan))
        if not root.is_dir():
            root.mkdir(parents=True, exist_ok=True)
        with _alone_in(root):
            clear = _Clearer(source, root, plan)
            missing = clear.all(advance)
            clear.notice()
            put = _Putter(source)
            for folder, names in missing:
                if names:
                    put.into(folder, names, advance)
    return clear.placed + put.placed


def _folder_problems(source: Path, root: Path, plan: Plan) -> list[str]:
    """Say where sorting would change what is not its own, or has no folder to sort into."""
    if problem := _no_folder(root):
        return [problem]
    base, real = root.resolve(), source.resolve()
    if base == real or base in real.parents or real in base.parents:
        return [f"{root} and {source} lead into each other: remove the link between them"]
    problems = []
    for split, classes in plan.items():
        folder = root / split
        inner = sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
        wanted = [folder, *(path for path in inner if path.name in classes)]
        problems += [problem for path in wanted if (problem := _no_folder(path))]
        # What is wrong in a folder is removed: where a link leads, these may be the originals.
        if links := [str(path) for path in (folder, *inner) if path.is_symlink() and path.is_dir()]:
            problems.append(f"links in the place of folders, {listed(links)}: remove the links")
    return problems


def _no_folder(path: Path) -> str | None:
    blocked = os.path.lexists(path) and not path.is_dir()
    return f"{path} is no folder, and one must be there: move it away" if blocked else None


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
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


class _Clearer:
    """Removes what is wrong from the folders of a plan, and finds what is missing there."""

    def __init__(self, source: Path, root: Path, plan: Plan) -> None:
        self.source, self.root, self.plan = source, root, plan
        self.placed = Placed()
        self.set_aside: list[str] = []

    def all(self, advance: Callable[[int], None]) -> list[tuple[Path, list[str]]]:
        """Clear all folders; return the names that are missing in each."""
        missing = []
        for split, classes in self.plan.items():
            for folder in _folders(self.root / split):
                if folder.name not in classes:
                    self._remove(folder, _listed(self.source, folder, ())[1])
                    with suppress(OSError):  # not empty
                        folder.rmdir()
            for label, names in classes.items():
                folder = self.root / split / label
                in_place, wrong = _listed(self.source, folder, names)
                self.placed += Placed(kept=len(in_place))
                advance(len(in_place))
                self._remove(folder, wrong)
                absent = [n for n in names if n not in in_place] if in_place else list(names)
                missing.append((folder, absent))
        return missing

    def notice(self) -> None:
        if self.set_aside:
            text = f"moved to {self.root / SET_ASIDE}, as {self.source} has no such images: "
            warnings.warn(UserNotice(text + listed(sorted(self.set_aside))), stacklevel=4)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(n for classes in self.plan.values() for ns in classes.values() for n in ns)

    def _remove(self, folder: Path, names: list[str]) -> None:
        for name in names:
            if self._is_ours(name) or _is_spare(folder / name):
                (folder / name).unlink(missing_ok=True)
                self.placed += Placed(removed=1)
            else:
                self._put_aside(folder / name)

    def _is_ours(self, name: str) -> bool:
        """Return whether the name is an original's, or what a killed process copied it to."""
        if name in self._known:
            return True
        begun = _TEMPORARY.fullmatch(name)
        return begun is not None and f"{begun[1]}{begun[2]}" in self._known

    def _put_aside(self, path: Path) -> None:
        """Move what may be the user's only copy out of the splits, under a name that is free."""
        inner = path.relative_to(self.root)
        target = self.root / SET_ASIDE / inner
        for number in count(2):
            if not os.path.lexists(target):
                break
            target = target.with_name(f"{inner.stem}-{number}{inner.suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        self.set_aside.append(inner.as_posix())
        self.placed += Placed(set_aside=1)


def _is_spare(path: Path) -> bool:
    """Return whether the file's content is elsewhere too: it is a link, or not the only hard one."""
    status = path.lstat()
    return stat.S_ISLNK(status.st_mode) or status.st_nlink > 1


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _listed(source: Path, folder: Path, names: Sequence[str]) -> tuple[set[str], list[str]]:
    """Return which of ``names`` are in place in ``folder``, and the images that are wrong there."""
    wanted = set(names)
    in_place: set[str] = set()
    wrong: list[str] = []
    if not folder.is_dir():
        return in_place, wrong
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue
            if entry.name in wanted:
                same = is_same(f"{source}/{entry.name}", entry.path)
                (in_place.add if same else wrong.append)(entry.name)
            # Hidden ones too: torchvision would train on what a killed process left behind.
            elif _is_image_file(entry):
                wrong.append(entry.name)
    return in_place, wrong


def _is_image_file(entry: "os.DirEntry[str]") -> bool:
    extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - no Path for each file
    return extension in image_extensions()


def is_same(source: str, target: str) -> bool:
    """Return whether ``target`` is a link to ``source``, or a copy by its size and time."""
    try:
        new, old = os.stat(source), os.stat(target)  # noqa: PTH116
    except OSError:  # a link that leads nowhere or in a circle, too
        return False
    return os.path.samestat(new, old) or (
        (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
    )


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target``, which is not there, a hard link to the file ``source``, else a copy."""
    try:
        os.link(source.resolve(), target)  # a link to a relative link would lead elsewhere
    except (OSError, NotImplementedError) as error:  # another disk, or no links there at all
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        shutil.copy2(source, target)


class _Putter:
    """Puts files from one folder into others, and leaves out what has been refused once."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.ways = [self._hard_link, self._symbolic_link, self._copy]
        self.placed = Placed()

    def into(self, folder: Path, names: list[str], advance: Callable[[int], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pointer = self._pointer(folder)
        counts = dict.fromkeys(("hard_links", "symbolic_links", "copies", "kept"), 0)
        for number, name in enumerate(names, start=1):
            counts[self._put(name, f"{folder}/{name}", pointer)] += 1
            if number % _STEP == 0:
                advance(_STEP)
        advance(len(names) % _STEP)
        self.placed += Placed(**counts)

    def _pointer(self, folder: Path) -> str:
        """What a symbolic link in ``folder`` holds before the file's name.

        Relative within the competition's folder, which can then be moved as a whole.
        """
        real, base = self.source.resolve(), folder.resolve()
        near = real.parent in base.parents
        return os.path.relpath(real, base) if near else str(real)

    def _put(self, name: str, target: str, pointer: str) -> str:
        while True:
            try:
                return self.ways[0](name, target, pointer)
            except FileExistsError:
                # Another process sorts the same folder, where there are no locks.
                if is_same(f"{self.source}/{name}", target):
                    return "kept"
                raise UserError(f"{target} is in the way: move it away") from None
            except (OSError, NotImplementedError) as error:
                if not os.path.exists(f"{self.source}/{name}"):  # noqa: PTH110 - no link to nothing
                    gone = (
                        f"{self.source}/{name} is gone: leave the files alone while they are sorted"
                    )
                    raise UserError(gone) from error
                full = isinstance(error, OSError) and error.errno in DISK_FULL
                if full or len(self.ways) == 1:
                    raise
                del self.ways[0]

    def _hard_link(self, name: str, target: str, _: str) -> str:
        original = f"{self.source}/{name}"
        if os.path.islink(original):  # noqa: PTH114 - Linux would link the link
            original = os.path.realpath(original)
        os.link(original, target)
        return "hard_links"

    def _symbolic_link(self, name: str, target: str, pointer: str) -> str:
        os.symlink(f"{pointer}/{name}", target)  # noqa: PTH211
        return "symbolic_links"

    def _copy(self, name: str, target: str, _: str) -> str:
        with written_whole(Path(target)) as temporary:
            shutil.copy2(f"{self.source}/{name}", temporary)
        return "copies"
