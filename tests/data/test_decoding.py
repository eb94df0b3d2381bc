"""Decoding ahead of the consumer: the order, how far ahead, unreadable files, and the end of the threads."""

import io
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.datasets import decoding
from common.datasets.decoding import image_chunks, read_images
from common.drawing.progress import progress_bar
from common.errors import UserError

NAMES = [f"{i}.png" for i in range(100)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 images of 8 x 8; each pixel is the number in the name."""
    root = tmp_path_factory.mktemp("images")
    for i, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (i,) * 3).save(root / name)
    return root


@pytest.fixture
def damaged(images: Path, tmp_path: Path) -> Path:
    """The same images, but numbers 30, 31, 50, 60, 70 and 99 are unreadable."""
    for name in NAMES:
        (tmp_path / name).write_bytes((images / name).read_bytes())
    for i in (30, 31, 50, 60, 70, 99):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    return tmp_path


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("decoding")]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true, or until the test's time limit."""
    while not condition():
        time.sleep(0.01)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that have been decoded so far."""
    seen: list[str] = []
    real = decoding.decode_into

    def counting(out: np.ndarray, path: str) -> str | None:
        seen.append(Path(path).name)
        return real(out, path)

    monkeypatch.setattr(decoding, "decode_into", counting)
    return seen


# ---- Progress bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_on_a_terminal_and_erased_at_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("sorting [/a]", 10) as advance:
        advance(5)
    assert "sorting [/a]" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K"), "the line is erased"


def test_no_bar_is_drawn_if_it_is_disabled_or_there_is_no_terminal(
    images: Path, monkeypatch: pytest.MonkeyPatch
):
    for file, progress in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr(sys, "stderr", file)
        read_images([images / "5.png"], 8, progress=progress)
        assert file.getvalue() == ""


# ---- A split as one array


def test_images_are_in_the_order_of_the_paths(images: Path):
    order = [images / NAMES[i] for i in (7, 99, 0, *range(50, 90))]
    read = read_images(order, 8)
    assert read.shape == (43, 8, 8, 3)
    assert read.dtype == np.uint8
    assert read[:, 7, 7, 2].tolist() == [7, 99, 0, *range(50, 90)]
    assert threads() == []


def test_images_are_resized(images: Path):
    assert read_images([images / "5.png"], 4).shape == (1, 4, 4, 3)
    assert read_images([], 4).shape == (0, 4, 4, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_unreadable_images_are_counted_and_five_are_listed(damaged: Path, workers: int):
    text = refused(lambda: list(image_chunks(damaged, NAMES, 8, workers=workers)))
    for i in (30, 31, 50, 60, 70):
        assert str(damaged / f"{i}.png") in text
    assert "99.png" not in text
    assert "... (6 in all)" in text


def test_a_missing_file_is_unreadable(images: Path):
    assert "nowhere.png (" in refused(lambda: read_images([images / "nowhere.png"], 8))


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_one_are_refused_by_the_call(images: Path, size: int):
    assert f"image size of {size}" in refused(lambda: read_images([images / "5.png"], size))
    assert f"image size of {size}" in refused(lambda: image_chunks(images, NAMES, size, 8))
    assert f"chunks of {size} images" in refused(lambda: image_chunks(images, NAMES, 8, size))


# ---- Chunks


@pytest.mark.parametrize("workers", [None, 0, 1, 4])
@pytest.mark.parametrize("chunk_size", [1, 7, 16, 40, 50, 100, 1000])
def test_chunks_have_each_image_once_in_order(images: Path, chunk_size: int, workers: int | None):
    chunks = list(image_chunks(images, NAMES, 8, chunk_size, workers))
    assert [len(names) for names, _ in chunks[:-1]] == [chunk_size] * ((100 - 1) // chunk_size)
    assert [name for names, _ in chunks for name in names] == NAMES
    for names, pixels in chunks:
        assert pixels.shape == (len(names), 8, 8, 3)
        assert pixels.dtype == np.uint8
        assert [f"{value}.png" for value in pixels[:, 3, 4, 1]] == list(names)


def test_without_names_there_are_no_chunks(images: Path):
    assert list(image_chunks(images, [], 8, 10)) == []


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_only_the_next_two_chunks_are_decoded_while_one_is_used(
    images: Path, decoded: list[str], workers: int | None
):
    chunks = image_chunks(images, NAMES, 8, 16, workers)
    names, _ = next(chunks)
    wait_for(lambda: len(decoded) >= 32)  # without requesting another chunk
    time.sleep(0.1)
    assert len(decoded) <= 16 * 3
    assert list(names) == NAMES[:16]


def test_after_an_unreadable_image_nothing_is_yielded_and_all_others_are_checked(
    damaged: Path, decoded: list[str]
):
    seen: list[str] = []

    def consume() -> None:
        for names, _ in image_chunks(damaged, NAMES, 8, 20):
            seen.extend(names)

    text = refused(consume)
    assert seen == NAMES[:20]
    assert sorted(decoded) == sorted(NAMES)
    assert str(damaged / "30.png") in text
    assert "... (6 in all)" in text
    assert threads() == []


# ---- Threads


def test_threads_end_with_the_iterator(images: Path):
    for _ in image_chunks(images, NAMES, 8, 10, workers=3):
        assert threads()
    assert threads() == []


def test_threads_end_when_the_iterator_is_closed(images: Path, decoded: list[str]):
    chunks = image_chunks(images, NAMES, 8, 10, workers=3)
    next(chunks)
    chunks.close()
    assert threads() == []
    assert len(decoded) < 100


def test_pending_tasks_are_cancelled_when_the_iterator_is_closed(
    images: Path, monkeypatch: pytest.MonkeyPatch
):
    """The only thread blocks after the first chunk of 5 tasks until the others are cancelled; then it ends its task."""
    go_on = threading.Event()
    seen: list[str] = []

    def stands_still(out: np.ndarray, path: str) -> None:
        seen.append(path)
        assert len(seen) <= 80 or go_on.wait()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            go_on.set()
            super().shutdown(wait)

    monkeypatch.setattr(decoding, "decode_into", stands_still)
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", Pool)
    chunks = image_chunks(images, NAMES * 5, 8, 80, workers=1)
    next(chunks)
    chunks.close()
    assert len(seen) <= 80 + 16


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_threads_end_when_the_consumer_fails(images: Path, error: type[BaseException]):
    def consume(chunks: Iterator[object]) -> None:
        for _ in chunks:
            raise error

    with pytest.raises(error):
        consume(image_chunks(images, NAMES, 8, 10, workers=3))
    assert threads() == []


def test_at_most_two_dropped_chunks_stay_in_memory(images: Path):
    kept: list[weakref.ref[np.ndarray]] = []
    for _, pixels in image_chunks(images, NAMES, 8, 10):
        kept.append(weakref.ref(pixels))
        assert sum(ref() is not None for ref in kept) <= 2


def test_a_memory_error_is_not_reported_as_a_damaged_image(
    images: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "to_square", fails)
    with pytest.raises(MemoryError):
        read_images([images / "5.png"], 8)


def test_threads_end_when_a_worker_fails(images: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding, "decode_into", fails)
    with pytest.raises(MemoryError):
        list(image_chunks(images, NAMES, 8, 10, workers=3))
    assert threads() == []


SLOW = """
import signal, sys, time
from common.datasets import decoding

# SIGINT is ignored in this process and its children if a shell starts the tests in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)

def slow(out, path):
    time.sleep(0.005)

decoding.decode_into = slow
try:
    for names, images in decoding.image_chunks("x", [str(i) for i in range(10**6)], 4, 16, 2):
        print(names[0], flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child there")
def test_ctrl_c_ends_a_long_stream_immediately():
    """Decoding everything would take 40 minutes; the test's time limit is five."""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"0\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert out.endswith(b"interrupted\n")  # perhaps in the middle of a line
    assert (child.returncode, err) == (0, b"")
