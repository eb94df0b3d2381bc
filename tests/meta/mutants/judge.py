"""Judge one mutant: run the checks on it, from the fastest to the slowest, until one rejects it."""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.interface import Backend
from common.parity import adapter
from common.parity.suite import QUICK, Extent, run_checks
from tests.meta.mutants.mutant import FILES, ROOT, Mutant, mutated, source
from tests.meta.mutants.plant import load_planted

# A quarter of the chapter's channels: the reference takes a tenth of the time.
NUM_CHANNELS = 16
EXTENTS = {
    "quick": replace(QUICK, num_channels=NUM_CHANNELS),
    "full": replace(Extent(), num_channels=NUM_CHANNELS),
}
STAGES = ("quick", "full", "tests")
# Time limits in seconds: several times what the unchanged backend takes, even on a busy machine.
LIMITS = {"quick": 600.0, "full": 1800.0, "tests": 1800.0}
# The folders of a backend's tests. The tests of a backend have one of its words in their names, or no word of another
# backend (such as conversions of files).
TESTS = ("tests/contract", "tests/weights")
NAMES = {
    "pytorch": ("pytorch", "state_dicts"),
    "mxnet": ("mxnet", "gluon", "params"),
    "tensorflow": ("tensorflow", "keras"),
}
NOTHING, TIME = "nothing", "time"


@dataclass(frozen=True)
class Judgement:
    """The stage that rejected a mutant, or NOTHING or TIME, and the reason.

    ``raised`` is true for an exception or an exit, and false for a failed comparison.
    """

    by: str
    reason: str = ""
    raised: bool = False


# Takes a stage and its judgement, which is None if the mutant passed.
Send = Callable[[str, Judgement | None], None]


def judge(
    name: str, mutant: Mutant | None, stages: Sequence[str], send: Send, untraced: bool = False
) -> None:
    """Run the stages on a mutant in this process, up to the first that rejects it. None is the unchanged backend.

    With ``untraced``, all checks run TensorFlow eagerly, because tracing takes longer than everything else.
    """
    try:
        backend = load_planted(name, mutant)
    except BaseException as error:  # a mutant may raise anything, including SystemExit
        send(stages[0], Judgement(stages[0], f"its import: {_described(error)}", raised=True))
        return
    for stage in stages:
        found = _tests(name, mutant) if stage == "tests" else _checks(backend, stage, untraced)
        send(stage, found)
        if found:
            return


def _checks(backend: Backend, stage: str, untraced: bool) -> Judgement | None:
    """Return the first check that fails, or the exception; None if all pass.

    TensorFlow's quick checks first run untraced: this rejects most mutants, and tracing takes half a minute.
    """
    ways = [_traced]
    if backend.name == "tensorflow":
        ways = [_untraced] if untraced else {"quick": [_untraced, _traced]}.get(stage, ways)
    for way in ways:
        with way():
            if found := _first_failure(backend, stage):
                return found
    return None


def _first_failure(backend: Backend, stage: str) -> Judgement | None:
    after = "the start"
    try:
        for result in run_checks(backend, EXTENTS[stage]):
            if not result.passed:
                return Judgement(stage, f"{result.check}, {result.kind}")
            after = f"{result.check}, {result.kind}"
    except BaseException as error:  # including SystemExit
        return Judgement(stage, f"{_described(error)} after {after}", raised=True)
    return None


def skip_causes() -> None:
    """Search for no causes in this process: each would take another run of the reference."""
    adapter.KNOWN_DIFFERENCES = ()


@contextmanager
def _traced() -> Iterator[None]:
    yield


@contextmanager
def _untraced() -> Iterator[None]:
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def _described(error: BaseException) -> str:
    lines = str(error).split("\n") or [""]
    telling = (
        lines[-1] if lines[0].startswith("Traceback") else lines[0]
    )  # MXNet adds a C++ traceback
    return f"{type(error).__name__}: {telling}"[:160]


def _tests(name: str, mutant: Mutant | None) -> Judgement | None:
    """Return the first of the project's tests that fails in a copy of the project with the mutant, or None."""
    options = ("-n", "0", "-x", "-q", "-k", _chosen(name), "-p", "no:cacheprovider")
    with tempfile.TemporaryDirectory() as folder:
        copy = copied_project(Path(folder), name, mutant)
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *TESTS, *options],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy), "REQUIRE_BACKENDS": name},
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode == 0:
        return None
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    words = (failed or [f"pytest ended with {run.returncode}"])[0][:200]
    return Judgement("tests", words, raised=not failed)


def _chosen(name: str) -> str:
    """Return the expression for pytest's -k that selects a backend's tests."""
    own = " or ".join(NAMES[name])
    others = [word for other, words in NAMES.items() if other != name for word in words]
    # drifted_copy edits a source as text. A mutant's source comes from its syntax tree, so its formatting differs.
    return f"({own} or not ({' or '.join([*others, 'numpy'])})) and not drifted_copy"


def copied_project(folder: Path, name: str, mutant: Mutant | None) -> Path:
    """Copy the files that the tests read into a folder, including the mutant.

    A mutant's source is unparsed from its syntax tree. Without a mutant, all sources of the backend are unparsed,
    unchanged.
    """
    for path in ROOT.iterdir():
        if path.name.startswith(".") or path.name in ("runs", "data", "build", "dist"):
            continue
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    if mutant is None:
        sources = {file: ast.unparse(ast.parse(source(name, file))) for file in FILES[name]}
    else:
        sources = {mutant.file: mutated(mutant)}
    for file, text in sources.items():
        (folder / "backends" / name / f"{file}.py").write_text(text, encoding="utf-8")
    return folder


def silence() -> None:
    """Discard the output of this process: frameworks and wrong backends print a lot."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def prepare(name: str) -> Any:
    """Import a framework as its backend does, and the modules that the checks import late.

    Nothing is computed, so that the process can fork.
    """
    import backends

    backend = backends.load(name)
    if name == "pytorch":
        import torchvision.transforms  # noqa: F401
    return backend
