"""Downloads from a real server on this machine: accepted files, refused files, and no left-over files."""

import errno
import hashlib
import io
import os
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest

from common.datasets import archives, transfer
from common.datasets.download import DATA_HUB, DATA_URL, download, download_extract, fetch
from common.errors import UserError

CONTENT = bytes(range(256)) * 8000  # 2 MB: more than one chunk
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Return the bytes of each path; with ``short`` close the connection early, with ``status`` fail."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.short = 0
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path[1:], b"")
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - self.server.short])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        running.files["file.bin"] = CONTENT
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Work in an empty folder, without the user's proxy, and restore DATA_HUB."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")
    kept = dict(DATA_HUB)
    yield
    DATA_HUB.clear()
    DATA_HUB.update(kept)


def refused(call, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- fetch


def test_a_fetched_file_is_complete_without_temporary_files_and_readable_by_others(
    server: Server, tmp_path: Path
):
    target = tmp_path / "new" / "file.bin"
    fetch(server.url + "file.bin", target, SHA256)
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["file.bin"]
    plain = tmp_path / "plain"
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode


def test_nothing_is_printed_without_a_terminal(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    fetch(server.url + "file.bin", tmp_path / "file.bin", SHA256)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_a_progress_bar(
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    fetch(server.url + "file.bin", tmp_path / "file.bin", SHA256)
    printed = capsys.readouterr()
    assert "file.bin" in printed.err
    assert "MB/s" in printed.err
    assert printed.out == ""


def test_altered_bytes_are_renamed_and_not_used(server: Server, tmp_path: Path):
    server.files["file.bin"] = CONTENT[:-1] + b"!"
    text = refused(fetch, server.url + "file.bin", tmp_path / "file.bin", SHA256)
    assert "renamed to file.bin.rejected" in text
    assert str(tmp_path / "file.bin") in text
    assert names(tmp_path) == ["file.bin.rejected"]
    assert (tmp_path / "file.bin.rejected").read_bytes()[-1:] == b"!"


def test_an_interrupted_connection_keeps_what_has_arrived_under_another_name(
    server: Server, tmp_path: Path
):
    server.short = 1000
    text = refused(fetch, server.url + "file.bin", tmp_path / "file.bin", SHA256)
    assert "the connection was interrupted" in text
    assert "run again to continue" in text
    assert names(tmp_path) == ["file.bin.part"]
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:-1000]


def test_a_server_error_is_reported_and_leaves_no_file(server: Server, tmp_path: Path):
    server.status = 404
    text = refused(fetch, server.url + "file.bin", tmp_path / "file.bin", SHA256)
    assert "the server answers 404" in text
    assert names(tmp_path) == []


def test_without_a_network_the_error_says_where_to_save_the_file(server: Server, tmp_path: Path):
    url = server.url + "file.bin"
    server.shutdown()
    server.server_close()
    text = refused(fetch, url, tmp_path / "file.bin", SHA256)
    assert "no connection" in text
    assert f"save the file as {tmp_path / 'file.bin'} yourself" in text
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "left"),
    [(KeyboardInterrupt, ["file.bin.part"]), (OSError(errno.ENOSPC, "full"), [])],
)
def test_an_interrupt_keeps_what_has_arrived_and_a_full_disk_leaves_no_file(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    left: list[str],
):
    seen: list[list[str]] = []

    def fail(megabytes: float) -> None:
        if megabytes:
            seen.append(names(tmp_path))
            raise error

    @contextmanager
    def counting(*_: object) -> Iterator[Callable[[float], None]]:
        yield fail  # called after each chunk is written

    monkeypatch.setattr(transfer, "progress_bar", counting)
    with pytest.raises((KeyboardInterrupt, UserError)) as caught:
        fetch(server.url + "file.bin", tmp_path / "file.bin", SHA256)
    assert caught.type is KeyboardInterrupt or "the disk is full" in str(caught.value)
    assert len(seen[0]) == 1  # the incomplete file was there
    assert seen[0] != ["file.bin"]
    assert names(tmp_path) == left


def test_a_folder_that_cannot_be_made_is_reported(server: Server, tmp_path: Path):
    (tmp_path / "file").touch()
    text = refused(fetch, server.url + "file.bin", tmp_path / "file" / "x.bin", SHA256)
    assert f"cannot write {tmp_path / 'file'}" in text
    assert server.asked == []


# ---- download


def register(server: Server, content: bytes, name: str = "tiny.zip") -> None:
    server.files[name] = content
    DATA_HUB["tiny"] = (server.url + name, hashlib.sha1(content).hexdigest())


def zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_data_url_is_the_book_s():
    assert DATA_URL + "x.zip" == "http://d2l-data.s3-accelerate.amazonaws.com/x.zip"


def test_download_saves_the_file_in_data_and_requests_it_once(server: Server):
    register(server, CONTENT)
    assert download("tiny") == str(Path("data/tiny.zip"))
    assert download("tiny") == str(Path("data/tiny.zip"))
    assert Path("data/tiny.zip").read_bytes() == CONTENT
    assert server.asked == ["/tiny.zip"]


