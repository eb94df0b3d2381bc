"""The processors and the memory that Linux's control groups leave to this process, as in a container.

A container's limit is in files of its group, or of a group above it. There are two versions of these groups, and a
system may use both: see cgroups(7), and the kernel's admin-guide/cgroup-v1 and admin-guide/cgroup-v2.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
# Lines of /proc/self/cgroup and /proc/self/mountinfo: see proc(5).
GROUP = re.compile(r"^\d+:([^:]*):(/.*)$", re.M)
MOUNT = re.compile(r"^\S+ \S+ \S+ (\S+) (\S+) .* - (cgroup2?) \S+ (\S+)$", re.M)


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many processors' time the groups of this process may use, such as 1.5; None if it is not limited."""
    quotas = []
    for folder in _groups("cpu", root):
        # Version 2 writes "150000 100000", or "max 100000". Version 1 has two files, and -1 for no limit.
        values = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(values) == 2 and all(value.isdecimal() and int(value) for value in values):
            quotas.append(int(values[0]) / int(values[1]))
    return min(quotas, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Return how many bytes of memory the groups of this process may use; None if the memory is not limited.

    Without a limit, version 1 has a number that is larger than any memory.
    """
    names = ("memory.max", "memory.limit_in_bytes")
    values = [
        value
        for folder in _groups("memory", root)
        for name in names
        for value in _words(folder / name)
    ]
    return min((int(value) for value in values if value.isdecimal()), default=None)


def _words(path: Path) -> list[str]:
    """Return the words of a file; an empty list if the group has no such file."""
    try:
        return path.read_text(errors="replace").split()
    except (OSError, ValueError):  # ValueError: a name that no path can have
        return []


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the folders of the groups of this process that a controller may limit, and of the groups above them."""
    try:
        groups = (root / "proc/self/cgroup").read_text(errors="replace")
        mounts = (root / "proc/self/mountinfo").read_text(errors="replace")
    except OSError:  # not Linux
        return
    paths = {
        name: path for names, path in GROUP.findall(groups) for name in names.split(",")
    }  # in version 2, the name is empty
    for top, mount, version, options in MOUNT.findall(mounts):
        name = "" if version == "cgroup2" else controller
        if name in paths and (not name or name in options.split(",")):
            yield from _from_top(root / mount.lstrip("/"), top, paths[name])


def _from_top(mount: Path, top: str, path: str) -> Iterator[Path]:
    """Yield the folders from ``mount``, which shows the group ``top``, down to the group ``path``.

    In a container, ``path`` may be a name that only the host knows. Then ``mount`` is the container's own group.
    """
    yield mount
    if PurePosixPath(path).is_relative_to(top):
        for part in PurePosixPath(path).relative_to(top).parts:
            mount = mount / part
            yield mount
