"""docs/traps.md shows every trap and links to it, and every trap has a test.

Those tests are in tests/docs/test_traps_of_data.py and tests/docs/test_traps_of_training.py.
"""

import ast
import re
from pathlib import Path

import pytest
from conftest import python

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples" / "traps").glob("*.py"))
PAGE = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
CONTENTS, _, SECTIONS = PAGE.partition("\n## ")


def shown(text: str) -> list[tuple[str, str]]:
    """Return the functions and classes of the examples that a part of the page shows, as (file, name)."""
    pairs = re.findall(r"^```\{trap\} (\w+)$", text, re.M)
    others = re.findall(
        r"\{literalinclude\} /\.\./docs/examples/traps/(\w+)\.py\n:pyobject: (\w+)\n", text
    )
    return [(file, name) for file in pairs for name in ("trap", "fixed")] + others


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_all_of_an_example_is_on_the_page_once(path):
    defined = [
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert defined[:2] == ["trap", "fixed"]
    assert sorted(name for file, name in shown(PAGE) if file == path.stem) == sorted(defined)


def test_the_page_shows_no_other_files():
    assert {file for file, _ in shown(PAGE)} == {path.stem for path in EXAMPLES}


def test_the_contents_lead_to_every_trap_in_order_and_say_the_same_of_where_it_is():
    rows = re.findall(r"^\| \[([^\]]+)\]\(#([\w-]+)\) \| (.+?) \|", CONTENTS, re.M)
    sections = re.findall(r"^\(([\w-]+)\)=\n### (.+)\n\n\*Where: (.+)\.\*$", SECTIONS, re.M)
    assert [(title, place, where) for place, title, where in sections] == rows
    places = sorted(place for place, *_ in sections)
    assert places == sorted(path.stem.replace("_", "-") for path in EXAMPLES)


def test_a_section_shows_the_example_that_it_is_named_for():
    for section in re.split(r"^\((?=[\w-]+\)=\n### )", SECTIONS, flags=re.M)[1:]:
        stem = section.partition(")")[0].replace("-", "_")
        assert {file for file, _ in shown(section)} == {stem}


def test_every_trap_and_what_mends_it_are_in_a_test():
    texts = (path.read_text() for path in Path(__file__).parent.glob("test_traps_of_*.py"))
    named = {
        (node.value.id, node.attr)
        for text in texts
        for test in ast.parse(text).body
        if isinstance(test, ast.FunctionDef) and test.name.startswith("test_")
        for node in ast.walk(test)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for path in EXAMPLES:
        assert {(path.stem, "trap"), (path.stem, "fixed")} <= named, path.stem


def test_examples_import_no_framework_until_they_are_called():
    names = ", ".join(path.stem for path in EXAMPLES)
    loaded = "{'torch', 'mxnet', 'tensorflow', 'keras'} & set(sys.modules)"
    done = python(f"import sys\nfrom docs.examples.traps import {names}\nprint({loaded})")
    assert done.stdout.strip() == "set()", done.stderr
