"""A folder of images as uint8 arrays, decoded once and then read from a cache."""

import hashlib
import json
import math
import os
import re
import time
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from shutil import disk_usage

import numpy as np
from numpy.typing import NDArray

from common.datasets import Data, Dataset, balanced_subset
from common.datasets.array_file import LARGE, read_array, unlink_unused, write_array
from common.datasets.decoding import (
    UnreadableImagesError,
    decode_into,
    image_chunks,
    unreadable_images,
)
from common.datasets.image_files import ImageFiles
from common.datasets.images import HEIF_EXTENSIONS
from common.datasets.layouts import Classes, ImageFile, find_layout
from common.drawing.progress import progress_bar
from common.errors import UserError, UserNotice, counted, listed, printable
from common.system.files import atomic_write, write_text

FORMAT = 3  # version of the cache; increase it if `to_square` returns other pixels than before
FIX = "replace or remove them, or leave them out with --skip-broken"
_TICK = 0.02  # seconds; a file system may give two changes within this time the same time
# The cache keeps the files used last. An array of 100,000 images of 224 pixels has 15 GB.
MAX_CACHE_BYTES = 20 * 10**9
MAX_CACHE_FILES = 100
_CACHE_FILE = re.compile(r".*-[0-9a-f]{16}\.(npy|json)", re.DOTALL)


def load_folder(
    path: Path,
    cache_dir: Path,
    *,
    image_size: int = 32,
    limit: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
    valid_ratio: float | None = None,
    skip_broken: bool = False,
    evaluation: bool = False,
    progress: bool = True,
    stream: bool = False,
) -> Data:
    """Return the images below ``path`` as uint8 (n, image_size, image_size, 3), RGB, 0..255.

    `find_layout` says which layouts there are, and what ``seed``, ``valid_ratio`` and ``evaluation`` do. The examples
    are sorted by class, then by name. Images are converted by `to_square`. ``limit`` (training, held out) is the
    largest number of images, balanced over the classes. The choice is the same on every machine. Classes without a
    chosen image remain. A `UserNotice` names the files that are left out; with ``skip_broken`` another one names the
    images that cannot be read.

    Decoding shows a progress bar if standard error is a terminal and ``progress`` is true. Each split is cached in
    ``cache_dir`` as one array file. It is decoded again if the name, the size or a time of any of its images has
    changed, and if the file is damaged. The file is memory-mapped, copy-on-write, so it may be larger than the memory.
    ``cache_dir`` keeps the files used last, up to `MAX_CACHE_BYTES`.
    With ``stream``, nothing is decoded or cached here: the images stay in their files.

    Every class of ``train/`` must have a folder in ``test/`` or ``val/``. A missing folder is usually an interrupted
    copy, and the accuracy would silently be that of the other classes. If a class has no such images on purpose, add
    an empty folder.

    Raises UserError as `find_layout` does. Also raises it for unreadable images, and if the cache cannot be written.
    """
    layout = find_layout(path, valid_ratio=valid_ratio, seed=seed, evaluation=evaluation)
    if left_out := layout.left_out.describe():
        warnings.warn(UserNotice(f"left out of {path}: {left_out}"), stacklevel=2)
    classes = tuple(layout.train.classes)
    if len(classes) == 1:
        text = (
            f"{path} has only one class, {printable(classes[0])}, so every prediction will be right"
        )
        warnings.warn(UserNotice(f"{text}; check how its files are arranged"), stacklevel=2)
    splits: list[Dataset] = []
    problems: dict[str, str] = {}
    for split, most in zip((layout.train, layout.held_out), limit, strict=True):
        root = split.root
        files, labels = _choose(split.classes, classes, most)
        try:
            if skip_broken:
                broken = _find_broken(root, files, cache_dir, image_size, progress, stream)
                kept = [i for i, file in enumerate(files) if file.name not in broken]
                _check_kept(root, classes, labels, labels[kept], is_train=not splits)
                files, labels = [files[i] for i in kept], labels[kept]
                problems |= {f"{root}/{name}": why for name, why in broken.items()}
            images = (
                ImageFiles(root, [f.name for f in files], [f.size for f in files], image_size)
                if stream
                else _cached(root, files, cache_dir, image_size, progress)
            )
        except UnreadableImagesError as error:  # there may be others in the other split
            problems |= {f"{root}/{name}": why for name, why in error.problems.items()}
            continue
        inner = "" if root == path else f"{root.name}/"
        names = [f"{inner}{file.name}" for file in files]
        splits.append(Dataset(images, labels, classes, names))
    if len(splits) < 2:
        raise unreadable_images(problems, FIX)
    if problems:
        text = f"left out, because they cannot be read: {listed(problems.values())}"
        warnings.warn(UserNotice(text), stacklevel=2)
    _limit_cache(cache_dir)
    train, held_out = splits
    trained = {name: [f.name for f in own] for name, own in layout.train.classes.items()}
    digest = hashlib.sha256(json.dumps(trained).encode()).hexdigest()[:16]
    name = path.resolve().name
    return Data(name, train, held_out, layout.kind, layout.how, layout.drawn, digest)


