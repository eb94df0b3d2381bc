"""CIFAR-10's readers on tiny releases of the same format: order, checksums and errors."""

import hashlib
import importlib.util
import io
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from common.datasets import cifar10, load_data
from common.datasets.cifar10 import BINARY, CLASSES, PYTHON, Release, load_cifar10
from common.errors import UserError

N = 20  # images per batch
TRAIN, TEST = 2, 1  # batches
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, ((TRAIN + TEST) * N, 32, 32, 3), dtype=np.uint8)
LABELS = RNG.permutation(np.arange((TRAIN + TEST) * N) % 10)


def batch(place: int) -> tuple[np.ndarray, np.ndarray]:
    """Return batch ``place`` as the authors store it: (N, 3072), one channel after the other."""
    rows = slice(place * N, (place + 1) * N)
    return IMAGES[rows].transpose(0, 3, 1, 2).reshape(N, 3072), LABELS[rows]


def pickled(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    return pickle.dumps({"data": pixels, "labels": labels.tolist()}, protocol=2)


def recorded(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    return np.hstack([labels[:, None].astype(np.uint8), pixels]).tobytes()


def packed(folder: str, files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        # As in the official archive: unordered, and with files that have no images.
        for name, data in [*reversed(files.items()), ("readme.html", b"<html>")]:
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tiny(official: Release, write: Callable[..., bytes]) -> tuple[Release, bytes, dict[str, bytes]]:
    """Return a release with 2 + 1 batches of 20 images, its archive, and its unpacked files."""
    names = [name for name, _ in official.train[:TRAIN] + official.test]
    files = {name: write(*batch(place)) for place, name in enumerate(names)}
    archive = packed(official.folder, files)
    sums = [(name, sha(data)) for name, data in files.items()]
    release = replace(
        official,
        url="http://127.0.0.1:9/" + official.archive,
        checksum=sha(archive),
        train=tuple(sums[:TRAIN]),
        test=tuple(sums[TRAIN:]),
        images_per_batch=N,
    )
    return release, archive, files


PY, PY_ARCHIVE, PY_FILES = tiny(PYTHON, pickled)
BIN, BIN_ARCHIVE, BIN_FILES = tiny(BINARY, recorded)
load = partial(load_cifar10, releases=(PY, BIN))


def unpack(root: Path, release: Release, files: dict[str, bytes]) -> Path:
    folder = root / release.folder
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def refused(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- Loading


@pytest.mark.parametrize("form", ["python folder", "binary folder", "python tgz", "binary tgz"])
def test_each_official_format_gives_the_same_images_in_the_official_order(
    tmp_path: Path, form: str
):
    release, archive, files = (
        (PY, PY_ARCHIVE, PY_FILES) if "python" in form else (BIN, BIN_ARCHIVE, BIN_FILES)
    )
    if "folder" in form:
        unpack(tmp_path, release, files)
    else:
        (tmp_path / release.archive).write_bytes(archive)
    data = load(tmp_path, download=False)
    cut = TRAIN * N
    assert data.name == "cifar10"
    np.testing.assert_array_equal(data.train.images, IMAGES[:cut])
    np.testing.assert_array_equal(data.test.images, IMAGES[cut:])
    np.testing.assert_array_equal(data.train.labels, LABELS[:cut])
    np.testing.assert_array_equal(data.test.labels, LABELS[cut:])
    assert data.train.images.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert data.train.images.flags.c_contiguous


def test_archives_are_read_without_being_unpacked(tmp_path: Path):
    (tmp_path / PY.archive).write_bytes(PY_ARCHIVE)
    load(tmp_path, download=False)
    assert [path.name for path in tmp_path.iterdir()] == [PY.archive]


def test_an_unpacked_folder_is_preferred_to_an_archive(tmp_path: Path):
    unpack(tmp_path, BIN, BIN_FILES)
    (tmp_path / PY.archive).write_bytes(b"not even looked at")
    load(tmp_path, download=False)
    assert (tmp_path / PY.archive).exists()


def test_classes_are_the_official_ones_and_sorted():
    assert len(CLASSES) == 10
    assert (CLASSES[0], CLASSES[3], CLASSES[9]) == ("airplane", "cat", "truck")
    assert list(CLASSES) == sorted(CLASSES)


def test_official_releases_have_five_training_batches_and_one_test_batch():
    for release in (PYTHON, BINARY):
        assert [name.partition(".")[0] for name, _ in release.train] == [
            f"data_batch_{i}" for i in range(1, 6)
        ]
        assert [name.partition(".")[0] for name, _ in release.test] == ["test_batch"]
        assert release.images_per_batch == 10_000
        assert release.url.startswith("https://www.cs.toronto.edu/~kriz/cifar-10-")
        checksums = [release.checksum, *(s for _, s in release.train + release.test)]
        lengths = {"md5": 32, "sha256": 64}
        assert all(len(s.split(":")[1]) == lengths[s.split(":")[0]] for s in checksums)
        assert len(set(checksums)) == 7


def test_checksums_of_the_python_release_are_torchvisions():
    """Read torchvision's source without importing it, because imports fix the order of the frameworks."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    source = (Path(found.origin).parent / "datasets" / "cifar.py").read_text()
    for name, checksum in PYTHON.train + PYTHON.test:
        assert f'["{name}", "{checksum.removeprefix("md5:")}"]' in source


# ---- Errors


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_with_another_checksum_is_never_loaded(tmp_path: Path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"), protocol=2)
    folder = unpack(tmp_path, PY, PY_FILES | {"data_batch_2": trap})
    text = refused(tmp_path)
    assert f"{folder / 'data_batch_2'} is truncated or altered" in text
    assert f"remove {folder}" in text
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists()  # the trap works


def test_a_pickle_in_an_archive_with_another_checksum_is_never_loaded(tmp_path: Path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"), protocol=2)
    altered = packed(PY.folder, PY_FILES | {"data_batch_2": trap})
    (tmp_path / PY.archive).write_bytes(altered)
    assert "renamed to" in refused(tmp_path)
    # Also if the batch is replaced after the archive was verified.
    (tmp_path / PY.archive).write_bytes(altered)
    with pytest.raises(UserError, match="data_batch_2 is truncated or altered"):
        load_cifar10(tmp_path, releases=(replace(PY, checksum=sha(altered)), BIN))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("release", [PY, BIN], ids=["python", "binary"])
def test_a_truncated_archive_is_renamed_without_overwriting_an_earlier_one(
    tmp_path: Path, release: Release
):
    archive = tmp_path / release.archive
    whole = PY_ARCHIVE if release is PY else BIN_ARCHIVE
    for cut, name in ((-1, ".rejected"), (-2, "-2.rejected"), (-3, "-3.rejected")):
        archive.write_bytes(whole[:cut])
        text = refused(tmp_path)
        assert f"{archive} is truncated or altered" in text
        assert release.archive + name in text
        assert not archive.exists()
        assert (tmp_path / (release.archive + name)).read_bytes() == whole[:cut]


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_binary_folder_is_reported(tmp_path: Path, damage: str):
    folder = unpack(tmp_path, BIN, BIN_FILES)
    path = folder / "test_batch.bin"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-3073])
    elif damage == "altered":
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    else:
        path.unlink()
    assert str(path) in refused(tmp_path)


def test_a_missing_batch_in_an_archive_is_reported(tmp_path: Path):
    archive = packed(BIN.folder, {k: v for k, v in BIN_FILES.items() if k != "data_batch_2.bin"})
    (tmp_path / BIN.archive).write_bytes(archive)
    with pytest.raises(UserError, match=r"data_batch_2\.bin is missing"):
        load_cifar10(tmp_path, releases=(PY, replace(BIN, checksum=sha(archive))))


def test_without_data_and_download_the_error_says_how_to_get_it(tmp_path: Path):
    text = refused(tmp_path, download=False)
    assert f"no CIFAR-10 in {tmp_path}" in text
    assert f"put {PY.archive} from" in text
    assert PY.url in text


def test_without_data_and_network_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NO_PROXY", "*")
    text = refused(tmp_path / "new")  # nothing listens on port 9
    assert PY.url in text
    assert "no connection" in text
    assert str(tmp_path / "new" / PY.archive) in text


# ---- The download


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Release]]:
    """The folder of a server on this machine, and the python release at its address."""
    monkeypatch.setenv("NO_PROXY", "*")
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{PY.archive}"
        yield folder, replace(PY, url=url)
        server.shutdown()


def test_the_python_archive_is_downloaded_once(tmp_path: Path, served: tuple[Path, Release]):
    folder, release = served
    (folder / PY.archive).write_bytes(PY_ARCHIVE)
    data = load_cifar10(tmp_path / "data", releases=(release, BIN))
    np.testing.assert_array_equal(data.train.images, IMAGES[: TRAIN * N])
    assert [path.name for path in (tmp_path / "data").iterdir()] == [PY.archive]
    (folder / PY.archive).unlink()
    load_cifar10(tmp_path / "data", releases=(release, BIN))


def test_an_altered_download_is_renamed_and_the_next_run_downloads_again(
    tmp_path: Path, served: tuple[Path, Release]
):
    folder, release = served
    (folder / PY.archive).write_bytes(b"please log in")
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz\.rejected"):
        load_cifar10(tmp_path / "data", releases=(release, BIN))
    assert [path.name for path in (tmp_path / "data").iterdir()] == [PY.archive + ".rejected"]
    (folder / PY.archive).write_bytes(PY_ARCHIVE)
    load_cifar10(tmp_path / "data", releases=(release, BIN))


# ---- By name


def test_load_data_limits_all_classes_of_cifar10_equally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cifar10, "load_cifar10", load)
    (tmp_path / PY.archive).write_bytes(PY_ARCHIVE)
    data = load_data("cifar10", data_dir=tmp_path, limit=(20, 10), download=False)
    assert np.bincount(data.train.labels).tolist() == [2] * 10
    assert np.bincount(data.test.labels).tolist() == [1] * 10
    # The images still belong to the labels.
    for image, label in zip(data.train.images, data.train.labels, strict=True):
        place = np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))
        assert LABELS[place] == label
