"""The Kaggle files' sorting: the book's results, and what the book's own code gets wrong."""

import errno
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.datasets import class_folders
from common.datasets.kaggle import (
    copyfile,
    list_test_images,
    load_split,
    read_csv_labels,
    reorg_cifar10_data,
    reorg_test,
    reorg_train_valid,
)
from common.errors import UserError, UserNotice

CLASSES = {"cat": 12, "dog": 8, "eel": 5}  # images of each
LABELS = {
    str(number): name
    for number, name in enumerate(
        (name for i in range(12) for name, count in CLASSES.items() if i < count), start=1
    )
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """25 training images of three classes with ids 1 to 25, and 7 test images."""
    for folder, count in (("train", 25), ("test", 7)):
        (tmp_path / folder).mkdir()
        for i in range(1, count + 1):
            (tmp_path / folder / f"{i}.png").write_bytes(f"{folder} {i}".encode())
    write_csv(tmp_path, LABELS)
    return tmp_path


def write_csv(root: Path, labels: dict[str, str]) -> None:
    rows = [f"{name},{label}\n" for name, label in labels.items()]
    (root / "trainLabels.csv").write_text("id,label\n" + "".join(rows))


def tree(root: Path) -> dict[str, bytes]:
    """Return every file of train_valid_test, hidden ones too."""
    base = root / "train_valid_test"
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in base.rglob("*") if p.is_file()}


def ids(root: Path, split: str) -> set[str]:
    return {path.stem for path in (root / "train_valid_test" / split).glob("*/*.png")}


