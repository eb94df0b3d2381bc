"""Image files decoded in order, some way ahead of who uses them, in background threads.

`read_images` gives a split as one array; `image_chunks` streams what does not fit into memory.

Measured with 32 x 32 PNG of 2,265 bytes on average in the page cache, on two shared cores of an AMD
EPYC, Python 3.11, Pillow 13; images/s over 10,000 files, the mean of three:

    threads                              1        2        4
    `read_images`                   11,300   11,100   10,600
    `image_chunks`, 256 at a time   10,700   10,100   10,000

`image_chunks` holds four chunks and, with the listing of the folder, 120 bytes for each file: a
process grew by 1.5 MiB over 5,000 files and by 6.1 MiB over 50,000.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.datasets import AnyPath
from common.datasets.images import to_square
from common.drawing.progress import job_bar
from common.errors import UserError, listed
from common.system.environment import cores

PathAt: TypeAlias = Callable[[int], AnyPath]  # of a position: 300,000 paths need not be kept

WAY_OUT = "put whole copies in their places"
SMALL_FILE = 4096  # mean bytes of a file up to which threads bring nothing (measured)
CHUNKS_AHEAD = 2  # that `image_chunks` decodes while the consumer computes
_TASK = 16  # images to a task: handing them over one by one costs as much as decoding them
_LOOK = 64  # files whose size is looked at to choose the number of threads


class Decoded(NamedTuple):
    """Some images in order, and what to say of each of them that cannot be read.

    ``images`` is uint8 (n, size, size, 3); an unreadable one's pixels mean nothing.
    """

    images: NDArray[np.uint8]
    unreadable: list[str]


def read_images(
    paths: Sequence[AnyPath],
    image_size: int,
    workers: int | None = None,
    progress: bool = True,
    title: str = "decoding",
    way_out: str = WAY_OUT,
) -> NDArray[np.uint8]:
    """Return the images as uint8 (n, image_size, image_size, 3), RGB, as `to_square` makes them.

    ``workers`` threads decode, by default one for small files, else one for each core; a terminal
    sees a bar of that ``title`` if ``progress`` is true. Raises UserError that names the images
    that cannot be read, the first five and their number, with the ``way_out``; and for an image
    size below 1.
    """
    check_image_size(image_size)
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    unreadable: list[str] = []
    workers = _workers_for(paths.__getitem__, len(paths)) if workers is None else workers
    start = 0
    with job_bar(title, len(paths), progress) as advance:
        for decoded in decode_in_order(paths, image_size, workers):
            stop = start + len(decoded.images)
            images[start:stop] = decoded.images
            unreadable += decoded.unreadable
            advance(stop - start)
            start = stop
    _raise_unreadable(unreadable, way_out)
    return images


def image_chunks(
    folder: AnyPath,
    names: Sequence[str],
    image_size: int,
    chunk_size: int,
    workers: int | None = None,
    way_out: str = WAY_OUT,
) -> Iterator[tuple[Sequence[str], NDArray[np.uint8]]]:
    """Yield the images called ``names`` in ``folder`` in order: names, uint8 (n, size, size, 3).

    n is ``chunk_size``, and less in the last chunk. While the caller uses a chunk the next two are
    decoded, in at least one thread besides the caller's; no more than four are in memory. Threads
    end when the iterator is used up, closed, or left by an exception.

    After an image that cannot be read nothing more is yielded: the rest is looked through, and a
    UserError names these images, the first five and their number, with the ``way_out``. Raises
    UserError for an image or chunk size below 1 at once.
    """
    check_image_size(image_size)
    if chunk_size < 1:
        raise UserError(f"chunks of {chunk_size} images are not possible: take 1 or more")
    return _chunks(os.fspath(folder), names, image_size, chunk_size, workers, way_out)


def _chunks(
    folder: str,
    names: Sequence[str],
    image_size: int,
    chunk_size: int,
    workers: int | None,
    way_out: str,
) -> Iterator[tuple[Sequence[str], NDArray[np.uint8]]]:
    def path_at(position: int) -> str:
        return os.path.join(folder, names[position])  # noqa: PTH118

    workers = max(1, _workers_for(path_at, len(names)) if workers is None else workers)
    tasks = _tasks(len(names), chunk_size)
    ahead = CHUNKS_AHEAD * -(-chunk_size // _TASK)
    decoded = _in_threads(path_at, tasks, image_size, workers, ahead)
    with closing(decoded):
        for first in range(0, len(names), chunk_size):
            count = min(chunk_size, len(names) - first)
            images = np.empty((count, image_size, image_size, 3), np.uint8)
            if unreadable := _fill(images, decoded):
                unreadable += [problem for rest in decoded for problem in rest.unreadable]
                _raise_unreadable(unreadable, way_out)
            yield names[first : first + count], images


def _fill(images: NDArray[np.uint8], decoded: Iterator[Decoded]) -> list[str]:
    """Fill ``images`` with the next ones; return what to say of those that cannot be read."""
    unreadable: list[str] = []
    filled = 0
    while filled < len(images):
        some = next(decoded)
        images[filled : filled + len(some.images)] = some.images
        unreadable += some.unreadable
        filled += len(some.images)
    return unreadable


def decode_in_order(paths: Sequence[AnyPath], image_size: int, workers: int) -> Iterator[Decoded]:
    """Yield the images of ``paths`` in order, 16 at a time; with one worker, without a thread."""
    tasks = _tasks(len(paths), len(paths))
    if workers <= 1:
        for task in tasks:
            yield _decode(paths.__getitem__, image_size, task)
        return
    # Only some way ahead: results that wait to be used would fill the memory.
    yield from _in_threads(paths.__getitem__, tasks, image_size, workers, ahead=4 * workers)


def check_image_size(image_size: int) -> None:
    """Raise UserError for an image size below 1."""
    if image_size < 1:
        raise UserError(f"an image size of {image_size} pixels is too small: take 1 or more")


def sensible_workers(mean_bytes: float) -> int:
    """Return one for small files: decoding them is mostly Python, where threads only queue up."""
    return 1 if mean_bytes <= SMALL_FILE else cores()


def _workers_for(path_at: PathAt, count: int) -> int:
    """Choose by the size of some files, evenly from all; those that are missing are named later."""
    sizes = []
    for position in range(0, count, -(-count // _LOOK) or 1):
        try:
            sizes.append(os.stat(path_at(position)).st_size)  # noqa: PTH116
        except OSError:
            sizes.append(0)
    return sensible_workers(sum(sizes) / max(1, len(sizes)))


def _tasks(count: int, chunk_size: int) -> Iterator[range]:
    """Cut 0..count into chunks and those into tasks: none goes across the end of a chunk."""
    for first in range(0, count, max(1, chunk_size)):
        last = min(first + chunk_size, count)
        for start in range(first, last, _TASK):
            yield range(start, min(start + _TASK, last))


def _in_threads(
    path_at: PathAt, tasks: Iterator[range], image_size: int, workers: int, ahead: int
) -> Generator[Decoded, None, None]:
    """Yield what ``tasks`` give in order, with at most ``ahead`` of them begun and not yet used."""
    waiting: deque[Future[Decoded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decoding")

    def begin(number: int) -> None:
        for task in islice(tasks, number):
            waiting.append(pool.submit(_decode, path_at, image_size, task))

    try:
        begin(ahead)
        while waiting:
            yield waiting.popleft().result()
            begin(1)
    finally:
        pool.shutdown(cancel_futures=True)  # waits for the tasks that run, 16 images each


def _decode(path_at: PathAt, image_size: int, task: range) -> Decoded:
    images = np.empty((len(task), image_size, image_size, 3), np.uint8)
    unreadable = []
    for image, position in zip(images, task, strict=True):
        problem = decode_into(image, path_at(position))
        if problem is not None:
            unreadable.append(problem)
    return Decoded(images, unreadable)


def decode_into(out: NDArray[np.uint8], path: AnyPath) -> str | None:
    """Decode one file into ``out``, uint8 (size, size, 3); return what to say if it cannot be."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            out[:] = to_square(image, len(out))
    except MemoryError:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise almost anything
        reason = str(error).partition("\n")[0].replace(os.fspath(path), "it")
        return f"{os.fspath(path)} ({reason or type(error).__name__})"
    return None


def _raise_unreadable(unreadable: list[str], way_out: str) -> None:
    if unreadable:
        raise UserError(f"images that cannot be read: {listed(unreadable)}; {way_out}")
