"""Write the generated shapes as files of the Kaggle competition, so that the chapter needs no download."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.datasets import AnyPath, Dataset
from common.datasets.competition import as_csv, in_order
from common.datasets.shapes import Split, draw_shapes
from common.datasets.submission import TEST_LABELS
from common.drawing.progress import progress_bar
from common.errors import UserError, listed
from common.system.files import atomic_write, open_regular, writing

MARKER = "README.txt"
FIRST_LINE = "Drawn by common/datasets/kaggle_shapes.py, which may rewrite what it drew here.\n"
_TEXT = """
{} training and {} test pictures of the shapes, laid out as the files of Kaggle's competition
CIFAR-10: train/<id>.png, test/<id>.png and trainLabels.csv. The labels of the test pictures are
known here, and lie in testLabels.csv.
"""
_COUNTS = re.compile(r"([0-9]+) training and ([0-9]+) test pictures")
_LABELS: dict[Split, str] = {"train": "trainLabels.csv", "test": TEST_LABELS}
_OWN = re.compile(
    r"([1-9][0-9]*)\.png"
)  # names of the pictures; other files in the folders are not touched


class Written(NamedTuple):
    """The numbers of pictures that were already right, were written, and were removed."""

    kept: int
    written: int
    removed: int


def write_kaggle_shapes(data_dir: AnyPath, num_train: int, num_test: int, seed: int = 0) -> Written:
    """Write shapes of 32 x 32 as ``train/<id>.png``, ``test/<id>.png``, ids from 1, and the labels.

    ``trainLabels.csv`` has the labels of the training pictures, ``testLabels.csv`` those of the
    test pictures. Correct files are kept, and pictures of an earlier call beyond these numbers are
    removed. A ``README.txt`` marks the folder as written by this function and has the numbers of
    pictures. Raises UserError for a non-empty folder without this mark, for pictures that the mark
    does not count, for a number below 1, and for files that cannot be written.
    """
    root = Path(data_dir)
    splits: dict[
        Split, Dataset
    ] = {  # drawn before anything is written, because it checks the numbers
        "train": draw_shapes(num_train, seed, "train"),
        "test": draw_shapes(num_test, seed, "test"),
    }
    numbers = (num_train, num_test)
    before = _numbers_before(root)
    most = max(numbers[0], before[0]), max(numbers[1], before[1])
    for split, number in zip(splits, most, strict=True):
        _check_folder(root / split, number)
    _put(root / MARKER, _marker(*most))  # until the end: counts the old and the new pictures
    done = []
    with progress_bar(f"writing {root}", num_train + num_test) as advance:
        for split, dataset in splits.items():
            done.append(_put_pictures(root / split, np.asarray(dataset.images), advance))
            labels = (dataset.classes[label] for label in dataset.labels)
            rows = ((str(number), label) for number, label in enumerate(labels, start=1))
            _put(root / _LABELS[split], as_csv(rows))
    _put(root / MARKER, _marker(*numbers))
    return Written(*map(sum, zip(*done, strict=True)))


def _marker(num_train: int, num_test: int) -> bytes:
    return (FIRST_LINE + _TEXT.format(num_train, num_test)).encode()


def _numbers_before(root: Path) -> tuple[int, int]:
    """Return the numbers of pictures in the folder's marker. Raises UserError for a folder of someone else."""
    with writing(root):
        if root.exists() and not root.is_dir():
            raise UserError(
                f"{root} is a file: choose another folder for the generated competition"
            )
        marker = root / MARKER
        text = marker.read_bytes().decode(errors="replace") if marker.is_file() else ""
        if text.startswith(FIRST_LINE) and (counts := _COUNTS.search(text)):
            return int(counts[1]), int(counts[2])
        if root.exists() and any(root.iterdir()):
            raise UserError(
                f"{root} contains files that this program did not write: choose another folder"
            )
    return 0, 0


def _check_folder(folder: Path, count: int) -> None:
    """Raise UserError if the folder holds pictures of someone else, such as the real competition's."""
    foreign = [name for name, number in _numbered(folder) if number > count]
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()) or foreign:
        what = f": {listed(in_order(foreign))}" if foreign else ""
        raise UserError(
            f"{folder} contains files that this program did not write{what}; move them away"
        )


def _numbered(folder: Path) -> list[tuple[str, int]]:
    """Return the files that are named as this program's pictures, with their numbers."""
    if not folder.is_dir():
        return []
    with writing(folder):
        matches = [_OWN.fullmatch(path.name) for path in folder.iterdir()]
    return [(match[0], int(match[1])) for match in matches if match]


def _put_pictures(
    folder: Path, images: NDArray[np.uint8], advance: Callable[[int], None]
) -> Written:
    written = 0
    for number, image in enumerate(images, start=1):
        written += _put(folder / f"{number}.png", _as_png(image))
        advance(1)
    removed = [name for name, number in _numbered(folder) if number > len(images)]
    with writing(folder):
        for name in removed:
            (folder / name).unlink()
    return Written(len(images) - written, written, len(removed))


def _put(path: Path, content: bytes) -> bool:
    """Write ``content`` to the file unless it is already there; return whether it was written."""
    try:
        with open_regular(path) as file:
            if not path.is_symlink() and file.read() == content:
                return False
    except OSError:  # missing or unreadable: write it
        pass
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return True


def _as_png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
