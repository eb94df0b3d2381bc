"""Submissions: written in order, read back, checked for everything that Kaggle would refuse, and scored."""

import os
from pathlib import Path

import numpy as np
import pytest

from common.datasets.submission import (
    Score,
    check_submission,
    read_submission,
    score,
    write_submission,
)
from common.errors import UserError

CLASSES = ("cat", "dog", "eel")
IDS = [str(i) for i in range(1, 13)]
LABELS = [CLASSES[i % 3] for i in range(1, 13)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A competition with 3 classes and 12 test images."""
    root = tmp_path / "competition"
    (root / "test").mkdir(parents=True)
    for name in IDS:
        (root / "test" / f"{name}.png").write_bytes(b"pixels")
    (root / "trainLabels.csv").write_text("id,label\n7,dog\n3,cat\n1,eel\n")
    return root


@pytest.fixture
def submission(data: Path) -> Path:
    """A file that Kaggle accepts."""
    write_submission(data / "submission.csv", IDS, LABELS, CLASSES)
    return data / "submission.csv"


def refused(call, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ---- Writing


def test_rows_are_written_in_numeric_order_of_the_ids(tmp_path: Path):
    write_submission(tmp_path / "s.csv", ["10", "2", "1"], ["cat", "dog", "eel"], CLASSES)
    assert (tmp_path / "s.csv").read_bytes() == b"id,label\n1,eel\n2,dog\n10,cat\n"


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_labels_may_be_indices_into_the_classes(tmp_path: Path, dtype: type):
    write_submission(tmp_path / "s.csv", ["1", "2"], np.array([2, 0], dtype), CLASSES)
    assert read_submission(tmp_path / "s.csv") == {"1": "eel", "2": "cat"}


def test_indices_in_a_list_are_not_mistaken_for_numeric_class_names(
    tmp_path: Path,
):
    write_submission(tmp_path / "s.csv", ["1", "2"], [0, np.int64(1)], ("1", "0"))
    assert read_submission(tmp_path / "s.csv") == {"1": "1", "2": "0"}


@pytest.mark.parametrize("label", [True, 1.0, np.float32(1), None, [1]])
def test_labels_that_are_neither_names_nor_indices_are_refused(tmp_path: Path, label: object):
    assert "not classes" in refused(write_submission, tmp_path / "s.csv", ["1"], [label], CLASSES)


@pytest.mark.parametrize("name", ["", " 1", "1 ", "a/b", "1\n2", "\udcff", "x" * 256])
def test_ids_that_cannot_be_in_a_csv_are_refused(tmp_path: Path, name: str):
    text = refused(write_submission, tmp_path / "s.csv", [name, "7"], ["cat", "cat"], CLASSES)
    assert "cannot be in a csv" in text
    assert "(1 in all)" in text
    assert not (tmp_path / "s.csv").exists()


def test_names_with_commas_and_quotes_are_read_back(tmp_path: Path):
    classes = ('a "b", c', "straße")
    write_submission(tmp_path / "s.csv", ["1", "2"], classes, classes)
    assert read_submission(tmp_path / "s.csv") == dict(zip("12", classes, strict=True))


def test_all_problems_are_one_error_and_nothing_is_written(tmp_path: Path):
    path = tmp_path / "new" / "s.csv"
    text = refused(write_submission, path, ["1", "2", "2"], ["cat", "fox", "cat", "owl"], CLASSES)
    assert "3 problems" in text
    assert "3 ids and 4 labels" in text
    assert "repeated ids, 2 (1 in all)" in text
    assert "not classes, fox, owl (2 in all)" in text
    assert not path.parent.exists()


@pytest.mark.parametrize("label", [3, -1])
def test_indices_beyond_the_classes_are_refused(tmp_path: Path, label: int):
    arguments = (tmp_path / "s.csv", ["1"], np.array([label]), CLASSES)
    assert f"index {label}" in refused(write_submission, *arguments)


def test_no_ids_are_refused(tmp_path: Path):
    assert "no ids" in refused(write_submission, tmp_path / "s.csv", [], [], CLASSES)


def test_an_interrupted_write_leaves_the_old_file(
    submission: Path, monkeypatch: pytest.MonkeyPatch
):
    before = submission.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_submission(submission, ["1"], ["cat"], CLASSES)
    assert submission.read_bytes() == before
    assert [p.name for p in submission.parent.glob("*submission*")] == ["submission.csv"]


# ---- Checking


def test_a_good_submission_is_reported_by_class(data: Path, submission: Path):
    report = check_submission(submission, data)
    assert report.rows == 12
    assert report.rows_per_class == {"cat": 4, "dog": 4, "eel": 4}
    assert report.notes == ()
    assert report.score is None
    assert str(report) == "12 rows: cat 4, dog 4, eel 4"


def test_classes_without_a_row_are_reported_with_0(data: Path):
    write_submission(data / "s.csv", IDS, ["cat"] * 12, CLASSES)
    assert check_submission(data / "s.csv", data).rows_per_class == {"cat": 12, "dog": 0, "eel": 0}


def test_unsorted_ids_are_accepted_with_a_note(data: Path):
    rows = sorted(zip(IDS, LABELS, strict=True))  # as text: 1, 10, 11, 12, 2
    text = "".join(f"{name},{label}\n" for name, label in rows)
    (data / "s.csv").write_text("id,label\n" + text)
    report = check_submission(data / "s.csv", data)
    assert report.notes == ("the ids are not sorted, which Kaggle accepts",)
    assert str(report).endswith(report.notes[0])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id,label", "Id,Label", "the header is 'Id,Label': it must be 'id,label'"),
        ("id,label\n", "", "add the line id,label above"),
        ("\n4,dog", "\n4", "row 5 '4' (1 in all)"),
        ("\n4,dog", "\n4,dog,", "row 5 '4,dog,' (1 in all)"),
        ("\n4,dog", "\n4, dog", "blanks around the id or the label"),
        ("\n4,dog", "\n4\t,dog", "part of it in a csv: 4 (1 in all)"),
        ("\n4,dog", "", "images of test/ without a row: 4 (1 in all)"),
        ("\n4,dog", "\n04,dog", "ids without an image in test/: 04 (1 in all)"),
        ("\n4,dog", "\n4,dog\n13,dog", "13 ids for 12 images of test/"),
        ("\n4,dog", "\n4,dog\n4,cat", "repeated ids, 4 (1 in all)"),
        ("\n4,dog", "\n4,Dog", "not classes of trainLabels.csv: 'Dog' of id 4 (1 in all)"),
    ],
)
def test_each_problem_is_reported(data: Path, submission: Path, old: str, new: str, said: str):
    rewrite(submission, old, new)
    assert said in refused(check_submission, submission, data)


def test_all_problems_are_one_error_with_five_examples_of_each_kind(data: Path, submission: Path):
    text = submission.read_text().replace("id,label", "id,class").replace("dog", "Dog")
    rows = text.splitlines()[:7]
    submission.write_text("\n".join([*rows, "1,cat", "99,cat", "x;y"]))
    text = refused(check_submission, submission, data)
    assert text.startswith(f"{submission} has 7 problems: ")
    for said in (
        "the header is 'id,class'",
        "row 10 'x;y' (1 in all)",
        "repeated ids, 1 (1 in all)",
        "7 ids for 12 images",
        "without a row: 7, 8, 9, 10, 11, ... (6 in all)",
        "without an image in test/: 99 (1 in all)",
        "'Dog' of id 4 (1 in all)",
    ):
        assert said in text


def test_a_new_test_image_without_a_row_is_reported(data: Path, submission: Path):
    (data / "test/13.png").write_bytes(b"pixels")
    text = refused(check_submission, submission, data)
    assert "12 ids for 13 images" in text
    assert "without a row: 13 (1 in all)" in text


def test_files_that_are_not_images_need_no_row(data: Path, submission: Path):
    (data / "test/.DS_Store").write_bytes(b"")
    (data / "test/readme.txt").write_bytes(b"")
    assert check_submission(submission, data).rows == 12


def test_a_missing_or_empty_submission_is_reported(data: Path):
    assert f"there is no file {data / 's.csv'}" in refused(check_submission, data / "s.csv", data)
    (data / "s.csv").write_bytes(b"")
    assert "has no labels" in refused(check_submission, data / "s.csv", data)
    assert "has no labels" in refused(read_submission, data / "s.csv")


def test_a_competition_without_labels_or_test_images_is_one_error(submission: Path, tmp_path: Path):
    text = refused(check_submission, submission, tmp_path)
    assert f"there is no folder {tmp_path / 'test'}" in text
    assert f"there is no file {tmp_path / 'trainLabels.csv'}" in text


# ---- Scoring


def test_the_report_has_the_accuracy_if_the_labels_are_known(data: Path, submission: Path):
    answers = [*LABELS[:9], "cat", "cat", "cat"]  # 10 to 12 are dog, eel, cat
    write_submission(data / "testLabels.csv", IDS, answers, CLASSES)
    report = check_submission(submission, data)
    assert report.score == Score(10, 12)
    assert report.score.accuracy == 10 / 12
    assert "accuracy 0.833 on 12 known labels" in str(report)


def test_labels_of_some_images_score_only_these(data: Path, submission: Path):
    (data / "testLabels.csv").write_text("id,label\n4,dog\n5,cat\n")
    assert check_submission(submission, data).score == Score(1, 2)


def test_unreadable_test_labels_are_an_error(data: Path, submission: Path):
    (data / "testLabels.csv").write_text("id,label\n4\n")
    assert "testLabels.csv" in refused(check_submission, submission, data)


def test_the_score_counts_the_shared_ids():
    assert score({"1": "cat", "2": "dog"}, {"2": "dog", "3": "cat"}) == Score(1, 1)
    assert "no id" in refused(score, {"1": "cat"}, {"2": "cat"})
