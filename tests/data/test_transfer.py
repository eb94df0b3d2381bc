"""Servers that misbehave: each transfer ends, within its limits of time and size, with the file or with one line."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from common.datasets import transfer
from common.datasets.download import fetch
from common.errors import UserError

CONTENT = bytes(range(256)) * 4000  # 1 MB: eight chunks
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(CONTENT)


class Server:
    """Answer each request with ``answer(connection, start)``; ``start`` is where the asked range begins, or None."""

    def __init__(self, answer: Callable[[socket.socket, int | None], None]) -> None:
        self.answer, self.asked = answer, list[int | None]()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/file.bin"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = connection.recv(65536).decode().lower()
            _, found, rest = request.partition("range: bytes=")
            start = int(rest.split("-")[0]) if found else None
            self.asked.append(start)
            self.answer(connection, start)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(answer: Callable[[socket.socket, int | None], None] | bytes) -> Server:
        content = answer if isinstance(answer, bytes) else b""
        servers.append(Server((lambda c, _: c.sendall(content)) if content else answer))
        return servers[-1]

    yield make
    for server in servers:
        server.listener.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work without the user's proxy, and give up on slow servers after a second."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(transfer, "SLOWEST", 1.0)
    monkeypatch.setattr(transfer, "TIMEOUT", 1)


def endless(connection: socket.socket, block: bytes) -> None:
    while True:
        connection.sendall(block)


def drip(connection: socket.socket, content: bytes) -> None:
    for i in range(len(content)):
        connection.sendall(content[i : i + 1])
        time.sleep(0.2)


def zeros(connection: socket.socket) -> None:
    """Send zeros without end, compressed a thousand times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    while True:
        connection.sendall(packer.compress(bytes(1 << 20)))


def range_of(start: int) -> bytes:
    """Return the head of an answer with the bytes from ``start`` on."""
    left = len(CONTENT) - start
    return (
        b"HTTP/1.1 206 Partial Content\r\n"
        b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
        % (start, len(CONTENT) - 1, len(CONTENT), left)
    )


def refused(server: Server, tmp_path: Path) -> str:
    """Fetch a file that cannot be had; return the message. Nothing is left but what may be continued."""
    target = tmp_path / "file.bin"
    with pytest.raises(UserError) as caught:
        fetch(server.url, target, SHA256, len(CONTENT))
    assert "\n" not in str(caught.value)
    assert not target.exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"file.bin.part", "file.bin.rejected"}
    assert all(path.stat().st_size <= len(CONTENT) for path in tmp_path.iterdir())
    return str(caught.value)


SLOW = {
    "body": lambda c, _: (c.sendall(OK + LENGTH), drip(c, CONTENT)),
    "headers": lambda c, _: drip(c, OK + b"X: y\r\n" * 1000),
    "status line": lambda c, _: drip(c, b"HTTP/1.1 200 " + b"O" * 1000),
    "endless intermediate answers": lambda c, _: endless(c, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "nothing": lambda c, _: time.sleep(5),
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW)
def test_a_server_that_is_too_slow_is_left(serve, tmp_path, answer):
    text = refused(serve(answer), tmp_path)
    assert "less than 128 KiB in 1 seconds" in text or "timeout" in text


def redirecting(send: Callable[[socket.socket], None], headers: bytes = b""):
    return lambda c, _: (
        c.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n" + headers + b"\r\n"),
        send(c),
    )


LARGE = {
    "no length": lambda c, _: (c.sendall(OK + b"\r\n"), endless(c, bytes(65536))),
    "chunks": lambda c, _: (
        c.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        endless(c, b"10000\r\n" + bytes(65536) + b"\r\n"),
    ),
    "a length that is not a number": lambda c, _: (
        c.sendall(OK + b"Content-Length: abc\r\n\r\n"),
        endless(c, bytes(65536)),
    ),
    "a length in petabytes": lambda c, _: (
        c.sendall(OK + b"Content-Length: %d\r\n\r\n" % 10**15),
        endless(c, bytes(65536)),
    ),
    "a gzip bomb": lambda c, _: (c.sendall(OK + b"Content-Encoding: gzip\r\n\r\n"), zeros(c)),
    "a header": lambda c, _: (c.sendall(OK + b"X: "), endless(c, b"a" * 65536)),
    "many headers": lambda c, _: (c.sendall(OK), endless(c, b"X: y\r\n" * 1000)),
    "the length of a chunk": lambda c, _: (
        c.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n"),
        endless(c, b"0" * 65536),
    ),
    "redirections": redirecting(lambda c: None, b"Content-Length: 0\r\n"),
    "the body of redirections": redirecting(lambda c: endless(c, bytes(65536))),
    "the compressed body of redirections": redirecting(zeros, b"Content-Encoding: gzip\r\n"),
    "an error page": lambda c, _: (
        c.sendall(b"HTTP/1.1 503 No\r\n\r\n"),
        endless(c, bytes(65536)),
    ),
}


@pytest.mark.parametrize("answer", LARGE.values(), ids=LARGE)
def test_a_server_that_sends_without_end_is_left(serve, tmp_path, answer):
    refused(serve(answer), tmp_path)


@pytest.mark.parametrize("length", ["abc", "", "-5", "1e6", "+1024000", "1024000, 1024000"])
def test_a_length_that_is_not_a_number_is_ignored(serve, tmp_path, length):
    server = serve(OK + f"Content-Length: {length}\r\n\r\n".encode() + CONTENT)
    fetch(server.url, tmp_path / "file.bin", SHA256)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_body_is_never_decompressed(serve, tmp_path):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(CONTENT) + packer.flush()
    server = serve(OK + b"Content-Encoding: gzip\r\n\r\n" + packed)
    fetch(server.url, tmp_path / "file.gz", f"sha256:{hashlib.sha256(packed).hexdigest()}")
    assert (tmp_path / "file.gz").read_bytes() == packed


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1",
        "http://a..b/",
        "file:///etc/passwd",
        "http://127.0.0.1:99999/",
        "//",
        "ftp://x/",
    ],
)
def test_a_redirection_to_no_web_address_is_reported(serve, tmp_path, location):
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    assert "cannot download" in refused(serve(head.encode()), tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 abc\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        bytes(5000),
        range_of(9),
    ],
)
def test_an_answer_that_is_not_http_or_not_the_file_is_reported(serve, tmp_path, answer):
    refused(serve(answer), tmp_path)


