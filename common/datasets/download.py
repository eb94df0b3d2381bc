"""Files from the network: checked before anything reads them, whole under their name or not there.

`fetch` and `verified` serve every dataset; `DATA_HUB`, `download` and `download_extract` are the
names that the book's cells call.
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
"""What `download` knows: a name, and for it the address and the SHA-1 of the file."""

DATA_URL = "http://d2l-data.s3-accelerate.amazonaws.com/"
"""Where the book keeps its files (d2l 1.0). It has failed for users since 2024."""

_CHUNK = 1 << 20  # bytes read at a time
_TIMEOUT = 30  # seconds


def matches(data: bytes, checksum: str) -> bool:
    """Return whether ``data`` has ``checksum``, written ``"<algorithm>:<hexadecimal digest>"``."""
    algorithm, _, digest = checksum.partition(":")
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest() == digest.lower()


def _file_matches(path: Path, checksum: str) -> bool:
    algorithm, _, digest = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest.lower()


def verified(path: Path, checksum: str) -> bool:
    """Return whether the file ``path`` is there, whole and unaltered.

    Raises UserError if it has another checksum. It is then kept as ``<name>.rejected``, so that the next call finds
    its place free.
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
    aside = free_name(name.with_name(f"{name.name}.rejected"))
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
    import requests

    with atomic_write(target) as temporary:
        try:
            _download(url, temporary, target.name)
        except requests.RequestException as error:
            raise UserError(
                f"cannot download {url} ({_reason(error)}): connect to the network, "
                f"or put the file by hand at {target}"
            ) from error
        if not _file_matches(temporary, checksum):
            raise UserError(
                f"what {url} sent is not the expected file: it is "
                f"{_set_aside(temporary, target)} and not used; try again later, "
                f"or put the right file by hand at {target}"
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
    """Put a failure of the network into a few words; the library's own message fills lines."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__


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
        if not (target.is_file() and zlib.crc32(target.read_bytes()) == member.CRC):
            with atomic_write(target) as temporary, archive.open(member) as source:
                temporary.write_bytes(source.read())


def _safe(name: str) -> PurePosixPath:
    """Return the path ``name`` if it stays below the folder it is unpacked to, on any system."""
    foreign = PureWindowsPath(name)  # reads both kinds of slash, and drive letters
    if foreign.is_absolute() or foreign.drive or foreign.root or ".." in foreign.parts:
        raise UserError(f"the zip holds '{name}', which would be written elsewhere: do not use it")
    return PurePosixPath(*foreign.parts)
