"""Run all checks of one backend in this process, seed by seed, and write the results to files."""

import json
import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from common.config import ParityConfig
from common.errors import UserError
from common.interface import Backend
from common.parity.adapter import KINDS, Adapter
from common.parity.checks.free_running import Envelope, envelope, free_running
from common.parity.checks.processes import process_checks
from common.parity.checks.transforms import operation_pictures
from common.parity.comparison import CheckResult
from common.parity.coverage import CallRecorder, contract
from common.parity.results import BackendResults, Pictures, add_check, begin_seed, save_results
from common.parity.suite import QUICK, Extent, run_checks
from common.reference import ALIGNED, KNOWN_DIFFERENCES
from common.system import environment
from common.system.console import PlainConsole
from common.system.files import write_text

FREE_STEPS = 30


def check_backend(
    backend: Backend, config: ParityConfig, folder: Path, extent: Extent | None = None
) -> None:
    """Run the checks on one backend in this process, and write their results into ``folder``.

    An exception ends the checks; results before it are kept, even if the process dies. ``extent`` defaults to that of
    ``config``. Raises UserError for settings that cannot work here.
    """
    # Compiling frameworks warn about batches of many shapes, which the checks use on purpose.
    logging.getLogger(backend.packages[0]).setLevel(logging.ERROR)
    configuration = describe(backend, config)
    folder.mkdir(parents=True, exist_ok=True)
    results = BackendResults(
        backend.name,
        environment.versions(backend.packages),
        configuration,
        declared(backend),
        (),
    )
    console, recorder = PlainConsole(), CallRecorder(backend)
    for seed in config.all_seeds:
        begin_seed(folder, seed)
        found = _check_seed(console, recorder, config, folder, seed, extent)
        results = replace(
            results,
            checks=(*results.checks, *found.checks),
            losses=results.losses or found.losses,
            pictures=results.pictures or found.pictures,
            error=found.error,
            last_seed=seed,
        )
        if found.error:
            break
    not_called = tuple(name for name in contract() if name not in recorder.called)
    save_results(folder, replace(results, covered=recorder.covered(), not_called=not_called))


def describe(backend: Backend, config: ParityConfig) -> Mapping[str, str]:
    """Return the device and its settings. Raises UserError for settings that cannot work, such as a missing GPU."""
    devices = backend.devices.get_devices(config.device)[:1]
    if config.precision == "tf32" and devices == [backend.devices.cpu()]:
        raise UserError("--precision tf32 needs an NVIDIA GPU, and the framework finds none")
    return backend.devices.describe(devices, config.prepared_for, config.compile)


def declared(backend: Backend) -> tuple[str, ...]:
    """Return the known differences that a backend declares; the reference follows them for that backend."""
    return tuple(
        f"{known.name}: {known.meaning}"
        for known in KNOWN_DIFFERENCES
        if known.holds(backend.probes.CONVENTIONS) and not known.holds(ALIGNED)
    )


def _check_seed(
    console: Console,
    recorder: CallRecorder,
    config: ParityConfig,
    folder: Path,
    seed: int,
    extent: Extent | None,
) -> BackendResults:
    """Run the checks with one seed, save each in ``folder``, and print their number."""
    backend = recorder.backend
    began = time.perf_counter()
    checks: list[CheckResult] = []
    losses: list[float] = []
    pictures: Pictures = {}
    error = ""
    name = backend.name if config.seeds == 1 else f"{backend.name}, seed {seed}"
    try:
        with console.status(f"{name}: checking") as status:
            for result in _checks(backend, config, folder, seed, extent, losses):
                checks.append(replace(result, seed=seed))
                add_check(folder, checks[-1])
                status.update(f"{name}: {len(checks)} checks, now after {result.check}")
            if seed == config.seed and config.precision == "fp32" and not config.compile:
                pictures = operation_pictures(
                    Adapter(recorder.original, "float32", device=config.device)
                )
    except Exception as raised:  # a wrong backend may raise anything
        traceback.print_exc()
        error = f"{type(raised).__name__}: {raised}"
    results = BackendResults(
        backend.name, {}, {}, (), tuple(checks), tuple(losses), pictures, error
    )
    found = f"{len(results.failures)} failed" if results.failures else "all passed"
    found += ", then an exception stopped them" if error else ""
    seconds = time.perf_counter() - began
    console.print(f"{name}: {len(checks)} checks, {found} ({seconds:.0f} s)")
    return results


def _checks(
    backend: Backend,
    config: ParityConfig,
    folder: Path,
    seed: int,
    extent: Extent | None,
    losses: list[float],
) -> Iterator[CheckResult]:
    """Yield every check with one seed; append the losses of free-running training to ``losses``."""
    extent = extent or (QUICK if config.quick else Extent())
    yield from run_checks(backend, extent, seed, config.precision, config.compile, config.device)
    if config.quick:
        return
    reference_envelope = read_envelope(folder.parent, seed)
    adapter = Adapter(backend, reference_envelope.kind, config.compile, device=config.device)
    result, found = free_running(adapter, reference_envelope, seed)
    losses.extend(found)
    yield result
    is_default = (config.precision, config.compile, config.device) == ("fp32", False, "cpu")
    if is_default and seed == config.seed:  # the new processes import the framework again
        yield from process_checks(backend, seed)


def write_envelopes(folder: Path, config: ParityConfig) -> None:
    """Compute the effect of rounding on the reference's free-running training for each seed; write it to ``folder``."""
    kind = KINDS[config.precision]
    found = {seed: asdict(envelope(FREE_STEPS, seed, kind)) for seed in config.all_seeds}
    write_text(folder / "envelopes.json", json.dumps(found, indent=1) + "\n")


def read_envelope(folder: Path, seed: int) -> Envelope:
    """Read the envelope that `write_envelopes` wrote for a seed."""
    content = json.loads((folder / "envelopes.json").read_text(encoding="utf-8"))
    return Envelope(**content[str(seed)])
