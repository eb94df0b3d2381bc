"""Ids of images: their order, and how a message names some of many."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.datasets.ids import image_id, is_file_name, is_id, natural
from common.datasets.problems import counted, listed, raise_problems
from common.errors import UserError


def test_numbers_come_in_their_order_before_any_names():
    ordered = ["0", "1", "2", "10", "300000", "9" * 30, "1" + "0" * 5000, "-1", "10a", "a", "²"]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    assert sorted(shuffled, key=natural) == ordered


@given(st.lists(st.integers(0, 10**20)))
def test_the_order_is_that_of_the_numbers(numbers: list[int]):
    assert sorted(map(str, numbers), key=natural) == [str(number) for number in sorted(numbers)]


@given(st.permutations(["1", "01", "001", "2", "02", "10", "010"]))
def test_ids_of_the_same_number_have_one_order_too(names: list[str]):
    assert sorted(names, key=natural) == ["1", "001", "01", "2", "02", "10", "010"]


def test_the_id_is_the_name_without_its_last_extension():
    assert [image_id(name) for name in ("7.png", "a.b.jpg", "7")] == ["7", "a.b", "7"]


def test_five_are_named_and_each_is_counted_once():
    assert counted(str(i) for i in [12, 3, 3, 2, 30, 4, 5]) == "2, 3, 4, 5, 12, ... (6 in all)"
    assert listed(["b", "a"]) == "b, a (2 in all)"


def test_names_that_would_break_the_line_are_spelled_out():
    assert listed(["a\nb", "x" * 1000])[:10] == "a\\nb, xxxx"
    assert len(listed(["x" * 1000])) < 400


def test_a_path_with_line_breaks_is_still_one_line_of_error():
    with pytest.raises(UserError) as caught:
        raise_problems("a", ["there is no x\ny's \\ 'z': make it"])
    assert str(caught.value) == "there is no x\\ny's \\ 'z': make it"


def test_names_are_as_long_as_file_systems_take_in_bytes():
    assert is_file_name("x" * 255)
    assert not is_file_name("x" * 256)
    assert is_file_name("\u00e9" * 127)
    assert not is_file_name("\u00e9" * 128)


@pytest.mark.parametrize(
    "name", ["7", "007", "-1", "1e3", "a b", "a,b", '"', "\u00e9", ".7", "con"]
)
def test_any_name_that_a_csv_gives_back_is_an_id(name: str):
    assert is_id(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", " 7", "7\t", "a/b", "a\\b", "a\nb", "\0", "\udcff"]
)
def test_names_that_a_csv_would_change_are_no_ids(name: str):
    assert not is_id(name)
