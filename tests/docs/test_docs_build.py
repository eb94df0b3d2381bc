"""The site shows the code of the source, and an unknown name fails the build every time.

The docs built here are one page of a project of three small files; only the directives are this project's.
"""

import json
import re
from html import unescape
from pathlib import Path

import pytest
from conftest import needs
from PIL import Image

import backends

ROOT = Path(__file__).resolve().parents[2]
pytestmark = needs("sphinx", "myst_parser", "sphinx_design", "nbformat")

CONF = f"""
import sys

sys.path.insert(0, {str(ROOT)!r})
extensions = ["myst_parser", "sphinx_design", "docs.tabs"]
myst_enable_extensions = ["colon_fence"]
"""
CODE = """
def step(net):
    return {name!r}


class Batches:
    def __iter__(self):
        yield {name!r}
"""
CELLS = "\n".join(
    ["# %% all\nx = 1", *(f"# %% tab [{name}]\ny = '{name}'" for name in backends.FRAMEWORKS)]
)
TRAP = "def trap():\n    return 'falls'\n\n\ndef fixed():\n    return 'stands'\n"
GOOD = """# A page

```{notebooks}
```

```{cell} all
```

```{source} file.py step Batches.__iter__
```

```{cell} tab
```
"""


@pytest.fixture
def docs(tmp_path) -> Path:
    """The docs folder of a small project, without a page."""
    files = {
        "docs/conf.py": CONF,
        "docs/index.py": CELLS,
        "docs/examples/traps/pit.py": TRAP,
        **{f"backends/{name}/file.py": CODE.format(name=name) for name in backends.FRAMEWORKS},
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "docs"


@pytest.fixture
def build(docs, capfd):
    """Build the docs, with a page if one is given; return the exit code, Sphinx's output and the page's HTML."""
    from docs.__main__ import build as build_site

    def built(page: str = "") -> tuple[int, str, str]:
        if page:
            (docs / "index.md").write_text(page, encoding="utf-8")
        code = build_site(docs, docs.parent / "site")
        html = docs.parent / "site" / "index.html"
        return code, capfd.readouterr().err, html.read_text() if html.exists() else ""

    return built


def code_of(html: str) -> list[str]:
    """Return the text of a page's code blocks."""
    blocks = re.findall(r"<pre>(.*?)</pre>", html, re.S)
    return [unescape(re.sub(r"<.*?>", "", block)).strip() for block in blocks]


def test_a_page_shows_the_code_of_each_backend_in_its_tab(build, docs):
    code, said, html = build(GOOD)
    assert (code, said) == (0, "")
    tabs = [
        (re.sub(r"^.*?>|<.*", "", tab, flags=re.S).strip(), code_of(tab))
        for tab in html.split("<label ")
        if "sd-tab-label" in tab
    ]
    sources = [
        (
            backends.FRAMEWORKS[name].title,
            [f"def step(net):\n    return '{name}'", f"def __iter__(self):\n    yield '{name}'"],
        )
        for name in backends.FRAMEWORKS
    ]
    cells = [(backends.FRAMEWORKS[name].title, [f"y = '{name}'"]) for name in backends.FRAMEWORKS]
    assert tabs == sources + cells
    assert code_of(html)[0] == "x = 1"
    for name in backends.FRAMEWORKS:
        assert (docs.parent / "build" / "notebooks" / f"index-{name}.ipynb").exists()
        assert re.search(rf'href="[^"]*index-{name}\.ipynb"', html)


def test_a_page_offers_its_notebooks_for_colab_where_the_repository_has_an_address(
    build, docs, monkeypatch
):
    for address in ("", "https://example.org/three-tabs"):
        monkeypatch.setenv("SITE_REPOSITORY", address)
        code, said, html = build(GOOD)
        assert (code, said) == (0, "")
        assert ("upload the notebook of PyTorch or TensorFlow" in html) == bool(address)
        text = (docs.parent / "build" / "notebooks" / "index-pytorch.ipynb").read_text()
        assert (f"git clone --quiet --depth 1 {address} " in text) == bool(address)


def tabs_of(html: str) -> list[tuple[str, str]]:
    """Return the tabs of a page, each with its title and its HTML."""
    parts = re.split(r"<label [^>]*sd-tab-label[^>]*>", html.split("</article>")[0])[1:]
    return [(part.split("</label>")[0].strip(), part.split("</label>")[1]) for part in parts]


def keep_outputs(docs: Path, name: str, text: str, colours: dict[str, str]) -> None:
    """Keep an output of the named cell in each framework; its text may contain the framework's name."""
    for backend in backends.FRAMEWORKS:
        path = docs / "results" / f"index-cells-{backend}.json"
        record = json.loads(path.read_text()) if path.exists() else {"cells": {}}
        pictures = [f"{backend}-{name}.webp"] if backend in colours else []
        for picture in pictures:
            (docs / "images" / "cells").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colours[backend]).save(docs / "images" / "cells" / picture)
        output = {"code": "", "text": text.format(backend), "pictures": pictures}
        record["cells"][name] = output
        record["measured"] = f"Measured with {backend} 1.0."
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record))


