"""The file of decoded images: it is read back as it was written, or not at all."""

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.datasets import array_file
from common.datasets.array_file import read_array, write_array

SHAPE = (5, 4, 4, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


def ignore(_: float) -> None:
    pass


def read(path: Path, shape: tuple[int, ...] = SHAPE) -> np.ndarray | None:
    return read_array(path, shape, ignore)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    chunks = iter([(["0", "1"], IMAGES[:2]), (["2", "3", "4"], IMAGES[2:])])
    write_array(tmp_path / "x.npy", SHAPE, chunks, ignore)
    return tmp_path / "x.npy"


def test_the_array_is_read_as_it_was_written(path: Path):
    np.testing.assert_array_equal(read(path), IMAGES)
    np.testing.assert_array_equal(np.load(path), IMAGES)


def test_large_arrays_are_checked_in_blocks(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(array_file, "_BLOCK", 7)
    done: list[float] = []
    np.testing.assert_array_equal(read_array(path, SHAPE, done.append), IMAGES)
    assert len(done) == -(-IMAGES.size // 7)
    assert sum(done) == pytest.approx(len(IMAGES))
    with path.open("r+b") as file:
        file.seek(200)
        file.write(b"damage")
    assert read(path) is None


@pytest.mark.parametrize("shape", [(4, 4, 4, 3), (5, 4, 3, 4), (10, 2, 4, 3), (10**9, 4, 4, 3)])
def test_another_shape_is_not_read(path: Path, shape: tuple[int, ...]):
    assert read(path, shape) is None


CHANGES = {
    "flip": lambda b, i, n, new: b[:i] + bytes([b[i] ^ n]) + b[i + 1 :],
    "overwrite": lambda b, i, n, new: (b[:i] + new + b[i + len(new) :])[: len(b)],
    "insert": lambda b, i, n, new: b[:i] + new + b[i:],
    "remove": lambda b, i, n, new: b[:i] + b[i + n :],
    "cut": lambda b, i, n, new: b[:i],
    "replace": lambda b, i, n, new: new,
    "move": lambda b, i, n, new: b[i:] + b[:i],
}


@given(
    change=st.sampled_from(sorted(CHANGES)),
    place=st.integers(0, 128 + IMAGES.size + 31),
    number=st.integers(1, 255),
    new=st.binary(max_size=64),
)
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_file_with_any_change_is_not_read(
    path: Path, change: str, place: int, number: int, new: bytes
):
    whole = path.read_bytes()
    changed = CHANGES[change](whole, place, number, new)
    other = path.with_name("y.npy")
    other.write_bytes(changed)
    found = read(other)
    assert (found is None) == (changed != whole)
    if found is not None:
        np.testing.assert_array_equal(found, IMAGES)


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # an address has at most 107 bytes


SPECIAL: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "link to itself": lambda path: path.symlink_to(path.name),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "socket": bind_socket,
    "empty file": Path.touch,
    "array without checksum": partial(np.save, arr=IMAGES),
    "archive": lambda path: np.savez(path.open("wb"), IMAGES),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_of_this_kind_is_not_read(tmp_path: Path, kind: str):
    SPECIAL[kind](tmp_path / "x.npy")
    assert read(tmp_path / "x.npy") is None
