"""`python run.py parity`: all checks, each backend in a process of its own; a table, JSON and a report."""

import json
import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from common.cli import backend_names
from common.commands.run_folder import RunFolder
from common.commands.training import make_console
from common.config import ParityConfig
from common.errors import UserError
from common.interface import Backend, Framework, Registry
from common.parity.adapter import Adapter
from common.parity.comparison import CheckResult
from common.parity.data_checks import operation_pictures
from common.parity.free_running import Envelope, envelope, free_running
from common.parity.report import write_report
from common.parity.results import (
    BackendResults,
    Pictures,
    by_check,
    load_results,
    number,
    save_results,
)
from common.parity.suite import QUICK, Extent, run_checks
from common.reference import ALIGNED, KNOWN_DIFFERENCES
from common.system import environment
from common.system.files import write_text
from common.system.processes import call_in_process

FREE_STEPS = 30
FAILED = 1  # the exit code if a backend disagrees with the reference


def check_backend(
    backend: Backend, config: ParityConfig, folder: Path, extent: Extent | None = None
) -> None:
    """Run the checks on one backend in this process, and write their results into ``folder``.

    An exception ends the checks; the results before it are kept. ``extent`` is that of ``config`` unless given. Raises
    UserError for settings that cannot work here.
    """
    # Frameworks that compile warn about batches of many shapes, which the checks use on purpose.
    logging.getLogger(backend.packages[0]).setLevel(logging.ERROR)
    console, began = make_console(), time.perf_counter()
    configuration = backend.devices.describe(
        [backend.devices.cpu()], config.precision, config.compile
    )
    extent = extent or (QUICK if config.quick else Extent())
    suite = run_checks(backend, extent, config.seed, config.precision, config.compile)
    checks: list[CheckResult] = []
    losses: list[float] = []
    pictures: Pictures = {}
    error = ""
    try:
        with console.status(f"{backend.name}: checking") as status:
            for result in suite:
                checks.append(result)
                status.update(f"{backend.name}: {len(checks)} checks, now after {result.check}")
            if not config.quick:
                around = _read_envelope(folder.parent)
                adapter = Adapter(backend, around.kind, config.compile)
                result, losses = free_running(adapter, around, config.seed)
                checks.append(result)
            if computing(config) == "fp32":
                pictures = operation_pictures(Adapter(backend, "float32"))
    except Exception as raised:  # a wrong backend may raise anything
        traceback.print_exc()
        error = f"{type(raised).__name__}: {raised}"
    results = BackendResults(
        backend.name,
        environment.versions(backend.packages),
        configuration,
        declared(backend),
        tuple(checks),
        tuple(losses),
        pictures,
        error,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_results(folder, results)
    found = f"{len(results.failures)} failed" if results.failures else "all passed"
    found += ", then it broke off" if error else ""
    seconds = time.perf_counter() - began
    console.print(f"{backend.name}: {len(checks)} checks, {found} ({seconds:.0f} s)")


def computing(config: ParityConfig) -> str:
    """Return the configuration that is checked, in words."""
    return f"{config.precision}{', compiled' if config.compile else ''}"


def declared(backend: Backend) -> tuple[str, ...]:
    """Return the known differences that a backend declares; the reference follows them when it is compared with it."""
    return tuple(
        f"{known.name}: {known.meaning}"
        for known in KNOWN_DIFFERENCES
        if known.holds(backend.probes.CONVENTIONS) and not known.holds(ALIGNED)
    )


# Loads the backend of a name and checks it in this process: calls `check_backend`, returns an exit code.
Check = Callable[[str, ParityConfig, Path], int]


def run(config: ParityConfig, registry: Registry) -> int:
    """Check each backend of ``--backend``, or each that is installed; return the exit code."""
    every = list(registry.FRAMEWORKS)
    names = (
        backend_names(config.backend, every)
        if config.backend
        else [name for name in every if registry.installed(name)]
    )
    if not names:
        raise UserError("no backend is installed: uv run --extra all brings all three")
    frameworks = {name: registry.FRAMEWORKS[name] for name in names}
    left_out = [] if config.backend else [name for name in every if name not in names]
    check = partial(load_and_check, registry.__name__)
    return check_each(config, frameworks, check, left_out)


def load_and_check(package: str, name: str, config: ParityConfig, folder: Path) -> int:
    """Load a backend from ``package`` and check it in this process; return the exit code."""
    backend: Backend = import_module(package).load(name, config.precision)
    check_backend(backend, config, folder)
    return 0


def check_each(
    config: ParityConfig,
    frameworks: Mapping[str, Framework],
    check: Check,
    left_out: Sequence[str],
) -> int:
    """Check each backend in a process of its own; return 0, or 1 if one disagrees with the reference.

    Each process calls ``check``, a function of a module, with the backend's name, the options and the folder to write
    to. ``left_out`` are backends that are not installed. Raises UserError if the output cannot be written. Ctrl-C
    passes on as a KeyboardInterrupt that says which backends were checked and where the results are.
    """
    console = make_console()
    folder = RunFolder(config.output, "parity")
    _announce(console, config, frameworks, left_out)
    folder.write_json("config.json", _record(config, frameworks))
    results: list[BackendResults] = []
    try:
        if not config.quick:
            with console.status("the reference trains, once unperturbed and six times perturbed"):
                kind = "bfloat16" if config.precision == "bf16" else "float32"
                _write_envelope(folder.path, envelope(FREE_STEPS, config.seed, kind))
        for framework in frameworks.values():
            results.append(_check_in_process(config, framework, check, folder.path))
    except KeyboardInterrupt as interrupt:
        names = ", ".join(result.backend for result in results) or "no backend"
        raise KeyboardInterrupt(
            f"interrupted: {names} finished, what was found is in {folder.path}"
        ) from interrupt
    _report(console, config, frameworks, results, folder.path)
    return 0 if all(result.passed for result in results) else FAILED


def _record(config: ParityConfig, frameworks: Mapping[str, Framework]) -> dict[str, Any]:
    """Return the content of ``config.json``."""
    packages = tuple(p for framework in frameworks.values() for p in framework.packages)
    return {
        "command": "parity",
        "backends": list(frameworks),
        "config": {
            "seed": config.seed,
            "quick": config.quick,
            "precision": config.precision,
            "compile": config.compile,
        },
        "versions": environment.versions(packages),
        "hardware": environment.hardware(),
    }


def _check_in_process(
    config: ParityConfig, framework: Framework, check: Check, folder: Path
) -> BackendResults:
    """Check one backend in a process of its own."""
    name = framework.name
    if code := call_in_process(check, name, config, folder / name):
        versions = environment.versions(framework.packages)
        error = f"its process ended with exit code {code}"
        return BackendResults(name, versions, {}, (), (), error=error)
    return load_results(folder / name)


def _report(
    console: Console,
    config: ParityConfig,
    frameworks: Mapping[str, Framework],
    results: Sequence[BackendResults],
    folder: Path,
) -> None:
    """Print the table and the failures, and write the report."""
    around = None if config.quick else _read_envelope(folder)
    console.print(table(console, results, computing(config)))
    for result in results:
        if result.declared:
            names = ", ".join(line.partition(":")[0] for line in result.declared)
            console.print(
                f"{result.backend} declares these differences, which the reference follows: {names}",
                soft_wrap=True,
            )
        for line in result.diagnosis():
            console.print(line, style="bold", soft_wrap=True)
    if all(result.passed for result in results):
        names = ", ".join(result.backend for result in results)
        agree = "agrees" if len(results) == 1 else "agree"
        console.print(f"All checks passed: {names} {agree} with the reference.")
    styles = {name: framework.style for name, framework in frameworks.items()}
    report = folder / "report.html"
    write_report(report, results, styles, around, config.seed, computing(config))
    console.print(f"report in {report}", soft_wrap=True)


def _announce(
    console: Console,
    config: ParityConfig,
    frameworks: Mapping[str, Framework],
    left_out: Sequence[str],
) -> None:
    extent = "quick" if config.quick else "full"
    console.print(
        f"Parity of {computing(config)}, {extent}, seed {config.seed}: each against the reference (NumPy)"
    )
    for name, framework in frameworks.items():
        versions = environment.versions(framework.packages)
        console.print(f"  {name}: {', '.join(f'{p} {versions[p]}' for p in framework.packages)}")
    for name in left_out:
        console.print(f"  {name}: not installed, left out")


def _write_envelope(folder: Path, around: Envelope) -> None:
    write_text(folder / "envelope.json", json.dumps(asdict(around), indent=1) + "\n")


def _read_envelope(folder: Path) -> Envelope:
    return Envelope(**json.loads((folder / "envelope.json").read_text(encoding="utf-8")))


def table(console: Console, results: Sequence[BackendResults], checked: str) -> Table:
    """Return the table of the checks: a row each, with its tolerance and each backend's largest difference.

    Its title names the configuration that was ``checked``.
    """
    shown = Table(
        title=f"checked: {checked}",
        title_justify="left",
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
    )
    for title in ("check", "in"):
        shown.add_column(title, overflow="fold")
    shown.add_column("tolerance", justify="right")
    for result in results:
        shown.add_column(result.backend, justify="right", overflow="fold")
    for first, checks in by_check(results):
        numbers = [
            "-" if c is None else number(c.largest.value) + ("" if c.passed else " FAILED")
            for c in checks
        ]
        shown.add_row(first.check, first.kind, number(first.tolerance.limit), *numbers)
    return shown
