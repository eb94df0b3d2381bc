"""Make the pictures and numbers of the pages with this project's commands: `python -m docs figures [PAGE...]`.

The results of a run are kept in docs/results, as the table that ``{figures}`` shows, with the command, the versions and
the machine. Its pictures are kept in docs/images/pages. The outputs of the chapters' cells are kept by docs/outputs.py.
The measurements of Differences and Performance are in a file beside each page; ``{figures}`` shows their tables too.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from backends import FRAMEWORKS
from docs import command_line, outputs

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
RESULTS, IMAGES = DOCS / "results", DOCS / "images" / "pages"
Rows = list[list[str]]

# Rows that are left out: the page Performance measures speed and start, in turns.
ELSEWHERE = ("examples/s", "start-up")
QUALITY = 90  # for photographs, which are ten times as large as PNG


def _trainings(run: Path) -> Rows:
    """Return the table of a training in several backends."""
    from common.commands.side_by_side import ROWS

    return _by_backend(run, {title: ((name,), form) for title, (name, form) in ROWS.items()})


def _submissions(run: Path) -> Rows:
    """Return the table of the Kaggle chapter in several backends."""
    from common.commands.kaggle_side_by_side import ROWS

    return _by_backend(run, ROWS)


def _by_backend(run: Path, rows: Mapping[str, tuple[Sequence[str], str]]) -> Rows:
    results = _read(run / "comparison.json")["backends"]
    table = [["", *(FRAMEWORKS[name].title for name in results)]]
    for title, (place, form) in rows.items():
        if not title.startswith(ELSEWHERE):
            numbers = (reduce(getitem, place, result) for result in results.values())
            table.append([title, *map(form.format, numbers)])
    return table


def _by_augmentation(run: Path) -> Rows:
    """Return the table of a comparison of augmentations, a row for each, with the spread over the seeds."""
    from common.metrics import spread

    found = _read(run / "comparison.json")
    rows = [["augmentation", "train accuracy", "test accuracy"]]
    for augment, accuracies in found.items():
        rows.append([augment, spread(accuracies["train_acc"]), spread(accuracies["test_acc"])])
    return rows


def _checks(run: Path) -> Rows:
    """Return the table of the parity checks, a row for each, with each backend's largest difference."""
    from common.parity.results import by_check, number

    results = _results(run)
    rows = [["check", "tolerance", *(FRAMEWORKS[result.backend].title for result in results)]]
    for first, checks in by_check(results):
        differences = ["-" if c is None else number(c.largest.value) for c in checks]
        rows.append([f"{first.check}, {first.kind}", number(first.tolerance.limit), *differences])
    return rows


def _coverage(run: Path) -> Rows:
    """Return the table of the values that the parity checks covered, a row for each dimension."""
    from common.parity.results import by_dimension

    return [["dimension", "values"], *map(list, by_dimension(_results(run)))]


def _results(run: Path) -> list[Any]:
    """Return the `BackendResults` of a parity run."""
    from common.parity.results import load_results

    return [load_results(run / name) for name in _read(run / "config.json")["backends"]]


@dataclass(frozen=True)
class Run:
    """A command whose results a page shows: a table, and pictures by their names in the docs.

    All columns but the first are numbers, unless they ``are_words``.
    """

    command: tuple[str, ...]
    rows: Callable[[Path], Rows]
    pictures: Mapping[str, str]
    are_words: bool = False


# The runs of each chapter's page, by the names that {figures} takes.
CHAPTERS: dict[str, dict[str, Run]] = {
    "image-augmentation": {
        "training": Run(
            ("run.py", "--backend", "all"),
            _trainings,
            {
                "flip-jitter-and-crop.webp": "pytorch/augment-7-flip-jitter-and-crop.png",
                "training-images.webp": "pytorch/training-images.png",
                "curves.png": "backends.png",
            },
        ),
        "comparison": Run(
            ("run.py", "--backend", "pytorch", "--compare-augmentation", "--seeds", "3"),
            _by_augmentation,
            {"comparison.png": "comparison.png"},
        ),
    },
    "kaggle-cifar10": {
        "training": Run(
            ("run.py", "kaggle", "--backend", "all"),
            _submissions,
            {
                "kaggle-augmented.webp": "pytorch/augmented-images.png",
                "kaggle-predictions.webp": "pytorch/predictions.png",
                "kaggle-curves.png": "backends.png",
            },
        ),
    },
}
# The runs of each page.
RUNS = {
    **CHAPTERS,
    "parity": {
        "coverage": Run(("run.py", "parity"), _coverage, {}, are_words=True),
        "checks": Run(("run.py", "parity"), _checks, {}),
    },
}
# The commands that make all measurements of a page.
MEASURED_BY: dict[str, tuple[str, ...]] = {
    "differences": ("-m", "docs", "differences"),
    "performance": ("-m", "benchmarks", "--output", "docs/benchmarks.json"),
}
# The pages that show the output of examples below their commands.
PRINTED = ("porting", "bring-your-own-port")
# The page that shows an example of each command.
COMMAND_LINE = "command-line"
PAGES = (*RUNS, *PRINTED, *MEASURED_BY, COMMAND_LINE)
EXAMPLE = re.compile(
    r"(?P<head>```sh\nuv run [^\n]*python (?P<module>-m docs\.examples\.\w+)\n```\n\n```text\n).*?(?P<end>```)",
    re.S,
)
MEASURED = re.compile(r"^Measured with .*$", re.M)


