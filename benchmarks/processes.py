"""Worker processes, each with one framework and one environment: both are fixed at the import."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class WorkerError(RuntimeError):
    """A worker process has failed; the message says why."""


class Worker:
    """A process that prepares each task once, measures on request, and sleeps in between.

    ``variables`` are set in its environment. A ``plain`` process changes neither the environment nor the allocator, and
    runs only the book's recipes.
    """

    def __init__(
        self, backend: str, variables: Mapping[str, str] | None = None, plain: bool = False
    ) -> None:
        self.name = f"{backend}, plain" if plain else backend
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", backend, *(["--plain"] if plain else [])],
            cwd=ROOT,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Return the result of one run of a task. The first run of a task follows a warm-up run.

        Raises WorkerError if the process cannot answer.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"task": task, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self.process.wait()
            raise WorkerError(f"{self.name}: {task} {arguments} ended the process with code {code}")
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            raise WorkerError(f"{self.name}: {task} {arguments}: {found['error']}")
        return found

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # if it has ended already
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
