"""A folder of class folders as uint8 arrays, decoded once and then read from a cache.

A folder holds ``train/<class>/<image>`` and ``test/<class>/<image>``, with images of any size and
format, directly in the class folders. Hidden files and files without an image extension are
ignored; links are followed.
"""

import hashlib
import json
import os
import stat
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.datasets import Data, Dataset, balanced_subset
from common.datasets.array_file import read_array, write_array
from common.datasets.decoding import image_chunks
from common.datasets.images import is_image
from common.drawing.progress import progress_bar
from common.errors import UserError, listed, printable
from common.system.files import atomic_write

FORMAT = 2  # version of the cache; increase it if `to_square` returns other pixels than before
FIX = "replace or remove them"
_TICK = 0.02  # seconds; a file system may give two changes within this time the same time


class ImageFile(NamedTuple):
    """An image of a split, with the values that show whether it has changed."""

    name: str  # "<class>/<file>", relative to the split's folder
    size: int  # bytes
    mtime: int  # nanoseconds
    ctime: int  # nanoseconds, of the last change; unlike `mtime`, no program can set it


def load_folder(
    path: Path,
    cache_dir: Path,
    *,
    image_size: int = 32,
    limit: tuple[int | None, int | None] = (None, None),
    progress: bool = True,
) -> Data:
    """Return the images below ``path`` as uint8 (n, image_size, image_size, 3), RGB, 0..255.

    The classes are the folders of ``train/`` in sorted order; the examples are sorted by class,
    then by name. Images are converted by `to_square`. ``limit`` (train, test) is the largest number
    of images of a split, balanced over its classes. The choice is the same on every machine.
    Classes without a chosen image remain.

    Decoding shows a progress bar if standard error is a terminal and ``progress`` is true. Each split is cached in
    ``cache_dir`` as one array file. It is decoded again if the name, the size or a time of any of its images has
    changed, and if the file is damaged. The file is memory-mapped, copy-on-write, so it may be larger than the memory.

    Every class of ``train/`` must have a folder in ``test/``. A missing folder is usually an
    interrupted copy, and the accuracy would silently be that of the other classes. If a class has no
    test images on purpose, add an empty folder.

    Raises UserError for a missing path or split, a split without images, and a class that is in only
    one split or has no training images. Also raises it for an unreadable image, and if the cache
    cannot be written.
    """
    train, test = _list_split(path, "train"), _list_split(path, "test")
    _check_classes(path, train, test)
    classes = tuple(train)
    splits = []
    for split, listing, most in (("train", train, limit[0]), ("test", test, limit[1])):
        files, labels = _choose(listing, classes, most)
        images = _cached(path / split, files, cache_dir, image_size, progress)
        splits.append(Dataset(images, labels, classes))
    return Data(path.resolve().name, *splits)


def _list_split(path: Path, split: str) -> dict[str, list[ImageFile]]:
    """Return the image files of each class, classes and files in sorted order."""
    if not os.path.isdir(path):  # noqa: PTH112 - Path's raises for names that are too long
        raise UserError(f"there is no folder {printable(str(path), 300)}: check the path")
    root = path / split
    if not os.path.isdir(root):  # noqa: PTH112
        raise UserError(
            f"{path} has no folder {split}/: it must contain train/<class>/ and test/<class>/"
        )
    shown = (entry for entry in _entries(root) if entry.name[0] != ".")
    classes = sorted(entry.name for entry in shown if stat.S_ISDIR(_status(entry).st_mode))
    listing = {name: _list_class(root, name) for name in classes}
    if not any(listing.values()):
        raise UserError(f"{root} has no images: put them into {split}/<class>/")
    return listing


