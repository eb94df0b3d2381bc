"""Several processes of a command: join the others, compare what they will train with, and share errors.

Only the first process prints and keeps results.
"""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from common.commands.launcher import LAUNCHER
from common.commands.resume import how_to_resume, what_was_kept
from common.commands.run_folder import RunFolder
from common.commands.waiting import SharedError, all_joined, resume_with, watching
from common.config import Options, RunConfig, flag_of, plain
from common.errors import UserError, UserNotice
from common.interface import Backend, Device, Processes
from common.system import environment
from common.system.files import write_text
from common.system.temporary import temporary_folder
from common.weights.files import Stored

Config = TypeVar("Config", bound=RunConfig)
LONGEST_PROBLEM = 1000  # bytes of a message for other processes
COPY = "all go on with --resume and the same folder: copy that of rank 0"
# Options that processes of several hosts may have of their own. The content of the data is compared, and only the
# first process uses the others.
OWN_OPTIONS = (
    *("name", "data_dir", "cache_dir", "image", "weights"),
    *("output", "resume", "device", "workers"),
)


@contextmanager
def joined(backend: Backend, config: Config) -> Iterator[Config]:
    """Join the other processes, if there are any, and yield the options of this one.

    Only the first process prints and keeps results. The others write into a temporary folder.
    """
    launched = _launcher() is not None
    with watching(backend.framework, launched), _joined(backend, config) as own:
        yield own


@contextmanager
def _joined(backend: Backend, config: Config) -> Iterator[Config]:
    processes = backend.processes
    processes.join()
    number = processes.num_processes()
    all_joined(number)
    engine = environment.joined_engine(backend.framework)
    if engine and config.processes not in (1, number):
        raise UserError(
            f"--processes {config.processes}: the environment variable {engine.variable} starts {number}: "
            f"give --processes {number}, or unset the variable"
        )
    config = replace(config, processes=number)
    if number > 1:
        _note(str(os.getpid()), str(processes.rank()))
    if processes.rank() == 0:
        yield config
        processes.total(0)  # so that all end together: TensorFlow's report the first to end as lost
        return
    before = sys.stdout
    with (
        temporary_folder(_launcher()) as folder,
        Path(os.devnull).open("w") as nowhere,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserNotice)  # the first process has the same
        sys.stdout = nowhere
        try:
            yield replace(config, output=folder / "run")
            processes.total(0)
        finally:
            sys.stdout = before


def _launcher() -> Path | None:
    """Return the folder for notes to the launcher of this process, None if it has none."""
    folder = os.environ.get(LAUNCHER)
    return Path(folder) if folder else None


def _note(name: str, text: str) -> None:
    folder = _launcher()
    if folder:
        write_text(folder / name, text)


def announce(backend: Backend, command: str, run: Path) -> None:
    """Tell the launcher, if there is one, the folder of this run, which messages about a lost process name."""
    if backend.processes.rank() == 0:
        _note("run", json.dumps([command, str(run)]))
    resume_with(_again(backend.processes, command, run))


def _again(processes: Processes, command: str, run: Path) -> str:
    """Return the end of the message after a loss or an interruption; only the first process has a folder to name."""
    again = how_to_resume(command, run)
    return "; go on with --resume and the folder of rank 0" if processes.rank() and again else again


def interrupted(processes: Processes, command: str, folder: RunFolder) -> KeyboardInterrupt:
    """Return the interrupt with a message: what was kept and how to go on."""
    if processes.rank():  # which keeps nothing: its folder is a temporary one
        return KeyboardInterrupt(f"interrupted{_again(processes, command, folder.path)}")
    return KeyboardInterrupt(what_was_kept(command, folder))


@contextmanager
def first_process_first(processes: Processes) -> Iterator[None]:
    """Let the first process finish the block before the others begin it, such as a download.

    Raises UserError in all processes if one raises it in the block.
    """
    if processes.rank():
        _share(processes, "")  # when the first has finished
    with all_or_none(processes):
        yield
        if not processes.rank():
            _share(processes, "")


