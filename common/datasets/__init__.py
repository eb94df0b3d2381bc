"""Image data as arrays: the embedded shapes, CIFAR-10, or any folder of images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, printable
from common.labels import check_labels

if TYPE_CHECKING:
    from common.datasets.image_files import ImageFiles

AnyPath: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Dataset:
    """The images and labels of one split.

    ``images`` is uint8 of shape (n, height, width, 3), RGB, 0..255: an array, or files that are decoded when they are
    used. ``labels`` is int64 of shape (n,). They are indices into ``classes``, the class names in sorted order.
    ``names`` are the images' files, relative to the folder of the data; empty if they have none. Raises ValueError for
    a label that is no class.
    """

    images: "NDArray[np.uint8] | ImageFiles"
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_labels(self.labels, len(self.classes))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A named pair of splits with the same classes: images to train on, and held-out ones.

    ``held_out`` says what the second ones are: "test" images, or "valid" ones, by which weights may be chosen. ``how``
    says in words where valid ones come from. They are ``drawn`` if they come from the same folders as the images to
    train on. ``train_files`` is a digest of the names of these, '' if they have no files.
    """

    name: str
    train: Dataset
    test: Dataset
    held_out: str = "test"
    how: str = ""
    drawn: bool = False
    train_files: str = ""


def load_data(
    name: str,
    *,
    data_dir: Path,
    image_size: int = 32,
    limit: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
    download: bool = True,
    valid_ratio: float | None = None,
    split_seed: int = 0,
    skip_broken: bool = False,
    evaluation: bool = False,
    stream: bool = False,
) -> Data:
    """Return the data called ``name``: "shapes", "cifar10", or the path of a folder.

    ``data_dir`` holds downloads, and in ``cache/`` the decoded images of folders. ``limit`` (train, test) is the
    largest number of examples, balanced over the classes; for shapes it is the number to generate. ``image_size``
    (pixels) applies to folders, ``seed`` to shapes, ``download`` to CIFAR-10. ``valid_ratio``, ``split_seed``,
    ``skip_broken``, ``evaluation`` and ``stream`` apply to folders; see `load_folder`. For a folder called "shapes" or
    "cifar10", pass "./shapes". Raises UserError for an unknown name, and as the loaders do.
    """
    if name not in ("shapes", "cifar10"):
        folder = os.path.expanduser(name)  # noqa: PTH111
        if not os.path.isdir(folder):  # noqa: PTH112 - Path's raises for names that are too long
            raise UserError(
                f"no data called '{printable(name, 300)}': choose shapes, cifar10, or a folder of images"
            )
        from common.datasets.folder import load_folder

        return load_folder(
            Path(folder),
            data_dir / "cache",
            image_size=image_size,
            limit=limit,
            seed=split_seed,
            valid_ratio=valid_ratio,
            skip_broken=skip_broken,
            evaluation=evaluation,
            stream=stream,
        )
    if image_size != 32:
        raise UserError(
            f"image size {image_size}: the images of {name} are 32 x 32; only folders are resized"
        )
    if valid_ratio is not None:
        raise UserError(
            f"--valid-ratio {valid_ratio:g}: {name} has test images of its own; only folders are split"
        )
    if name == "shapes":
        from common.datasets.shapes import load_shapes

        sizes = zip(("num_train", "num_test"), limit, strict=True)
        return load_shapes(seed=seed, **{name: n for name, n in sizes if n is not None})
    from common.datasets.cifar10 import load_cifar10

    data = load_cifar10(data_dir, download=download)
    return Data(data.name, _limited(data.train, limit[0]), _limited(data.test, limit[1]))


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    if limit is None:
        return dataset
    kept = balanced_subset(dataset.labels, limit)
    return Dataset(dataset.images[kept], dataset.labels[kept], dataset.classes)


def balanced_subset(labels: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Return the sorted indices of at most ``limit`` examples, balanced over the classes.

    The first examples of each class are kept. If a class has too few, the others fill its share; a
    remainder goes to the first classes. So the subset of a smaller limit is contained in that of a
    larger one. ``None`` keeps all. Raises UserError for a limit below 1.
    """
    if limit is None:
        return np.arange(len(labels), dtype=np.int64)
    if limit < 1:
        raise UserError(f"a limit of {limit} examples leaves none: use 1 or more, or no limit")
    rank = np.empty(len(labels), np.int64)  # number of earlier examples of the same class
    for label in np.unique(labels):
        same = np.flatnonzero(labels == label)
        rank[same] = np.arange(len(same))
    return np.sort(np.lexsort((labels, rank))[:limit]).astype(np.int64)


def share_of(ratio: float, number: int) -> int:
    """Return the share ``ratio`` of ``number``, rounded down, computed with the decimal digits of ``ratio``.

    As floats, .29 * 100 is 28.999999999999996, and rounding down would lose one.
    """
    return int(Decimal(str(ratio)) * number)
