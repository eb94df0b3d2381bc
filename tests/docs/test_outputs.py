"""The outputs below a page's cells are the text and pictures that the cells produce in a new process."""

import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import backends
from docs import __main__ as command
from docs import figures, outputs
from docs.cells import cells_of, read_cells

ROOT = Path(__file__).resolve().parents[2]
CELLS = """
# %% settings
num_epochs = 2

# %% words
print("one")
{"a": num_epochs, 1: None}

# %% nothing
print("two", end="")
x = 1
None

# %% pictures
import numpy as np
from matplotlib import pyplot as plt

plt.plot([1, 2])
plt.figure()
plt.title("two")

# %% grid
from common.drawing.plots import show_images

show_images(np.zeros((2, 4, 4, 3), np.uint8), 1, 2)

# %% curves
from common.drawing.plots import Animator

animator = Animator(xlabel="epoch", legend=["loss"])
for epoch in range(num_epochs):
    animator.add(epoch, 1.0)
    print(f"epoch {epoch}")

# %% source
import inspect


def f():
    return "read by AutoGraph"


print(inspect.getsource(f), f.__module__, __name__)
"""


@pytest.fixture
def page(tmp_path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.py").write_text(CELLS, encoding="utf-8")
    return tmp_path / "docs" / "page.md"


def test_what_cells_print_and_draw_is_kept(page):
    outputs.make(page, "pytorch")
    kept = outputs.kept(page, "pytorch")
    assert {name: (output.text, output.pictures) for name, output in kept.items()} == {
        "settings": ("", []),
        "words": ("one\n{'a': 2, 1: None}\n", []),
        "nothing": ("two", []),
        "pictures": ("", ["page-pytorch-pictures.webp", "page-pytorch-pictures-2.webp"]),
        "grid": ("", ["page-pytorch-grid.webp"]),
        "curves": ("epoch 0\nepoch 1\n", ["page-pytorch-curves.webp"]),
        "source": ('def f():\n    return "read by AutoGraph"\n __main__ __main__\n', []),
    }
    for output in kept.values():
        for name in output.pictures:
            with Image.open(outputs.pictures(page) / name) as picture:
                assert picture.format == "WEBP"
                assert 100 < picture.width < 800
    assert [output.code for output in kept.values()] == list(
        map(outputs.digest, read_cells(page.with_suffix(".py")))
    )
    assert re.fullmatch(r"Measured with python 3.*", outputs.measured(page)["pytorch"])


def test_another_run_leaves_none_of_the_old_pictures(page):
    folder = outputs.pictures(page)
    folder.mkdir(parents=True)
    others = "page-mxnet-old.webp", "page-pytorch.webp"
    for name in ("page-pytorch-old.webp", *others):
        (folder / name).write_bytes(b"")
    page.with_suffix(".py").write_text("# %% one\nprint(1)\n")
    outputs.make(page, "pytorch")
    assert sorted(path.name for path in folder.iterdir()) == sorted(others)


def test_a_cell_that_fails_keeps_nothing_and_is_named(page, capfd):
    page.with_suffix(".py").write_text("# %% the cell\nx = 1\n1 / 0\n")
    with pytest.raises(subprocess.CalledProcessError):
        outputs.make(page, "mxnet")
    assert 'File "<cell the cell>", line 2' in capfd.readouterr().err
    assert outputs.kept(page, "mxnet") == {}


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["image-augmentation", "--cells"], [("image-augmentation", [*backends.FRAMEWORKS])]),
        (["kaggle-cifar10", "--cells", "mxnet"], [("kaggle-cifar10", ["mxnet"])]),
        (["--cells"], [(chapter, [*backends.FRAMEWORKS]) for chapter in figures.CHAPTERS]),
    ],
)
def test_the_command_runs_only_the_cells_if_it_is_told_to(monkeypatch, arguments, made):
    found = []
    monkeypatch.setattr(command, "make", lambda page: pytest.fail(f"all of {page}"))
    monkeypatch.setattr(command, "make_cells", lambda page, names: found.append((page, [*names])))
    assert command.main(["figures", *arguments]) == 0
    assert found == made


def test_the_figures_of_a_chapter_are_its_cells_too(monkeypatch):
    ran = []
    monkeypatch.setattr(outputs, "make", lambda page, backend: ran.append((page.stem, backend)))
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **settings: None)
    monkeypatch.setattr(figures, "keep", lambda *arguments: None)
    figures.make("kaggle-cifar10")
    assert ran == [("kaggle-cifar10", name) for name in backends.FRAMEWORKS]


def test_a_page_without_cells_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["figures", "parity", "--cells"])
    assert "no page parity: choose from image-augmentation" in capsys.readouterr().err


@pytest.mark.parametrize("chapter", figures.CHAPTERS)
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_the_kept_outputs_are_of_the_cells_as_they_are(chapter, name):
    """If this fails, run `python -m docs figures CHAPTER --cells BACKEND`."""
    page = ROOT / "docs" / f"{chapter}.md"
    kept = outputs.kept(page, name)
    cells = cells_of(read_cells(page.with_suffix(".py")), name)
    assert {it: output.code for it, output in kept.items()} == {
        cell.name: outputs.digest(cell) for cell in cells
    }
    there = {path.name for path in outputs.pictures(page).glob(f"{chapter}-{name}-*")}
    assert there == {picture for output in kept.values() for picture in output.pictures}
