"""In the three columns, similar lines share a row and different words are marked."""

import ast
import re
from html import unescape
from pathlib import Path

import pytest
from conftest import needs

import backends

pytestmark = needs("pygments", "sphinx", "nbformat")

FIRST = '''def step(net, X, y):
    """Train.

    The loss is a mean.
    """
    net.train()
    l = loss(net(X), y)
    l.mean().backward()
    trainer.step()
    return l
'''
SECOND = '''@fast
def step(
    net, X, y, split=None
):
    """Train."""
    with record():
        # The gradient of the sum, which
        # the step divides.
        l = loss(net(X), y)

    l.backward()
    trainer.step(
        [
            len(y),  # the batch size
        ]
    )
    return l
'''


def rows_of(*sources: str) -> list[list[str]]:
    """Return the text of each row's cells, with marked words in brackets."""
    from docs.columns import table

    html = table(["A title"] * len(sources), [[source] for source in sources])
    html = html.replace("<mark>", "⟦").replace("</mark>", "⟧")
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>.*?</tr>", html)]
    return [[unescape(re.sub(r"<.*?>", "", cell)) for cell in row] for row in rows if row]


def test_lines_that_are_alike_share_a_row_and_the_others_have_a_gap():
    assert rows_of(FIRST, SECOND) == [
        ["", "@fast"],
        ["def step(net, X, y):", "def step(net, X, y, ⟦split=None⟧):"],
        ['    """Train."""', '    """Train."""'],
        ["    net.train()", ""],
        ["", "    with record():"],
        ["", "        # The gradient of the sum, which the step divides."],
        ["    l = loss(net(X), y)", "        l = loss(net(X), y)"],
        ["    l.⟦mean⟧().backward()", "    l.backward()"],
        ["    trainer.step()", "    trainer.step("],
        ["", "        ["],
        ["", "            len(y),  # the batch size"],
        ["", "        ]"],
        ["", "    )"],
        ["    return l", "    return l"],
    ]


def test_a_word_is_marked_if_one_of_the_others_lacks_it():
    lines = "y = net.relu(X, 1)", "y = net.relu(X)", "y = tf.nn.relu(X)"
    assert rows_of(*lines) == [
        ["y = ⟦net⟧.relu(X, ⟦1⟧)", "y = ⟦net⟧.relu(X)", "y = ⟦tf.nn⟧.relu(X)"]
    ]


def test_lines_that_share_too_little_do_not_share_a_row():
    assert rows_of("net.train()", "print(len(batches))") == [
        ["net.train()", ""],
        ["", "print(len(batches))"],
    ]
    # With the same beginning, fewer equal words suffice.
    assert len(rows_of("trainer.step()", "trainer.apply(gradients, weights)")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "x = f(\n    a,\n    [\n        1,\n    ],\n)",
        "x = f(a, [1])",
        "x = (  # words\n    f(\n        a, [1]\n    )\n)",
        "x = ')'\n# (\ny = f(\n    a\n)",
        "def f():\n    'Return it.'\n    return g(\n        1\n    )",
    ],
)
def test_a_source_on_fewer_lines_is_the_same_program(source):
    from docs.columns import lines_of

    joined = "\n".join("".join(text for _, text in line) for line in lines_of(source))
    assert ast.dump(ast.parse(joined)) == ast.dump(ast.parse(source))


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("resnet.py", ("Residual", "resnet_block", "resnet18")),
        ("trainer.py", ("train_batch_ch13", "train_ch13")),
        ("kaggle.py", ("train",)),
    ],
)
def test_the_three_frameworks_line_up(file, names):
    """A column has all lines of its function in order, and the functions begin in the same row."""
    from docs.columns import aligned, lines_of
    from docs.notebooks import source_of

    root = Path(__file__).resolve().parents[2] / "backends"
    for name in names:
        columns = [lines_of(source_of(root / each / file, name)) for each in backends.FRAMEWORKS]
        rows = aligned(columns)
        for place, lines in enumerate(columns):
            assert [row[place] for row in rows if row[place] is not None] == lines
        full = [row for row in rows if None not in row]
        assert len(full) > len(rows) / 3
        assert any(
            "".join(text for _, text in row[0]).startswith(("def ", "class ")) for row in full
        )
