"""The functions that format messages: counts, lists of names, and single lines."""

import pytest

from common.errors import UserError, counted, listed, printable, raise_problems


def test_counted_uses_the_plural_unless_there_is_one():
    assert [counted(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert counted(2, "class", "classes") == "2 classes"


def test_listed_names_five_and_counts_all():
    assert listed(["b", "a"]) == "b, a (2 in all)"
    assert listed(str(i) for i in range(7)) == "0, 1, 2, 3, 4, ... (7 in all)"
    assert len(listed(["x" * 1000])) < 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("straße, кот, 猫", "straße, кот, 猫"),
        ("a\nb\t\x1b[31m", "a\\nb\\t\\x1b[31m"),
        ("\u2028\udcff", "\\u2028\\udcff"),
        ("a\\b's", "a\\b's"),
        ("x" * 81, "x" * 77 + "..."),
    ],
)
def test_a_name_is_shown_on_one_line(text: str, expected: str):
    assert printable(text) == expected


def test_a_text_is_truncated_only_at_its_maximum_length():
    assert printable("x" * 81, max_length=None) == "x" * 81


def test_a_path_with_line_breaks_is_still_one_line_of_error():
    with pytest.raises(UserError) as caught:
        raise_problems("a", ["there is no x\ny's \\ 'z': make it"])
    assert str(caught.value) == "there is no x\\ny's \\ 'z': make it"


def test_several_problems_are_one_error_and_none_is_no_error():
    with pytest.raises(UserError, match=r"^a has 2 problems: b; c$"):
        raise_problems("a", ["b", "c"])
    raise_problems("a", [])
