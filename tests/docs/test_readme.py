"""README's first table: the words of the step are those of the tabs."""

import re
from pathlib import Path

import pytest

import backends

ROOT = Path(__file__).resolve().parents[2]
ROWS = ("forward", "loss", "gradient", "update")


def snippets(row: str) -> dict[str, list[str]]:
    """The code in a row of the table, by framework."""
    line, *_ = re.findall(rf"^\| {row} \|.*$", (ROOT / "README.md").read_text("utf-8"), re.M)
    cells = line.split("|")[2:-1]
    return dict(
        zip(backends.FRAMEWORKS, (re.findall(r"`(.+?)`", cell) for cell in cells), strict=True)
    )


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("backend", backends.FRAMEWORKS)
def test_the_words_of_the_first_table_are_those_of_the_step(backend, row):
    source = (ROOT / "backends" / backend / "trainer.py").read_text("utf-8")
    step = source.partition("def train_batch_ch13(")[2].partition("\ndef ")[0]
    found = snippets(row)[backend]
    assert found
    for code in found:
        assert code in step
