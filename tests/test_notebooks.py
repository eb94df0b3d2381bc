"""The chapters' cells and notebooks: each page shows all of its cells, and each notebook runs, in each framework."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import load_or_skip

import backends
from docs.cells import cells_of, read_cells

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("image-augmentation", "kaggle-cifar10")
NEEDED = ("sphinx", "nbformat", "nbclient", "ipykernel")
MISSING = [name for name in NEEDED if find_spec(name) is None]
needs_jupyter = pytest.mark.skipif(
    bool(MISSING) and not os.environ.get("REQUIRE_SITE"), reason=f"not here: {', '.join(MISSING)}"
)


def write(folder: Path, *cells: str) -> Path:
    path = folder / "page.py"
    path.write_text("\n\n".join(cells) + "\n", encoding="utf-8")
    return path


THREE = tuple(f"# %% tab [{name}]\nname = '{name}'" for name in backends.FRAMEWORKS)


def test_a_cell_is_everybody_s_or_each_framework_s(tmp_path):
    cells = read_cells(write(tmp_path, '"""Words."""', *THREE, "# %% both\nx = 1\n\ny = 2"))
    assert [(cell.name, cell.code) for cell in cells_of(cells, "mxnet")] == [
        ("tab", "name = 'mxnet'"),
        ("both", "x = 1\n\ny = 2"),
    ]


@pytest.mark.parametrize(
    "cells",
    [THREE[:2], (*THREE, THREE[0]), ("# %% a\nx = 1", "# %% a\nx = 2"), ("# %% a [jax]\nx = 1",)],
    ids=["one is missing", "one comes twice", "a name comes twice", "unknown"],
)
def test_a_cell_that_not_every_framework_has_once_is_refused(tmp_path, cells):
    with pytest.raises(ValueError, match="not once for all"):
        read_cells(write(tmp_path, *cells))


@needs_jupyter
@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_a_notebook_has_every_cell_of_its_framework_and_no_output(chapter, name):
    from docs.notebooks import notebook

    book = notebook(chapter, name)
    code = [cell["source"] for cell in book.cells if cell["cell_type"] == "code"]
    cells = read_cells(ROOT / "docs" / f"{chapter}.py")
    assert code[1:] == [cell.code for cell in cells_of(cells, name)]
    assert all(not cell["outputs"] for cell in book.cells if cell["cell_type"] == "code")
    others = set(backends.FRAMEWORKS) - {name}
    assert not any(f"backends/{other}/" in json.dumps(book) for other in others)


@needs_jupyter
def test_a_page_that_leaves_a_cell_out_makes_no_notebook(monkeypatch, tmp_path):
    from docs import notebooks

    for suffix in (".md", ".py"):
        text = (ROOT / "docs" / f"kaggle-cifar10{suffix}").read_text(encoding="utf-8")
        kept = text.replace("```{cell} sorting\n```\n", "")
        (tmp_path / f"kaggle-cifar10{suffix}").write_text(kept, encoding="utf-8")
    monkeypatch.setattr(notebooks, "DOCS", tmp_path)
    with pytest.raises(ValueError, match="not all in the order of its file"):
        notebooks.notebook("kaggle-cifar10", "pytorch")


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_jupyter
@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_a_notebook_runs_from_its_first_cell_to_its_last(chapter, name, tmp_path):
    load_or_skip(name)
    from docs.notebooks import write_notebooks

    write_notebooks(tmp_path)
    path = tmp_path / f"{chapter}-{name}.ipynb"
    # In the folder where the site's build leaves it: in a checkout.
    script = (
        "import sys, nbformat, nbclient\n"
        "book = nbformat.read(sys.argv[1], 4)\n"
        "client = nbclient.NotebookClient(book, timeout=800, resources={'metadata': {'path': sys.argv[2]}})\n"
        "client.execute()\n"
        "nbformat.write(book, sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(ROOT / "docs")],
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = json.loads(path.read_text(encoding="utf-8"))["cells"]
    printed = json.dumps([cell.get("outputs") for cell in outputs])
    wanted = {"image-augmentation": "test acc", "kaggle-cifar10": "known labels"}[chapter]
    assert wanted in printed
    assert "image/png" in printed
