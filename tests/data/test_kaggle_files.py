"""Sorting the Kaggle files: the same results as the book, without the mistakes of the book's code."""

import errno
import os
import shutil
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_competition import CLASSES, LABELS, ids, make_competition, refused, tree, write_csv

from common.datasets import share_of
from common.datasets.kaggle import (
    copyfile,
    list_test_images,
    load_split,
    reorg_cifar10_data,
    reorg_test,
    reorg_train_valid,
)
from common.errors import UserNotice


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_competition(tmp_path)


# ---- copyfile


def test_copyfile_makes_the_folder_and_links(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    copyfile(str(tmp_path / "a.png"), str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new/folder/a.png").samefile(tmp_path / "a.png")


def test_copyfile_copies_if_links_are_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a.png").write_bytes(b"pixels")
    copyfile(tmp_path / "a.png", tmp_path / "new")
    assert (tmp_path / "new/a.png").read_bytes() == b"pixels"
    assert not (tmp_path / "new/a.png").samefile(tmp_path / "a.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_copyfile_replaces_a_file_and_does_not_overwrite_it_in_place(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a.png").write_bytes(b"old")
    (tmp_path / "linked.png").hardlink_to(tmp_path / "new/a.png")
    copyfile(tmp_path / "a.png", tmp_path / "new")
    assert (tmp_path / "new/a.png").read_bytes() == b"pixels"
    assert (tmp_path / "linked.png").read_bytes() == b"old"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_copyfile_follows_a_relative_link(tmp_path: Path):
    (tmp_path / "real.png").write_bytes(b"pixels")
    (tmp_path / "a.png").symlink_to("real.png")
    copyfile(tmp_path / "a.png", tmp_path / "deep" / "folder")
    assert (tmp_path / "deep/folder/a.png").read_bytes() == b"pixels"
    assert not (tmp_path / "deep/folder/a.png").is_symlink()


def test_copyfile_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a.png").write_bytes(b"pixels")
    assert "the disk is full" in refused(copyfile, tmp_path / "a.png", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ---- reorg_train_valid


@pytest.mark.parametrize(("ratio", "expected"), [(0.1, 1), (0.2, 1), (0.4, 2), (0.79, 3), (0, 1)])
def test_each_class_has_the_ratio_of_the_smallest_class_as_validation_images(
    data: Path, ratio: float, expected: int
):
    """The smallest class has 5 images: the book takes max(1, floor(5 * ratio)) from every class."""
    assert reorg_train_valid(data, LABELS, ratio) == expected
    for name, count in CLASSES.items():
        base = data / "train_valid_test"
        assert len(list((base / "valid" / name).iterdir())) == expected
        assert len(list((base / "train" / name).iterdir())) == count - expected
        assert len(list((base / "train_valid" / name).iterdir())) == count


def test_the_number_of_validation_images_is_computed_in_decimals(tmp_path: Path):
    """As floats, .29 * 100 is 28.999999999999996."""
    (tmp_path / "train").mkdir()
    labels = {str(number): "cat" for number in range(100)}
    for number in labels:
        (tmp_path / "train" / f"{number}.png").touch()
    assert reorg_train_valid(tmp_path, labels, 0.29) == 29
    assert len(ids(tmp_path, "valid")) == 29
    assert share_of(0.57, 5_000) == 2_850


@given(st.integers(0, 1_000_000), st.integers(0, 9_999))
def test_a_share_is_that_of_exact_arithmetic(number: int, ten_thousandths: int):
    assert share_of(ten_thousandths / 10_000, number) == number * ten_thousandths // 10_000


def test_each_image_is_in_its_class_and_in_one_of_the_two_splits(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    assert ids(data, "train") | ids(data, "valid") == ids(data, "train_valid") == set(LABELS)
    assert not ids(data, "train") & ids(data, "valid")
    for name, content in tree(data).items():
        _, label, file = name.split("/")
        number = file.removesuffix(".png")
        assert LABELS[number] == label
        assert content == f"train {number}".encode()


def test_the_validation_images_are_those_with_the_smallest_ids(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    numbers = {name: [int(i) for i, label in LABELS.items() if label == name] for name in CLASSES}
    expected = {str(i) for name in CLASSES for i in sorted(numbers[name])[:2]}
    assert ids(data, "valid") == expected


def test_the_split_does_not_depend_on_the_order_of_the_folder_or_the_csv(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    reorg_train_valid(data, LABELS, 0.4)
    before = tree(data)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listed(self), reverse=True))
    reorg_train_valid(data, dict(reversed(LABELS.items())), 0.4)
    assert tree(data) == before


@pytest.mark.parametrize("second", [0.4, 0.1, 0.79])
def test_a_second_run_gives_the_same_result_as_a_first_one(data: Path, second: float):
    reorg_cifar10_data(data, second)
    expected = tree(data)
    for folder in (data / "train_valid_test").iterdir():
        for path in folder.glob("*/*"):
            path.unlink()
    reorg_cifar10_data(data, 0.4)
    reorg_cifar10_data(data, second)
    assert tree(data) == expected


def test_an_image_whose_label_changed_moves(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    changed = LABELS | dict.fromkeys((i for i, name in LABELS.items() if name == "eel"), "fox")
    reorg_train_valid(data, changed, 0.4)
    assert {name.split("/")[1] for name in tree(data)} == {"cat", "dog", "fox"}
    assert not (data / "train_valid_test/train/eel").exists()


@pytest.mark.parametrize("before", [None, 0.1])
def test_an_interrupted_run_leaves_complete_splits_and_the_next_run_finishes(
    data: Path, monkeypatch: pytest.MonkeyPatch, before: float | None
):
    """Ctrl-C may come at every link and every rename of a split."""
    reorg_cifar10_data(data, 0.79)
    wanted = tree(data)
    changes = 57 + 4 if before is None else 25 + 4
    for stop in range(0, changes + 1, 3 if before is None else 1):
        shutil.rmtree(data / "train_valid_test")
        if before is not None:
            reorg_cifar10_data(data, before)
        whole = [wanted, tree(data), {}]
        left = [stop]
        with monkeypatch.context() as patched:
            for name in ("link", "rename"):
                real = getattr(os, name)

                def interrupted(*names: str, real=real, left=left) -> None:
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                    real(*names)
                    assert not ids(data, "train") & ids(data, "valid")

                patched.setattr(os, name, interrupted)
            with pytest.raises(KeyboardInterrupt) if stop < changes else nullcontext():
                reorg_cifar10_data(data, 0.79)
        found = tree(data)
        assert not ids(data, "train") & ids(data, "valid")
        for split in ("train", "valid", "train_valid", "test"):
            assert part(found, split) in [part(files, split) for files in whole]
        assert {name.split("/")[0] for name in found} <= {"train", "valid", "train_valid", "test"}
        reorg_cifar10_data(data, 0.79)
        assert tree(data) == wanted


def part(files: dict[str, bytes], split: str) -> list[str]:
    return sorted(name for name in files if name.startswith(f"{split}/"))


def test_files_of_a_killed_process_are_removed_but_not_the_user_s(data: Path):
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    for name in (".new/valid/cat/5.png", ".old/train/cat/1.png", ".old/train/cat/mine.png"):
        path = data / "train_valid_test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with pytest.warns(UserNotice, match=r"train/cat/mine.png \(1 in all\)"):
        reorg_cifar10_data(data, 0.4)
    assert tree(data) == wanted | {"set_aside/train/cat/mine.png": b"half"}


@pytest.mark.parametrize("together", [True, False])
def test_old_copies_of_test_images_that_a_killed_process_left_are_not_set_aside(
    data: Path, together: bool
):
    """If test images have other names than training images, only sorting them shows that these are copies."""
    for path in (data / "test").iterdir():
        path.rename(path.with_name(f"t{path.name}"))
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    shutil.copytree(data / "test", data / "train_valid_test/.old/test/unknown")
    if together:
        reorg_cifar10_data(data, 0.4)
    else:
        reorg_train_valid(data, LABELS, 0.1)
        reorg_train_valid(data, LABELS, 0.4)
        reorg_test(data)
    assert tree(data) == wanted


def test_damaged_copies_are_replaced(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    wanted = tree(data)
    path = data / "train_valid_test/valid/cat/1.png"
    path.unlink()
    path.write_bytes(b"half")
    reorg_train_valid(data, LABELS, 0.4)
    assert tree(data) == wanted


def test_hidden_and_other_files_are_ignored_with_a_notice(data: Path):
    for folder in ("train", "test"):
        for name in (".DS_Store", "._1.png", "readme.txt"):
            (data / folder / name).write_bytes(b"no image")
    (data / "train" / "folder.png").mkdir()
    with pytest.warns(UserNotice) as said:
        reorg_cifar10_data(data, 0.4)
    assert [str(warning.message) for warning in said] == [
        "ignored, because they are not images: train/.DS_Store, train/._1.png, train/folder.png, "
        "train/readme.txt, test/.DS_Store, ... (7 in all)"
    ]
    assert len(tree(data)) == 25 + 25 + 7


def test_there_is_no_notice_if_nothing_is_ignored(data: Path, capfd: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reorg_cifar10_data(data, 0.4)
    assert capfd.readouterr() == ("", "")


def test_the_result_has_the_numbers_of_images_and_links(data: Path):
    done = reorg_cifar10_data(data, 0.4)
    assert done.classes == ("cat", "dog", "eel")
    numbers = (done.num_train, done.num_valid, done.num_train_valid, done.num_test)
    assert numbers == (19, 6, 25, 7)
    assert done.valid_per_class == 2
    assert done.placed == "57 hard links"
    assert str(done) == (
        "19 train, 6 valid (2 of each of 3 classes), 25 train_valid and 7 test images: "
        "57 hard links"
    )
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"
    (data / "test/7.png").unlink()
    with pytest.warns(UserNotice, match="moved to"):
        again = reorg_cifar10_data(data, 0.7).placed
    assert again == "25 in place already, 31 hard links"


def test_a_second_run_writes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch):
    reorg_cifar10_data(data, 0.4)

    def changed(*_: object, **__: object) -> None:
        raise AssertionError("a file was changed")

    for name in ("link", "symlink", "unlink", "rename", "replace", "mkdir", "rmdir"):
        monkeypatch.setattr(os, name, changed)
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"


# ---- Errors


def test_sorted_images_take_no_space(data: Path):
    reorg_cifar10_data(data, 0.4)
    assert (data / "train/1.png").stat().st_nlink == 3
    assert (data / "test/1.png").stat().st_nlink == 2


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
def test_impossible_ratios_are_refused(data: Path, ratio: float):
    assert "validation ratio" in refused(reorg_train_valid, data, LABELS, ratio)


def test_images_without_label_and_labels_without_image_are_one_error(data: Path):
    for i in (26, 27, 100, 101, 102, 103):
        (data / "train" / f"{i}.png").write_bytes(b"more")
    (data / "train/3.png").unlink()
    text = refused(reorg_cifar10_data, data, 0.1)
    assert "images without a label: 26, 27, 100, 101, 102, ... (6 in all)" in text
    assert "labels without an image: 3 (1 in all)" in text
    assert not (data / "train_valid_test").exists()


def test_all_problems_of_a_competition_are_one_error_before_anything_changes(data: Path):
    labels = LABELS | {"3": "eeel", "90": "cat", "91": "cat"}
    write_csv(data, labels)
    with (data / "trainLabels.csv").open("a") as file:
        file.write("5\n7,cat\n")
    (data / "train/1.jpg").write_bytes(b"other")
    (data / "train/26.png").write_bytes(b"more")
    (data / "train/27.png").symlink_to("nowhere.png")
    shutil.rmtree(data / "test")
    text = refused(reorg_cifar10_data, data, 0.1)
    assert text.startswith(f"{data} has 8 problems: ")
    for part in (
        "row 29 '5' (1 in all)",
        "repeated ids, 7 (1 in all)",
        "two images for the ids 1 (1 in all)",
        "broken links, 27.png (1 in all)",
        "images without a label: 26 (1 in all)",
        "labels without an image: 90, 91 (2 in all)",
        "classes with only one image, which validation would use: 'eeel' of id 3 (1 in all)",
        f"there is no folder {data / 'test'}",
    ):
        assert part in text
    assert not (data / "train_valid_test").exists()


def test_no_labels_are_refused(data: Path):
    assert "there are no labels" in refused(reorg_train_valid, data, {}, 0.1)


@pytest.mark.parametrize(
    "pair", [("Cat", "cat"), ("\u00e9", "e\u0301"), ("STRASSE", "stra\u00dfe")]
)
def test_classes_that_are_one_folder_on_some_disks_are_refused(data: Path, pair: tuple[str, str]):
    renamed = dict(zip(("cat", "dog"), pair, strict=True))
    labels = {name: renamed.get(label, label) for name, label in LABELS.items()}
    text = refused(reorg_train_valid, data, labels, 0.1)
    assert "the same folder on some disks" in text
    assert "(2 in all)" in text


@pytest.mark.parametrize("label", ["x" * 256, "\u00e9" * 128])
def test_classes_too_long_for_a_folder_are_refused_before_anything_changes(data: Path, label: str):
    labels = {name: label if kind == "cat" else kind for name, kind in LABELS.items()}
    write_csv(data, labels)
    assert "not id,label" in refused(reorg_cifar10_data, data, 0.1)
    assert "cannot be folder names" in refused(reorg_train_valid, data, labels, 0.1)
    assert not (data / "train_valid_test").exists()


@pytest.mark.parametrize("name", [" 7.png", "7 .png", "a\nb.png", "a\\b.png", "\udcff.png"])
def test_images_whose_ids_cannot_be_in_a_csv_are_refused(data: Path, name: str):
    (data / "test" / name).write_bytes(b"pixels")
    text = refused(reorg_cifar10_data, data, 0.1)
    assert "names that cannot be in a csv" in text
    assert "(1 in all)" in text
    text.encode()


def test_a_circular_link_is_reported_as_broken(data: Path):
    (data / "train/90.png").symlink_to("90.png")
    assert "broken links, 90.png (1 in all)" in refused(reorg_cifar10_data, data, 0.1)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300, "a\nb"])
def test_a_folder_with_an_impossible_name_is_reported_as_missing(tmp_path: Path, name: str):
    assert "there is no folder" in refused(reorg_cifar10_data, tmp_path / name, 0.1)
    assert "has no folder for cat" in refused(load_split, tmp_path / name, "train", ("cat",))
    assert "there is no" in refused(list_test_images, tmp_path / name)


@pytest.mark.parametrize("name", ["nowhere.png", "."])
def test_copyfile_of_a_missing_file_is_an_error(tmp_path: Path, name: str):
    assert "there is no file" in refused(copyfile, tmp_path / name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_classes_with_one_image_are_refused(data: Path):
    text = refused(reorg_train_valid, data, LABELS | {"3": "eeel", "1": "catt"}, 0.1)
    assert "'catt' of id 1, 'eeel' of id 3 (2 in all)" in text


def test_labels_that_cannot_be_folders_are_refused(data: Path):
    text = refused(reorg_train_valid, data, LABELS | {"3": "../out", "1": "../out"}, 0.1)
    assert "classes that cannot be folder names: ../out (1 in all)" in text


def test_two_images_of_one_id_are_refused(data: Path):
    (data / "train/3.jpg").write_bytes(b"other")
    assert "two images for the ids 3 (1 in all)" in refused(reorg_cifar10_data, data, 0.1)


@pytest.mark.parametrize("folder", ["train", "test"])
def test_a_missing_or_empty_folder_is_reported(data: Path, folder: str):
    for path in (data / folder).iterdir():
        path.unlink()
    assert f"{data / folder} has no images" in refused(reorg_cifar10_data, data, 0.1)
    (data / folder).rmdir()
    assert f"there is no folder {data / folder}" in refused(reorg_cifar10_data, data, 0.1)


@pytest.mark.parametrize(
    ("archive", "hint"),
    [
        ("train.7z", "unpack train.7z"),
        ("cifar-10.zip", "unpack cifar-10.zip"),
        (None, "unpack the competition's files there"),
    ],
)
def test_the_error_names_the_archive_to_unpack(data: Path, archive: str | None, hint: str):
    shutil.rmtree(data / "train")
    if archive:
        (data / archive).write_bytes(b"")
    if archive == "train.7z":
        (data / "test.7z").write_bytes(b"")
    assert f"there is no folder {data / 'train'}: {hint}" in refused(reorg_cifar10_data, data, 0.1)


def test_the_error_names_the_archive_of_the_labels(data: Path):
    (data / "trainLabels.csv").unlink()
    (data / "trainLabels.csv.zip").write_bytes(b"")
    assert "unpack trainLabels.csv.zip" in refused(reorg_cifar10_data, data, 0.1)


def test_images_that_were_unpacked_one_folder_too_deep_are_reported(data: Path):
    (data / "train").rename(data / "inner")
    (data / "train").mkdir()
    (data / "inner").rename(data / "train/train")
    assert f"move the content of {data / 'train/train'} up" in refused(
        reorg_cifar10_data, data, 0.1
    )


def test_a_missing_competition_or_a_file_in_its_place_is_reported(data: Path):
    assert f"there is no folder {data / 'x'}" in refused(reorg_cifar10_data, data / "x", 0.1)
    (data / "x.zip").write_bytes(b"")
    assert "unpack x.zip" in refused(reorg_cifar10_data, data / "x", 0.1)
    assert "x.zip is a file" in refused(reorg_cifar10_data, data / "x.zip", 0.1)


# ---- reorg_test


def test_test_images_go_to_the_class_unknown(data: Path):
    reorg_test(data)
    assert tree(data) == {f"test/unknown/{i}.png": f"test {i}".encode() for i in range(1, 8)}
    (data / "test/7.png").unlink()
    with pytest.warns(UserNotice, match=r"moved to .*test/unknown/7.png \(1 in all\)"):
        reorg_test(str(data))
    wanted = {f"test/unknown/{i}.png" for i in range(1, 7)}
    assert set(tree(data)) == wanted | {"set_aside/test/unknown/7.png"}, "the last copy is kept"


# ---- Reading the sorted files


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Training ids 1 to 12 of two classes and 11 test images; each pixel is the id, plus 100 in test images."""
    for folder, count, base in (("train", 12, 0), ("test", 11, 100)):
        (tmp_path / folder).mkdir()
        for i in range(1, count + 1):
            Image.new("RGB", (8, 8), (base + i,) * 3).save(tmp_path / folder / f"{i}.png")
    write_csv(tmp_path, {str(i): ("odd" if i % 2 else "even") for i in range(1, 13)})
    reorg_cifar10_data(tmp_path, 0.34)
    return tmp_path


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", [6, 8, 10, 12, 5, 7, 9, 11]),
        ("valid", [2, 4, 1, 3]),
        ("train_valid", [2, 4, 6, 8, 10, 12, 1, 3, 5, 7, 9, 11]),
    ],
)
def test_splits_are_read_by_class_then_by_numeric_id(
    pictures: Path, split: str, expected: list[int]
):
    loaded = load_split(pictures, split, ("even", "odd"), image_size=8)
    assert loaded.images.shape == (len(expected), 8, 8, 3)
    assert loaded.images[:, 0, 0, 0].tolist() == expected
    assert loaded.labels.tolist() == [i % 2 for i in expected]
    assert loaded.labels.dtype == np.int64
    assert loaded.classes == ("even", "odd")


def test_splits_with_other_classes_are_refused(pictures: Path):
    text = refused(load_split, pictures, "train", ("even", "new"))
    assert "no folder for new (1 in all)" in text
    assert "has folders that are not classes, odd (1 in all)" in text
    assert "no folder for" in refused(load_split, pictures / "nowhere", "train", ("even",))


def test_a_damaged_training_image_is_named_when_it_is_read(pictures: Path):
    (pictures / "train/5.png").write_bytes(b"no image")
    reorg_cifar10_data(pictures, 0.34)
    text = refused(load_split, pictures, "train", ("even", "odd"))
    assert "odd/5.png" in text
    assert "(1 in all); put complete copies into train/ and sort the files again" in text


def test_a_damaged_test_image_is_named_when_it_is_read(pictures: Path):
    (pictures / "test/5.png").write_bytes(b"no image")
    reorg_test(pictures)
    files = list_test_images(pictures)
    text = refused(list, files.chunks(8, 3))
    assert "unknown/5.png" in text
    assert "(1 in all); put complete copies into test/ and sort the files again" in text


def test_test_images_are_streamed_in_the_order_of_their_ids(pictures: Path):
    chunks = list(list_test_images(pictures).chunks(8, 4))
    assert [name for names, _ in chunks for name in names] == [f"{i}.png" for i in range(1, 12)]
    values = np.concatenate([pixels[:, 0, 0, 0] for _, pixels in chunks])
    assert values.tolist() == list(range(101, 112))


def test_test_images_are_listed_in_numeric_order(pictures: Path):
    files = list_test_images(pictures)
    assert files.ids == [str(i) for i in range(1, 12)]
    assert files.names == [f"{i}.png" for i in range(1, 12)]
    assert files.folder == pictures / "train_valid_test/test/unknown"


def test_test_images_that_were_not_sorted_are_refused(data: Path):
    assert "there is no" in refused(list_test_images, data)
