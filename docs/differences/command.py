"""`python run.py differences`: measure what the frameworks do otherwise, print it, write the page of it.

Without ``--backend`` on the arbiter alone, with it in those frameworks, each in a process of its own. The page
docs/differences.md is made of what was measured, which is kept beside it, and of the notes in the source.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from common.cli import Differences
from common.commands.training import make_console
from common.errors import UserError
from common.interface import Backend
from common.system import environment
from common.system.files import write_text
from common.system.processes import run_process
from docs.differences import native
from docs.differences.effects import NAMES, Effect, effects
from docs.differences.native import Native
from docs.differences.notes import read_notes
from docs.differences.page import (
    DENSE_AXES,
    IMAGE_AXES,
    KERNEL_AXES,
    Measured,
    axes_of,
    learnt_inputs,
    load_measured,
    page,
    said_of,
    save_measured,
    two_digits,
)

ROOT = Path(__file__).resolve().parents[2]
FAILED = 1  # the exit code where a backend's process breaks off


def measure_backend(backend: Backend, command: Differences, into: Path) -> None:
    """Measure one framework in this process, and write what is found to a file."""
    versions = environment.versions(backend.packages)
    own = {package: versions[package] for package in backend.packages}
    found = native.measure(backend, own, command.only)
    write_text(into, json.dumps(asdict(found)))


def run(command: Differences, script: Path) -> int:
    """Measure and print, and write the page where one is asked for; return the exit code.

    Raises UserError for a name that is not known, and for options that do not go together. ``script`` is run.py.
    """
    _check(command)
    console = make_console()
    if command.measured and command.output:
        _write(console, command.output, load_measured(command.measured))
        return 0
    natives = []
    for name in command.backends:
        found = _measure_in_process(command, name, script)
        if found is None:
            return FAILED
        natives.append(found)
        for line in _lines(found):
            console.print(line, soft_wrap=True)
    if command.backends and not command.output:
        return 0
    made = []
    for effect in effects(command.only):
        made.append(effect)
        for line in _effect_lines(effect):
            console.print(line, soft_wrap=True)
    if command.output:
        versions, hardware = environment.versions(()), environment.hardware()
        measured = Measured(versions, hardware, tuple(made), tuple(natives))
        save_measured(_beside(command.output), measured)
        _write(console, command.output, measured)
    return 0


def _check(command: Differences) -> None:
    if unknown := [name for name in command.only if name not in NAMES]:
        raise UserError(
            f"no known difference is called '{unknown[0]}': choose from {', '.join(NAMES)}"
        )
    if command.only and command.output:
        raise UserError("--output writes the whole page: leave out --only")
    if command.output and command.output.suffix == ".json":
        raise UserError(
            f"--output {command.output} is the page, and its numbers go beside it as .json: name it .md"
        )
    if command.measured and (command.backends or not command.output):
        raise UserError(
            "--measured makes the page of what was measured before: give it --output alone"
        )


def _beside(page_file: Path) -> Path:
    return page_file.with_suffix(".json")


def _write(console: Console, path: Path, measured: Measured) -> None:
    write_text(path, page(measured, read_notes(ROOT)))
    console.print(f"written to {path}", soft_wrap=True)


def _measure_in_process(command: Differences, name: str, script: Path) -> Native | None:
    """Measure one framework in a process of its own; say so and return None where that breaks off."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "native.json"
        own = ["--backend", name, "--into", str(into)]
        for chosen in command.only:
            own += ["--only", chosen]
        if code := run_process([sys.executable, str(script), "differences", *own]):
            print(f"error: the process of {name} ended with exit code {code}", file=sys.stderr)
            return None
        return native.from_plain(json.loads(into.read_text(encoding="utf-8")))


def _effect_lines(effect: Effect) -> Iterable[str]:
    yield f"{effect.name} ({effect.native_to}: {effect.meaning})"
    yield f"  one operation: {effect.operation}"
    yield (
        f"  first step, {effect.optimizer}: {two_digits(effect.step_parameters)} of its length apart in the "
        f"parameters, {two_digits(effect.step_statistics)} in the running statistics"
    )
    yield (
        f"  thirty steps: training loss {effect.loss[0]:.3f} aligned, {effect.loss[1]:.3f} native; "
        f"held out {effect.held_out[0]:.3f} aligned, {effect.held_out[1]:.3f} native"
    )


def _lines(found: Native) -> Iterable[str]:
    packages = (f"{name} {version}" for name, version in found.versions.items())
    yield f"{found.backend} left alone, with {', '.join(packages)}"
    for finding in found.findings:
        yield (
            f"  {finding.difference}: {said_of(finding)}; {two_digits(finding.aligned)} {finding.unit} from the "
            f"aligned way, {two_digits(finding.known)} from this difference"
        )
    if laid := found.layouts:
        yield f"  a batch: {axes_of(laid['images'], IMAGE_AXES)}"
        yield f"  a convolution's weights: {axes_of(laid['kernel'], KERNEL_AXES)}"
        yield f"  a dense layer's weights: {axes_of(laid['dense'], DENSE_AXES)}"
        yield f"  images in the other layout, to a convolution of 3 inputs: {laid['refusal'] or 'taken'}"
        yield f"  to one that learns its inputs from them: taken, for {learnt_inputs(laid)} inputs"
    for name, draws in (found.workers or {}).items():
        loader = {"own": "its own loader", "here": "this project's native loader"}[name]
        yield (
            f"  equal flips, {loader}: {draws.any_two:.0%} in the two most alike of its batches, {draws.again:.0%} in "
            f"a second epoch from the same seed, {draws.without:.0%} in one without workers"
        )
