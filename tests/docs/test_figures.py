"""`python -m docs figures`: a page shows exactly the results that its runs have left."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import backends
from common.parity.comparison import CheckResult, Difference, Tolerance
from common.parity.results import BackendResults, save_results
from docs import figures

ROOT = Path(__file__).resolve().parents[2]
PICTURE = re.compile(r"!\[.*\]\((images/.*)\)")
CONFIG = {
    "versions": {"python": "3.11.7", "torch": "2.15.0"},
    "hardware": {"processor": "a processor", "cores": "2", "memory": "4.0 GiB", "system": "Linux"},
}


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """A folder that keeps figures instead of this project's docs."""
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "docs" / "results")
    monkeypatch.setattr(figures, "IMAGES", tmp_path / "docs" / "images")
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


def write_run(folder: Path, page: str, name: str, comparison: dict) -> Path:
    """Write the files of a run: its comparison, its records, and a noise picture under each name."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    for source in figures.RUNS[page][name].pictures.values():
        path = folder / "run" / source
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
    (folder / "run" / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    (folder / "run" / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder / "run"


TRAINED = {
    "loss": 0.0314,
    "train_acc": 0.99,
    "test_acc": 1.0,
    "examples_per_second_by_the_book": 50.0,
    "examples_per_second": 40.0,
    "startup_seconds": 3.0,
    "peak_memory_mib": 1190.4,
}


def test_a_training_is_shown_with_its_command_versions_and_machine(tmp_path, kept):
    comparison = {"backends": {"pytorch": TRAINED, "mxnet": TRAINED | {"loss": 0.1}}}
    run = write_run(tmp_path, "image-augmentation", "training", comparison)
    figures.keep("image-augmentation", "training", run)
    assert figures.shown("image-augmentation", "training").splitlines() == [
        "|  | PyTorch | MXNet |",
        "|---|---:|---:|",
        "| loss | 0.031 | 0.100 |",
        "| train accuracy | 0.990 | 0.990 |",
        "| test accuracy | 1.000 | 1.000 |",
        "| peak memory, MiB | 1,190 | 1,190 |",
        "",
        "`python run.py --backend all`. Measured with python 3.11.7, torch 2.15.0, on 2 cores of a processor, 4.0 GiB, "
        "Linux.",
    ]


def test_a_comparison_is_shown_with_the_spread_of_its_seeds(tmp_path, kept):
    none = {"train_acc": [1.0, 0.98], "test_acc": [0.7, 0.8]}
    run = write_run(tmp_path, "image-augmentation", "comparison", {"none": none, "flip": none})
    figures.keep("image-augmentation", "comparison", run)
    lines = figures.shown("image-augmentation", "comparison").splitlines()
    assert lines[2] == "| none | 0.990 (0.980 to 1.000) | 0.750 (0.700 to 0.800) |"


def write_parity_run(folder: Path, *results: BackendResults) -> Path:
    """Write the files of `run.py parity` that the page needs, with these results."""
    run = folder / "run"
    for result in results:
        (run / result.backend).mkdir(parents=True)
        save_results(run / result.backend, result)
    record = CONFIG | {"backends": [result.backend for result in results]}
    (run / "config.json").write_text(json.dumps(record), encoding="utf-8")
    return run


def test_the_parity_checks_are_shown_with_the_difference_of_each_backend(tmp_path, kept):
    off = CheckResult(
        "logits",
        "float64",
        (Difference("", 2e-14), Difference("", 3e-14)),
        Tolerance(1e-13, 10, ""),
    )
    found = (BackendResults(n, {}, {}, (), c) for n, c in (("pytorch", (off,)), ("mxnet", ())))
    run = write_parity_run(tmp_path, *found)
    figures.keep("parity", "checks", run)
    assert figures.shown("parity", "checks").splitlines()[:3] == [
        "| check | tolerance | PyTorch | MXNet |",
        "|---|---:|---:|---:|",
        "| logits, float64 | 1.0e-12 | 3.0e-14 | - |",
    ]


def test_what_the_parity_checks_covered_is_shown_by_dimension(tmp_path, kept):
    workers = {"pytorch": ["0", "4"], "mxnet": ["0"]}
    found = (
        BackendResults(name, {}, {}, (), (), covered={"classes": ["1", "10"], "workers": values})
        for name, values in workers.items()
    )
    run = write_parity_run(tmp_path, *found)
    figures.keep("parity", "coverage", run)
    assert figures.shown("parity", "coverage").splitlines()[:5] == [
        "| dimension | values |",
        "|---|---|",
        "| classes | 1, 10 |",
        "| workers (pytorch) | 0, 4 |",
        "| workers (mxnet) | 0 |",
    ]


def test_pictures_are_kept_as_they_are_or_as_webp(tmp_path, kept):
    comparison = {"backends": {"pytorch": TRAINED}}
    run = write_run(tmp_path, "image-augmentation", "training", comparison)
    figures.keep("image-augmentation", "training", run)
    assert (kept / "images" / "curves.png").read_bytes() == (run / "backends.png").read_bytes()
    with Image.open(kept / "images" / "training-images.webp") as picture:
        assert (picture.format, picture.size) == ("WEBP", (48, 32))


def test_a_run_without_one_of_the_pictures_keeps_no_table(tmp_path, kept):
    run = write_run(tmp_path, "image-augmentation", "comparison", {})
    (run / "comparison.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"comparison\.png"):
        figures.keep("image-augmentation", "comparison", run)
    assert not (kept / "results").exists()


@pytest.mark.parametrize("page", figures.RUNS)
def test_every_picture_of_a_page_is_of_its_runs_and_some_page_shows_each(page):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    site = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("docs/*.md"))
    made = {
        f"images/pages/{target}" for run in figures.RUNS[page].values() for target in run.pictures
    }
    assert {name for name in PICTURE.findall(text) if name.startswith("images/pages/")} <= made
    assert made <= set(PICTURE.findall(site))
    assert re.findall(r"```\{figures\} (.*)", text) == list(figures.RUNS[page])


def test_no_picture_is_kept_that_no_run_makes():
    made = {
        target for runs in figures.RUNS.values() for run in runs.values() for target in run.pictures
    }
    assert {path.name for path in figures.IMAGES.iterdir()} == made


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page, runs in figures.RUNS.items() for name in runs]
)
def test_what_a_page_shows_is_of_the_command_and_the_backends_that_there_are(page, name):
    kept = json.loads((figures.RESULTS / f"{page}-{name}.json").read_text(encoding="utf-8"))
    run = figures.RUNS[page][name]
    assert kept["command"] == " ".join(("python", *run.command))
    if "pytorch" not in run.command and not run.are_words:
        titles = [backends.FRAMEWORKS[name].title for name in backends.FRAMEWORKS]
        assert kept["rows"][0][-len(titles) :] == titles
    assert all(len(row) == len(kept["rows"][0]) for row in kept["rows"])


EXAMPLE = """Before.

Measured with nothing yet.

```sh
uv run --extra all python -m docs.examples.tell
```

```text
old
```

After.
"""


def test_what_an_example_prints_takes_the_place_of_what_it_printed(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(EXAMPLE, encoding="utf-8")
    examples = tmp_path / "docs" / "examples"
    examples.mkdir(parents=True)
    (examples / "tell.py").write_text("print('new')\nprint('and more')\n", encoding="utf-8")
    monkeypatch.setattr(figures, "ROOT", tmp_path)
    figures.print_again(page)
    text = page.read_text(encoding="utf-8")
    assert "```text\nnew\nand more\n```\n\nAfter." in text
    assert "old" not in text
    assert re.search(r"^Measured with python 3.*, on \d+ cores? of .*\.$", text, re.M)


@pytest.mark.parametrize(("page", "examples"), {"porting": 2, "bring-your-own-port": 3}.items())
def test_a_page_with_printed_examples_says_once_what_they_ran_on(page, examples):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert len(figures.MEASURED.findall(text)) == 1
    assert len(figures.EXAMPLE.findall(text)) == examples
