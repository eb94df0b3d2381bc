"""Each page shows all of its cells, and each notebook runs in each framework."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import load_or_skip, needs

import backends
from docs.cells import cells_of, read_cells, with_settings
from docs.figures import CHAPTERS

ROOT = Path(__file__).resolve().parents[2]
PAGES = {chapter: ROOT / "docs" / f"{chapter}.md" for chapter in CHAPTERS}
needs_jupyter = needs("sphinx", "nbformat", "nbclient", "ipykernel")


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
    with pytest.raises(ValueError, match="write it once"):
        read_cells(write(tmp_path, *cells))


@pytest.mark.parametrize(
    "line",
    ["#%% b", "#  %% b", "# %%b", "# %%", "# %% a [pytorch] b", "# %% [markdown]", "  # %% b"],
)
def test_a_line_that_is_nearly_a_marker_is_refused(tmp_path, line):
    with pytest.raises(ValueError, match=r"page\.py, line 4: .* is not '# %% NAME \[BACKEND\]'"):
        read_cells(write(tmp_path, "# %% a\nx = 1", f"{line}\ny = 2"))


@pytest.mark.parametrize(
    "line", ["a, b = 1, 2", "a = b", "a = b = 1", "a += 1", "print(1)", "a = (", "a: int = 1"]
)
def test_settings_are_names_and_literals(tmp_path, line):
    with pytest.raises(ValueError, match=r"page\.py: the cell 'settings' holds .*not 'name = lit"):
        read_cells(write(tmp_path, f"# %% settings\nx = 1\n{line}"))


def test_settings_are_replaced_by_name(tmp_path):
    code = "# Small.\nnum_epochs = 5  # passes\n\nname = 'é # b'\nlr = -1e-3"
    cells = read_cells(write(tmp_path, f"# %% settings\n{code}", "# %% two\nnum_epochs = 5"))
    assert with_settings(cells, {}) == cells
    first, second = with_settings(cells, {"num_epochs": 1, "name": "it's"})
    assert first.code == '# Small.\nnum_epochs = 1\n\nname = "it\'s"\nlr = -1e-3'
    assert second == cells[1]
    with pytest.raises(ValueError, match="the cell 'settings' does not set epochs, size"):
        with_settings(cells, {"size": 1, "epochs": 2, "lr": 1})


@needs_jupyter
@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_a_notebook_has_every_cell_of_its_framework_and_no_output(chapter, name):
    from docs.notebooks import notebook

    book = notebook(PAGES[chapter], name)
    code = [cell["source"] for cell in book.cells if cell["cell_type"] == "code"]
    cells = read_cells(ROOT / "docs" / f"{chapter}.py")
    assert code[1:] == [cell.code for cell in cells_of(cells, name)]
    assert all(not cell["outputs"] for cell in book.cells if cell["cell_type"] == "code")
    others = set(backends.FRAMEWORKS) - {name}
    assert not any(f"backends/{other}/" in json.dumps(book) for other in others)
    foreign = {
        package for other in others for package in (other, *backends.FRAMEWORKS[other].packages)
    }
    imports = re.findall(r"(?:^|from |import )(\w+)", "\n".join(code))
    assert not foreign & set(imports)


def project(folder: Path, page: str, cells: str = "# %% one\nx = 1\n") -> Path:
    """Write a project of one page, its cells and one file for each backend; return the page."""
    (folder / "docs").mkdir()
    (folder / "docs" / "page.py").write_text(cells, encoding="utf-8")
    for name in backends.FRAMEWORKS:
        (folder / "backends" / name).mkdir(parents=True)
        code = f"def f():\n    return '{name}'\n\n\ndef _g():\n    pass\n\n\nclass C:\n    def m(self):\n        pass\n"
        (folder / "backends" / name / "file.py").write_text(code, encoding="utf-8")
    path = folder / "docs" / "page.md"
    path.write_text(page + "\n```{cell} one\n```\n", encoding="utf-8")
    return path


def prose(page: Path, backend: str = "pytorch") -> str:
    """Return the text of a notebook before its only cell, without the line that names its source."""
    from docs.notebooks import notebook

    _, _, words, cell = notebook(page, backend).cells
    assert cell["source"] == "x = 1"
    return words["source"]


@needs_jupyter
def test_a_page_that_leaves_a_cell_out_makes_no_notebook(tmp_path):
    from docs.notebooks import notebook

    page = project(tmp_path, "Words.", "# %% one\nx = 1\n\n# %% two\ny = 2\n")
    with pytest.raises(ValueError, match="not all in the order of its file"):
        notebook(page, "pytorch")


@needs_jupyter
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_a_notebook_shows_the_source_of_its_own_framework(tmp_path, name):
    page = project(tmp_path, "```{source} file.py f\n:mxnet: _g C.m\n```\n")
    code = f"def f():\n    return '{name}'"
    if name == "mxnet":
        code = "def _g():\n    pass\n\n\ndef m(self):\n    pass"
    assert prose(page, name) == f"```python\n# backends/{name}/file.py\n\n{code}\n```"


@needs_jupyter
@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_a_chapter_s_notebook_shows_the_functions_that_its_page_names(chapter, name):
    """The expected code comes from Python's own ast, not from the code that makes the notebooks."""
    from docs.notebooks import notebook

    text = json.dumps(notebook(PAGES[chapter], name), ensure_ascii=False)
    page = PAGES[chapter].read_text(encoding="utf-8")
    named = re.findall(r"```\{source\} (\w+\.py) (\w+)\n```", page)  # without options
    assert named
    for file, function in named:
        source = (ROOT / "backends" / name / file).read_text(encoding="utf-8")
        (node,) = [n for n in ast.parse(source).body if getattr(n, "name", "") == function]
        code = ast.get_source_segment(source, node)
        assert code
        assert json.dumps(code, ensure_ascii=False)[1:-1] in text