def refused(call, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- read_csv_labels


def test_labels_are_read_in_order_without_the_header(data: Path):
    labels = read_csv_labels(data / "trainLabels.csv")
    assert labels == LABELS
    assert list(labels) == list(LABELS)
    assert read_csv_labels(str(data / "trainLabels.csv")) == LABELS


@pytest.mark.parametrize(
    "content",
    [
        b"id,label\r\n1,cat\r\n2,dog\r\n",
        b"\xef\xbb\xbfid,label\n1,cat\n2,dog",
        b"id,label\n\n1, cat \n2,dog\n\n",
    ],
    ids=["windows", "byte order mark", "blanks"],
)
def test_labels_of_any_editor_are_read(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_bytes(content)
    assert read_csv_labels(tmp_path / "a.csv") == {"1": "cat", "2": "dog"}


def test_ids_that_come_twice_are_named_and_counted(tmp_path: Path):
    rows = "".join(f"{i},cat\n" for i in [*range(1, 11), 10, 9, 2, 3, 4, 5])
    (tmp_path / "a.csv").write_text("id,label\n" + rows)
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert "come twice, 2, 3, 4, 5, 9, ... (6 in all)" in text


@pytest.mark.parametrize(
    "row", ["1", "1,cat,2", "1,", ",cat", "../1,cat", "1,a/b", "1,..", "1,a\\b"]
)
def test_rows_of_another_form_are_named(tmp_path: Path, row: str):
    (tmp_path / "a.csv").write_text(f"id,label\n7,dog\n{row}\n")
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert "row 3" in text
    assert row in text


def test_all_that_is_wrong_with_a_csv_is_one_error(tmp_path: Path):
    rows = ["1,cat", "2,dog", "2,dog", *(f"{i};cat" for i in range(3, 10))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert f"{tmp_path / 'a.csv'} has 3 problems: " in text
    assert "begins with '1,cat'" in text
    assert "row 4 '3;cat', row 5 '4;cat', row 6 '5;cat', row 7 '6;cat', row 8 '7;cat', ..." in text
    assert "(7 in all)" in text
    assert "come twice, 2 (1 in all)" in text


def test_a_missing_header_is_seen_behind_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf1,cat\n2,dog\n")
    assert "begins with '1,cat'" in refused(read_csv_labels, tmp_path / "a.csv")


def test_a_row_of_many_lines_is_named_in_one(tmp_path: Path):
    (tmp_path / "a.csv").write_text('id,label\n1,cat\n"2\n3",' + "dog" * 100 + "\n")
    text = refused(read_csv_labels, tmp_path / "a.csv")
    assert "2\\n3" in text
    assert len(text) < 300


@pytest.mark.parametrize("content", [b"", b"id,label\n", b"\xff\xfe\x00"])
def test_csv_without_labels_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_bytes(content)
    assert str(tmp_path / "a.csv") in refused(read_csv_labels, tmp_path / "a.csv")


def test_missing_csv_is_named(tmp_path: Path):
    assert f"there is no {tmp_path / 'a.csv'}" in refused(read_csv_labels, tmp_path / "a.csv")


def test_a_folder_in_place_of_a_csv_is_said_to_be_one(tmp_path: Path):
    said = refused(read_csv_labels, tmp_path)
    assert f"cannot read {tmp_path} as a csv (Is a directory)" in said


# ---- copyfile


def test_copyfile_makes_the_folder_and_links(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    copyfile(str(tmp_path / "a.png"), str(tmp_path / "new" / "folder"))
    assert (tmp_path / "new/folder/a.png").samefile(tmp_path / "a.png")


def test_copyfile_copies_where_links_are_not_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a.png").write_bytes(b"pixels")
    copyfile(tmp_path / "a.png", tmp_path / "new")
    assert (tmp_path / "new/a.png").read_bytes() == b"pixels"
    assert not (tmp_path / "new/a.png").samefile(tmp_path / "a.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_copyfile_replaces_another_file_without_writing_into_it(tmp_path: Path):
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
def test_validation_takes_the_ratio_of_the_rarest_class_from_each(
    data: Path, ratio: float, expected: int
):
    """The rarest class has 5: the book's max(1, floor(5 * ratio)) of every class."""
    assert reorg_train_valid(data, LABELS, ratio) == expected
    for name, count in CLASSES.items():
        base = data / "train_valid_test"
        assert len(list((base / "valid" / name).iterdir())) == expected
        assert len(list((base / "train" / name).iterdir())) == count - expected
        assert len(list((base / "train_valid" / name).iterdir())) == count


def test_each_image_is_in_its_class_and_in_one_of_the_two_splits(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    assert ids(data, "train") | ids(data, "valid") == ids(data, "train_valid") == set(LABELS)
    assert not ids(data, "train") & ids(data, "valid")
    for name, content in tree(data).items():
        _, label, file = name.split("/")
        number = file.removesuffix(".png")
        assert LABELS[number] == label
        assert content == f"train {number}".encode()


def test_the_first_ids_are_the_validation_images_in_the_order_of_numbers(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    numbers = {name: [int(i) for i, label in LABELS.items() if label == name] for name in CLASSES}
    expected = {str(i) for name in CLASSES for i in sorted(numbers[name])[:2]}
    assert ids(data, "valid") == expected


def test_the_split_follows_neither_the_folder_nor_the_csv(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    reorg_train_valid(data, LABELS, 0.4)
    before = tree(data)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listed(self), reverse=True))
    reorg_train_valid(data, dict(reversed(LABELS.items())), 0.4)
    assert tree(data) == before


@pytest.mark.parametrize("second", [0.4, 0.1, 0.79])
def test_a_second_run_gives_what_a_first_one_gives(data: Path, second: float):
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
def test_an_interrupted_run_leaves_nothing_half_and_the_next_one_completes_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, before: float | None
):
    """Ctrl-C may come at every link and at every move of a split."""
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


def test_what_a_killed_process_left_is_removed_but_no_file_of_the_user(data: Path):
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    for name in (".new/valid/cat/5.png", ".old/train/cat/1.png", ".old/train/cat/mine.png"):
        path = data / "train_valid_test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with pytest.warns(UserNotice, match=r"train/cat/mine.png \(1 in all\)"):
        reorg_cifar10_data(data, 0.4)
    assert tree(data) == wanted | {"set_aside/train/cat/mine.png": b"half"}


def test_damaged_copies_are_replaced(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    wanted = tree(data)
    path = data / "train_valid_test/valid/cat/1.png"
    path.unlink()
    path.write_bytes(b"half")
    reorg_train_valid(data, LABELS, 0.4)
    assert tree(data) == wanted


def test_hidden_and_other_files_are_ignored_and_it_is_said(data: Path):
    for folder in ("train", "test"):
        for name in (".DS_Store", "._1.png", "readme.txt"):
            (data / folder / name).write_bytes(b"no image")
    (data / "train" / "folder.png").mkdir()
    with pytest.warns(UserNotice) as said:
        reorg_cifar10_data(data, 0.4)
    assert [str(warning.message) for warning in said] == [
        "ignored, as no images: train/.DS_Store, train/._1.png, train/folder.png, "
        "train/readme.txt, test/.DS_Store, ... (7 in all)"
    ]
    assert len(tree(data)) == 25 + 25 + 7


def test_nothing_is_said_where_nothing_is_ignored(data: Path, capfd: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reorg_cifar10_data(data, 0.4)
    assert capfd.readouterr() == ("", "")


def test_what_was_done_is_returned(data: Path):
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


# ---- What is the user's own


def test_images_of_the_user_among_the_sorted_ones_are_set_aside_and_never_lost(data: Path):
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    sorted_files = data / "train_valid_test"
    for name in ("train/cat/mine.png", "train/cat/._1.png", "valid/fox/mine.jpg"):
        (sorted_files / name).parent.mkdir(exist_ok=True)
        (sorted_files / name).write_bytes(b"mine")
    with pytest.warns(UserNotice) as said:
        placed = reorg_cifar10_data(data, 0.4).placed
    assert placed == "32 in place already, 25 hard links", "train/ and valid/ are sorted anew"
    assert [str(warning.message) for warning in said] == [
        f"moved to {sorted_files / 'set_aside'}, as no original is called so: "
        "train/cat/._1.png, train/cat/mine.png, valid/fox/mine.jpg (3 in all)"
    ]
    aside = {f"set_aside/train/cat/{name}": b"mine" for name in ("mine.png", "._1.png")}
    assert tree(data) == wanted | aside | {"set_aside/valid/fox/mine.jpg": b"mine"}
    assert not (sorted_files / "valid/fox").exists()


def test_what_is_set_aside_twice_is_kept_twice(data: Path):
    path = data / "train_valid_test/train/cat/mine.png"
    for content in (b"first", b"second", b"third"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with pytest.warns(UserNotice, match="moved to"):
            reorg_cifar10_data(data, 0.4)
    aside = sorted((data / "train_valid_test/set_aside/train/cat").iterdir())
    assert [file.name for file in aside] == ["mine-2.png", "mine-3.png", "mine.png"]
    assert [file.read_bytes() for file in aside] == [b"second", b"third", b"first"]


def test_of_an_original_that_was_removed_the_last_copy_is_kept(data: Path):
    reorg_cifar10_data(data, 0.4)
    content = (data / "train/25.png").read_bytes()
    (data / "train/25.png").unlink()
    write_csv(data, {name: label for name, label in LABELS.items() if name != "25"})
    with pytest.warns(UserNotice, match=r"moved to .*25.png \(1 in all\)"):
        reorg_cifar10_data(data, 0.4)
    assert [path for path in tree(data) if "25" in path] == ["set_aside/train/cat/25.png"]
    assert tree(data)["set_aside/train/cat/25.png"] == content


def test_links_to_images_elsewhere_are_removed_and_what_they_lead_to_is_kept(data: Path):
    (data / "mine.png").write_bytes(b"mine")
    folder = data / "train_valid_test/train/cat"
    folder.mkdir(parents=True)
    (folder / "soft.png").symlink_to(data / "mine.png")
    (folder / "hard.png").hardlink_to(data / "mine.png")
    (folder / "circle.png").symlink_to("circle.png")
    reorg_cifar10_data(data, 0.4)
    assert len(tree(data)) == 57
    assert (data / "mine.png").read_bytes() == b"mine"


def test_files_that_are_no_images_stay_while_a_split_does_and_are_set_aside_with_it(data: Path):
    for path in (data / "train").iterdir():
        Image.new("RGB", (4, 4)).save(path)
    reorg_cifar10_data(data, 0.4)
    for name in ("cat", "notes", "."):
        (data / "train_valid_test/train" / name).mkdir(exist_ok=True)
        (data / "train_valid_test/train" / name / "notes.txt").write_bytes(b"mine")
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"
    assert len(load_split(data, "train", tuple(CLASSES), 4)) == 19
    assert len([name for name in tree(data) if name.endswith("notes.txt")]) == 3
    with pytest.warns(UserNotice, match=r"notes.txt \(3 in all\)"):
        reorg_cifar10_data(data, 0.7)
    assert len([name for name in tree(data) if name.startswith("set_aside/")]) == 3


@pytest.mark.parametrize("split", ["train_valid", "train/cat", "valid/fox", "test/unknown"])
def test_a_link_in_the_place_of_a_folder_goes_and_what_it_leads_to_stays(data: Path, split: str):
    link = data / "train_valid_test" / split
    link.parent.mkdir(parents=True)
    link.symlink_to(data / "train")
    reorg_cifar10_data(data, 0.4)
    assert not link.is_symlink()
    assert len(tree(data)) == 57
    assert len(list((data / "train").iterdir())) == 25


@pytest.mark.parametrize("target", [".", "train", "train/deep"])
def test_a_link_from_the_sorted_files_into_the_originals_is_refused(data: Path, target: str):
    (data / "train/deep").mkdir()
    (data / "train/deep/mine.png").write_bytes(b"mine")
    (data / "train_valid_test").symlink_to(target)
    with pytest.warns(UserNotice, match="ignored"):
        assert "lead into each other" in refused(reorg_cifar10_data, data, 0.4)
    assert len(list((data / "train").rglob("*"))) == 27
    assert len(list((data / "test").rglob("*"))) == 7


def test_originals_that_lie_in_the_sorted_files_are_refused(data: Path):
    (data / "train_valid_test/train").mkdir(parents=True)
    (data / "train").rename(data / "train_valid_test/train/all")
    (data / "train").symlink_to("train_valid_test/train/all")
    assert "lead into each other" in refused(reorg_cifar10_data, data, 0.4)
    assert len(list((data / "train").iterdir())) == 25


def test_the_sorted_files_may_lie_on_another_disk(
    data: Path, tmp_path_factory: pytest.TempPathFactory
):
    (data / "train_valid_test").symlink_to(tmp_path_factory.mktemp("disk"))
    assert reorg_cifar10_data(data, 0.4).placed == "57 hard links"
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"


@pytest.mark.parametrize("name", ["train", "train/cat", "test/unknown"])
def test_a_file_in_the_place_of_a_folder_is_set_aside(data: Path, name: str):
    path = data / "train_valid_test" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.warns(UserNotice, match=rf"moved to .*: {name} \(1 in all\)"):
        reorg_cifar10_data(data, 0.4)
    assert tree(data)[f"set_aside/{name}"] == b"mine"
    assert len(tree(data)) == 58


def test_a_file_in_the_place_of_all_is_named(data: Path):
    (data / "train_valid_test").write_bytes(b"mine")
    assert f"cannot write {data / 'train_valid_test'}" in refused(reorg_cifar10_data, data, 0.4)
    assert (data / "train_valid_test").read_bytes() == b"mine"


def test_a_folder_in_the_place_of_an_image_goes(data: Path):
    (data / "train_valid_test/valid/cat/1.png").mkdir(parents=True)
    reorg_cifar10_data(data, 0.4)
    assert tree(data)["valid/cat/1.png"] == b"train 1"


# ---- How files are put


def refuse_with(monkeypatch: pytest.MonkeyPatch, code: int, *names: str) -> list[str]:
    """Make the file system refuse these functions; return the names of those that were tried."""
    tried: list[str] = []
    for name in names:

        def refuse(*_: object, name: str = name, **__: object) -> None:
            tried.append(name)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, name, refuse)
    return tried


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_symbolic_links_where_hard_ones_are_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    shutil.rmtree(data / "train_valid_test")
    refuse_with(monkeypatch, code, "link")
    assert reorg_cifar10_data(data, 0.4).placed == "57 symbolic links"
    assert tree(data) == wanted
    assert (data / "train_valid_test/valid/cat/1.png").is_symlink()
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"


def test_symbolic_links_survive_when_the_folder_is_moved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refuse_with(monkeypatch, errno.EPERM, "link")
    monkeypatch.chdir(data.parent)
    reorg_cifar10_data(data.name, 0.4)
    moved = data.rename(data.with_name("moved"))
    assert tree(moved)["valid/cat/1.png"] == b"train 1"
    assert reorg_cifar10_data(moved, 0.4).placed == "57 in place already"


def test_images_on_another_disk_are_linked_by_their_full_path(
    data: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    elsewhere = tmp_path_factory.mktemp("disk") / "train"
    shutil.move(data / "train", elsewhere)
    (data / "train").symlink_to(elsewhere)
    refuse_with(monkeypatch, errno.EXDEV, "link")
    reorg_cifar10_data(data, 0.4)
    link = data / "train_valid_test/valid/cat/1.png"
    assert link.readlink() == elsewhere.resolve() / "1.png"
    assert link.read_bytes() == b"train 1"


def test_copies_where_all_links_are_refused(data: Path, monkeypatch: pytest.MonkeyPatch):
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    shutil.rmtree(data / "train_valid_test")
    refuse_with(monkeypatch, errno.EPERM, "link", "symlink")
    assert reorg_cifar10_data(data, 0.4).placed == "57 copies"
    assert tree(data) == wanted
    assert not (data / "train_valid_test/valid/cat/1.png").samefile(data / "train/1.png")
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"


def test_a_full_disk_is_named_and_no_other_way_is_tried(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    tried = refuse_with(monkeypatch, errno.ENOSPC, "link", "symlink")
    assert "the disk is full" in refused(reorg_cifar10_data, data, 0.4)
    assert tried == ["link"]


def test_originals_that_are_relative_links_are_followed(data: Path):
    (data / "train/1.png").rename(data / "one.png")
    (data / "train/1.png").symlink_to("../one.png")
    reorg_cifar10_data(data, 0.4)
    assert (data / "train_valid_test/valid/cat/1.png").read_bytes() == b"train 1"
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"


def test_an_original_that_goes_away_meanwhile_is_named_and_nothing_links_to_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    real = os.link

    def late(source: str, target: str) -> None:
        (data / "train/1.png").unlink(missing_ok=True)
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    assert f"{data / 'train/1.png'} is gone" in refused(reorg_cifar10_data, data, 0.4)
    assert not [path for path in (data / "train_valid_test").rglob("*") if path.is_symlink()]


SORT = """
import sys
from common.datasets.kaggle import reorg_cifar10_data
reorg_cifar10_data(sys.argv[1], float(sys.argv[2]))
"""


def sorting(data: Path, ratio: float) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", SORT, str(data), str(ratio)]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)


def test_a_second_process_waits_until_the_first_has_sorted(data: Path):
    fcntl = pytest.importorskip("fcntl")
    reorg_cifar10_data(data, 0.4)
    before = tree(data)
    handle = os.open(data / "train_valid_test", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # which others could share, if they only wanted to look
    child = sorting(data, 0.79)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(3)
    assert tree(data) == before
    os.close(handle)
    assert child.communicate() == (None, b"")
    assert len(ids(data, "valid")) == 9


def test_where_the_file_system_has_no_locks_files_are_sorted_all_the_same(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert reorg_cifar10_data(data, 0.4).placed == "57 hard links"


def test_a_copy_of_an_original_that_changed_in_time_alone_is_made_anew(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    refuse_with(monkeypatch, errno.EPERM, "link", "symlink")
    reorg_cifar10_data(data, 0.4)
    (data / "train/1.png").write_bytes(b"TRAIN 1")
    os.utime(data / "train/1.png", (1, 1))
    reorg_cifar10_data(data, 0.4)
    assert tree(data)["valid/cat/1.png"] == b"TRAIN 1"
    assert len(tree(data)) == 57


def test_a_copy_that_is_interrupted_is_not_left(data: Path, monkeypatch: pytest.MonkeyPatch):
    def half(_: object, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    refuse_with(monkeypatch, errno.EPERM, "link", "symlink")
    monkeypatch.setattr(shutil, "copy2", half)
    with pytest.raises(KeyboardInterrupt):
        reorg_cifar10_data(data, 0.4)
    assert tree(data) == {}


def test_the_bar_moves_once_for_each_file_put_or_kept(data: Path, monkeypatch: pytest.MonkeyPatch):
    moved: dict[str, list[int]] = {}

    @contextmanager
    def counting(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        moved[title] = [total]
        yield moved[title].append

    monkeypatch.setattr(class_folders, "counting", counting)
    for _ in range(2):
        reorg_cifar10_data(data, 0.4)
        assert [title.rpartition("/")[2] for title in moved] == ["train", "test"]
        assert [numbers[0] for numbers in moved.values()] == [50, 7]
        assert [sum(numbers[1:]) for numbers in moved.values()] == [50, 7]


def test_a_new_original_takes_the_place_of_the_old_one(data: Path):
    reorg_cifar10_data(data, 0.4)
    (data / "train/1.png").unlink()
    (data / "train/1.png").write_bytes(b"another image")
    reorg_cifar10_data(data, 0.4)
    assert tree(data)["valid/cat/1.png"] == b"another image"


# ---- What is refused


def test_images_take_no_space_twice(data: Path):
    reorg_cifar10_data(data, 0.4)
    assert (data / "train/1.png").stat().st_nlink == 3
    assert (data / "test/1.png").stat().st_nlink == 2


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
def test_impossible_ratios_are_refused(data: Path, ratio: float):
    assert "validation share" in refused(reorg_train_valid, data, LABELS, ratio)


def test_images_without_label_and_labels_without_image_are_one_error(data: Path):
    for i in (26, 27, 100, 101, 102, 103):
        (data / "train" / f"{i}.png").write_bytes(b"more")
    (data / "train/3.png").unlink()
    text = refused(reorg_cifar10_data, data, 0.1)
    assert "images without a label: 26, 27, 100, 101, 102, ... (6 in all)" in text
    assert "labels without an image: 3 (1 in all)" in text
    assert not (data / "train_valid_test").exists()


def test_everything_wrong_with_a_competition_is_one_error_before_anything_changes(data: Path):
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
        "ids that come twice, 7 (1 in all)",
        "two images for the ids 1 (1 in all)",
        "links that lead nowhere, 27.png (1 in all)",
        "images without a label: 26 (1 in all)",
        "labels without an image: 90, 91 (2 in all)",
        "classes of one image, which validation would take: 'eeel' of id 3 (1 in all)",
        f"there is no {data / 'test'}",
    ):
        assert part in text
    assert not (data / "train_valid_test").exists()


def test_no_labels_are_refused(data: Path):
    assert "there are no labels" in refused(reorg_train_valid, data, {}, 0.1)


@pytest.mark.parametrize(
    "pair", [("Cat", "cat"), ("\u00e9", "e\u0301"), ("STRASSE", "stra\u00dfe")]
)
def test_classes_that_would_be_one_folder_elsewhere_are_refused(data: Path, pair: tuple[str, str]):
    renamed = dict(zip(("cat", "dog"), pair, strict=True))
    labels = {name: renamed.get(label, label) for name, label in LABELS.items()}
    text = refused(reorg_train_valid, data, labels, 0.1)
    assert "take for one folder" in text
    assert "(2 in all)" in text


@pytest.mark.parametrize("label", ["x" * 256, "\u00e9" * 128])
def test_classes_too_long_for_a_folder_are_refused_before_anything_changes(data: Path, label: str):
    labels = {name: label if kind == "cat" else kind for name, kind in LABELS.items()}
    write_csv(data, labels)
    assert "another form" in refused(reorg_cifar10_data, data, 0.1)
    assert "cannot be a folder's name" in refused(reorg_train_valid, data, labels, 0.1)
    assert not (data / "train_valid_test").exists()


@pytest.mark.parametrize("name", [" 7.png", "7 .png", "a\nb.png", "a\\b.png", "\udcff.png"])
def test_images_whose_ids_a_csv_would_not_give_back_are_refused_at_once(data: Path, name: str):
    (data / "test" / name).write_bytes(b"pixels")
    text = refused(reorg_cifar10_data, data, 0.1)
    assert "names that cannot be in a csv" in text
    assert "(1 in all)" in text
    text.encode()


def test_a_link_in_a_circle_is_named_as_one_that_leads_nowhere(data: Path):
    (data / "train/90.png").symlink_to("90.png")
    assert "lead nowhere, 90.png (1 in all)" in refused(reorg_cifar10_data, data, 0.1)


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300, "a\nb"])
def test_a_competition_of_an_impossible_name_is_not_there(tmp_path: Path, name: str):
    assert "there is no folder" in refused(reorg_cifar10_data, tmp_path / name, 0.1)
    assert "has no folder for cat" in refused(load_split, tmp_path / name, "train", ("cat",))
    assert "there is no" in refused(list_test_images, tmp_path / name)


@pytest.mark.parametrize("name", ["nowhere.png", "."])
def test_copyfile_of_what_is_no_file_says_so(tmp_path: Path, name: str):
    assert "there is no file" in refused(copyfile, tmp_path / name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_class_of_one_image_is_refused_alone_too(data: Path):
    text = refused(reorg_train_valid, data, LABELS | {"3": "eeel", "1": "catt"}, 0.1)
    assert "'catt' of id 1, 'eeel' of id 3 (2 in all)" in text


def test_labels_that_cannot_be_folders_are_refused(data: Path):
    text = refused(reorg_train_valid, data, LABELS | {"3": "../out", "1": "../out"}, 0.1)
    assert "classes that cannot be a folder's name: ../out (1 in all)" in text


def test_two_images_of_one_id_are_refused(data: Path):
    (data / "train/3.jpg").write_bytes(b"other")
    assert "two images for the ids 3 (1 in all)" in refused(reorg_cifar10_data, data, 0.1)


@pytest.mark.parametrize("folder", ["train", "test"])
def test_missing_or_empty_folder_is_named(data: Path, folder: str):
    for path in (data / folder).iterdir():
        path.unlink()
    assert f"{data / folder} has no images" in refused(reorg_cifar10_data, data, 0.1)
    (data / folder).rmdir()
    assert f"there is no {data / folder}" in refused(reorg_cifar10_data, data, 0.1)


@pytest.mark.parametrize(
    ("archive", "hint"),
    [
        ("train.7z", "unpack train.7z"),
        ("cifar-10.zip", "unpack cifar-10.zip"),
        (None, "unpack the competition's files there"),
    ],
)
def test_an_archive_that_is_not_unpacked_is_pointed_at(data: Path, archive: str | None, hint: str):
    shutil.rmtree(data / "train")
    if archive:
        (data / archive).write_bytes(b"")
    if archive == "train.7z":
        (data / "test.7z").write_bytes(b"")
    assert f"there is no {data / 'train'}: {hint}" in refused(reorg_cifar10_data, data, 0.1)


def test_labels_that_are_not_unpacked_are_pointed_at(data: Path):
    (data / "trainLabels.csv").unlink()
    (data / "trainLabels.csv.zip").write_bytes(b"")
    assert "unpack trainLabels.csv.zip" in refused(reorg_cifar10_data, data, 0.1)


def test_images_that_were_unpacked_one_folder_too_deep_are_pointed_at(data: Path):
    (data / "train").rename(data / "inner")
    (data / "train").mkdir()
    (data / "inner").rename(data / "train/train")
    assert f"move what is in {data / 'train/train'} up" in refused(reorg_cifar10_data, data, 0.1)


def test_a_competition_that_is_not_there_or_a_file_is_named(data: Path):
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


# ---- Reading what was sorted


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ids 1 to 12 of two classes and 11 test images: each pixel is the id, in the test 100 and the id."""
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
def test_splits_are_read_by_class_then_by_id_as_a_number(
    pictures: Path, split: str, expected: list[int]
):
    loaded = load_split(pictures, split, ("even", "odd"), image_size=8)
    assert loaded.images.shape == (len(expected), 8, 8, 3)
    assert loaded.images[:, 0, 0, 0].tolist() == expected
    assert loaded.labels.tolist() == [i % 2 for i in expected]
    assert loaded.labels.dtype == np.int64
    assert loaded.classes == ("even", "odd")


def test_splits_that_are_not_those_of_the_classes_are_refused(pictures: Path):
    text = refused(load_split, pictures, "train", ("even", "new"))
    assert "no folder for new (1 in all)" in text
    assert "has odd (1 in all), which are no classes" in text
    assert "no folder for" in refused(load_split, pictures / "nowhere", "train", ("even",))


def test_a_damaged_training_image_is_named_when_it_is_read(pictures: Path):
    (pictures / "train/5.png").write_bytes(b"no image")
    reorg_cifar10_data(pictures, 0.34)
    text = refused(load_split, pictures, "train", ("even", "odd"))
    assert "odd/5.png" in text
    assert "(1 in all); put whole copies into train/ and sort the files again" in text


def test_a_damaged_test_image_is_named_when_it_is_read(pictures: Path):
    (pictures / "test/5.png").write_bytes(b"no image")
    reorg_test(pictures)
    files = list_test_images(pictures)
    text = refused(list, files.chunks(8, 3))
    assert "unknown/5.png" in text
    assert "(1 in all); put whole copies into test/ and sort the files again" in text


def test_test_images_are_streamed_in_the_order_of_their_ids(pictures: Path):
    chunks = list(list_test_images(pictures).chunks(8, 4))
    assert [name for names, _ in chunks for name in names] == [f"{i}.png" for i in range(1, 12)]
    values = np.concatenate([pixels[:, 0, 0, 0] for _, pixels in chunks])
    assert values.tolist() == list(range(101, 112))


def test_test_images_are_listed_in_the_order_of_numbers(pictures: Path):
    files = list_test_images(pictures)
    assert files.ids == [str(i) for i in range(1, 12)]
    assert files.names == [f"{i}.png" for i in range(1, 12)]
    assert files.folder == pictures / "train_valid_test/test/unknown"


def test_test_images_that_were_not_sorted_are_refused(data: Path):
    assert "there is no" in refused(list_test_images, data)
