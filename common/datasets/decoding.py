"""Decode image files in order, in background threads that work ahead of the consumer.

`read_images` returns all images as one array; `image_chunks` streams images that do not fit into memory.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.datasets import AnyPath
from common.datasets.images import UnreadableImageError, open_image, to_square
from common.drawing.progress import progress_bar
from common.errors import UserError, listed
from common.system.environment import cores

Chunk: TypeAlias = tuple[Sequence[AnyPath], NDArray[np.uint8]]  # names, images

FIX = "replace them by complete copies"
SMALL_FILE = 4096  # bytes; for files up to this mean size, threads bring no speed-up (measured)
CHUNKS_AHEAD = 2  # decoded while the consumer uses one
CHUNK_BYTES = 2**26  # of a chunk of large images; up to four chunks are in memory
_TASK = 16  # images per task: with one image per task, the overhead would equal the decoding time
_SAMPLED_FILES = 64  # files whose sizes are read to choose the number of threads


class UnreadableImagesError(UserError):
    """Images that cannot be read; ``problems`` has the message about each, by the name that was passed."""

    problems: dict[str, str]


def read_images(
    paths: Sequence[AnyPath],
    image_size: int,
    progress: bool = True,
    title: str = "decoding",
    fix: str = FIX,
) -> NDArray[np.uint8]:
    """Return the images as uint8 (n, image_size, image_size, 3), RGB, as `to_square` does.

    Raises as `image_chunks` does. Shows a progress bar with the ``title`` on a terminal if ``progress`` is true.
    """
    chunks = image_chunks("", paths, image_size, fix=fix)
    images = np.empty((len(paths), image_size, image_size, 3), np.uint8)
    start = 0
    with progress_bar(title, len(paths), show=progress) as advance:
        for _, chunk in chunks:
            images[start : start + len(chunk)] = chunk
            start += len(chunk)
            advance(len(chunk))
    return images


def image_chunks(
    folder: AnyPath,
    names: Sequence[AnyPath],
    image_size: int,
    chunk_size: int | None = None,
    workers: int | None = None,
    fix: str = FIX,
    report: Callable[[str], None] | None = None,
) -> Iterator[Chunk]:
    """Yield the images called ``names`` in ``folder`` in chunks: names, and uint8 (n, size, size, 3).

    n is ``chunk_size`` (default: 32 per thread); the last chunk may be smaller. While the caller uses a chunk,
    ``workers`` threads decode the next two (default: one thread for small files, else one per core). At most four
    chunks are in memory. The threads end when the iterator is exhausted, closed, or left by an exception.

    After an unreadable image nothing more is yielded. The remaining images are still decoded, and an
    UnreadableImagesError lists the first five unreadable ones, their number and the ``fix``. With ``report``, which is
    called with a message about each, they are left out of the chunks instead. The call itself raises UserError for an
    image or chunk size below 1.
    """
    if image_size < 1:
        raise UserError(f"an image size of {image_size} pixels is too small: use 1 or more")
    threads = _sensible_workers(folder, names) if workers is None else max(workers, 1)
    chunk_size = 2 * _TASK * threads if chunk_size is None else chunk_size
    if chunk_size < 1:
        raise UserError(f"chunks of {chunk_size} images are not possible: use 1 or more")
    return _chunks(folder, names, image_size, chunk_size, threads, fix, report)


def _sensible_workers(folder: AnyPath, names: Sequence[AnyPath]) -> int:
    """Return 1 for small files, whose decoding is mostly Python code that does not run in parallel."""
    sizes = []
    for name in names[:: -(-len(names) // _SAMPLED_FILES) or 1]:
        try:
            sizes.append(os.stat(os.path.join(folder, name)).st_size)  # noqa: PTH116, PTH118
        except OSError:  # reported later
            sizes.append(0)
    return 1 if sum(sizes) <= SMALL_FILE * len(sizes) else cores()


def _chunks(
    folder: AnyPath,
    names: Sequence[AnyPath],
    image_size: int,
    chunk_size: int,
    workers: int,
    fix: str,
    report: Callable[[str], None] | None,
) -> Iterator[Chunk]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decoding")
    starts = iter(range(0, len(names), chunk_size))
    pending: deque[tuple[Chunk, list[Future[dict[str, str]]]]] = deque()

    def submit(number: int) -> None:
        for start in islice(starts, number):
            some = names[start : start + chunk_size]
            images = np.empty((len(some), image_size, image_size, 3), np.uint8)
            tasks = [
                pool.submit(_decode, folder, some[i : i + _TASK], images[i : i + _TASK])
                for i in range(0, len(some), _TASK)
            ]
            pending.append(((some, images), tasks))

    unreadable: dict[str, str] = {}
    try:
        submit(CHUNKS_AHEAD)
        while pending:
            chunk, tasks = pending.popleft()
            problems: dict[str, str] = {}
            for task in tasks:
                problems |= task.result()
            submit(1)
            if report is None:
                unreadable |= problems
            elif problems:
                chunk = _without(chunk, problems, report)
            if not unreadable:
                yield chunk
    finally:
        pool.shutdown(cancel_futures=True)  # waits for the running tasks, 16 images each
    if unreadable:
        raise unreadable_images(unreadable, fix)


def _without(chunk: Chunk, problems: dict[str, str], report: Callable[[str], None]) -> Chunk:
    """Report the images that could not be read, and return the others."""
    for problem in problems.values():
        report(problem)
    names, images = chunk
    kept = [i for i, name in enumerate(names) if os.fspath(name) not in problems]
    return [names[i] for i in kept], images[kept]


def whole_batches(batch_size: int, image_size: int, most: int) -> int:
    """Return the size of chunks of whole batches: at most ``most`` images and 64 MiB, but at least one batch."""
    most = min(most, CHUNK_BYTES // (3 * image_size**2))
    return batch_size * max(most // batch_size, 1)


def unreadable_images(problems: dict[str, str], fix: str) -> UnreadableImagesError:
    """Return the error about images that cannot be read, which names the first five."""
    error = UnreadableImagesError(f"images that cannot be read: {listed(problems.values())}; {fix}")
    error.problems = problems
    return error


def _decode(folder: AnyPath, names: Sequence[AnyPath], out: NDArray[np.uint8]) -> dict[str, str]:
    """Decode files into ``out``, uint8 (n, size, size, 3); return a message for each that cannot be read."""
    paths = [os.path.join(folder, name) for name in names]  # noqa: PTH118 - faster
    problems = [decode_into(image, path) for image, path in zip(out, paths, strict=True)]
    found = zip(names, problems, strict=True)
    return {os.fspath(name): problem for name, problem in found if problem is not None}


def decode_into(out: NDArray[np.uint8], path: AnyPath) -> str | None:
    """Decode one file into ``out``, uint8 (size, size, 3); return a message if it cannot be read, else None."""
    try:
        with open_image(path) as image:
            out[:] = to_square(image, len(out))
    except UnreadableImageError as error:
        return f"{os.fspath(path)} ({error})"
    return None