@needs_jupyter
def test_a_notebook_has_the_page_s_words_and_tables_and_not_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr("docs.figures.RESULTS", tmp_path)
    kept = {"command": "python run.py", "measured": "Measured.", "rows": [["", "a"], ["loss", "1"]]}
    (tmp_path / "page-x.json").write_text(json.dumps(kept), encoding="utf-8")
    words = "A [link\nof two lines](https://d2l.ai) and\n[another](traps.md#x), {ref}`a` [1, 2].\n\n| a |\n|---|\n| b |"
    page = project(tmp_path, f"{words}\n\n![A\ncat](x.png)\n\n```{{figures}} x\n```\n")
    plain = words.replace("[another](traps.md#x), {ref}`a`", "another, `a`")
    table = "|  | a |\n|---|---:|\n| loss | 1 |\n\n`python run.py`. Measured."
    assert [part.strip() for part in prose(page).split("\n\n\n")] == [plain, table]


COMPARED = """Before.

| what | PyTorch | MXNet | TensorFlow | all |
|:---|---:|---|---|---|
| loss | `a \\| b` | the \\| mean | c | d |

| MXNet | PyTorch |
|---|---|
| 1 | 2 |
"""
WORDS = """Before.

:::{only} pytorch
For one.
:::

::::{only} mxnet
For another:

```{source} file.py f
```

:::{differs}
Not here.
:::
::::

:::{differs}
Much,

as [here](traps.md).
:::

After."""


@needs_jupyter
def test_a_notebook_has_only_its_own_framework_s_column_of_a_table(tmp_path):
    page = project(tmp_path, COMPARED)
    for name, rows in {
        "pytorch": ["| what | PyTorch |", "| :--- | ---: |", "| loss | `a \\| b` |"],
        "mxnet": ["| what | MXNet |", "| :--- | --- |", "| loss | the \\| mean |"],
    }.items():
        _, table, other = prose(page, name).split("\n\n")
        assert table.splitlines() == rows
        assert other == COMPARED.split("\n\n")[2].strip()


@needs_jupyter
def test_a_notebook_has_only_its_own_framework_s_words_and_no_note_on_what_differs(tmp_path):
    page = project(tmp_path, WORDS)
    code = "```python\n# backends/mxnet/file.py\n\ndef f():\n    return 'mxnet'\n```"
    for name, words in {
        "pytorch": ["Before.", "For one.", "After."],
        "mxnet": ["Before.", "For another:", *code.split("\n\n"), "After."],
        "tensorflow": ["Before.", "After."],
    }.items():
        assert re.split(r"\n\n+", prose(page, name)) == words


@needs_jupyter
def test_a_notebook_runs_with_other_settings(tmp_path):
    from docs.notebooks import notebook

    cells = "# %% settings\nnum_epochs = 5\n\n# %% one\nx = 1\n"
    page = project(tmp_path, "Words.\n\n```{cell} settings\n```\n", cells)
    for settings, code in {None: "num_epochs = 5", (("num_epochs", 1),): "num_epochs = 1"}.items():
        book = notebook(page, "pytorch", dict(settings) if settings else None)
        assert book.cells[3]["source"] == code
    with pytest.raises(ValueError, match="does not set epochs"):
        notebook(page, "pytorch", {"epochs": 1})


