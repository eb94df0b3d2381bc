"""`python -m tests.meta.mutants`: plant mistakes in the tabs, and report which checks reject them."""

import argparse
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import backends
from common.system.processes import call_in_process
from tests.meta.mutants.judge import EXTENTS, LIMITS, STAGES
from tests.meta.mutants.mutant import FILES, Mutant, mutants_of, sample
from tests.meta.mutants.results import NOT_BY_PARITY, Verdict, equivalents, load, report
from tests.meta.mutants.server import Settings, serve_to_file


def main() -> int:
    """Run the command; return 0 if parity rejects all mutants except the equivalent ones, otherwise 1."""
    options = parser().parse_args()
    chosen = {name: _chosen(name, options) for name in options.backend}
    if options.list:
        for mutant in (m for mutants in chosen.values() for m in mutants):
            print(f"{mutant.id}, line {mutant.line}: {mutant.diff}")
        return 0
    options.output.parent.mkdir(parents=True, exist_ok=True)
    stages = STAGES[: STAGES.index(options.until) + 1]
    code = 0
    for name, mutants in chosen.items():
        judged = _judged(options, mutants)
        left = [m for m in mutants if m.id not in judged]
        print(f"{name}: {len(mutants)} mutants, {len(left)} to judge", flush=True)
        if left:
            settings = Settings(name, stages, options.jobs, options.untraced, options.minutes)
            code |= call_in_process(serve_to_file, settings, left, options.output)
    verdicts = [v for mutants in chosen.values() for v in _judged(options, mutants).values()]
    untraced = "TensorFlow untraced. " if options.untraced else ""
    planted = sum(map(len, chosen.values()))
    conditions = (
        f"Judged: {len(verdicts)} of {planted}. Stages: {', '.join(stages)}. Seed {options.seed}. {untraced}"
        + "; ".join(
            f"{stage}: {EXTENTS[stage]}, at most {LIMITS[stage]:.0f} s"
            for stage in stages
            if stage in EXTENTS
        )
    )
    options.output.with_suffix(".md").write_text(report(verdicts, equivalents(), conditions))
    print(f"the report is {options.output.with_suffix('.md')}")
    return code or int(any((v.by in NOT_BY_PARITY) != (v.id in equivalents()) for v in verdicts))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    found = argparse.ArgumentParser("python -m tests.meta.mutants", description=__doc__)
    found.add_argument("--backend", nargs="+", choices=FILES, default=list(backends.FRAMEWORKS))
    found.add_argument(
        "--sample", type=int, metavar="N", help="judge N mutants of each backend; default: all"
    )
    found.add_argument("--seed", type=int, default=0, help="seed that draws the sample; default: 0")
    found.add_argument(
        "--until", choices=STAGES, default="tests", help="the last stage; default: tests"
    )
    found.add_argument("--only", metavar="TEXT", help="judge mutants whose id contains this text")
    found.add_argument("--jobs", type=int, default=2, help="mutants in parallel; default: 2")
    found.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="start no new mutant of a backend after this time; running ones take up to %.0f minutes more"
        % (sum(LIMITS.values()) / 60),
    )
    found.add_argument(
        "--untraced",
        action="store_true",
        help="run TensorFlow eagerly, in a third of the time",
    )
    found.add_argument(
        "--output",
        type=Path,
        default=Path("runs/mutants.jsonl"),
        help="file of verdicts; a mutant that the requested stages have judged is not judged again; "
        "the report is written beside it",
    )
    found.add_argument("--list", action="store_true", help="list the mutants and judge none")
    return found


def _chosen(name: str, options: argparse.Namespace) -> list[Mutant]:
    """Return the mutants that the options select."""
    every = [m for m in mutants_of(name) if not options.only or options.only in m.id]
    return every if options.sample is None else sample(every, options.sample, options.seed)


def _judged(options: argparse.Namespace, mutants: Iterable[Mutant]) -> dict[str, Verdict]:
    """Return the verdicts on mutants, by id, that the requested stages cannot change."""
    known = load(options.output)
    found = {m.id: known[m.id] for m in mutants if m.id in known}
    return {id: verdict for id, verdict in found.items() if verdict.holds_until(options.until)}


if __name__ == "__main__":
    sys.exit(main())
