"""Receive a file over HTTP, within limits of time and size, and continue a transfer that was cut.

A server can be slow without end, send more than it announces, or compress an endless body. So each step has a deadline,
the received bytes are counted, and a body is never decompressed.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from common.drawing.progress import progress_bar
from common.errors import UserError

T = TypeVar("T")

MAX_SIZE = 4 * 10**9  # bytes of a file whose size is unknown
CHUNK = 1 << 17  # bytes; each must arrive within SLOWEST seconds
SLOWEST = 60.0  # seconds, so a server must send 2 kB/s, and 170 MB take at most a day
TIMEOUT = 30  # seconds without a byte
ATTEMPTS = 5  # each continues where the last one was cut


class TransferError(Exception):
    """A transfer failed; the message says why in a few words."""


class ConnectionCutError(TransferError):
    """The connection ended too early, so that it is worth another attempt."""


def receive(url: str, path: Path, limit: int, title: str) -> None:
    """Receive ``url`` and append what ``path`` lacks; a progress bar shows ``title``.

    If the connection is cut, ask for the rest. Raises TransferError if the server cannot be reached, is too slow, or
    sends nothing new; ``path`` then keeps what has arrived. Raises UserError for more than ``limit`` bytes.
    """
    for attempt in range(1, ATTEMPTS + 1):
        before = size_of(path)
        try:
            _receive_rest(url, path, limit, title)
        except ConnectionCutError:
            if attempt == ATTEMPTS or size_of(path) <= before:
                raise
        else:
            return


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def _receive_rest(url: str, path: Path, limit: int, title: str) -> None:
    start = size_of(path)
    answer = _within(_request, url, start)
    # The server cannot send a part, or not this one: ask for all.
    if start and answer.status_code in (200, 206, 416) and not _continues(answer, start):
        answer.close()
        path.unlink()
        start, answer = 0, _within(_request, url, 0)
    if answer.status_code != (206 if start else 200):
        answer.close()
        raise TransferError(f"the server answers {answer.status_code}")
    length = answer.raw.length_remaining  # None if unknown
    _check_size(url, start + (length or 0), limit)
    total, received = None if length is None else (start + length) / 1e6, 0
    with path.open("ab") as file, progress_bar(title, total, "MB") as advance:
        advance(start / 1e6)
        while chunk := _within(answer.raw.read, CHUNK, decode_content=False):
            received += len(chunk)
            _check_size(url, start + received, limit)
            file.write(chunk)
            advance(len(chunk) / 1e6)
    if length is not None and received < length:
        raise ConnectionCutError("the connection was interrupted")


def _request(url: str, start: int) -> Any:
    """Ask for the bytes of a file from ``start`` on."""
    import requests

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    hooks = {"response": _drop_body_of_redirect}
    return requests.get(url, stream=True, timeout=TIMEOUT, headers=headers, hooks=hooks)


def _drop_body_of_redirect(answer: Any, **_: Any) -> None:
    """Close the answer of a redirection, because requests would read its body, however long it is."""
    if answer.is_redirect:
        answer.close()


def _continues(answer: Any, start: int) -> bool:
    """Return whether an answer has the bytes from ``start`` on."""
    sent = answer.headers.get("Content-Range", "")
    return answer.status_code == 206 and sent.startswith(f"bytes {start}-")


def _check_size(url: str, size: int, limit: int) -> None:
    if size > limit:
        raise UserError(
            f"{url} has more than {limit:,} bytes, so it is not the right file: try again later, or get the file "
            "another way"
        )


def _within(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Return the result of a network call. Raises TransferError if it fails or takes more than `SLOWEST` seconds.

    The call runs in a thread, because no time limit of a socket ends a server that sends a byte now and then. A call
    that is too slow is left to itself: to close its connection would wait for it.
    """
    results: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def run() -> None:
        try:
            results.put((call(*arguments, **options), None))
        except Exception as error:  # raised again below
            results.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = results.get(timeout=SLOWEST)
    except Empty:
        raise TransferError(
            f"the server sends less than {CHUNK // 1024} KiB in {SLOWEST:g} seconds"
        ) from None
    if error is not None:
        raise _transfer_error(error) from error
    return result  # type: ignore[return-value]  # there was no error


def _transfer_error(error: Exception) -> Exception:
    """Return a network error in a few words, and other errors as they are."""
    import requests
    import urllib3

    match error:
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return TransferError("timeout")
        case urllib3.exceptions.ProtocolError() | requests.exceptions.ChunkedEncodingError():
            return ConnectionCutError("the connection was interrupted")
        case requests.ConnectionError():
            return TransferError("no connection")
        case requests.RequestException() | urllib3.exceptions.HTTPError() | ValueError():
            return TransferError(type(error).__name__)
    return error