CELL_PAGE = (
    "# A page\n\n```{{notebooks}}\n```\n\n```{{cell}} all\n{all}```\n\n```{{cell}} tab\n{tab}```\n"
)


def test_a_cell_of_each_framework_is_shown_with_its_output_in_its_tab(build, docs):
    colours = dict(zip(backends.FRAMEWORKS, ("red", "green", "blue"), strict=True))
    keep_outputs(docs, "tab", "printed\n\n  `by` {0}\n", colours)
    code, said, html = build(CELL_PAGE.format(all="", tab=":alt: A square\n"))
    assert (code, said) == (0, "")
    for (title, tab), name in zip(tabs_of(html), backends.FRAMEWORKS, strict=True):
        assert title == backends.FRAMEWORKS[name].title
        assert code_of(tab) == [f"y = '{name}'", f"printed\n\n  `by` {name}"]
        assert re.findall(r'class="([^"]*)output', tab)
        assert re.findall(r'<img alt="A square" [^>]*src="([^"]*)"', tab) == [
            f"_images/{name}-tab.webp"
        ]
    for name in backends.FRAMEWORKS:
        assert f"{backends.FRAMEWORKS[name].title}: Measured with {name} 1.0." in html
    assert "python -m docs figures index --cells" in re.sub(r"<.*?>", "", html)


@pytest.mark.parametrize("alike", [True, False], ids=["the same", "another in one"])
def test_a_cell_of_all_frameworks_shows_equal_outputs_once(build, docs, alike):
    colours = dict.fromkeys(backends.FRAMEWORKS, "red") | ({} if alike else {"mxnet": "blue"})
    keep_outputs(docs, "all", "1\n", colours)
    code, said, html = build(CELL_PAGE.format(all=":alt: A square\n", tab=""))
    assert (code, said) == (0, "")
    before, *_ = re.split("<label ", html)
    tabs = [tab for _, tab in tabs_of(html)]
    assert code_of(before)[0] == "x = 1"
    if alike:
        assert code_of(before) == ["x = 1", "1"]
        assert before.count('alt="A square"') == 1
    else:
        assert code_of(before) == ["x = 1"]
        assert [code_of(tab) for tab in tabs[:3]] == [["1"]] * 3
        assert [tab.count('alt="A square"') for tab in tabs[:3]] == [1, 1, 1]


def test_a_picture_needs_words(build, docs):
    keep_outputs(docs, "all", "", {"mxnet": "red"})
    code, said, _ = build("# A page\n\n```{cell} all\n```\n")
    assert code == 1
    assert re.search(r"index\.md:3: .*the cell 'all' draws: .* with :alt:", said), said


WORDS = """# A page

:::{only} pytorch
Words for **PyTorch**.

```python
import torch
```
:::
:::{only} mxnet
Words for **MXNet**.
:::

:::{differs}
Many [things](#a-page).
:::

```{cell} tab
```

:::{only} mxnet
Below the code.
:::

:::{only} mxnet
The end.
:::
"""


def test_prose_for_one_framework_is_in_its_tab_and_a_note_says_what_differs(build):
    code, said, html = build(WORDS)
    assert (code, said) == (0, "")
    tabs = [(title, " ".join(re.sub(r"<.*?>", "", tab).split())) for title, tab in tabs_of(html)]
    assert [title for title, _ in tabs] == ["PyTorch", "MXNet", "PyTorch", "MXNet", "TensorFlow"]
    assert tabs[0][1] == "Words for PyTorch. import torch"
    assert tabs[1][1].startswith("Words for MXNet.")
    assert tabs[3][1] == "y = 'mxnet' Below the code. The end."
    assert code_of(html)[0] == "import torch"
    assert html.count('class="sd-tab-set') == 2
    (note,) = re.findall(r'<div class="differs admonition">(.*?)</div>', html, re.S)
    assert re.sub(r"<.*?>", "", note).split() == ["What", "differs", "Many", "things."]
    assert '<a class="reference internal" href="#a-page">' in note


