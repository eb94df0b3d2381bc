"""`python -m benchmarks`: measure speed and memory; write the results and a chart."""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import backends
from benchmarks import measures
from benchmarks.results import added_to, load_of_the_machine, machine, save
from common.errors import UserError

MEASURES = {
    "training": measures.training,
    "loaders": measures.loaders,
    "start": measures.start,
    "options": measures.options,
    "checkpoints": measures.checkpoints,
    "processes": measures.processes,
    "growth": measures.growth,
}


def main(arguments: list[str]) -> int:
    """Run the measurements and return the exit code."""
    options = _parse(arguments)
    extent = measures.QUICK if options.quick else measures.Extent()
    try:
        names = _backends(options.backend)
        results: dict[str, Any] = {
            "machine": machine(),
            "backends": names,
            "extent": asdict(extent),
        }
        if options.only:
            results = added_to(options.output, results)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for what in options.only or MEASURES:
        began, load = time.perf_counter(), load_of_the_machine()
        print(f"{what} ...", flush=True)
        results[what] = MEASURES[what](names, extent, print) | {"load_before": load}
        print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)
        save(options.output, results)
    if "training" in results:
        from benchmarks.picture import draw_training

        draw_training(options.output.with_name(f"{options.output.stem}-training.png"), results)
    if "growth" in results:
        from benchmarks.picture import draw_growth

        draw_growth(options.output.with_suffix(".png"), results)
    print(f"results in {options.output}")
    return 0


def _backends(chosen: list[str] | None) -> list[str]:
    """Return the backends to measure: the chosen ones, or all that are installed and have entries.

    Raises UserError for a chosen one that is not installed or has no entries in `benchmarks.measures`.
    """
    for name in chosen or ():
        if missing := measures.missing_entries(name):
            raise UserError(
                f"backend {name} cannot be measured: {', '.join(missing)} in benchmarks/measures.py have no entry for "
                "it; see docs/add-a-backend.md"
            )
    if chosen:
        backends.require(chosen)
        return chosen
    names = [name for name in backends.FRAMEWORKS if backends.installed(name)]
    for name in names:
        if missing := measures.missing_entries(name):
            print(f"{name} is left out: no entry in {', '.join(missing)} of benchmarks/measures.py")
    return [name for name in names if not measures.missing_entries(name)]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add(
        "--backend",
        action="append",
        choices=list(backends.FRAMEWORKS),
        help="only these frameworks",
    )
    only = "only these measures; the others in FILE stay"
    add("--only", action="append", choices=list(MEASURES), help=only)
    add("--quick", action="store_true", help="a trial run, too small for meaningful results")
    add("--output", type=Path, default=Path("runs/benchmarks.json"), metavar="FILE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