@needs_jupyter
@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```{source} file.py g\n```", "file.py defines no g"),
        ("```{source} files.py f\n```", "files.py cannot be read"),
        ("```{cell} two\n```", "there is no cell 'two'"),
        (":::{note}\n:::", "cannot show the directive note"),
        (":::{only} jax\nWords.\n:::", "no framework 'jax': choose from pytorch, mxnet, tens"),
        ("| | PyTorch | MXNet | TensorFlow |\n|---|", r"the row '\|---\|' has too few"),
    ],
)
def test_what_a_notebook_cannot_show_is_named(tmp_path, block, message):
    from docs.notebooks import notebook

    with pytest.raises((LookupError, ValueError), match=message):
        notebook(project(tmp_path, block), "pytorch")


@needs_jupyter
@pytest.mark.parametrize("inside", [True, False], ids=["in a checkout", "elsewhere"])
def test_a_notebook_finds_its_checkout_or_says_that_it_needs_one(tmp_path, inside):
    from docs.notebooks import FIRST

    code = FIRST.replace("%matplotlib inline", "print(root)")
    folder = ROOT / "docs" / "images" if inside else tmp_path
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    if inside:
        assert done.stdout.strip() == str(ROOT)
    else:
        assert done.returncode == 1
        *_, last = done.stderr.strip().splitlines()
        assert last == (
            f"RuntimeError: this notebook needs a checkout of three-tabs around it: {tmp_path} is in none"
        )


ADDRESS = "https://example.org/three-tabs"


@needs_jupyter
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_colab_is_prepared_for_a_framework_that_runs_there(name):
    from docs.notebooks import notebook

    without, book = (notebook(PAGES["kaggle-cifar10"], name, address=at) for at in ("", ADDRESS))
    text = json.dumps(without)
    assert "colab" not in text
    if name == "mxnet":  # Colab has NumPy 2
        assert json.dumps(book) == text
        return
    assert len(book.cells) == len(without.cells) + 1
    words, cell, *_ = book.cells
    assert words["cell_type"] == "markdown"
    assert f"!git clone --quiet --depth 1 {ADDRESS} " in cell["source"]
    assert cell["source"].endswith(f"%pip install --quiet --editable '.[{name}]'")


def test_the_address_is_pyproject_s_or_else_the_variable_s(tmp_path, monkeypatch):
    from docs import repository

    monkeypatch.setattr(repository, "PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setenv("SITE_REPOSITORY", ADDRESS)
    urls = '[project.urls]\nRepository = "https://example.org/other"\n'
    for content, address in {"[project]\n": ADDRESS, urls: "https://example.org/other"}.items():
        repository.PROJECT.write_text(content, encoding="utf-8")
        assert repository.repository() == address
    monkeypatch.delenv("SITE_REPOSITORY")
    repository.PROJECT.write_text("[project]\n", encoding="utf-8")
    assert repository.repository() == ""


# This checks the clone and the folder in one kernel with a module google.colab; pip is not run.
IN_COLAB = """
import json, sys, types
from pathlib import Path
sys.modules["google.colab"] = types.ModuleType("google.colab")
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
asked = []
shell.register_magic_function(lambda line: asked.append(line), "line", "pip")
for _ in range(2):
    shell.run_cell(sys.argv[1]).raise_error()
shell.run_cell(sys.argv[2]).raise_error()
print(json.dumps([asked, str(Path.cwd()), str(shell.user_ns["root"])]))
"""


@needs_jupyter
def test_the_cell_for_colab_clones_the_project_in_which_the_next_cell_finds_itself(tmp_path):
    """The cell can run twice."""
    from docs.notebooks import COLAB, FIRST

    origin, content = tmp_path / "origin", tmp_path / "content"
    (origin / "common").mkdir(parents=True)
    (origin / "common" / "book.py").write_text("")
    content.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], cwd=origin, check=True)
    code = COLAB.format(repository=origin.as_uri(), extra="pytorch")
    code = code.replace("/content/", f"{content}/")
    first = FIRST.replace("%matplotlib inline", "")
    done = subprocess.run(
        [sys.executable, "-c", IN_COLAB, code, first],
        cwd=content,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    checkout = str(content / "three-tabs")
    asked = "install --quiet --editable '.[pytorch]'"
    assert json.loads(done.stdout.splitlines()[-1]) == [[asked, asked], checkout, checkout]


# Run all cells in less than a minute, with few images and one epoch.
SMALL = {"num_train": 60, "num_test": 30, "num_epochs": 1}


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_jupyter
@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_a_notebook_runs_from_its_first_cell_to_its_last(chapter, name, tmp_path):
    load_or_skip(name)
    from docs.notebooks import notebook

    path = tmp_path / f"{chapter}-{name}.ipynb"
    path.write_text(json.dumps(notebook(PAGES[chapter], name, SMALL)), encoding="utf-8")
    # It runs in the folder where the site's build leaves it, inside a checkout.
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
    assert re.search(r'"image/(png|svg\+xml)"', printed)
