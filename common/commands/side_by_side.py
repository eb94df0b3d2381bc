"""Run several backends on the same job, one after another, and compare them in one table and one picture.

Each backend has its own process: PyTorch's Triton aborts a process that has already imported TensorFlow, and start-up
time and memory must be those of one framework. This process imports no framework.
"""

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.commands import kaggle_side_by_side
from common.commands.augment import TRAINING_IMAGES
from common.commands.resume import (
    CONFIGS,
    arguments_for,
    copy_or_reopen,
    how_to_resume,
    is_finished,
    record_of_several,
    with_options,
)
from common.commands.run_folder import RunFolder
from common.commands.tables import (
    START_AND_MEMORY,
    add_versions,
    curves_by_backend,
    new_table,
    read_json,
    read_run,
)
from common.config import RunConfig, TrainConfig, WithOutput
from common.drawing import image_grid, plots
from common.errors import counted
from common.interface import Framework, Registry
from common.metrics import spread
from common.system.console import PlainConsole
from common.system.processes import run_process
from common.system.terminal import print_error

Results = dict[str, dict[str, Any]]  # by backend

SAME = "Same data, seed, initial weights and batches, "
WHY_RESULTS_DIFFER = {
    "batched": SAME + "and the same augmentation of each image. "
    "The curves differ by rounding, which training amplifies, and by two formulas that each backend declares "
    "(BatchNorm's running variance, the place of Adam's epsilon).",
    "native": SAME + "but each framework draws and computes augmentations in its own way, "
    "so the curves differ by that too.",
}
EVALUATED = {
    "batched": "Same weights and images: the accuracies differ only by rounding.",
    "native": "Same weights, but each framework loads the images in its own way, so the accuracies may differ.",
}
EXPLANATION = (
    "The backends ran one after another, each in its own process. The book's timer leaves out loading and evaluation; "
    f"the wall clock includes everything. {START_AND_MEMORY} "
    "Both are unknown (-) if another framework had to read the weights."
)
OTHER_DEVICES = "The backends ran on different kinds of devices: do not compare their speeds."


def run(
    command: str,
    config: Any,
    names: Sequence[str],
    registry: Registry,
    script: Path,
    arguments: Sequence[str],
) -> int:
    """Run ``script`` with ``arguments`` once for each backend, compare the results, and return the exit code.

    If a backend fails, stop and return its exit code. A command without a run folder has nothing to compare: then run
    all backends and return the largest exit code. Raises UserError if the output cannot be written. Ctrl-C stops the
    running backend and raises a KeyboardInterrupt whose message says what was kept.
    """
    console, finished, worst = PlainConsole(), list[str](), 0
    with _folder_for(command, config, arguments) as folder:
        try:
            for number, name in enumerate(names, start=1):
                if number > 1:
                    console.print()
                console.print(f"{name}, {number} of {len(names)}", style="bold")
                own = with_options(arguments, ["--backend", name])
                if folder is not None:
                    if is_finished(folder.path / name, config):
                        console.print("finished before")
                        finished.append(name)
                        continue
                    own = arguments_for(folder.path / name, command, config, arguments)
                code = run_process([sys.executable, str(script), *own])
                if code and folder:
                    print_error(f"error: {name} {_failure(code)}; {_kept(finished, folder)}")
                    return _positive(code)
                if code:  # such as 2 for an image that cannot be read
                    print_error(f"error: {name} {_failure(code)}")
                worst = max(worst, _positive(code))
                finished.append(name)
            if folder:
                frameworks = {name: registry.FRAMEWORKS[name] for name in names}
                if command == "kaggle":
                    kaggle_side_by_side.report(console, config, frameworks, folder, arguments)
                elif command == "augment":
                    _join_pictures(console, frameworks, folder)
                else:
                    _report(console, command, config, frameworks, folder, arguments)
                console.print(f"results in {folder.path}", soft_wrap=True)
        except KeyboardInterrupt as interrupt:
            again = how_to_resume(command, folder.path) if folder else ""
            raise KeyboardInterrupt(f"interrupted: {_kept(finished, folder)}{again}") from interrupt
    return worst


@contextmanager
def _folder_for(command: str, config: Any, arguments: Sequence[str]) -> Iterator[RunFolder | None]:
    """Yield the parent of the backends' run folders, or None if the command has none. Remove it if it stays empty."""
    if not isinstance(config, WithOutput):
        yield None
        return
    part = "compare" if getattr(config, "compare_augmentation", False) else command
    names = getattr(config, "backend", "").replace(",", "-")
    if isinstance(config, RunConfig) and config.resume is not None:
        opened = copy_or_reopen(config)
    else:
        opened = RunFolder(config.output, f"{names}-{part}")
    with opened as folder:
        if isinstance(config, RunConfig) and command in CONFIGS:
            folder.write_json("config.json", record_of_several(part, config, arguments))
        try:
            yield folder
        finally:
            if folder.made and not _has_results(folder):
                (folder.path / "config.json").unlink(missing_ok=True)


def _has_results(folder: RunFolder) -> bool:
    return any(path.name != "config.json" for path in folder.path.iterdir())


def _positive(code: int) -> int:
    """Return an exit code; that of a signal is converted as a shell does."""
    return code if code >= 0 else 128 - code


def _failure(code: int) -> str:
    if code == -getattr(signal, "SIGKILL", 0):
        return "was killed, perhaps because memory ran out"
    return f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"


def _kept(finished: Sequence[str], folder: RunFolder | None) -> str:
    where = f", kept in {folder.path}" if folder else ""
    if finished:
        return f"finished before: {', '.join(finished)}{where}"
    return "no backend had finished" + (
        f"; partial results are in {folder.path}" if folder and _has_results(folder) else ""
    )


# --- Results ---------------------------------------------------------------------------------------------------------