@contextmanager
def all_or_none(processes: Processes) -> Iterator[None]:
    """Raise UserError in all processes if one raises it in the block; the others would wait for it, MXNet's for ever.

    In the block there may be other such blocks, but no other sums over processes.
    """
    try:
        yield
    except SharedError:
        raise
    except UserError as error:
        if processes.num_processes() == 1:
            raise
        _share(processes, str(error))
        raise SharedError(str(error)) from error
    _share(processes, "")


def _share(processes: Processes, problem: str) -> None:
    """Tell the other processes a problem, '' for none. Raises SharedError with a problem of another process."""
    if processes.num_processes() == 1:
        return
    table = np.zeros((processes.num_processes(), LONGEST_PROBLEM))
    text = problem.encode()[:LONGEST_PROBLEM]
    table[processes.rank(), : len(text)] = list(text)
    for rank, row in enumerate(processes.total(table)):
        if row.any() and not problem:
            told = bytes(np.trim_zeros(row).astype(np.uint8)).decode(errors="replace")
            raise SharedError(f"rank {rank} failed: {told}")


def check_equal(
    command: str,
    backend: Backend,
    config: RunConfig,
    devices: list[Device],
    found: Mapping[str, str],
    weights: Stored | None = None,
) -> None:
    """Raise UserError if the processes would train with other options, images, decisions, versions or code.

    ``found`` are digests of what this process has read and drawn, and ``weights`` are from a file. No engine notices
    such a difference.
    """
    processes = backend.processes
    if processes.num_processes() == 1:
        return
    code = [path.read_bytes() for folder in ("backends", "common") for path in _sources(folder)]
    versions = environment.versions(backend.packages)
    # These first: without them equal, there may be other options.
    check_same(processes, {"the command": command, "the code of this project": b"".join(code)})
    check_same(processes, {f"the version of {name}": found for name, found in versions.items()})
    described = backend.devices.describe(devices, config.precision, config.compile)
    kind = "cpu" if described["device"].startswith("cpu") else "gpu"
    initial = b"" if weights is None else b"".join(w.tobytes() for w in weights.weights.values())
    others: dict[str, Any] = {"the kind of device": kind, "the content of --weights": initial}
    check_same(processes, {**_options(config), **others, **found})


def _options(config: Options) -> dict[str, Any]:
    """Return the value of each option that must be the same in all processes, by its flag."""
    values: dict[str, Any] = {}
    for f in fields(config):
        value, known = getattr(config, f.name), f.metadata.get("option")
        if isinstance(value, Options):
            values |= _options(value)
        elif known and f.name not in OWN_OPTIONS:
            values[flag_of(f.name, known)] = plain(value)
    return values


def check_same(
    processes: Processes,
    values: Mapping[str, Any],
    what_to_do: str = "start all with the same command, files and packages",
) -> None:
    """Raise UserError in all processes if one of the values is not the same in all."""
    if processes.num_processes() == 1:
        return
    contents = [v if isinstance(v, bytes) else json.dumps(v).encode() for v in values.values()]
    # 48 bits of each digest, in the row of this process: their sum has the rows of all, exactly.
    table = np.zeros((processes.num_processes(), len(values)))
    table[processes.rank()] = [int(sha256(content).hexdigest()[:12], 16) for content in contents]
    for name, column in zip(values, processes.total(table).T, strict=True):
        others = np.flatnonzero(column != column[0])
        if len(others):
            value = values[name]
            shown = name.startswith("--") or isinstance(value, int)
            own = f" (here {value})" if shown else ""
            raise SharedError(f"rank {others[0]} and rank 0 differ in {name}{own}: {what_to_do}")


def _sources(folder: str) -> list[Path]:
    return sorted((Path(__file__).parents[2] / folder).rglob("*.py"))
