"""Ids of images: their order, and which names can be one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.datasets.competition import image_id, in_order, is_file_name, is_id, natural


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


def test_names_are_put_in_the_order_of_ids_each_once():
    assert in_order(str(i) for i in [12, 3, 3, 2, 30]) == ["2", "3", "12", "30"]


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
