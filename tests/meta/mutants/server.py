"""A process that has imported a framework once and forks for each mutant, some at a time."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.meta.mutants import judge
from tests.meta.mutants.judge import Judgement
from tests.meta.mutants.mutant import Mutant
from tests.meta.mutants.results import Verdict, append

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class How:
    """How mutants are judged: of which backend, in which stages, how many at a time, traced or not."""

    backend: str
    stages: tuple[str, ...]
    jobs: int = 1
    untraced: bool = False
    minutes: float = math.inf  # after which no other mutant is begun


@dataclass
class Running:
    """A mutant that is being judged in a process of its own."""

    mutant: Mutant | None
    process: Any
    said: Connection
    stages: tuple[str, ...]
    began: float = field(default_factory=time.perf_counter)
    stage_began: float = field(default_factory=time.perf_counter)
    stage: int = 0  # the one that runs

    @property
    def left(self) -> float:
        """The seconds until its stage has taken too long."""
        limit = judge.LIMITS[self.stages[self.stage]]
        return limit - (time.perf_counter() - self.stage_began)

    def listen(self) -> Judgement | None:
        """Return what became of the mutant, None as long as it is being judged."""
        try:
            while self.stage < len(self.stages) and self.said.poll():
                if found := self.said.recv():
                    return found
                self.stage, self.stage_began = self.stage + 1, time.perf_counter()
        except EOFError:  # it has ended and said nothing more
            self.process.join(1)
            words = f"the process ended with {self.process.exitcode}"
            return Judgement(self.stages[self.stage], words, raised=True)
        if self.stage == len(self.stages):
            return Judgement(judge.NOTHING)
        if self.left <= 0:
            return Judgement(judge.TIME, f"in {self.stages[self.stage]}")
        return None

    def end(self) -> None:
        """End the process, and those that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.said.close()


def start(how: How, mutant: Mutant | None) -> Running:
    """Fork a process that judges a mutant."""
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_judge, args=(how, mutant, there))
    process.start()
    there.close()
    return Running(mutant, process, here, how.stages)


def _judge(how: How, mutant: Mutant | None, there: Connection) -> None:
    os.setpgid(0, 0)  # so that what it starts can be ended with it
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    judge.silence()
    judge.seek_no_causes()

    def say(stage: str, found: Judgement | None) -> None:
        there.send(found)

    judge.judge(how.backend, mutant, how.stages, say, how.untraced)
    there.close()
    os._exit(0)


def _end_with(parent: int) -> None:
    """End this process and what it has started if its parent is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def serve(
    how: How,
    mutants: Iterable[Mutant | None],
    done: Callable[[Mutant | None, Judgement, float], None],
) -> None:
    """Judge mutants of a backend in this process's forks; tell ``done`` what became of each."""
    judge.prepare(how.backend)
    waiting, running = iter(mutants), []
    try:
        while True:
            while len(running) < how.jobs and (mutant := next(waiting, _END)) is not _END:
                running.append(start(how, mutant))  # type: ignore[arg-type]
            if not running:
                return
            next_limit = max(0.0, min(one.left for one in running))
            ends = [c for one in running for c in (one.said, one.process.sentinel)]
            wait(ends, min(next_limit, 5))
            for one in list(running):
                if found := one.listen():
                    one.end()
                    running.remove(one)
                    done(one.mutant, found, time.perf_counter() - one.began)
    finally:
        for one in running:
            one.end()


_END = object()


def serve_to_file(how: How, mutants: list[Mutant], path: Path) -> int:
    """Judge mutants and append each verdict to a file; return 0, or 1 if the unchanged backend is rejected.

    A function of a module, as `call_in_process` takes it.
    """
    end = time.monotonic() + 60 * how.minutes
    unchanged = []

    def done(mutant: Mutant | None, found: Judgement, seconds: float) -> None:
        name = f"{how.backend}: unchanged" if mutant is None else mutant.id
        print(f"{name}: {found.by} {found.reason} ({seconds:.0f} s)", flush=True)
        if mutant is None:
            unchanged.append(found.by)
        else:
            append(path, Verdict.of(mutant, found, how.stages[-1], seconds))

    serve(how, [None], done)
    if unchanged != [judge.NOTHING]:
        return 1
    serve(how, takewhile(lambda _: time.monotonic() < end, mutants), done)
    return 0
