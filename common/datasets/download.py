"""Download files and verify their checksums before they are used.

`fetch` and `verified` are for all datasets; `DATA_HUB`, `download` and `download_extract` are the
names in the book's cells.
"""

import hashlib
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import urlsplit

from common.drawing.progress import progress_bar
from common.errors import UserError
from common.system.files import atomic_write, free_name

DATA_HUB: dict[str, tuple[str, str]] = {}
"""The files that `download` knows: {name: (address, SHA-1)}."""

DATA_URL = "http://d2l-data.s3-accelerate.amazonaws.com/"
"""The address of the book's files (d2l 1.0). It has failed for users since 2024."""

_CHUNK = 1 << 20  # bytes read at a time
_TIMEOUT = 30  # seconds


def matches(data: bytes, checksum: str) -> bool:
    """Return whether ``data`` has the ``checksum`` ``"<algorithm>:<hexadecimal digest>"``."""
    algorithm, _, digest = checksum.partition(":")
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() == digest.lower()


def _file_matches(path: Path, checksum: str) -> bool:
    algorithm, _, digest = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest.lower()


def verified(path: Path, checksum: str) -> bool:
    """Return whether the file ``path`` exists and has the ``checksum``.

    Raises UserError if it has another checksum. The file is then renamed to ``<name>.rejected``, so that the next call
    can download it again.
    """
    if not path.is_file():
        return False
    if _file_matches(path, checksum):
        return True
    raise UserError(
        f"{path} is truncated or altered: it is {_set_aside(path, path)} and not used; "
        "run again to download it, or put a complete copy in its place"
    )


def _set_aside(path: Path, name: Path) -> str:
    """Rename ``path`` to ``<name>.rejected`` without overwriting an earlier one; return where it is now, in words."""
    aside = free_name(name.with_name(f"{name.name}.rejected"))
    try:
        path.rename(aside)
    except OSError:  # the folder cannot be written: the file stays, and is still not used
        return "left in place"
    return f"renamed to {aside.name}"


def fetch(url: str, target: Path, checksum: str) -> None:
    """Download ``url`` to ``target``, which appears only once its checksum is verified.

    Shows a progress bar if standard error is a terminal. Raises UserError if the server cannot be
    reached, if the file has another checksum (it is kept as ``<target>.rejected``), or if ``target``
    cannot be written.
    """
    import requests

    with atomic_write(target) as temporary:
        try:
            _download(url, temporary, target.name)
        except requests.RequestException as error:
            raise UserError(
                f"cannot download {url} ({_reason(error)}): check the network connection, "
                f"or save the file as {target} yourself"
            ) from error
        if not _file_matches(temporary, checksum):
            raise UserError(
                f"the download of {url} has a wrong checksum: it is "
                f"{_set_aside(temporary, target)} and not used; try again later, "
                f"or save the right file as {target} yourself"
            )


def _download(url: str, path: Path, title: str) -> None:
    import requests

    with requests.get(url, stream=True, timeout=_TIMEOUT) as answer, path.open("wb") as file:
        answer.raise_for_status()
        size = int(answer.headers.get("Content-Length", 0)) / 1e6 or None
        with progress_bar(title, size, "MB") as advance:
            for chunk in answer.iter_content(_CHUNK):
                file.write(chunk)
                advance(len(chunk) / 1e6)


def _reason(error: Exception) -> str:
    """Return a network error in a few words; the library's own message fills several lines."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "timeout"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was interrupted"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__


def download(name: str, folder: str = "data") -> str:
    """Download the file registered as ``name`` to ``folder``, if necessary, and return its path.

    As in the book (section 23.7), with ``data`` instead of ``../data``. An existing file with the
    right SHA-1 is used without the network. Raises UserError for an unknown name, a wrong checksum,
    or a failed download.
    """
    if name not in DATA_HUB:
        known = ", ".join(sorted(DATA_HUB)) or "nothing yet"
        raise UserError(
            f"DATA_HUB has no '{name}' (it has {known}): "
            f"register it as DATA_HUB['{name}'] = (address, sha1)"
        )
    url, sha1 = DATA_HUB[name]
    target = Path(folder) / PurePosixPath(urlsplit(url).path).name
    if not verified(target, f"sha1:{sha1}"):
        fetch(url, target, f"sha1:{sha1}")
    return str(target)


def download_extract(name: str, folder: str | None = None) -> str:
    """Download the zip registered as ``name``, unpack it, and return the unpacked folder's path.

    The path is ``data/<folder>``, by default ``data/<name of the zip>``, whether the zip contains
    that folder or only its contents. Files that are already unpacked are only checked; other files
    in the folder are not touched. Raises UserError as `download` does, and for a file that is not a
    valid zip or would write outside the folder.
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
    """Write the zip's files below ``root``, after checking all names."""
    wanted = {
        _safe(member.filename): member
        for member in archive.infolist()
        # A zip made on a Mac has a second tree of resource forks.
        if not member.is_dir() and not member.filename.startswith("__MACOSX/")
    }
    if all(len(path.parts) > 1 and path.parts[0] == root.name for path in wanted):
        root = root.parent
    for path, member in wanted.items():
        target = root / path
        if not (target.is_file() and zlib.crc32(target.read_bytes()) == member.CRC):
            with atomic_write(target) as temporary, archive.open(member) as source:
                temporary.write_bytes(source.read())


def _safe(name: str) -> PurePosixPath:
    """Return the path ``name``. Raises UserError if it leaves the folder on any operating system."""
    foreign = PureWindowsPath(name)  # parses both kinds of slash, and drive letters
    if foreign.is_absolute() or foreign.drive or foreign.root or ".." in foreign.parts:
        raise UserError(
            f"the zip contains '{name}', which would be written outside the folder: do not use this zip"
        )
    return PurePosixPath(*foreign.parts)
