"""Compare the submissions of several backends: their validation accuracies, and where they disagree."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common.commands.augment import SHEET
from common.commands.kaggle_session import EMBEDDED
from common.commands.results import MAX_CLASSES_LISTED
from common.commands.run_folder import RunFolder
from common.commands.tables import (
    START_AND_MEMORY,
    add_versions,
    curves_by_backend,
    new_table,
    read_json,
    read_run,
)
from common.config import KaggleConfig
from common.datasets.decoding import read_images
from common.datasets.kaggle import list_test_images
from common.datasets.submission import read_submission
from common.drawing import image_grid, plots
from common.errors import counted
from common.interface import Framework

Results = dict[str, dict[str, Any]]  # by backend
Labels = dict[str, dict[str, str]]  # {backend: {id: label}}
MAX_SHOWN = SHEET[0] * SHEET[1]

# Row of the table: the keys of the number in ``summary.json``, and its format.
ROWS = {
    "train loss": (("validation", "loss"), "{:.3f}"),
    "train accuracy": (("validation", "train_acc"), "{:.3f}"),
    "valid accuracy": (("validation", "accuracy"), "{:.3f}"),
    "on all labelled images, train loss": (("training", "loss"), "{:.3f}"),
    "on all labelled images, train accuracy": (("training", "train_acc"), "{:.3f}"),
    "score": (("test", "score"), "{:.3f}"),
    "start-up, s": (("startup_seconds",), "{:.1f}"),
    "peak memory, MiB": (("peak_memory_mib",), "{:,.0f}"),
}
WHY_RESULTS_DIFFER = {
    "batched": "Same files, seed, initial weights and batches, and the same augmentation of each image. "
    "The submissions differ by rounding, which training amplifies, and by BatchNorm's running variance, whose formula "
    "each backend declares.",
    "native": "Same files, seed, initial weights and batches, but each framework draws and computes augmentations "
    "in its own way, so the submissions differ by that too.",
}


def report(
    console: Console,
    config: KaggleConfig,
    frameworks: Mapping[str, Framework],
    folder: RunFolder,
    arguments: Sequence[str],
) -> None:
    """Print validation and agreement, and write ``comparison.json``, ``backends.png`` and ``disagreements.png``."""
    results = {
        name: read_run(folder.path / name, framework.packages)
        | read_json(folder.path / name / "summary.json")
        for name, framework in frameworks.items()
    }
    labels = {name: read_submission(folder.path / name / "submission.csv") for name in frameworks}
    console.print()
    console.print(_table(console, config, results))
    agreement = agreements(labels)
    console.print()
    console.print(_agreement_table(console, labels, agreement))
    everywhere = share_all_agree(labels)
    disagree = disagreements(labels)
    count = len(next(iter(labels.values())))
    console.print(
        f"all agree on {count - len(disagree):,} of {count:,} test images, {_written(everywhere)}"
    )
    data_dir = config.data_dir or EMBEDDED
    styles = {name: framework.style for name, framework in frameworks.items()}
    _draw_curves(folder.path / "backends.png", results, styles, data_dir.resolve().name, config)
    if disagree:
        _draw_disagreements(folder.path / "disagreements.png", data_dir, labels, disagree)
    notes = [
        WHY_RESULTS_DIFFER[config.pipeline],
        f"The backends ran one after another, each in its own process. {START_AND_MEMORY}",
    ]
    console.print()
    for note in notes:
        console.print(note)
    folder.write_json(
        "comparison.json",
        {
            "arguments": list(arguments),
            "notes": notes,
            "backends": results,
            "agreement": {f"{a}, {b}": share for (a, b), share in agreement.items()},
            "all_agree": everywhere,
            "disagreements": [
                {"id": name, **{backend: labels[backend][name] for backend in labels}}
                for name in disagree
            ],
        },
    )


def _written(share: float) -> str:
    """Return a share with three digits; only a share of exactly 1 is printed as 1.000."""
    return f"{share if share == 1 else min(share, 0.999):.3f}"


def agreements(labels: Labels) -> dict[tuple[str, str], float]:
    """Return the share of the test images on which each pair of backends agrees."""
    return {
        (a, b): float(np.mean([labels[a][name] == labels[b][name] for name in labels[a]]))
        for a, b in combinations(labels, 2)
    }


def share_all_agree(labels: Labels) -> float:
    """Return the share of the test images on which all backends agree."""
    first = next(iter(labels.values()))
    return 1 - len(disagreements(labels)) / len(first)


def disagreements(labels: Labels) -> list[str]:
    """Return the ids on which the backends disagree: most different labels first, then in the order of the ids."""
    first = next(iter(labels.values()))
    num_labels = {name: len({found[name] for found in labels.values()}) for name in first}
    disagree = (name for name in first if num_labels[name] > 1)
    return sorted(disagree, key=lambda name: -num_labels[name])


def _at(result: dict[str, Any], path: Sequence[str]) -> Any:
    for name in path:
        result = result.get(name, {})
    return result if result != {} else None


def _table(console: Console, config: KaggleConfig, results: Results) -> Table:
    table = new_table(console, f"after {counted(config.num_epochs, 'epoch')}")
    add_versions(table, results)
    for title, (path, form) in ROWS.items():
        numbers = [_at(result, path) for result in results.values()]
        if any(n is not None for n in numbers):
            table.add_row(title, *("-" if n is None else form.format(n) for n in numbers))
        if title == "valid accuracy":
            _add_classes(table, results)
    return table


def _add_classes(table: Table, results: Results) -> None:
    """Add the validation accuracy of each class, or of the ten with the largest differences if there are many."""
    by_class = [result["validation"]["per_class"] for result in results.values()]
    names = list(by_class[0])
    if len(names) > MAX_CLASSES_LISTED:

        def negative_range(name: str) -> float:
            found = [accuracies[name] for accuracies in by_class]
            return 0.0 if None in found else min(found) - max(found)

        names = sorted(names, key=negative_range)[: MAX_CLASSES_LISTED // 2]
    for name in names:
        found = [accuracies[name] for accuracies in by_class]
        table.add_row(f"  {name}", *("-" if n is None else f"{n:.3f}" for n in found))


def _agreement_table(
    console: Console, labels: Labels, agreement: Mapping[tuple[str, str], float]
) -> Table:
    table = new_table(console, "same label")
    for name in labels:
        table.add_column(name, justify="right")
    for a in labels:
        shares = [
            1.0 if a == b else agreement[(a, b) if (a, b) in agreement else (b, a)] for b in labels
        ]
        table.add_row(a, *map(_written, shares))
    return table


def _draw_curves(
    path: Path,
    results: Results,
    styles: Mapping[str, Mapping[str, Any]],
    data: str,
    config: KaggleConfig,
) -> None:
    epochs = {
        name: [epoch for epoch in result["epochs"] if epoch["split"] == "train"]
        for name, result in results.items()
    }
    curves = curves_by_backend(epochs, "valid")
    title = f"{data}, {config.pipeline} pipeline, seed {config.seed}"
    plots.save_backends(path, curves, styles, title)


def _draw_disagreements(
    path: Path, data_dir: Path, labels: Labels, disagree: Sequence[str]
) -> None:
    test = list_test_images(data_dir)
    files = dict(zip(test.ids, test.names, strict=True))
    shown = disagree[:MAX_SHOWN]
    images: NDArray[np.uint8] = read_images([test.folder / files[name] for name in shown], 64)
    columns = SHEET[1]  # also for one image, because the title needs the width
    names = [
        "\n".join([f"id {name}", *(found[name] for found in labels.values())]) for name in shown
    ]
    title = (
        f"{len(shown)} of {len(disagree)} test images with more than one label: {', '.join(labels)}"
    )
    image_grid.save_sheet(
        path, list(images), -(-len(shown) // columns), columns, title, scale=1.0, names=names
    )
