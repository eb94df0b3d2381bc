"""The files of one folder put into class folders: by links where the file system has them."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeAlias

from common.datasets.bars import job_bar
from common.datasets.images import image_extensions
from common.files import DISK_FULL, writing, written_whole

Plan: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]  # {split: {class: names of files}}

_STEP = 500  # files between two moves of the bar


@dataclass(frozen=True)
class Placed:
    """How many files were there already, were put there and in which way, and were removed."""

    kept: int = 0
    hard_links: int = 0
    symbolic_links: int = 0
    copies: int = 0
    removed: int = 0

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
        }
        counts = {text: getattr(self, name) for name, text in names.items()}
        return ", ".join(f"{count:,} {text}" for text, count in counts.items() if count)


def arrange(source: Path, root: Path, plan: Plan) -> Placed:
    """Make the images in ``root/<split>/<class>/`` those of ``plan``, which lie in ``source``.

    First all that is wrong goes from all splits of the plan, then what is missing comes: so that no
    image is ever in two splits. Only images and empty class folders are removed. A file counts as
    in place if it is the original's link, or a copy of its size and time.

    Hard links where the file system makes them, else symbolic links (``train/`` may be a link to
    another disk), else copies. Raises UserError when the disk is full or a folder cannot be
    written.
    """
    total = sum(len(names) for classes in plan.values() for names in classes.values())
    with job_bar(f"sorting {source}", total) as advance, writing(root):
        placed, missing = _clear(source, root, plan, advance)
        put = _Putter(source)
        for folder, names in missing:
            if names:
                put.into(folder, names, advance)
    return placed + put.placed


def _clear(
    source: Path, root: Path, plan: Plan, advance: Callable[[int], None]
) -> tuple[Placed, list[tuple[Path, list[str]]]]:
    """Remove what is wrong; return the names that are missing in each folder."""
    missing = []
    kept = removed = 0
    for split, classes in plan.items():
        for folder in _folders(root / split):
            if folder.name not in classes:
                removed += _remove_images(folder, _listed(source, folder, ())[1])
                if not any(folder.iterdir()):
                    folder.rmdir()
        for label, names in classes.items():
            in_place, wrong = _listed(source, root / split / label, names)
            kept += len(in_place)
            advance(len(in_place))
            removed += _remove_images(root / split / label, wrong)
            absent = [name for name in names if name not in in_place] if in_place else list(names)
            missing.append((root / split / label, absent))
    return Placed(kept=kept, removed=removed), missing


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
            if entry.name in wanted:
                same = is_same(f"{source}/{entry.name}", entry.path)
                (in_place.add if same else wrong.append)(entry.name)
            # Hidden ones too: torchvision would train on what a killed process left behind.
            elif _is_image_file(entry):
                wrong.append(entry.name)
    return in_place, wrong


def _is_image_file(entry: "os.DirEntry[str]") -> bool:
    extension = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - no Path for each file
    return extension in image_extensions() and not entry.is_dir(follow_symlinks=False)


def _remove_images(folder: Path, names: list[str]) -> int:
    for name in names:
        os.unlink(f"{folder}/{name}")  # noqa: PTH108
    return len(names)


def is_same(source: str, target: str) -> bool:
    """Return whether ``target`` is a link to ``source``, or a copy by its size and time."""
    try:
        new, old = os.stat(source), os.stat(target)  # noqa: PTH116
    except FileNotFoundError:  # a link that leads nowhere, too
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
                # Another process sorts the same folder.
                if is_same(f"{self.source}/{name}", target):
                    return "kept"
                raise
            except (OSError, NotImplementedError) as error:
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
