"""Download files and verify their checksums before they are used.

`fetch` and `verified` are for all datasets; `DATA_HUB`, `download` and `download_extract` are the
names in the book's cells.
"""

import hashlib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from common.datasets.archives import unpack_zip
from common.datasets.transfer import MAX_SIZE, TransferError, receive, size_of
from common.errors import UserError
from common.system.files import atomic_write, free_name

DATA_HUB: dict[str, tuple[str, str]] = {}
"""The files that `download` knows: {name: (address, SHA-1)}."""

DATA_URL = "http://d2l-data.s3-accelerate.amazonaws.com/"
"""The address of the book's files (d2l 1.0). It has failed for users since 2024."""


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


def fetch(url: str, target: Path, checksum: str, size: int = MAX_SIZE) -> None:
    """Download ``url`` to ``target``, which appears only once its checksum is verified.

    ``size`` is that of the file in bytes, or a limit. After a failure or Ctrl-C the received part is kept as
    ``<target>.part``, and the next call continues from there. Shows a progress bar if standard error is a terminal.
    Raises UserError if the server cannot be reached or is too slow, if the file is larger than ``size``, or if
    ``target`` cannot be written. A file with another checksum is also an error; it is kept as ``<target>.rejected``.
    """
    part = target.with_name(f"{target.name}.part")
    with atomic_write(target) as temporary:
        continued = _keep(part, temporary)  # renamed, so that only one process continues it
        try:
            receive(url, temporary, size, target.name)
            if continued and not _file_matches(temporary, checksum):  # the file was replaced
                temporary.unlink()
                receive(url, temporary, size, target.name)
        except TransferError as error:
            kept = _keep(temporary, part)
            fix = "run again to continue" if kept else "check the network connection"
            raise UserError(
                f"cannot download {url} ({error}): {fix}, or save the file as {target} yourself"
            ) from error
        except (KeyboardInterrupt, SystemExit):
            _keep(temporary, part)
            raise
        if not _file_matches(temporary, checksum):
            raise UserError(
                f"the download of {url} has a wrong checksum: it is "
                f"{_set_aside(temporary, target)} and not used; try again later, "
                f"or save the right file as {target} yourself"
            )


def _keep(received: Path, path: Path) -> bool:
    """Rename a file that has content to ``path``; return whether it was there."""
    if not size_of(received):
        return False
    with suppress(OSError):  # another process has taken it, or the folder cannot be written
        received.replace(path)
        return True
    return False


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
    unpack_zip(archive, root)
    return str(root)
