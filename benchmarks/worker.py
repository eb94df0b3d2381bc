"""The process of `benchmarks.processes.Worker`: reads tasks as lines of JSON and answers each in a line."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Measure = Callable[[], dict[str, Any]]


def main(arguments: list[str]) -> int:
    """Answer tasks until the input ends."""
    backend, plain = arguments[0], "--plain" in arguments
    # Answers go to a copy of standard output. Other output, such as a training's closing lines, is dropped.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if plain:
        from benchmarks.peers import plain_tasks

        tasks = plain_tasks(backend)
    else:
        from benchmarks.tasks import tasks_of

        tasks = tasks_of(backend)
    prepared: dict[str, Measure] = {}
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), tasks, prepared)
        except Exception as error:  # any error is reported to the caller
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def _answer(
    request: dict[str, Any], tasks: dict[str, Callable[..., Measure]], prepared: dict[str, Measure]
) -> dict[str, Any]:
    key = json.dumps(request, sort_keys=True)
    if key not in prepared:
        prepared[key] = tasks[request["task"]](**request["arguments"])
        prepared[key]()  # compiles, plans, fills caches
    return prepared[key]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
