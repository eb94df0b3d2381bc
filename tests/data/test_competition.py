"""Ids and label files: their order and their problems."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_competition import LABELS, refused, write_csv

from common.datasets.competition import image_id, in_order, is_file_name, is_id, natural_key
from common.datasets.kaggle import read_csv_labels

# ---- Ids


def test_numeric_ids_are_sorted_as_numbers_before_all_others():
    ordered = ["0", "1", "2", "10", "300000", "9" * 30, "1" + "0" * 5000, "-1", "10a", "a", "²"]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural_key) == ordered


@given(st.lists(st.integers(0, 10**20)))
def test_the_order_of_numeric_ids_is_numeric(numbers: list[int]):
    assert sorted(map(str, numbers), key=natural_key) == [str(number) for number in sorted(numbers)]


@given(st.permutations(["1", "01", "001", "2", "02", "10", "010"]))
def test_the_order_of_ids_with_equal_numbers_is_fixed(names: list[str]):
    assert sorted(names, key=natural_key) == ["1", "001", "01", "2", "02", "10", "010"]


def test_the_id_is_the_name_without_its_last_extension():
    assert [image_id(name) for name in ("7.png", "a.b.jpg", "7")] == ["7", "a.b", "7"]


def test_in_order_returns_distinct_names_in_the_order_of_ids():
    assert in_order(str(i) for i in [12, 3, 3, 2, 30]) == ["2", "3", "12", "30"]


def test_the_length_of_a_file_name_is_limited_in_bytes():
    assert is_file_name("x" * 255)
    assert not is_file_name("x" * 256)
    assert is_file_name("\u00e9" * 127)
    assert not is_file_name("\u00e9" * 128)


@pytest.mark.parametrize(
    "name", ["7", "007", "-1", "1e3", "a b", "a,b", '"', "\u00e9", ".7", "con"]
)
def test_names_that_a_csv_keeps_unchanged_are_ids(name: str):
    assert is_id(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", " 7", "7\t", "a/b", "a\\b", "a\nb", "\0", "\udcff"]
)
def test_names_that_a_csv_would_change_are_not_ids(name: str):
    assert not is_id(name)


# ---- read_csv_labels


def test_labels_are_read_in_order_without_the_header(tmp_path: Path):
    write_csv(tmp_path, LABELS)
    labels = read_csv_labels(tmp_path / "trainLabels.csv")
    assert labels == LABELS
    assert list(labels) == list(LABELS)
    assert read_csv_labels(str(tmp_path / "trainLabels.csv")) == LABELS


@pytest.mark.parametrize(
    "content",
    [
        b"id,label\r\n1,cat\r\n2,dog\r\n",
        b"\xef\xbb\xbfid,label\n1,cat\n2,dog",
        b"id,label\n\n1, cat \n2,dog\n\n",
    ],
    ids=["windows", "byte order mark", "blanks"],
)
def test_labels_written_by_any_editor_are_read(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_bytes(content)
    assert read_csv_labels(tmp_path / "a.csv") == {"1": "cat", "2": "dog"}


def test_repeated_ids_are_listed_and_counted(tmp_path: Path):
    rows = "".join(f"{i},cat\n" for i in [*range(1, 11), 10, 9, 2, 3, 4, 5])
    (tmp_path / "a.csv").write_text("id,label\n" + rows)
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert "repeated ids, 2, 3, 4, 5, 9, ... (6 in all)" in text


@pytest.mark.parametrize(
    "row", ["1", "1,cat,2", "1,", ",cat", "../1,cat", "1,a/b", "1,..", "1,a\\b"]
)
def test_malformed_rows_are_listed(tmp_path: Path, row: str):
    (tmp_path / "a.csv").write_text(f"id,label\n7,dog\n{row}\n")
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert "row 3" in text
    assert row in text


def test_all_problems_of_a_csv_are_one_error(tmp_path: Path):
    rows = ["1,cat", "2,dog", "2,dog", *(f"{i};cat" for i in range(3, 10))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert f"{tmp_path / 'a.csv'} has 3 problems: " in text
    assert "begins with '1,cat'" in text
    assert "row 4 '3;cat', row 5 '4;cat', row 6 '5;cat', row 7 '6;cat', row 8 '7;cat', ..." in text
    assert "(7 in all)" in text
    assert "repeated ids, 2 (1 in all)" in text


def test_a_missing_header_is_found_after_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf1,cat\n2,dog\n")
    assert "begins with '1,cat'" in refused(read_csv_labels, tmp_path / "a.csv")


def test_a_row_with_line_breaks_is_reported_on_one_line(tmp_path: Path):
    (tmp_path / "a.csv").write_text('id,label\n1,cat\n"2\n3",' + "dog" * 100 + "\n")
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert "2\\n3" in text
    assert len(text) < 300


@pytest.mark.parametrize("content", [b"", b"id,label\n", b"\xff\xfe\x00"])
def test_csv_without_labels_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_bytes(content)
    assert str(tmp_path / "a.csv") in refused(read_csv_labels, tmp_path / "a.csv")


def test_a_missing_csv_is_reported(tmp_path: Path):
    assert f"there is no file {tmp_path / 'a.csv'}" in refused(read_csv_labels, tmp_path / "a.csv")


def test_a_folder_in_place_of_a_csv_is_reported(tmp_path: Path):
    said = refused(read_csv_labels, tmp_path)
    assert f"cannot read {tmp_path} as a csv (Is a directory)" in said
