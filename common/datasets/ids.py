"""The ids of a competition's images, which are the names of the files without their extensions."""

import os
from collections.abc import Iterable

_NOT_IN_NAMES = frozenset("/\\\0\r\n")
_MOST_BYTES = 255  # of a file's name, on almost all file systems


def image_id(name: str) -> str:
    """Return the id of the image in the file called ``name``."""
    return name.rpartition(".")[0] or name


def natural(name: str) -> str:
    """Return what orders ids as numbers where they are numbers (2 before 10), before any others.

    One string, which is a third of what a tuple of its parts takes: how many digits, then they.
    """
    if name.isdecimal() and name.isascii():
        digits = name.lstrip("0")
        return (
            f"0{len(digits):04}{digits}" if digits == name else f"0{len(digits):04}{digits} {name}"
        )
    return f"1{name}"


def in_order(names: Iterable[str]) -> list[str]:
    """Return the different names in the order of ids."""
    return sorted(set(names), key=natural)


def is_file_name(name: str) -> bool:
    """Return whether ``name`` can be a file's in one line of a csv: no path, not empty, not too long."""
    short = len(name) <= _MOST_BYTES and len(os.fsencode(name)) <= _MOST_BYTES
    return short and name not in ("", ".", "..") and _NOT_IN_NAMES.isdisjoint(name)


def is_id(name: str) -> bool:
    """Return whether ``name`` comes back from a csv as it is: no blanks around it, and UTF-8."""
    return is_file_name(name) and name == name.strip() and not _surrogates(name)


def _surrogates(name: str) -> bool:
    """Return whether the file's name has bytes that are no UTF-8, which Python keeps as these."""
    return not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name)