def make(page: str) -> None:
    """Run the commands and cells that make a page's pictures and numbers, and keep the results."""
    if page in CHAPTERS:
        make_cells(page, FRAMEWORKS)
    runs = RUNS.get(page, {})
    for command in dict.fromkeys(run.command for run in runs.values()):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "run"
            _run((*command, "--output", str(output)))
            for name in (name for name, run in runs.items() if run.command == command):
                keep(page, name, output)
    if page in MEASURED_BY:
        _run(MEASURED_BY[page])
    if page in PRINTED:
        print_again(DOCS / f"{page}.md")
    if page == COMMAND_LINE:
        command_line.make()


def make_cells(chapter: str, backends: Iterable[str]) -> None:
    """Run a chapter's cells in each of these frameworks, and keep their outputs."""
    for backend in backends:
        outputs.make(DOCS / f"{chapter}.md", backend)


def _run(command: Sequence[str]) -> None:
    print(" ".join(("python", *command)), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def keep(page: str, name: str, output: Path) -> None:
    """Keep the table and the pictures of a run whose files are in ``output``."""
    from common.system.environment import measured_with
    from common.system.files import write_text

    run = RUNS[page][name]
    configs = [_read(path) for path in sorted(output.rglob("config.json"))]
    versions = {package: it for config in configs for package, it in config["versions"].items()}
    kept = {
        "command": " ".join(("python", *run.command)),
        "measured": measured_with(versions, configs[0]["hardware"]),
        "rows": run.rows(output),
    }
    for target, source in run.pictures.items():
        _keep_picture(output / source, IMAGES / target)
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(kept, indent=2, ensure_ascii=False)
    write_text(RESULTS / f"{page}-{name}.json", text + "\n")


def _keep_picture(source: Path, target: Path) -> None:
    from PIL import Image

    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == source.suffix:
        shutil.copyfile(source, target)
        return
    with Image.open(source) as picture:
        picture.convert("RGB").save(target, quality=QUALITY, method=6)


def print_again(page: Path) -> None:
    """Run the examples that a page names, and replace their output and the line of versions on the page."""
    from common.system.environment import hardware, measured_with, versions
    from common.system.files import write_text

    def printed(found: re.Match[str]) -> str:
        command = found["module"].split()
        print(" ".join(("python", *command)), flush=True)
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        return found["head"] + done.stdout + found["end"]

    text = EXAMPLE.sub(printed, page.read_text(encoding="utf-8"))
    packages = tuple(package for found in FRAMEWORKS.values() for package in found.packages)
    measured = measured_with(versions(packages), hardware())
    text, count = MEASURED.subn(lambda _: measured, text)
    if count != 1:
        raise ValueError(f"{page}: {count} lines begin with 'Measured with', expected one")
    write_text(page, text)


def shown(page: str, name: str) -> str:
    """Return a table of a page as Markdown; for a run, with the command, the versions and the machine.

    Raises OSError or LookupError if no such figures are kept.
    """
    if page == "differences":
        from docs.differences import tables

        return tables.figures(name)
    if page == "performance":
        from benchmarks import report

        return report.figures(name)
    if page == COMMAND_LINE:
        return f"`python -m docs figures {page}`. {command_line.measured()}"
    kept = _read(RESULTS / f"{page}-{name}.json")
    head, *rows = (f"| {' | '.join(row)} |" for row in kept["rows"])
    run = RUNS.get(page, {}).get(name)
    column = "---|" if run and run.are_words else "---:|"
    line = "|---|" + column * (len(kept["rows"][0]) - 1)
    return "\n".join([head, line, *rows, "", f"`{kept['command']}`. {kept['measured']}"])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
