"""The ids of a competition's images, which are the names of the files without their extensions."""

_NOT_IN_NAMES = frozenset("/\\\0\r\n")


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


def is_file_name(name: str) -> bool:
    """Return whether ``name`` can be a file's in one line of a csv: no path, not empty."""
    return name not in ("", ".", "..") and _NOT_IN_NAMES.isdisjoint(name)
