"""A process that imports a framework once and forks for each mutant, several in parallel."""

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
class Settings:
    """The backend, the stages, the number of parallel mutants, and whether TensorFlow runs untraced."""

    backend: str
    stages: tuple[str, ...]
    jobs: int = 1
    untraced: bool = False
    minutes: float = math.inf  # after this time, no new mutant starts


@dataclass
class Running:
    """A mutant that is being judged in a process of its own."""

    mutant: Mutant | None
    process: Any
    connection: Connection
    stages: tuple[str, ...]
    began: float = field(default_factory=time.perf_counter)
    stage_began: float = field(default_factory=time.perf_counter)
    stage: int = 0  # the current stage

    @property
    def left(self) -> float:
        """The seconds until the time limit of the current stage."""
        limit = judge.LIMITS[self.stages[self.stage]]
        return limit - (time.perf_counter() - self.stage_began)

    def listen(self) -> Judgement | None:
        """Return the judgement, or None while the mutant is being judged."""
        try:
            while self.stage < len(self.stages) and self.connection.poll():
                if found := self.connection.recv():
                    return found
                self.stage, self.stage_began = self.stage + 1, time.perf_counter()
        except EOFError:  # the process ended without a result
            self.process.join(1)
            words = f"the process ended with {self.process.exitcode}"
            return Judgement(self.stages[self.stage], words, raised=True)
        if self.stage == len(self.stages):
            return Judgement(judge.NOTHING)
        if self.left <= 0:
            return Judgement(judge.TIME, f"in {self.stages[self.stage]}")
        return None

    def end(self) -> None:
        """Kill the process and those that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        self.connection.close()


def start(settings: Settings, mutant: Mutant | None) -> Running:
    """Fork a process that judges a mutant."""
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_judge, args=(settings, mutant, there))
    process.start()
    there.close()
    return Running(mutant, process, here, settings.stages)


def _judge(settings: Settings, mutant: Mutant | None, there: Connection) -> None:
    os.setpgid(0, 0)  # its own group, so that its children can be killed with it
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    judge.silence()
    judge.skip_causes()

    def send(stage: str, found: Judgement | None) -> None:
        there.send(found)

    judge.judge(settings.backend, mutant, settings.stages, send, settings.untraced)
    there.close()
    os._exit(0)


def _end_with(parent: int) -> None:
    """Kill this process and its children when its parent ends."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def serve(
    settings: Settings,
    mutants: Iterable[Mutant | None],
    done: Callable[[Mutant | None, Judgement, float], None],
) -> None:
    """Judge mutants of a backend in forks of this process; call ``done`` with each judgement."""
    judge.prepare(settings.backend)
    waiting, running = iter(mutants), []
    try:
        while True:
            while len(running) < settings.jobs and (mutant := next(waiting, _END)) is not _END:
                running.append(start(settings, mutant))  # type: ignore[arg-type]
            if not running:
                return
            next_limit = max(0.0, min(one.left for one in running))
            ends = [c for one in running for c in (one.connection, one.process.sentinel)]
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


def serve_to_file(settings: Settings, mutants: list[Mutant], path: Path) -> int:
    """Judge mutants and append each verdict to a file; return 0, or 1 if the unchanged backend is rejected.

    It is a module-level function because `call_in_process` requires one.
    """
    end = time.monotonic() + 60 * settings.minutes
    unchanged = []

    def done(mutant: Mutant | None, found: Judgement, seconds: float) -> None:
        name = f"{settings.backend}: unchanged" if mutant is None else mutant.id
        print(f"{name}: {found.by} {found.reason} ({seconds:.0f} s)", flush=True)
        if mutant is None:
            unchanged.append(found.by)
        else:
            append(path, Verdict.of(mutant, found, settings.stages[-1], seconds))

    serve(settings, [None], done)
    if unchanged != [judge.NOTHING]:
        return 1
    serve(settings, takewhile(lambda _: time.monotonic() < end, mutants), done)
    return 0
