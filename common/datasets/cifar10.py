"""CIFAR-10, read from the official files after verifying their checksums.

60,000 colour photographs of 32 x 32 pixels in ten classes (A. Krizhevsky, "Learning Multiple Layers
of Features from Tiny Images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html). The archives are
read without unpacking them.

The python release is pickled, and loading a pickle can run code, so it is loaded only after its
checksum was verified. The checksums of the archives are the authors' (MD5, on their page), and
SHA-256 as published by Keras and torchvision for Ruby. Those of the batches are torchvision's (MD5,
python release) and torchvision for Ruby's (SHA-256, binary release).
"""

import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.datasets import Data, Dataset
from common.datasets.download import fetch, matches, verified
from common.datasets.transfer import MAX_SIZE
from common.errors import UserError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SIDE = 32  # height and width of an image, pixels
PIXELS = 3 * SIDE * SIDE  # bytes of an image: the red channel, then green, then blue

Batch: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]


def _read_pickle(raw: bytes) -> Batch:
    """Read a batch of the python release; call it only for bytes whose checksum was verified."""
    content = pickle.loads(raw, encoding="latin1")  # written by Python 2
    return np.asarray(content["data"], np.uint8), np.asarray(content["labels"], np.int64)


def _read_records(raw: bytes) -> Batch:
    """Read a batch of the binary release: for each image one byte with the label, then the pixels."""
    records = np.frombuffer(raw, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


@dataclass(frozen=True)
class Release:
    """One of the formats in which the authors publish the images.

    ``train`` and ``test`` are (file name, checksum) of the batches, in order; a checksum is
    ``"<algorithm>:<hexadecimal digest>"``. ``read`` converts a batch to pixels, uint8 (n, 3072),
    and labels, int64 (n,).
    """

    url: str
    checksum: str
    folder: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    read: Callable[[bytes], Batch]
    size: int = MAX_SIZE  # of the archive, in bytes
    images_per_batch: int = 10_000

    @property
    def archive(self) -> str:
        """The archive's file name."""
        return self.url.rpartition("/")[2]

    def read_batch(self, file: IO[bytes]) -> bytes:
        """Return the bytes of a batch. Only these bytes of a larger file are read, so its checksum is wrong."""
        return file.read(2 * self.images_per_batch * (1 + PIXELS))


PYTHON = Release(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    checksum="sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    folder="cifar-10-batches-py",
    train=(
        ("data_batch_1", "md5:c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "md5:634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
    ),
    test=(("test_batch", "md5:40351d587109b95175f43aff81a1287e"),),
    read=_read_pickle,
    size=170_498_071,
)

_BIN = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
BINARY = Release(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    checksum="sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    train=tuple((name, f"sha256:{sha}") for name, sha in _BIN.items() if name[0] == "d"),
    test=(("test_batch.bin", f"sha256:{_BIN['test_batch.bin']}"),),
    read=_read_records,
    size=170_052_171,
)


def load_cifar10(
    data_dir: Path,
    *,
    download: bool = True,
    releases: tuple[Release, ...] = (PYTHON, BINARY),
) -> Data:
    """Return CIFAR-10: uint8 images (50000 and 10000, 32, 32, 3), RGB, 0..255, and their labels.

    Looks in ``data_dir`` for an unpacked official folder, then for an official archive. If there is
    neither, downloads the first of ``releases`` to it (170 MB, with a progress bar on a terminal).
    Checksums are verified every time. Raises UserError if there are no files and no download is
    allowed or possible, and for files that are truncated or altered. Such an archive is renamed to
    ``<name>.rejected``; an unpacked folder is not changed.
    """
    for release in releases:
        folder = data_dir / release.folder
        if folder.is_dir():
            return _assemble(release, _unpacked_batches(release, folder), folder)
    for release in releases:
        archive = data_dir / release.archive
        if verified(archive, release.checksum):
            return _assemble(release, _packed_batches(release, archive), archive)
    release = releases[0]
    archive = data_dir / release.archive
    if not download:
        raise UserError(
            f"no CIFAR-10 in {data_dir}: allow the download, or put {release.archive} from "
            f"{release.url} there"
        )
    fetch(release.url, archive, release.checksum, release.size)
    return _assemble(release, _packed_batches(release, archive), archive)


def _unpacked_batches(release: Release, folder: Path) -> Iterator[tuple[str, bytes]]:
    for name, _ in release.train + release.test:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                yield name, release.read_batch(file)


def _packed_batches(release: Release, archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the batches in the order of the archive, because a gzip cannot be read backwards."""
    wanted = {f"{release.folder}/{name}" for name, _ in release.train + release.test}
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name in wanted else None
            if file is not None:
                yield PurePosixPath(member.name).name, release.read_batch(file)


def _assemble(release: Release, batches: Iterator[tuple[str, bytes]], source: Path) -> Data:
    """Verify each batch and copy it into the result, with only one extra batch in memory."""
    per_batch = release.images_per_batch
    files = release.train + release.test
    places = {name: place for place, (name, _) in enumerate(files)}
    images = np.empty((len(files) * per_batch, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(len(files) * per_batch, np.int64)
    missing = set(places)
    for name, raw in batches:
        if not matches(raw, files[places[name]][1]):
            raise UserError(f"{source / name} is truncated or altered: {_fix(source)}")
        rows = slice(places[name] * per_batch, (places[name] + 1) * per_batch)
        pixels, labels[rows] = release.read(raw)
        images[rows] = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        missing.discard(name)
    if missing:
        raise UserError(f"{source / min(missing)} is missing: {_fix(source)}")
    cut = len(release.train) * per_batch
    return Data(
        name="cifar10",
        train=Dataset(images[:cut], labels[:cut], CLASSES),
        test=Dataset(images[cut:], labels[cut:], CLASSES),
    )


def _fix(source: Path) -> str:
    return f"remove {source} and run again, or put the official files in its place"