def _list_class(root: Path, name: str) -> list[ImageFile]:
    found = []
    for entry in _entries(root / name):
        if not is_image(entry.name) or stat.S_ISDIR(mode := (status := _status(entry)).st_mode):
            continue
        if not stat.S_ISREG(mode):
            raise UserError(f"{entry.path} cannot be read (not a regular file): remove it")
        times = status.st_mtime_ns, status.st_ctime_ns
        found.append(ImageFile(f"{name}/{entry.name}", status.st_size, *times))
    return sorted(found)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"cannot list {folder} ({error.strerror}): check its permissions"
        ) from error


def _status(entry: "os.DirEntry[str]") -> os.stat_result:
    """Return the status of a file or folder, of its target if it is a link."""
    try:
        return entry.stat()
    except OSError as error:  # usually a broken link
        raise UserError(f"{entry.path} cannot be read ({error.strerror}): remove it") from error


def _check_classes(
    path: Path, train: dict[str, list[ImageFile]], test: dict[str, list[ImageFile]]
) -> None:
    if empty := [name for name, files in train.items() if not files]:
        raise UserError(
            f"{path / 'train'} has no images of {listed(empty)}: add some or remove the folder"
        )
    if unknown := [name for name in test if name not in train]:
        raise UserError(
            f"{path / 'test'} has {listed(unknown)}, but train/ does not: "
            "both must have the same classes"
        )
    if absent := [name for name in train if name not in test]:
        raise UserError(
            f"{path / 'test'} has no folder for {listed(absent)}: "
            "add it, or an empty one if there are no test images"
        )


def _choose(
    listing: dict[str, list[ImageFile]], classes: tuple[str, ...], most: int | None
) -> tuple[list[ImageFile], NDArray[np.int64]]:
    """Return at most ``most`` files and their labels.

    The files of a class are chosen in the order of a hash of their names. So the choice is the same
    on every system, and adding or removing a file changes few of the others.
    """
    files = [(label, file) for label, name in enumerate(classes) for file in listing[name]]
    if most is not None:
        files.sort(key=lambda pair: hashlib.sha256(os.fsencode(pair[1].name)).digest())
        labels = np.array([label for label, _ in files], np.int64)
        files = sorted(files[position] for position in balanced_subset(labels, most))
    return [file for _, file in files], np.array([label for label, _ in files], np.int64)


# ---- One split


def _cached(
    root: Path,
    files: list[ImageFile],
    cache_dir: Path,
    image_size: int,
    progress: bool,
) -> NDArray[np.uint8]:
    """Return the split's images from the cache, decoding them first if necessary."""
    # The key includes the folder's path: two unpacked data sets can have the same names, sizes and times.
    content = [FORMAT, version("pillow"), image_size, str(root.resolve()), files]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    path = cache_dir / f"{root.name}-{key}.npy"
    shape = (len(files), image_size, image_size, 3)
    images = _checked(path, shape, progress)
    if images is None:
        _wait_for_new_time(files)
        names = [file.name for file in files]
        chunks = image_chunks(root, names, image_size, fix=FIX)
        try:
            with (
                atomic_write(path) as temporary,
                progress_bar(f"decoding {root}", len(files), show=progress) as advance,
            ):
                write_array(temporary, shape, chunks, advance)
        except UserError as error:
            if isinstance(error.__cause__, OSError):
                raise UserError(f"{error} for the cache (--cache-dir)") from error.__cause__
            raise
        images = _checked(path, shape, progress)
    if images is None:
        raise UserError(
            f"{path} cannot be read back: check the disk or choose another folder (--cache-dir)"
        )
    return images


def _checked(path: Path, shape: tuple[int, ...], progress: bool) -> NDArray[np.uint8] | None:
    with progress_bar(f"checking {path}", shape[0], show=progress) as advance:
        return read_array(path, shape, advance)


def _wait_for_new_time(files: list[ImageFile]) -> None:
    """Wait until a change of a file gets another time than its last change."""
    left = max(file.ctime for file in files) / 1e9 + _TICK - time.time()
    if 0 < left < _TICK:  # not in the future, which another computer's clock may be
        time.sleep(left)