def test_download_takes_another_folder(server: Server):
    register(server, CONTENT)
    assert download("tiny", "elsewhere") == str(Path("elsewhere/tiny.zip"))


def test_a_file_that_the_user_saved_needs_no_network(tmp_path: Path):
    DATA_HUB["tiny"] = ("http://127.0.0.1:9/tiny.zip", hashlib.sha1(CONTENT).hexdigest())
    assert "data/tiny.zip" in refused(download, "tiny").replace(os.sep, "/")
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data/tiny.zip").write_bytes(CONTENT)
    download("tiny")


def test_an_altered_file_is_renamed_each_time_and_then_downloaded(server: Server):
    register(server, CONTENT)
    for number, left in enumerate(
        (["tiny.zip.rejected"], ["tiny.zip-2.rejected", "tiny.zip.rejected"])
    ):
        Path("data").mkdir(exist_ok=True)
        Path("data/tiny.zip").write_bytes(b"altered %d" % number)
        text = refused(download, "tiny")
        assert "truncated or altered" in text
        assert f"renamed to {left[0]}" in text
        assert names(Path("data")) == left
    assert Path("data/tiny.zip.rejected").read_bytes() == b"altered 0"
    assert server.asked == []
    download("tiny")
    assert Path("data/tiny.zip").read_bytes() == CONTENT


def test_unknown_name_lists_the_known_ones():
    DATA_HUB["tiny"] = ("http://127.0.0.1:9/tiny.zip", "0")
    assert "it has tiny" in refused(download, "big")


# ---- download_extract

FILES = {"train/1.png": b"one", "train/2.png": b"two", "labels.csv": b"id,label\n"}


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("top", ["", "tiny/"])
def test_zip_is_unpacked_into_its_folder_with_or_without_that_folder_inside(
    server: Server, top: str
):
    register(server, zipped({top + name: data for name, data in FILES.items()}))
    assert download_extract("tiny") == str(Path("data/tiny"))
    assert tree(Path("data/tiny")) == FILES
    assert names(Path("data")) == ["tiny", "tiny.zip"]


def test_the_argument_folder_works_as_in_the_book(server: Server):
    register(server, zipped({"other/" + name: data for name, data in FILES.items()}))
    assert download_extract("tiny", "other") == str(Path("data/other"))
    assert tree(Path("data/other")) == FILES


def test_resource_forks_of_a_mac_are_not_unpacked(server: Server):
    forks = {"__MACOSX/tiny/._labels.csv": b"fork"}
    register(server, zipped({"tiny/" + name: data for name, data in FILES.items()} | forks))
    download_extract("tiny")
    assert tree(Path("data/tiny")) == FILES
    assert names(Path("data")) == ["tiny", "tiny.zip"]


def test_a_second_extraction_repairs_damaged_files_and_changes_no_others(server: Server):
    register(server, zipped(FILES))
    download_extract("tiny")
    whole = Path("data/tiny/train/1.png").stat().st_mtime_ns
    Path("data/tiny/train/2.png").write_bytes(b"twe")  # same size
    Path("data/tiny/labels.csv").unlink()
    Path("data/tiny/own.txt").write_bytes(b"mine")
    download_extract("tiny")
    assert tree(Path("data/tiny")) == FILES | {"own.txt": b"mine"}
    assert Path("data/tiny/train/1.png").stat().st_mtime_ns == whole
    assert server.asked == ["/tiny.zip"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "tiny/../../evil", "/evil", "\\evil", "..\\evil", "C:\\evil", "C:evil", "//a/b/c"],
)
def test_a_zip_that_would_write_outside_its_folder_is_refused(
    server: Server, tmp_path: Path, name: str
):
    register(server, zipped({"good.png": b"good", name: b"evil"}))
    assert "would be written outside the folder" in refused(download_extract, "tiny")
    assert names(tmp_path) == ["data"]
    assert names(tmp_path / "data") == ["tiny.zip"]


def test_a_file_that_is_not_a_zip_is_reported(server: Server):
    register(server, b"no zip")
    assert "cannot be unpacked" in refused(download_extract, "tiny")
    register(server, b"no zip", "tiny.tar.gz")
    assert "is not a .zip" in refused(download_extract, "tiny")


def test_a_full_disk_while_unpacking_leaves_no_incomplete_file(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    register(server, zipped(FILES))
    download("tiny")

    def full(source: IO[bytes]) -> Iterator[bytes]:
        content = source.read()
        yield content[:1]
        if content == b"two":
            raise OSError(errno.ENOSPC, "full")
        yield content[1:]

    monkeypatch.setattr(archives, "_chunks", full)
    assert "the disk is full" in refused(download_extract, "tiny")
    assert tree(Path("data/tiny")) == {"train/1.png": b"one"}