# ---- Continuing


def cut(after: int) -> Callable[[socket.socket, int | None], None]:
    """Return a server that sends ``after`` bytes of what is asked, and then closes the connection."""

    def answer(connection: socket.socket, start: int | None) -> None:
        connection.sendall(OK + LENGTH if start is None else range_of(start))
        begin = start or 0
        connection.sendall(CONTENT[begin : begin + after])

    return answer


def test_a_cut_transfer_continues_where_it_was_cut(serve, tmp_path):
    server = serve(cut(300_000))
    fetch(server.url, tmp_path / "file.bin", SHA256, len(CONTENT))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, 300_000, 600_000, 900_000]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_the_next_run_continues_after_five_cuts(serve, tmp_path):
    server = serve(cut(150_000))
    assert "run again to continue" in refused(server, tmp_path)
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:750_000]
    fetch(server.url, tmp_path / "file.bin", SHA256, len(CONTENT))
    assert server.asked[5:] == [750_000, 900_000]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("status", [b"503 No", b"404 No", b"403 No"])
def test_an_error_of_the_server_keeps_what_has_arrived(serve, tmp_path, status):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:HALF])
    refused(serve(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"), tmp_path)
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:HALF]


WITHOUT_RANGES = {
    "sends all": OK + LENGTH + CONTENT,
    "refuses": b"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n",
    "sends another range": range_of(0) + CONTENT,
    "sends other bytes": range_of(HALF) + bytes(len(CONTENT) - HALF),
}


@pytest.mark.parametrize("answer", WITHOUT_RANGES.values(), ids=WITHOUT_RANGES)
def test_a_transfer_that_cannot_be_continued_starts_again(serve, tmp_path, answer):
    server = serve(lambda c, start: c.sendall(OK + LENGTH + CONTENT if start is None else answer))
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:HALF])
    fetch(server.url, tmp_path / "file.bin", SHA256, len(CONTENT))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [HALF, None]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_the_part_of_another_file_is_not_kept(serve, tmp_path):
    server = serve(cut(len(CONTENT)))
    (tmp_path / "file.bin.part").write_bytes(b"?" * HALF)
    fetch(server.url, tmp_path / "file.bin", SHA256, len(CONTENT))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [HALF, None]


def test_two_processes_do_not_continue_the_same_part(serve, tmp_path):
    waiting, go = threading.Semaphore(0), threading.Event()

    def answer(connection: socket.socket, start: int | None) -> None:
        waiting.release()
        go.wait(60)
        cut(len(CONTENT))(connection, start)

    server = serve(answer)
    transfer.SLOWEST, transfer.TIMEOUT = 60.0, 60  # restored by _quick
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:HALF])
    arguments = (server.url, tmp_path / "file.bin", SHA256)
    threads = [threading.Thread(target=fetch, args=arguments) for _ in range(2)]
    for thread in threads:
        thread.start()
        waiting.acquire(timeout=60)  # one after the other, so that the first gets the part
    go.set()
    for thread in threads:
        thread.join(60)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [HALF, None]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_ctrl_c_ends_a_slow_download_and_keeps_what_has_arrived(serve, tmp_path):
    sent = threading.Event()

    def answer(connection: socket.socket, _: int | None) -> None:
        connection.sendall(OK + LENGTH + CONTENT[:HALF])
        sent.set()
        drip(connection, CONTENT[HALF:])

    server = serve(answer)
    script = (
        "from pathlib import Path; from common.datasets.download import fetch; "
        f"fetch({server.url!r}, Path({str(tmp_path / 'file.bin')!r}), {SHA256!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, env=os.environ
    ) as process:
        assert sent.wait(60)
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in tmp_path.rglob("file.bin")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    part = (tmp_path / "file.bin.part").read_bytes()
    assert part == CONTENT[: len(part)] != b""
