"""`python -m benchmarks` measures; `python -m benchmarks report FILE` makes the page from what was measured."""

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
    "growth": measures.growth,
}


def main(arguments: list[str]) -> int:
    """Measure, or write the page; return the exit code."""
    options = _parse(arguments)
    if options.command == "report":
        from benchmarks.report import write_report

        write_report(options.results, options.docs)
        return 0
    names = options.backend or [name for name in backends.FRAMEWORKS if backends.installed(name)]
    extent = measures.QUICK if options.quick else measures.Extent()
    results: dict[str, Any] = {"machine": machine(), "backends": names, "extent": asdict(extent)}
    try:
        backends.require(names)
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
    print(f"results in {options.output}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.set_defaults(command="measure")
    add = parser.add_argument
    add("--backend", action="append", choices=list(backends.FRAMEWORKS), help="of these alone")
    only = "these measures alone, anew in FILE if it is there"
    add("--only", action="append", choices=list(MEASURES), help=only)
    add("--quick", action="store_true", help="so little that the figures mean nothing")
    add("--output", type=Path, default=Path("runs/benchmarks.json"), metavar="FILE")
    commands = parser.add_subparsers()
    report = commands.add_parser("report", help="write the page and its pictures from results")
    report.set_defaults(command="report")
    report.add_argument("results", type=Path)
    report.add_argument("--docs", type=Path, default=Path("docs"), metavar="FOLDER")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
