"""Sort the Kaggle competition's files into the folders that the book trains from (14.13).

The functions have the book's names and results, but can be repeated: afterwards the folders match the labels and the
ratio, whatever they held before. An image is never in both ``train/`` and ``valid/``, not even after an interrupt or
with two concurrent runs. Images are links to the originals if the file system allows it, so they take no space; do not
edit them in place. The originals are never changed. For other files in the folders, see `arrange`.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from common.datasets import AnyPath, Dataset, share_of
from common.datasets.class_folders import Plan, arrange, is_same, link_or_copy
from common.datasets.competition import (
    ImageFolder,
    LabelFile,
    archives_of,
    image_id,
    in_order,
    list_images,
    match_problems,
    notice_ignored,
    read_label_file,
    unpack_hint,
)
from common.datasets.decoding import Chunk, image_chunks, read_images
from common.errors import UserError, listed, raise_problems
from common.system.files import atomic_write

Split: TypeAlias = Literal["train", "valid", "train_valid"]

SORTED = "train_valid_test"
UNKNOWN = "unknown"  # the class of the test images
FIX = "put complete copies into {}/ and sort the files again"  # the sorted files are only links


@dataclass(frozen=True)
class Reorganized:
    """The result of `reorg_cifar10_data`: the number of images of each split, and how their files were placed."""

    classes: tuple[str, ...]  # sorted
    num_train: int
    num_valid: int
    num_train_valid: int
    num_test: int
    valid_per_class: int
    placed: str  # "1,500 in place already"

    def __str__(self) -> str:
        return (
            f"{self.num_train:,} train, {self.num_valid:,} valid ({self.valid_per_class:,} of each "
            f"of {len(self.classes)} classes), {self.num_train_valid:,} train_valid and "
            f"{self.num_test:,} test images: {self.placed}"
        )


class Unlabelled(NamedTuple):
    """The test images, in the order of their ids (numeric if possible)."""

    folder: Path
    names: list[str]  # file names

    @property
    def ids(self) -> list[str]:
        return [image_id(name) for name in self.names]

    def chunks(self, image_size: int, chunk_size: int) -> Iterator[Chunk]:
        """Stream the images as `image_chunks` does: file names and uint8 (n, size, size, 3)."""
        fix = FIX.format("test")
        return image_chunks(self.folder, self.names, image_size, chunk_size, fix=fix)


def read_csv_labels(fname: AnyPath) -> dict[str, str]:
    """Return {image id: label} from a csv with a header line and rows ``id,label``.

    Raises one UserError that lists all problems: a missing file or header, malformed rows, names that cannot be file
    names, and repeated ids.
    """
    file = _labels(Path(fname))
    raise_problems(str(fname), file.problems)
    return file.labels


def copyfile(filename: AnyPath, target_dir: AnyPath) -> None:
    """Put the file into ``target_dir`` under its own name: a hard link, or a copy if links are not possible.

    Makes the folder if necessary. An existing file is replaced, not overwritten in place. Raises UserError if the file
    is missing, the disk is full or the folder cannot be written.
    """
    source, target = Path(filename), Path(target_dir) / Path(filename).name
    if not os.path.isfile(source):  # noqa: PTH113
        raise_problems(str(source), [f"there is no file {source}: check the name"])
    if is_same(str(source), str(target)):
        return
    with atomic_write(target) as temporary:
        link_or_copy(str(source), str(temporary))


def reorg_train_valid(data_dir: AnyPath, labels: dict[str, str], valid_ratio: float) -> int:
    """Sort ``train/`` into ``train_valid_test/{train_valid,train,valid}/<class>/``.

    ``valid/`` gets the first images of each class in the order of their ids. Their number is ``valid_ratio`` times the
    size of the smallest class, rounded down, but at least one. ``train/`` gets the others, ``train_valid/`` all.
    Returns the number of validation images per class.

    Raises one UserError that lists all problems: images and labels that do not match one to one, two images with one
    id, classes with one image, and broken links. Raises UserError for a ratio outside [0, 1). Other files are ignored,
    with a `UserNotice`.
    """
    _check_ratio(valid_ratio)
    images = list_images(Path(data_dir) / "train")
    none = [] if labels else ["there are no labels: pass one for each image"]
    raise_problems(str(images.path), [*images.problems, *none, *match_problems(images, labels)])
    notice_ignored(images)
    plan, per_class = _split(images, labels, valid_ratio)
    arrange(images.path, Path(data_dir) / SORTED, plan)
    return per_class


def reorg_test(data_dir: AnyPath) -> None:
    """Put the images of ``test/`` into ``train_valid_test/test/unknown/``.

    Raises UserError if there are no images, two images with the same id, or broken links. Other files
    are ignored, with a `UserNotice`.
    """
    images = list_images(Path(data_dir) / "test")
    raise_problems(str(images.path), images.problems)
    notice_ignored(images)
    arrange(images.path, Path(data_dir) / SORTED, {"test": {UNKNOWN: images.names}})


def reorg_cifar10_data(data_dir: AnyPath, valid_ratio: float) -> Reorganized:
    """Sort the competition's files: ``trainLabels.csv``, ``train/`` and ``test/`` of ``data_dir``.

    Raises one UserError with all the problems that `read_csv_labels`, `reorg_train_valid` and `reorg_test` report,
    before anything is changed.
    """
    _check_ratio(valid_ratio)
    root = Path(data_dir)
    file, train, test = _survey(root)
    notice_ignored(train, test)
    plan, per_class = _split(train, file.labels, valid_ratio)
    placed = arrange(train.path, root / SORTED, plan)
    placed += arrange(test.path, root / SORTED, {"test": {UNKNOWN: test.names}})
    put = [f"{number:,} {how}" for how, number in placed.items() if number]
    sizes = {split: sum(map(len, classes.values())) for split, classes in plan.items()}
    return Reorganized(
        classes=tuple(sorted(plan["train_valid"])),
        num_train=sizes["train"],
        num_valid=sizes["valid"],
        num_train_valid=sizes["train_valid"],
        num_test=len(test.names),
        valid_per_class=per_class,
        placed=", ".join(put),
    )


def _survey(root: Path) -> tuple[LabelFile, ImageFolder, ImageFolder]:
    """List the competition's files. Raises one UserError with all problems."""
    # Path's own functions raise for names that are too long.
    if os.path.isfile(root):  # noqa: PTH113
        raise_problems(str(root), [f"{root} is a file: unpack it, and pass the folder"])
    if not os.path.isdir(root):  # noqa: PTH112
        what = archives_of(root) or ["the competition's files"]
        raise_problems(str(root), [f"there is no folder {root}: unpack {what[0]} there"])
    file = _labels(root / "trainLabels.csv")
    train, test = list_images(root / "train"), list_images(root / "test")
    match = match_problems(train, file.labels)
    raise_problems(str(root), [*file.problems, *train.problems, *match, *test.problems])
    return file, train, test


