"""The pages' pictures and numbers, all of which a command of this project makes: `python -m docs figures [PAGE...]`.

What is kept of a chapter's run is its numbers and what it ran on, in docs/results; the page's table is made from that
by ``{figures}`` whenever the site is built. The other pages are written whole by their commands.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, IMAGES = ROOT / "docs" / "results", ROOT / "docs" / "images" / "pages"

# Of each chapter's page: the command that its figures come from.
CHAPTERS = {
    "image-augmentation": ("run.py", "--backend", "all"),
    "kaggle-cifar10": ("run.py", "kaggle", "--backend", "all"),
}
# Of each page that is written by commands: these.
WRITTEN = {
    "differences": [("run.py", "differences", "--output", "docs/differences.md")],
    "performance": [
        ("-m", "benchmarks", "--output", "docs/benchmarks.json"),
        ("-m", "benchmarks", "report", "docs/benchmarks.json"),
    ],
}
PAGES = (*CHAPTERS, *WRITTEN)
# Of each chapter's page: the pictures that it shows, as files of that command's run, and their names here.
PICTURES = {
    "image-augmentation": {
        **{
            f"pytorch/augment-{number}-{name}.png": f"{name}.png"
            for number, name in enumerate(
                (
                    "left-right-flip",
                    "top-bottom-flip",
                    "random-resized-crop",
                    "brightness",
                    "hue",
                    "colour-jitter",
                    "flip-jitter-and-crop",
                ),
                start=1,
            )
        },
        "pytorch/training-images.png": "training-images.png",
        "backends.png": "curves.png",
    },
    "kaggle-cifar10": {
        "pytorch/augmented-images.png": "kaggle-augmented.png",
        "pytorch/predictions.png": "kaggle-predictions.png",
        "backends.png": "kaggle-curves.png",
    },
}
# Rows of the tables: the number's place in ``comparison.json``, and how it is written.
ROWS: dict[str, dict[str, tuple[Sequence[str], str]]] = {
    "image-augmentation": {
        "train loss": (("loss",), "{:.3f}"),
        "train accuracy": (("train_acc",), "{:.3f}"),
        "test accuracy": (("test_acc",), "{:.3f}"),
        "peak memory, MiB": (("peak_memory_mib",), "{:,.0f}"),
    },
    "kaggle-cifar10": {
        "train loss": (("validation", "loss"), "{:.3f}"),
        "train accuracy": (("validation", "train_acc"), "{:.3f}"),
        "validation accuracy": (("validation", "accuracy"), "{:.3f}"),
        "train loss, on all labelled images": (("training", "loss"), "{:.3f}"),
        "train accuracy, on all labelled images": (("training", "train_acc"), "{:.3f}"),
        "score on the test images": (("test", "score"), "{:.3f}"),
        "peak memory, MiB": (("peak_memory_mib",), "{:,.0f}"),
    },
}


def make(page: str) -> None:
    """Run what a page's pictures and numbers come from, and keep them."""
    for command in WRITTEN.get(page, []):
        _run(command)
    if page in CHAPTERS:
        with tempfile.TemporaryDirectory() as folder:
            _run((*CHAPTERS[page], "--output", f"{folder}/run"))
            _keep(page, Path(folder) / "run")


def _run(command: Sequence[str]) -> None:
    print(" ".join(("python", *command)), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def _keep(page: str, run: Path) -> None:
    """Keep the numbers and the pictures of a chapter's run."""
    found = json.loads((run / "comparison.json").read_text(encoding="utf-8"))
    backends = list(found["backends"])
    config = json.loads((run / backends[0] / "config.json").read_text(encoding="utf-8"))
    kept = {
        "command": " ".join(("python", *CHAPTERS[page])),
        "hardware": config["hardware"],
        "backends": {name: _kept(page, found["backends"][name]) for name in backends},
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(kept, indent=2, ensure_ascii=False)
    (RESULTS / f"{page}.json").write_text(text + "\n", encoding="utf-8")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for source, target in PICTURES[page].items():
        shutil.copyfile(run / source, IMAGES / target)


def _kept(page: str, result: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {title: _at(result, place) for title, (place, _) in ROWS[page].items()}
    return {"versions": result["versions"], "numbers": numbers}


def _at(result: Mapping[str, Any], place: Sequence[str]) -> Any:
    found: Any = result
    for name in place:
        found = found[name]
    return found


def shown(page: str) -> str:
    """Return a page's table as Markdown, with the command, the versions and the machine that it comes from."""
    kept = json.loads((RESULTS / f"{page}.json").read_text(encoding="utf-8"))
    backends = kept["backends"]
    lines = ["| | " + " | ".join(backends) + " |", "|---|" + "---:|" * len(backends)]
    for title, (_, form) in ROWS[page].items():
        numbers = (form.format(result["numbers"][title]) for result in backends.values())
        lines.append(f"| {title} | " + " | ".join(numbers) + " |")
    versions = dict(item for result in backends.values() for item in result["versions"].items())
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        "\n".join(lines)
        + f"\n\nOne run of `{kept['command']}`, seed 0, with {named}, on {_machine(kept)}."
    )


def _machine(kept: Mapping[str, Any]) -> str:
    hardware = kept["hardware"]
    return f"{hardware['cores']} cores of {hardware['processor']}"