def _choose(
    listing: Classes, classes: tuple[str, ...], most: int | None
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


def _check_kept(
    root: Path,
    classes: tuple[str, ...],
    labels: NDArray[np.int64],
    kept: NDArray[np.int64],
    is_train: bool,
) -> None:
    """Raise UserError if no image of a class, or of the split, can be read."""
    lost = sorted(set(labels.tolist()) - set(kept.tolist()))
    if lost and (is_train or not len(kept)):
        names = listed(classes[label] for label in lost)
        raise UserError(f"{root} has no image of {names} that can be read: replace them")


# ---- One split


def _find_broken(
    root: Path,
    files: list[ImageFile],
    cache_dir: Path,
    image_size: int,
    progress: bool,
    stream: bool,
) -> dict[str, str]:
    """Return the images that cannot be read, with a message for each; they are kept in the cache."""
    path = _cache_path(root, files, cache_dir, image_size, ".json")
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8")))
        if known.keys() <= {file.name for file in files}:
            # Try again: the disk may have failed, not the file.
            image = np.empty((image_size, image_size, 3), np.uint8)
            tried = {name: decode_into(image, root / name) for name in known}
            broken = {name: why for name, why in tried.items() if why is not None}
            if broken != known:
                _keep(path, broken)
            _touch(path)
            return broken
    except (OSError, ValueError, TypeError):  # missing, or damaged
        pass
    try:
        if stream:
            _read_all(root, files, image_size, progress)
        else:
            _cached(root, files, cache_dir, image_size, progress)
        broken = {}
    except UnreadableImagesError as error:
        broken = error.problems
    _keep(path, broken)
    return broken


def _keep(path: Path, broken: dict[str, str]) -> None:
    with suppress(UserError):  # a cache that can only be read
        write_text(path, json.dumps(broken))


def _read_all(root: Path, files: list[ImageFile], image_size: int, progress: bool) -> None:
    """Decode all images, and keep none."""
    chunks = image_chunks(root, [file.name for file in files], image_size, fix=FIX)
    with progress_bar(f"checking {root}", len(files), show=progress) as advance:
        for names, _ in chunks:
            advance(len(names))


def _cache_path(
    root: Path, files: list[ImageFile], cache_dir: Path, image_size: int, suffix: str
) -> Path:
    # The key includes the folder's path: two unpacked data sets can have the same names, sizes and times.
    content = [FORMAT, version("pillow"), image_size, str(root.resolve()), files]
    if any(os.path.splitext(file.name)[1].lower() in HEIF_EXTENSIONS for file in files):  # noqa: PTH122
        content.append(version("pillow-heif"))
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    start = os.fsdecode(os.fsencode(root.name)[:100])  # a name may have 255 bytes, with the key
    return cache_dir / f"{start}-{key}{suffix}"


def _cached(
    root: Path,
    files: list[ImageFile],
    cache_dir: Path,
    image_size: int,
    progress: bool,
) -> NDArray[np.uint8]:
    """Return the split's images from the cache, decoding them first if necessary."""
    path = _cache_path(root, files, cache_dir, image_size, ".npy")
    shape = (len(files), image_size, image_size, 3)
    images = _checked(path, shape, progress)
    if images is None:
        _check_disk(path, math.prod(shape), f"{root} at {image_size} x {image_size} pixels")
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
    _touch(path)
    return images


def _check_disk(path: Path, needed: int, what: str) -> None:
    """Say how much space the decoded images take, if it is much. Raises UserError if the disk has less."""
    folder = next(parent for parent in path.parents if parent.exists())
    free = disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{what} needs {needed / 1e9:.1f} GB in {path.parent}, and the disk has {free / 1e9:.1f} GB free: free "
            "some space, or choose another --cache-dir, a smaller --image-size or --pipeline native"
        )
    if needed >= LARGE:
        text = (
            f"{what}: {needed / 1e9:.1f} GB in {path.parent}, read from there during the training"
        )
        warnings.warn(UserNotice(text), stacklevel=2)


def _checked(path: Path, shape: tuple[int, ...], progress: bool) -> NDArray[np.uint8] | None:
    with progress_bar(f"checking {path}", shape[0], show=progress) as advance:
        return read_array(path, shape, advance)


def _wait_for_new_time(files: list[ImageFile]) -> None:
    """Wait until a change of a file gets another time than its last change."""
    left = max(file.ctime for file in files) / 1e9 + _TICK - time.time()
    if 0 < left < _TICK:  # not in the future, which another computer's clock may be
        time.sleep(left)


# ---- The cache


def _touch(path: Path) -> None:
    """Set the time of the last use."""
    with suppress(OSError):  # a cache that can only be read
        os.utime(path)


def _limit_cache(cache_dir: Path) -> None:
    """Remove the files that were not used for the longest time, except those that a process uses.

    The others are at most `MAX_CACHE_FILES` with `MAX_CACHE_BYTES`. A `UserNotice` says how many were removed.
    """
    found = []
    with suppress(OSError), os.scandir(cache_dir) as entries:
        for entry in entries:
            if _CACHE_FILE.fullmatch(entry.name):
                with suppress(OSError):  # removed by another process
                    found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
    left, size = len(found), sum(size for _, size, _ in found)
    removed, freed = 0, 0
    for _, own, path in sorted(found):
        if left <= MAX_CACHE_FILES and size <= MAX_CACHE_BYTES:
            break
        if unlink_unused(Path(path)):
            removed, freed = removed + 1, freed + own
            left, size = left - 1, size - own
    if removed:
        text = f"{counted(removed, 'file')} with {freed / 1e9:.1f} GB, those not used for the longest time"
        limits = f"{MAX_CACHE_FILES} files and {MAX_CACHE_BYTES / 1e9:g} GB"
        warnings.warn(
            UserNotice(f"removed from {cache_dir}, which keeps {limits}: {text}"), stacklevel=3
        )
