"""The drawn shapes, laid out as the Kaggle competition's files are: the chapter without a download."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.datasets import Dataset
from common.datasets.bars import job_bar
from common.datasets.label_csv import write_label_file
from common.datasets.shapes import Split, draw_shapes
from common.datasets.submission import TEST_LABELS
from common.errors import UserError
from common.files import write_text, writing, written_whole

AnyPath: TypeAlias = str | os.PathLike[str]

MARKER = "README.txt"
FIRST_LINE = "Drawn by common/datasets/kaggle_shapes.py, which may rewrite train/ and test/ here.\n"
_TEXT = """
{train} training and {test} test pictures of the shapes with seed {seed}, laid out as the files of
Kaggle's competition CIFAR-10: train/<id>.png, test/<id>.png and trainLabels.csv. The labels of
the test pictures are known here and lie in testLabels.csv.
"""


_LABELS: dict[Split, str] = {"train": "trainLabels.csv", "test": TEST_LABELS}
_OWN = re.compile(
    r"([1-9][0-9]*)\.png"
)  # the pictures' names: all else in the folders is left alone


class Written(NamedTuple):
    """How many pictures were right already, were written, and were removed."""

    kept: int
    written: int
    removed: int


def write_kaggle_shapes(data_dir: AnyPath, num_train: int, num_test: int, seed: int = 0) -> Written:
    """Write shapes of 32 x 32 as ``train/<id>.png``, ``test/<id>.png``, ids from 1, and the labels.

    ``trainLabels.csv`` has the labels of the training pictures, ``testLabels.csv`` those of the
    test pictures. Files that are right are left alone, and pictures beyond these numbers removed.
    A ``README.txt`` says that the folder is this function's. Raises UserError for a folder that
    holds anything and is not, a number below 1, and what cannot be written.
    """
    root = Path(data_dir)
    splits: dict[Split, Dataset] = {  # before anything is written: it checks the numbers
        "train": draw_shapes(num_train, seed, "train"),
        "test": draw_shapes(num_test, seed, "test"),
    }
    _claim(root, FIRST_LINE + _TEXT.format(train=num_train, test=num_test, seed=seed))
    done = []
    with job_bar(f"writing {root}", num_train + num_test) as advance:
        for split, dataset in splits.items():
            done.append(_write_pictures(root / split, dataset.images, advance))
            labels = (dataset.classes[label] for label in dataset.labels)
            rows = [(str(number), label) for number, label in enumerate(labels, start=1)]
            write_label_file(root / _LABELS[split], rows)
    return Written(*map(sum, zip(*done, strict=True)))


def _claim(root: Path, text: str) -> None:
    """Mark the folder as ours, unless it holds something and is not."""
    marker = root / MARKER
    with writing(root):
        if root.exists() and not root.is_dir():
            raise UserError(f"{root} is a file: choose another folder for the drawn competition")
        ours = marker.is_file() and marker.read_bytes().startswith(FIRST_LINE.encode())
        if not ours and root.exists() and any(root.iterdir()):
            raise UserError(
                f"{root} holds files that this program did not draw: choose another or an empty folder"
            )
    write_text(marker, text)


def _write_pictures(
    folder: Path, images: NDArray[np.uint8], advance: Callable[[int], None]
) -> Written:
    kept = 0
    for number, image in enumerate(images, start=1):
        path, png = folder / f"{number}.png", _as_png(image)
        if _holds(path, png):
            kept += 1
        else:
            with written_whole(path) as temporary:
                temporary.write_bytes(png)
        advance(1)
    return Written(kept, len(images) - kept, _remove_beyond(folder, len(images)))


def _as_png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:  # not there, or not to be read: it is written anew
        return False


def _remove_beyond(folder: Path, count: int) -> int:
    removed = 0
    with writing(folder):
        for path in sorted(folder.iterdir()):
            match = _OWN.fullmatch(path.name)
            if match and int(match[1]) > count:
                path.unlink()
                removed += 1
    return removed