def _labels(path: Path) -> LabelFile:
    there = os.path.exists(path)  # noqa: PTH110 - Path's raises for names that are too long
    fix = "put a complete copy of the competition's trainLabels.csv there"
    return read_label_file(path, fix if there else unpack_hint(path))


def _check_ratio(valid_ratio: float) -> None:
    if not 0 <= valid_ratio < 1:
        raise UserError(
            f"a validation ratio of {valid_ratio} is not possible: it must be at least 0 and below 1"
        )


def _split(images: ImageFolder, labels: Mapping[str, str], valid_ratio: float) -> tuple[Plan, int]:
    """Return the files of each split and class, and the number of validation images per class."""
    per_class = max(1, share_of(valid_ratio, min(Counter(labels.values()).values())))
    classes: dict[str, list[str]] = {}
    for name in images.names:
        classes.setdefault(labels[image_id(name)], []).append(name)
    plan = {
        "train_valid": classes,
        "train": {label: names[per_class:] for label, names in classes.items()},
        "valid": {label: names[:per_class] for label, names in classes.items()},
    }
    return plan, per_class


# ---- The sorted files


def load_split(
    data_dir: AnyPath, split: Split, classes: Sequence[str], image_size: int = 32
) -> Dataset:
    """Return a sorted split: uint8 (n, image_size, image_size, 3), labels as indices into ``classes``.

    The images are in the order of the classes, then of the ids; ``names`` are the originals, in ``train/``. Raises
    UserError if the folder of a class is missing or has no images, for a folder with images that is not in ``classes``,
    and for unreadable images.
    """
    root = Path(data_dir) / SORTED / split
    raise_problems(str(root), [*_class_problems(root, classes)])
    folders = [list_images(root / name) for name in classes]
    raise_problems(str(root), [problem for folder in folders for problem in folder.problems])
    paths = [f"{folder.path}/{name}" for folder in folders for name in folder.names]
    labels = np.repeat(np.arange(len(classes)), [len(folder.names) for folder in folders])
    title = f"decoding {root}"
    images = read_images(paths, image_size, title=title, fix=FIX.format("train"))
    names = [f"train/{name}" for folder in folders for name in folder.names]
    return Dataset(images, labels.astype(np.int64), tuple(classes), names)


def _class_problems(root: Path, classes: Sequence[str]) -> Iterator[str]:
    """Yield the classes without a folder, and the folders with images that are not classes."""
    found = {p.name: p for p in root.iterdir() if p.is_dir()} if os.path.isdir(root) else {}  # noqa: PTH112
    if missing := in_order(set(classes) - found.keys()):
        yield f"{root} has no folder for {listed(missing)}: sort the files first"
    # A folder without images may be the user's; sorting keeps it.
    others = in_order(found.keys() - set(classes))
    if unknown := [name for name in others if list_images(found[name]).names]:
        yield f"{root} has folders that are not classes, {listed(unknown)}: sort the files again"


def list_test_images(data_dir: AnyPath) -> Unlabelled:
    """Return the sorted test images, from ``train_valid_test/test/unknown/``.

    Raises UserError if there are no images, or two with the same id.
    """
    images = list_images(Path(data_dir) / SORTED / "test" / UNKNOWN)
    raise_problems(str(images.path), images.problems)
    return Unlabelled(images.path, images.names)
