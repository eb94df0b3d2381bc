"""The generated competition: Kaggle's layout, the same bytes every time, and no harm to other files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.datasets.competition import read_label_file
from common.datasets.kaggle import list_test_images, load_split, reorg_cifar10_data
from common.datasets.kaggle_shapes import Written, write_kaggle_shapes
from common.datasets.shapes import CLASSES, draw_shapes
from common.datasets.submission import check_submission, write_submission
from common.errors import UserError


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def times(root: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mtime_ns for path in root.rglob("*")}


def refused(*arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        write_kaggle_shapes(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_files_have_the_shapes_and_their_labels(tmp_path: Path):
    assert write_kaggle_shapes(tmp_path / "k", 30, 20, seed=3) == Written(0, 50, 0)
    names = {f"train/{i}.png" for i in range(1, 31)} | {f"test/{i}.png" for i in range(1, 21)}
    expected = names | {"trainLabels.csv", "testLabels.csv", "README.txt"}
    assert set(contents(tmp_path / "k")) == expected
    for split, count in (("train", 30), ("test", 20)):
        drawn = draw_shapes(count, 3, split)
        labels = read_label_file(tmp_path / "k" / f"{split}Labels.csv", "").labels
        assert labels == {str(i + 1): CLASSES[drawn.labels[i]] for i in range(count)}
        for i in range(count):
            with Image.open(tmp_path / "k" / split / f"{i + 1}.png") as image:
                np.testing.assert_array_equal(np.asarray(image), drawn.images[i])


def test_the_chapter_s_functions_accept_it_as_a_competition(tmp_path: Path):
    write_kaggle_shapes(tmp_path, 30, 20)
    done = reorg_cifar10_data(tmp_path, 0.34)
    assert (done.classes, done.num_train, done.num_valid) == (CLASSES, 20, 10)
    assert len(load_split(tmp_path, "train_valid", done.classes)) == 30
    answers = draw_shapes(20, 0, "test").labels
    write_submission(tmp_path / "s.csv", list_test_images(tmp_path).ids, answers, done.classes)
    report = check_submission(tmp_path / "s.csv", tmp_path)
    assert (report.score.correct, report.score.count) == (20, 20)


def test_two_folders_are_the_same_to_the_byte(tmp_path: Path):
    write_kaggle_shapes(tmp_path / "a", 20, 20)
    write_kaggle_shapes(tmp_path / "b", 20, 20)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_second_call_writes_nothing(tmp_path: Path):
    write_kaggle_shapes(tmp_path, 20, 20)
    before = times(tmp_path)
    assert write_kaggle_shapes(tmp_path, 20, 20) == Written(40, 0, 0)
    assert times(tmp_path) == before


def test_damaged_and_missing_files_are_replaced_and_the_others_are_kept(tmp_path: Path):
    write_kaggle_shapes(tmp_path, 20, 20)
    wanted, before = contents(tmp_path), times(tmp_path)
    (tmp_path / "train/3.png").write_bytes(wanted["train/3.png"][:-5])
    (tmp_path / "test/4.png").unlink()
    (tmp_path / "trainLabels.csv").write_text("id,label\n")
    (tmp_path / "testLabels.csv").unlink()
    assert write_kaggle_shapes(tmp_path, 20, 20) == Written(38, 2, 0)
    assert contents(tmp_path) == wanted
    untouched = [name for name in before if name.endswith(("5.png", "README.txt"))]
    assert [times(tmp_path)[name] for name in untouched] == [before[name] for name in untouched]


def test_replacing_a_damaged_picture_does_not_write_into_links_to_it(tmp_path: Path):
    write_kaggle_shapes(tmp_path, 20, 20)
    wanted = contents(tmp_path)
    reorg_cifar10_data(tmp_path, 0.1)
    (tmp_path / "train/3.png").write_bytes(b"damaged")  # this also changes the links
    write_kaggle_shapes(tmp_path, 20, 20)
    reorg_cifar10_data(tmp_path, 0.1)
    sorted_ones = [
        p for p in (tmp_path / "train_valid_test").rglob("3.png") if "test/un" not in str(p)
    ]
    assert len(sorted_ones) == 2
    assert {path.read_bytes() for path in sorted_ones} == {wanted["train/3.png"]}


def test_a_link_to_a_picture_is_replaced_by_a_file(tmp_path: Path):
    write_kaggle_shapes(tmp_path / "k", 30, 20)
    (tmp_path / "k/train/3.png").rename(tmp_path / "elsewhere.png")
    (tmp_path / "k/train/3.png").symlink_to(tmp_path / "elsewhere.png")
    assert write_kaggle_shapes(tmp_path / "k", 30, 20) == Written(49, 1, 0)
    assert not (tmp_path / "k/train/3.png").is_symlink()
    assert (tmp_path / "elsewhere.png").exists()


def test_a_smaller_number_removes_only_the_extra_pictures(tmp_path: Path):
    write_kaggle_shapes(tmp_path / "a", 40, 30)
    for name in ("notes.txt", "cat.png", "007.png", "9.jpg", "0.png"):
        (tmp_path / "a/train" / name).write_bytes(b"someone's")
    assert write_kaggle_shapes(tmp_path / "a", 20, 20) == Written(40, 0, 30)
    for name in ("notes.txt", "cat.png", "007.png", "9.jpg", "0.png"):
        path = tmp_path / "a/train" / name
        assert path.read_bytes() == b"someone's"
        path.unlink()
    write_kaggle_shapes(tmp_path / "b", 20, 20)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_larger_number_keeps_the_existing_pictures(tmp_path: Path):
    write_kaggle_shapes(tmp_path, 20, 20)
    assert write_kaggle_shapes(tmp_path, 30, 20) == Written(40, 10, 0)


def test_another_seed_replaces_all_pictures(tmp_path: Path):
    write_kaggle_shapes(tmp_path / "a", 20, 20, seed=1)
    assert write_kaggle_shapes(tmp_path / "a", 20, 20, seed=2).kept == 0
    write_kaggle_shapes(tmp_path / "b", 20, 20, seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("before", [None, (40, 40)])
def test_an_interrupted_run_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[int, int] | None
):
    write_kaggle_shapes(tmp_path / "wanted", 20, 20)
    replace = os.replace
    for stop in range(3) if before else range(0, 44, 5):
        root = tmp_path / str(stop)
        if before:
            write_kaggle_shapes(root, *before)
        left = [stop]

        def interrupted(source: Path, target: Path, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                write_kaggle_shapes(root, 20, 20)
        write_kaggle_shapes(root, 20, 20)
        assert contents(root) == contents(tmp_path / "wanted")


def test_other_files_in_the_folder_are_kept(tmp_path: Path):
    write_kaggle_shapes(tmp_path, 20, 20)
    (tmp_path / "submission.csv").write_text("id,label\n")
    (tmp_path / "train_valid_test").mkdir()
    write_kaggle_shapes(tmp_path, 20, 20)
    assert (tmp_path / "submission.csv").read_text() == "id,label\n"


# ---- Someone else's files


@pytest.mark.parametrize("name", ["train/1.png", "README.txt", "thesis.tex", ".hidden"])
def test_a_folder_of_someone_else_is_refused_and_not_changed(tmp_path: Path, name: str):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"Drawn by hand\xff")
    before = contents(tmp_path)
    assert f"{tmp_path} contains files that this program did not write" in refused(tmp_path, 20, 20)
    assert contents(tmp_path) == before


def test_the_real_competition_unpacked_over_it_is_refused_and_not_changed(tmp_path: Path):
    write_kaggle_shapes(tmp_path, 20, 20)
    for i in range(1, 31):
        (tmp_path / "train" / f"{i}.png").write_bytes(b"a photograph")
    before = contents(tmp_path)
    text = refused(tmp_path, 20, 20)
    assert "21.png, 22.png, 23.png, 24.png, 25.png, ... (10 in all)" in text
    assert contents(tmp_path) == before


def test_a_linked_folder_is_refused(tmp_path: Path):
    write_kaggle_shapes(tmp_path / "k", 20, 20)
    (tmp_path / "k/train").rename(tmp_path / "elsewhere")
    (tmp_path / "k/train").symlink_to(tmp_path / "elsewhere")
    assert "contains files that this program did not write" in refused(tmp_path / "k", 30, 20)


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path: Path):
    (tmp_path / "k").write_bytes(b"")
    assert f"{tmp_path / 'k'} is a file" in refused(tmp_path / "k", 20, 20)


@pytest.mark.parametrize("numbers", [(0, 20), (20, 0), (20, -1)])
def test_numbers_below_one_are_refused_before_anything_is_written(
    tmp_path: Path, numbers: tuple[int, int]
):
    assert "at least 1" in refused(tmp_path / "k", *numbers)
    assert not (tmp_path / "k").exists()
