"""Time the main job up to its first training step: `python -m benchmarks.first_step BACKEND OUTPUT`.

Runs run.py's `main` with timers, and ends the process after the first step.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import backends
import run
from common import datasets
from common.drawing import image_grid
from common.system import environment

Seconds = dict[str, float]


def _timing(function: Callable[..., Any], name: str, spent: Seconds) -> Callable[..., Any]:
    """Return a function that adds the time of each call to ``spent[name]``."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = function(*args, **kwargs)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return result

    return timed


def main(arguments: list[str]) -> int:
    """Print the seconds of each part of the start and the peak memory in MiB, as a line of JSON."""
    name, output = arguments
    spent = Seconds()
    load = _timing(backends.load, "import", spent)

    def load_and_watch(which: str, *arguments: Any) -> Any:
        backend = load(which, *arguments)
        step = backend.trainer.train_batch_ch13

        def first_step(*args: Any) -> None:
            wait = import_module(f"benchmarks.peers.{which}").wait
            before = time.perf_counter()
            float(step(*args)[0])
            wait()
            spent["first step"] = time.perf_counter() - before
            found = spent | {"memory": environment.peak_memory_mib()}
            print(json.dumps(found), flush=True)
            os._exit(0)

        vars(sys.modules[f"backends.{which}.trainer"])["train_batch_ch13"] = first_step
        return backend

    backends.load = load_and_watch  # type: ignore[assignment]
    datasets.load_data = _timing(datasets.load_data, "data", spent)
    image_grid.save_sheet = _timing(image_grid.save_sheet, "pictures", spent)
    return run.main(["--backend", name, "--output", output])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
