"""The Kaggle competition's files, sorted into the folders that the book trains from (14.13).

The book's names and results, made repeatable: whatever was there before, after any of these
functions has ended the folders hold what the labels and the ratio say, and at no moment, not even
of an interrupted run, is an image in both ``train/`` and ``valid/``. Images are hard links to the
originals where the file system allows it, so they cost no space; do not edit them in place.
"""

import csv
import math
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TypeAlias

from common.datasets.images import image_extensions, is_image
from common.errors import UserError
from common.files import written_whole

AnyPath: TypeAlias = str | os.PathLike[str]


def read_csv_labels(fname: AnyPath) -> dict[str, str]:
    """Return the label of each image id: from a csv with a header line and rows ``id,label``.

    Raises UserError for a file that is not there, rows of another form, ids that come twice, and
    names that cannot be a file's.
    """
    path = Path(fname)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {path}: put the competition's trainLabels.csv there"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as a csv ({error}): put a whole copy there") from error
    labels: dict[str, str] = {}
    twice: list[str] = []
    for number, row in enumerate(rows, start=2):
        if not any(field.strip() for field in row):
            continue
        if len(row) != 2 or not all(_is_file_name(field.strip()) for field in row):
            raise UserError(f"{path}, row {number}: expected 'id,label', found '{','.join(row)}'")
        name, label = (field.strip() for field in row)
        if name in labels:
            twice.append(name)
        labels[name] = label
    if twice:
        raise UserError(f"{path} has ids that come twice, {_counted(twice)}: keep one row of each")
    if not labels:
        raise UserError(f"{path} has no labels: put a whole copy of trainLabels.csv there")
    return labels


def copyfile(filename: AnyPath, target_dir: AnyPath) -> None:
    """Put the file into ``target_dir`` under its own name: a hard link where possible, else a copy.

    The folder is made if it is not there; a file of that name is replaced, never written into.
    Raises UserError when the disk is full or the folder cannot be written.
    """
    source = Path(filename).resolve()  # a link to a relative link would lead elsewhere
    target = Path(target_dir) / Path(filename).name
    if _is_copy(source, target):
        return
    with written_whole(target) as temporary:
        temporary.unlink(missing_ok=True)  # left by a process that was killed
        try:
            temporary.hardlink_to(source)
        except (OSError, NotImplementedError):  # another disk, or a file system without links
            shutil.copy2(source, temporary)


def reorg_train_valid(data_dir: AnyPath, labels: dict[str, str], valid_ratio: float) -> int:
    """Sort ``train/`` into ``train_valid_test/{train_valid,train,valid}/<class>/``.

    ``valid/`` takes from each class its first images in the order of their ids, as many as
    ``valid_ratio`` of the rarest class, rounded down, but at least one; ``train/`` the others,
    ``train_valid/`` all. Returns that number of validation images per class.

    Raises UserError when images and labels do not match one to one, or for a ratio outside 0..1.
    """
    if not 0 <= valid_ratio < 1:
        raise UserError(f"a validation share of {valid_ratio} is not possible: take 0 to below 1")
    images = _images_by_id(Path(data_dir) / "train")
    _check_match(images, labels)
    rarest = min(Counter(labels.values()).values())
    per_class = max(1, math.floor(rarest * valid_ratio))
    plan: dict[Path, Path] = {}
    taken: Counter[str] = Counter()
    for name in sorted(images, key=_natural):
        label, source = labels[name], images[name]
        split = "valid" if taken[label] < per_class else "train"
        taken[label] += 1
        for folder in ("train_valid", split):
            plan[Path(folder, label, source.name)] = source
    _arrange(Path(data_dir) / "train_valid_test", ("train_valid", "train", "valid"), plan)
    return per_class


def reorg_test(data_dir: AnyPath) -> None:
    """Put the images of ``test/`` into ``train_valid_test/test/unknown/``.

    Raises UserError when there are none, or two of the same id.
    """
    images = _images_by_id(Path(data_dir) / "test")
    plan = {Path("test", "unknown", source.name): source for source in images.values()}
    _arrange(Path(data_dir) / "train_valid_test", ("test",), plan)


def reorg_cifar10_data(data_dir: AnyPath, valid_ratio: float) -> None:
    """Sort the competition's files: ``trainLabels.csv``, ``train/`` and ``test/`` of ``data_dir``.

    Raises UserError as `read_csv_labels`, `reorg_train_valid` and `reorg_test` do.
    """
    labels = read_csv_labels(Path(data_dir) / "trainLabels.csv")
    reorg_train_valid(data_dir, labels, valid_ratio)
    reorg_test(data_dir)


def _images_by_id(folder: Path) -> dict[str, Path]:
    """Return the images in ``folder`` by their id, which is the name without its extension."""
    if not folder.is_dir():
        raise UserError(f"there is no {folder}: unpack the competition's files there")
    images: dict[str, Path] = {}
    twice: list[str] = []
    for path in sorted(folder.iterdir()):
        if is_image(path.name) and path.is_file():
            if path.stem in images:
                twice.append(path.stem)
            images[path.stem] = path
    if twice:
        raise UserError(f"{folder} has two images for the ids {_counted(twice)}: keep one of each")
    if not images:
        raise UserError(f"{folder} has no images: unpack the competition's files there")
    return images


def _check_match(images: dict[str, Path], labels: dict[str, str]) -> None:
    parts = []
    if unlabelled := [name for name in images if name not in labels]:
        parts.append(f"images without a label: {_counted(unlabelled)}")
    if missing := [name for name in labels if name not in images]:
        parts.append(f"labels without an image: {_counted(missing)}")
    if parts:
        raise UserError(f"train/ and its labels do not match, {'; '.join(parts)}: complete them")


def _counted(names: list[str]) -> str:
    """Name the first five and say how many there are."""
    shown = sorted(set(names), key=_natural)
    more = ", ..." if len(shown) > 5 else ""
    return f"{', '.join(shown[:5])}{more} ({len(shown)} in all)"


def _natural(name: str) -> tuple[bool, int, str]:
    """Order ids as numbers where they are numbers, before any others."""
    number = int(name) if name.isdecimal() and name.isascii() else -1
    return (number < 0, number, name)


def _is_file_name(name: str) -> bool:
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0")


def _arrange(root: Path, splits: tuple[str, ...], plan: dict[Path, Path]) -> None:
    """Make the images in ``root``'s ``splits`` those of ``plan``, {path below root: original}.

    First all that is wrong goes, then what is missing comes: so that no image is ever in two
    splits. Only images and empty class folders are removed.
    """
    for split in splits:
        for old in sorted((root / split).glob("*/*")):
            # Hidden ones too: torchvision would train on what a killed process left behind.
            if old.suffix.lower() in image_extensions() and old.relative_to(root) not in plan:
                old.unlink()
        for folder in sorted((root / split).glob("*/")):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    for place, source in plan.items():
        copyfile(source, (root / place).parent)


def _is_copy(source: Path, target: Path) -> bool:
    if not target.exists():
        return False
    if target.samefile(source):
        return True
    old, new = target.stat(), source.stat()
    return (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns)
