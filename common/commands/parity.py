"""`python run.py parity`: run all checks, each backend in its own process; write a table, JSON and a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from common.cli import backend_names
from common.commands.parity_backend import (
    check_backend,
    describe,
    read_envelope,
    write_envelopes,
)
from common.commands.run_folder import RunFolder, check_output
from common.config import ParityConfig
from common.errors import UserError
from common.interface import Backend, Framework, Registry
from common.parity.report import write_report
from common.parity.results import (
    BackendResults,
    are_saved,
    load_results,
    load_so_far,
    save_results,
)
from common.parity.table import coverage_table, table
from common.system import environment
from common.system.console import PlainConsole
from common.system.processes import call_in_process, how_it_ended

FAILED = 1  # the exit code if a backend disagrees with the reference
REFUSED = 2  # the exit code of a UserError

# Loads a backend by name, calls `check_backend` in this process and returns an exit code.
Check = Callable[[str, ParityConfig, Path], int]


def run(config: ParityConfig, registry: Registry) -> int:
    """Check each backend of ``--backend``, or each installed one, and return the exit code."""
    every = list(registry.FRAMEWORKS)
    names = (
        backend_names(config.backend, every)
        if config.backend
        else [name for name in every if registry.installed(name)]
    )
    if not names:
        raise UserError("no backend is installed: uv run --extra all installs all three")
    frameworks = {name: registry.FRAMEWORKS[name] for name in names}
    left_out = [] if config.backend else [name for name in every if name not in names]
    if config.device != "cpu":
        check_output(config.output)
        for name in names:
            # Any other exit code is a broken backend, which its checks will report.
            if call_in_process(find_device, registry.__name__, name, config) == REFUSED:
                return REFUSED
    check = partial(load_and_check, registry.__name__)
    return check_each(config, frameworks, check, left_out)


def find_device(package: str, name: str, config: ParityConfig) -> int:
    """Check that the framework finds the device, before anything is written. Return 0.

    Raises UserError if the device is missing or the settings cannot work on it.
    """
    try:
        describe(load(package, name, config), config)
    except UserError as error:
        raise UserError(f"backend {name}: {error}") from error
    return 0


def load_and_check(package: str, name: str, config: ParityConfig, folder: Path) -> int:
    """Load a backend from ``package``, check it in this process, and return the exit code."""
    check_backend(load(package, name, config), config, folder)
    return 0


def load(package: str, name: str, config: ParityConfig) -> Backend:
    """Import a backend from ``package``; for fp32 on a GPU, disable TF32 first."""
    if config.device != "cpu" and config.precision == "fp32":
        environment.switch_tf32_off()
    backend: Backend = import_module(package).load(name, config.prepared_for)
    return backend


def check_each(
    config: ParityConfig,
    frameworks: Mapping[str, Framework],
    check: Check,
    left_out: Sequence[str],
) -> int:
    """Check each backend in its own process; return 0, or 1 if one disagrees with the reference.

    Each process calls ``check``, which must be importable, with the backend's name, the options and the folder to write
    to. ``left_out`` are backends that are not installed. Raises UserError if the output cannot be written. After
    Ctrl-C, raises a KeyboardInterrupt whose message names the finished backends and the folder of the results.
    """
    console = PlainConsole()
    with RunFolder(config.output, "parity") as folder:
        _announce(console, config, frameworks, left_out)
        folder.write_json("config.json", _record(config, frameworks))
    results: list[BackendResults] = []
    try:
        if not config.quick:
            with console.status("the reference trains, once unperturbed and six times perturbed"):
                write_envelopes(folder.path, config)
        for framework in frameworks.values():
            results.append(_check_in_process(config, framework, check, folder.path))
    except KeyboardInterrupt as interrupt:
        names = ", ".join(result.backend for result in results) or "no backend"
        raise KeyboardInterrupt(
            f"interrupted: {names} finished, results so far are in {folder.path}"
        ) from interrupt
    _report(console, config, frameworks, results, folder.path)
    return 0 if all(result.passed for result in results) else FAILED


def _record(config: ParityConfig, frameworks: Mapping[str, Framework]) -> dict[str, Any]:
    """Return the content of ``config.json``."""
    packages = tuple(p for framework in frameworks.values() for p in framework.packages)
    names = ("seed", "seeds", "quick", "precision", "compile", "device")
    return {
        "command": "parity",
        "backends": list(frameworks),
        "config": {name: getattr(config, name) for name in names},
        "versions": environment.versions(packages),
        "hardware": environment.hardware(),
    }


def _check_in_process(
    config: ParityConfig, framework: Framework, check: Check, folder: Path
) -> BackendResults:
    """Check one backend in its own process; if the process ends early, return the checks it has finished."""
    name = framework.name
    code = call_in_process(check, name, config, folder / name)
    error = f"its process {how_it_ended(code)}"
    if are_saved(folder / name):
        results = load_results(folder / name)
        return (
            replace(results, error=results.error or f"{error} after its last check")
            if code
            else results
        )
    checks, seed = load_so_far(folder / name)
    versions = environment.versions(framework.packages)
    results = BackendResults(
        name, versions, {}, (), checks, error=error, last_seed=max(seed, config.seed)
    )
    save_results(folder / name, results)
    return results


def _report(
    console: Console,
    config: ParityConfig,
    frameworks: Mapping[str, Framework],
    results: Sequence[BackendResults],
    folder: Path,
) -> None:
    """Print the table and the failures, and write the report."""
    envelope = None if config.quick else read_envelope(folder, config.seed)
    checked = f"{computing(config)}{_seeds(config)}"
    console.print(table(console, results, checked))
    console.print(coverage_table(console, results))
    for result in results:
        if result.declared:
            names = ", ".join(line.partition(":")[0] for line in result.declared)
            console.print(
                f"{result.backend} declares these differences, which the reference follows: {names}",
                soft_wrap=True,
            )
        for line in (*result.diagnosis(), *_repeats(config, result)):
            console.print(line, style="bold", soft_wrap=True)
    if all(result.passed for result in results):
        names = ", ".join(result.backend for result in results)
        agree = "agrees" if len(results) == 1 else "agree"
        console.print(f"All checks passed: {names} {agree} with the reference.")
    styles = {name: framework.style for name, framework in frameworks.items()}
    report = folder / "report.html"
    write_report(report, results, styles, envelope, config.seed, checked)
    console.print(f"report in {report}", soft_wrap=True)


def _repeats(config: ParityConfig, result: BackendResults) -> list[str]:
    """Return a line for each failing seed, with the command that repeats it; none if there is only one seed."""
    if config.seeds == 1:
        return []
    options = [
        *(["--quick"] if config.quick else []),
        *([f"--precision {config.precision}"] if config.precision != "fp32" else []),
        *(["--compile"] if config.compile else []),
        *([f"--device {config.device}"] if config.device != "cpu" else []),
    ]
    command = " ".join(["python run.py parity --backend", result.backend, *options])
    return [
        f"{result.backend} fails with seed {seed}: {command} --seed {seed}"
        for seed in result.failing_seeds
    ]


def computing(config: ParityConfig) -> str:
    """Return the configuration that is checked, in words."""
    compiled = ", compiled" if config.compile else ""
    return (
        f"{config.precision}{compiled}{'' if config.device == 'cpu' else f', on {config.device}'}"
    )


def _seeds(config: ParityConfig) -> str:
    """Return the range of the seeds in words, '' for a single seed."""
    return (
        "" if config.seeds == 1 else f", the worst of seeds {config.seed} to {config.all_seeds[-1]}"
    )


def _announce(
    console: Console,
    config: ParityConfig,
    frameworks: Mapping[str, Framework],
    left_out: Sequence[str],
) -> None:
    extent = "quick" if config.quick else "full"
    seeds = (
        f"seed {config.seed}"
        if config.seeds == 1
        else f"seeds {config.seed} to {config.all_seeds[-1]}"
    )
    console.print(
        f"Parity of {computing(config)}, {extent}, {seeds}: each backend against the reference (NumPy)"
    )
    for name, framework in frameworks.items():
        versions = environment.versions(framework.packages)
        console.print(f"  {name}: {', '.join(f'{p} {versions[p]}' for p in framework.packages)}")
    for name in left_out:
        console.print(f"  {name}: not installed, skipped")
