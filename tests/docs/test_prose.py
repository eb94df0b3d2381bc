"""`python -m docs prose`: which sentences it finds too long, which words it names, and what it takes for prose."""

import pytest
from conftest import needs

pytestmark = needs("markdown_it", "sphinx")

LONG = "Word" + " word" * 30
PAGE = f"""# A heading

The first sentence. The second
one is here, e.g. on two lines. {LONG}.

| a cell alone | levels |
|---|---|
| {LONG} | anew |

```python
x = "alone"  # anew
```

:::{{note}} at once
- An item with `alone` in code. It ends [alone](https://alone.org).
:::
"""
PROGRAM = '''"""Do it.

It runs alone, ``alone``.
"""

x = 1  # noqa: alone
y = 2  # of two
# A comment that goes
# on anew. And ends.


def f(value):
    """Raise."""
    raise ValueError(f"{value} is not there: it is shown alone")


CODE = "import os\\nif alone or anew and levels:\\n    pass"
'''


def found(text: str) -> list[str]:
    from docs.prose import Sentence

    return [finding.split('"')[1] for finding in Sentence(1, text).replaceable()]


def test_sentences_of_a_page_have_their_lines_and_neither_code_nor_tables():
    from docs.prose import sentences

    assert list(sentences(PAGE)) == [
        (1, "A heading"),
        (3, "The first sentence."),
        (3, "The second one is here, e.g. on two lines."),
        (4, f"{LONG}."),
        (14, "An item with `code` in code."),
        (14, "It ends alone."),
    ]


def test_docstrings_comments_and_messages_of_a_program_are_prose():
    from docs.prose import of_program

    texts = [
        (1, "Do it."),
        (3, "It runs alone, `code`."),
        (7, "of two"),
        (8, "A comment that goes on anew."),
        (9, "And ends."),
        (13, "Raise."),
    ]
    message = (14, "`code` is not there: it is shown alone")
    assert sorted(of_program(PROGRAM)) == [*texts, message]
    assert sorted(of_program(PROGRAM, strings=False)) == texts


def test_code_is_one_word_and_a_number_is_none():
    from docs.prose import Sentence

    assert Sentence(1, "It takes `code` and 3 arrays (n, 4), or 12 %.").words() == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The arbiter decides.", ["arbiter"]),
        ("It takes levels or floats.", ["levels"]),
        ("Where the two ports part, look.", ["ports part"]),
        ("It is held against the reference, at once.", ["held against", "at once"]),
        ("Keras does otherwise.", ["otherwise", "does otherwise"]),
        ("What comes first stays.", ["What"]),
        ("Of several, the first is taken.", ["Of"]),
        ("It stops; what is left to print goes nowhere.", ["; what is left to print goes"]),
        ("Two files, one of which is empty.", ["of which"]),
    ],
)
def test_words_that_have_a_plainer_one_are_found(text, words):
    assert found(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "Grey levels, a noise level, a high-level interface.",
        "A part of the batch; the parts of a file; it is a part of it.",
        "Memory is taken all at once.",
        "Leave the folder alone.",
        "They differ unless you say otherwise.",
        "Return gpu(i) if it exists, otherwise cpu().",
        "What is MXNet?",
        "The report names the layer, and what to change.",
        "Most of the images of the set.",
    ],
)
def test_the_same_words_in_another_meaning_are_not(text):
    assert found(text) == []


def test_the_command_lists_findings_with_their_places_and_totals(capsys):
    from docs.__main__ import main
    from docs.prose import ROOT

    page = ROOT / "docs" / "parity.md"
    assert main(["prose", str(page)]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert "sentences of more than 30 words; " in last


def test_every_page_and_program_of_the_project_is_read():
    from docs.prose import ROOT, files

    names = {path.relative_to(ROOT).as_posix() for path in files()}
    assert names >= {"README.md", "docs/parity.md", "run.py", "backends/mxnet/trainer.py"}
    assert names >= {"common/config.py", "docs/cells.py", "tests/conftest.py"}
    assert not any("build/" in name for name in names)


def test_the_project_s_sentences_are_short_and_its_words_plain():
    """If this fails, `python -m docs prose` lists the places."""
    from docs.prose import MAX_WORDS, ROOT, files, of_file

    for path in files():
        name, sentences = path.relative_to(ROOT).as_posix(), of_file(path)
        long = [sentence for sentence in sentences if sentence.words() > MAX_WORDS]
        assert not long, name
        found = [(sentence.line, word) for sentence in sentences for word in sentence.replaceable()]
        assert not found, name
