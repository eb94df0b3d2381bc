"""The ids of a competition's images, which are the names of the files without their extensions."""

import os


def image_id(name: str) -> str:
    """Return the id of the image in the file called ``name``."""
    return os.path.splitext(name)[0]  # noqa: PTH122 - for 300,000 names, without a Path for each


def natural(name: str) -> tuple[bool, int, str, str]:
    """Return what orders ids as numbers where they are numbers (2 before 10), before any others.

    Digits are compared by their number first, which a number of any length allows.
    """
    if name.isdecimal() and name.isascii():
        digits = name.lstrip("0")
        return (False, len(digits), digits, name)
    return (True, 0, name, name)


def is_file_name(name: str) -> bool:
    """Return whether ``name`` can be a file's in one line of a csv: no path, not empty."""
    return name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0\r\n")
