"""Files from the network: checked before anything reads them, whole under their name or not there.

`fetch` and `verified` serve every dataset; `DATA_HUB`, `download` and `download_extract` are the
names that the book's cells call.
"""

import hashlib
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType
from typing import BinaryIO
from urllib.parse import urlsplit

from common.errors import UserError
from common.system.files import writing, written_whole

DATA_HUB: dict[str, tuple[str, str]] = {}
"""What `download` knows: a name, and for it the address and the SHA-1 of the file."""

DATA_URL = "http://d2l-data.s3-accelerate.amazonaws.com/"
"""Where the book keeps its files (d2l 1.0). It has failed for users since 2024."""

_CHUNK = 1 << 20  # bytes read at a time


def matches(data: bytes, checksum: str) -> bool:
    """Return whether ``data`` has ``checksum``, written ``"<algorithm>:<hexadecimal digest>"``."""
    algorithm, _, digest = checksum.partition(":")
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() == digest.lower()


def _file_matches(path: Path, checksum: str) -> bool:
    algorithm, _, digest = checksum.partition(":")
    found = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest() == digest.lower()


def verified(path: Path, checksum: str) -> bool:
    """Return whether the file ``path`` is there, whole and unaltered.

    Raises UserError where it is there with another checksum; it is then kept aside as
    ``<name>.rejected``, so that the next call finds its place free.
    """
    if not path.is_file():
        return False
    if _file_matches(path, checksum):
        return True
    raise UserError(
        f"{path} is truncated or altered: it is {_set_aside(path, path)} and not used; "
        "run again to download it, or put a whole copy in its place"
    )


def _set_aside(path: Path, name: Path) -> str:
    """Rename ``path`` to ``<name>.rejected``, over no earlier one, and say where it is now."""
    aside = name.with_name(f"{name.name}.rejected")
    number = 1
    while aside.exists():
        number += 1
        aside = name.with_name(f"{name.name}.rejected.{number}")
    try:
        path.rename(aside)
    except OSError:  # a folder that cannot be written: the file stays, and is still not used
        return "left where it is"
    return f"kept aside as {aside.name}"


def fetch(url: str, target: Path, checksum: str) -> None:
    """Download ``url`` to ``target``, which appears only when all bytes are there and right.

    Shows a progress bar if standard error is a terminal. Raises UserError when the server cannot be
    reached, when the bytes are not those of ``checksum`` (they are kept as ``<target>.rejected``)
    and when ``target`` cannot be written.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as temporary:
        _download(url, temporary, target)
        if not _file_matches(temporary, checksum):
            raise UserError(
                f"what {url} sent is not the expected file: it is "
                f"{_set_aside(temporary, target)} and not used; try again later, "
                f"or put the right file by hand at {target}"
            )


def _download(url: str, temporary: Path, target: Path) -> None:
    import pooch
    import requests

    try:
        with _Bar(target.name) as bar:
            pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK)(url, str(temporary), None)
    except requests.RequestException as error:
        raise UserError(
            f"cannot download {url} ({_reason(error)}): connect to the network, "
            f"or put the file by hand at {target}"
        ) from error


def _reason(error: Exception) -> str:
    """Put a failure of the network into a few words; the library's own message fills lines."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return type(error).__name__


class _Bar:
    """A rich progress bar with the four members that pooch asks of one.

    pooch's own needs tqdm, which the project does without.
    """

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

        self._progress = Progress(
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    @property
    def total(self) -> float | None:
        """The bytes to come, or None as long as that is not known."""
        return self._progress.tasks[self._task].total

    @total.setter
    def total(self, value: int) -> None:
        self._progress.update(self._task, total=value or None)  # 0: the server did not say

    def update(self, step: int) -> None:
        """Count ``step`` bytes more."""
        self._progress.advance(self._task, step)

    def reset(self) -> None:
        """Start counting again: pooch does so at the end, to set the exact sum."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Leave the closing to ``__exit__``, which also comes after an error."""


def download(name: str, folder: str = "data") -> str:
    """Return the path of the file registered as ``name``, downloaded to ``folder`` if not there.

    As in the book (section 23.7), with ``data`` in place of ``../data``. A file that is already
    there with the right SHA-1 is used without the network. Raises UserError for an unknown name,
    a file with other bytes, and without a network, saying where to put the file by hand.
    """
    if name not in DATA_HUB:
        known = ", ".join(sorted(DATA_HUB)) or "nothing yet"
        raise UserError(
            f"DATA_HUB knows no '{name}' (it knows {known}): "
            f"register it as DATA_HUB['{name}'] = (address, sha1)"
        )
    url, sha1 = DATA_HUB[name]
    target = Path(folder) / PurePosixPath(urlsplit(url).path).name
    if not verified(target, f"sha1:{sha1}"):
        fetch(url, target, f"sha1:{sha1}")
    return str(target)


def download_extract(name: str, folder: str | None = None) -> str:
    """Download the zip registered as ``name``, unpack it, and return the unpacked folder's path.

    That path is ``data/<folder>``, or where ``folder`` is None ``data/<zip's name without .zip>``,
    whether the zip holds that folder or only its contents. Files that are already unpacked whole
    stay as they are, so a second call only checks; what else lies in the folder is not touched.
    Raises UserError as `download` does, and for a zip that is none or that would write elsewhere.
    """
    archive = Path(download(name))
    if archive.suffix != ".zip":
        raise UserError(f"{archive} is not a .zip: unpack it by hand")
    root = archive.parent / (folder or archive.stem)
    try:
        with zipfile.ZipFile(archive) as opened:
            _unpack(opened, root)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
        raise UserError(f"{archive} cannot be unpacked ({error}): unpack it by hand") from error
    return str(root)


def _unpack(archive: zipfile.ZipFile, root: Path) -> None:
    """Write the zip's files below ``root``; every name is looked at before the first is written."""
    wanted = {
        _safe(member.filename): member
        for member in archive.infolist()
        # A zip made on a Mac carries a second tree of resource forks.
        if not member.is_dir() and not member.filename.startswith("__MACOSX/")
    }
    if all(len(path.parts) > 1 and path.parts[0] == root.name for path in wanted):
        root = root.parent
    for path, member in wanted.items():
        target = root / path
        if not _unpacked(target, member):
            with written_whole(target) as temporary, archive.open(member) as source:
                temporary.write_bytes(source.read())


def _safe(name: str) -> PurePosixPath:
    """Return the path ``name`` if it stays below the folder it is unpacked to, on any system."""
    foreign = PureWindowsPath(name)  # reads both kinds of slash, and drive letters
    if foreign.is_absolute() or foreign.drive or foreign.root or ".." in foreign.parts:
        raise UserError(f"the zip holds '{name}', which would be written elsewhere: do not use it")
    return PurePosixPath(*foreign.parts)


def _unpacked(target: Path, member: zipfile.ZipInfo) -> bool:
    if not target.is_file() or target.stat().st_size != member.file_size:
        return False
    with target.open("rb") as file:
        return _crc32(file) == member.CRC


def _crc32(file: BinaryIO) -> int:
    crc = 0
    while chunk := file.read(_CHUNK):
        crc = zlib.crc32(chunk, crc)
    return crc