def test_columns_show_the_functions_of_the_three(build, docs):
    (docs.parent / "backends" / "mxnet" / "file.py").write_text(
        "def step(net):\n    extra()\n    return 'mxnet'\n\n\ndef other(net):\n    pass\n"
    )
    code, said, html = build("# A page\n\n```{columns} file.py step\n:mxnet: step\n```\n")
    assert (code, said) == (0, "")
    titles = re.findall(r'<th scope="col">(.*?)</th>', html)
    assert titles == [backends.FRAMEWORKS[name].title for name in backends.FRAMEWORKS]
    rows = [re.findall(r"<td.*?</td>", row) for row in re.findall(r"<tr>.*?</tr>", html)][1:]
    texts = [[unescape(re.sub(r"<.*?>", "", cell)) for cell in row] for row in rows]
    assert texts == [
        ["def step(net):"] * 3,
        ["", "    extra()", ""],
        [f"    return '{name}'" for name in backends.FRAMEWORKS],
    ]
    assert [row[1].count("<mark>") for row in rows] == [0, 0, 1]


def test_backend_in_the_name_of_a_file_stands_for_each_backend(build):
    page = "# A page\n\n```{source} backends/BACKEND/file.py step\n```\n"
    code, said, html = build(page + page.replace("source", "columns"))
    assert (code, said) == (0, "")
    assert [title for title, _ in tabs_of(html)] == [f.title for f in backends.FRAMEWORKS.values()]
    assert code_of(html) == [f"def step(net):\n    return '{name}'" for name in backends.FRAMEWORKS]
    cells = [unescape(re.sub(r"<.*?>", "", cell)) for cell in re.findall(r"<td.*?</td>", html)]
    assert cells[-3:] == [f"    return '{name}'" for name in backends.FRAMEWORKS]


def test_a_trap_is_shown_beside_what_mends_it(build):
    code, said, html = build("# A page\n\n```{trap} pit\n```\n")
    assert (code, said) == (0, "")
    assert code_of(html) == TRAP.strip().split("\n\n\n")


def test_all_that_is_not_there_fails_with_its_page_and_line(build, docs):
    (docs / "examples" / "traps" / "unmended.py").write_text("def trap():\n    pass\n")
    wrong = {
        "{source} file.py step gone": "backends/pytorch/file.py defines no gone",
        "{source} file.py step\n:mxnet: lost": "backends/mxnet/file.py defines no lost",
        "{source} backends/mxnet/file.py Batches.gone": "mxnet/file.py defines no Batches.gone",
        "{source} gone.py step": "backends/pytorch/gone.py cannot be read",
        "{cell} gone": "index.py: there is no cell 'gone'",
        "{columns} file.py gone": "backends/pytorch/file.py defines no gone",
        "{columns} file.py step\n:mxnet: step step": "the frameworks have different numbers of functions",
        "{only} jax\nWords.": "there is no framework 'jax': choose from pytorch, mxnet, tensorflow",
        "{trap} gone": "docs/examples/traps/gone.py cannot be read",
        "{trap} unmended": "docs/examples/traps/unmended.py defines no fixed",
    }
    page = "# A page\n"
    lines = {}
    for block, message in wrong.items():
        page += "\nWords.\n\n"
        lines[page.count("\n") + 1] = message
        page += f"```{block}\n```\n"
    code, said, _ = build(page)
    assert code == 1
    for line, message in lines.items():
        assert re.search(rf"docs/index\.md:{line}: .*{re.escape(message)}", said), said


def test_a_renamed_function_fails_every_build_and_names_all_places(build, docs):
    assert build(GOOD)[0] == 0
    file = docs.parent / "backends" / "mxnet" / "file.py"
    file.write_text(file.read_text().replace("step", "stride"))
    for _ in range(2):
        code, said, _ = build()
        assert code == 1
        for line in (3, 9):  # the notebooks, and the source itself
            assert re.search(rf"index\.md:{line}: .*mxnet/file\.py defines no step", said), said


def test_cells_that_cannot_be_read_fail_with_their_page_and_line(build, docs):
    (docs / "index.py").write_text("# %% all\nx = 1\n#%% tab\ny = 2\n")
    code, said, _ = build("# A page\n\n```{cell} all\n```\n")
    assert code == 1
    assert re.search(r"docs/index\.md:3: .*index\.py, line 3: '#%% tab' is not", said), said


def test_the_command_builds_where_it_is_told_to(monkeypatch, tmp_path):
    from docs import __main__ as command

    built = []
    monkeypatch.setattr(command, "build", lambda *folders: built.append(folders) or 0)
    assert command.main(["html"]) == command.main(["html", "--output", str(tmp_path)]) == 0
    assert built == [(ROOT / "docs", ROOT / "build" / "site"), (ROOT / "docs", tmp_path)]