def _report(
    console: Console,
    command: str,
    config: TrainConfig,
    frameworks: Mapping[str, Framework],
    folder: RunFolder,
    arguments: Sequence[str],
) -> None:
    """Print the table of the backends' results, and write ``comparison.json`` and, after a training, the picture."""
    fairness = WHY_RESULTS_DIFFER[config.pipeline]
    console.print()
    if config.compare_augmentation:
        results: Results = {
            name: read_json(folder.path / name / "comparison.json") for name in frameworks
        }
        console.print(_augmentation_table(console, config, results))
        notes = [fairness]
    elif command == "evaluate":
        results = {name: read_json(folder.path / name / "summary.json") for name in frameworks}
        console.print(_accuracy_table(console, results))
        notes = [EVALUATED[config.pipeline]]
    else:
        results = {
            name: _training(folder.path / name, framework.packages)
            for name, framework in frameworks.items()
        }
        console.print(_training_table(console, results))
        notes = [fairness, EXPLANATION]
        if len({result["device"].startswith("cpu") for result in results.values()}) > 1:
            notes.append(OTHER_DEVICES)
        styles = {name: framework.style for name, framework in frameworks.items()}
        _draw(folder.path / "backends.png", config, results, styles)
    console.print()
    for note in notes:
        console.print(note)
    content = {"arguments": list(arguments), "notes": notes}
    folder.write_json("comparison.json", content | {"backends": results})


def _join_pictures(
    console: Console, frameworks: Mapping[str, Framework], folder: RunFolder
) -> None:
    """Join the pictures of one name, the backends' below each other, each headed by the framework."""
    first, *others = (folder.path / name for name in frameworks)
    count = 0
    for picture in sorted(first.glob("*.png")):
        if picture.name != TRAINING_IMAGES and all((o / picture.name).exists() for o in others):
            sheets = {f.title: folder.path / name / picture.name for name, f in frameworks.items()}
            image_grid.stack_sheets(folder.path / picture.name, sheets)
            count += 1
    if count:
        titles = ", ".join(framework.title for framework in frameworks.values())
        joined = counted(count, "picture")
        console.print(f"joined {joined} of {titles} in {folder.path}", soft_wrap=True)


def _training(folder: Path, packages: Sequence[str]) -> dict[str, Any]:
    """Return the results of one training, by the keys of ``comparison.json``."""
    summary = read_json(folder / "summary.json")
    key = f"{_held_out(summary)}_acc"
    return read_run(folder, packages) | {
        "loss": summary["loss"],
        "train_acc": summary["train_acc"],
        key: summary[key],
        "examples_per_second_by_the_book": summary["examples"] / summary["step_seconds"],
        "examples_per_second": summary["examples"] / summary["seconds"],
        "startup_seconds": summary["startup_seconds"],
        "peak_memory_mib": summary["peak_memory_mib"],
    }


def _held_out(numbers: Mapping[str, Any]) -> str:
    """Return what the images of an accuracy after training are, "test" or "valid", from the numbers of a run."""
    return "valid" if "valid_acc" in numbers else "test"


# Row of the table: the key of the number, and its format. If validation images are held out, "valid" replaces "test".
ROWS = {
    "loss": ("loss", "{:.3f}"),
    "train accuracy": ("train_acc", "{:.3f}"),
    "test accuracy": ("test_acc", "{:.3f}"),
    "examples/s by the book's timer": ("examples_per_second_by_the_book", "{:,.1f}"),
    "examples/s by the wall clock": ("examples_per_second", "{:,.1f}"),
    "start-up, s": ("startup_seconds", "{:.1f}"),
    "peak memory, MiB": ("peak_memory_mib", "{:,.0f}"),
}


def _training_table(console: Console, results: Results) -> Table:
    """Return the table of the trainings, with a column for each backend."""
    first = next(iter(results.values()))
    held_out = _held_out(first)
    table = new_table(console, f"after epoch {len(first['epochs'])}")
    add_versions(table, results)
    for title, (name, form) in ROWS.items():
        title, name = (text.replace("test", held_out) for text in (title, name))
        numbers = [result[name] for result in results.values()]
        table.add_row(title, *("-" if n is None else form.format(n) for n in numbers))
    return table


def _accuracy_table(console: Console, results: Results) -> Table:
    table = new_table(console, "")
    for name in results:
        table.add_column(name, justify="right", overflow="fold")
    held_out = _held_out(next(iter(results.values())))
    key = f"{held_out}_acc"
    table.add_row(f"{held_out} accuracy", *(f"{result[key]:.3f}" for result in results.values()))
    return table


def _augmentation_table(console: Console, config: TrainConfig, results: Results) -> Table:
    """Return the table of accuracies with and without augmentation: mean, lowest and highest over the seeds."""
    table = new_table(console, counted(len(config.all_seeds), "seed"))
    held_out = _held_out(next(iter(next(iter(results.values())).values())))
    for title in ("augment", "train accuracy", f"{held_out} accuracy"):
        table.add_column(title, overflow="fold")
    for name, by_augmentation in results.items():
        for augment, accuracies in by_augmentation.items():
            table.add_row(
                name,
                augment,
                *(spread(accuracies[f"{which}_acc"]) for which in ("train", held_out)),
            )
    return table


def _draw(
    path: Path, config: TrainConfig, results: Results, styles: Mapping[str, Mapping[str, Any]]
) -> None:
    epochs = {name: result["epochs"] for name, result in results.items()}
    data = Path(config.data.name).name
    title = (
        f"{data}, augmentation: {config.augment}, {config.pipeline} pipeline, seed {config.seed}"
    )
    held_out = _held_out(next(iter(results.values())))
    plots.save_backends(path, curves_by_backend(epochs, held_out), styles, title)
