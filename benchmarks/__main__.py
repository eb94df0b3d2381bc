"""`python -m benchmarks` measures; `python -m benchmarks report FILE` makes the page from what was measured."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import backends
from benchmarks import measures
from benchmarks.results import machine, save

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
    backends.require(names)
    extent = measures.QUICK if options.quick else measures.Extent()
    results: dict[str, Any] = {"machine": machine(), "backends": names, "extent": extent}
    for what in options.only or MEASURES:
        began = time.perf_counter()
        print(f"{what} ...", flush=True)
        results[what] = MEASURES[what](names, extent, print)
        print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)
        save(options.output, results)
    print(f"results in {options.output}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.set_defaults(command="measure")
    add = parser.add_argument
    add("--backend", action="append", choices=list(backends.FRAMEWORKS), help="of these alone")
    add("--only", action="append", choices=list(MEASURES), help="these measures alone")
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
