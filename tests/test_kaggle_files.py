"""The Kaggle files' sorting: the book's results, and what the book's own code gets wrong."""

import errno
import os
from pathlib import Path

import pytest

from common.datasets.kaggle import (
    copyfile,
    read_csv_labels,
    reorg_cifar10_data,
    reorg_test,
    reorg_train_valid,
)
from common.errors import UserError

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


@pytest.mark.parametrize("content", [b"", b"id,label\n", b"\xff\xfe\x00"])
def test_csv_without_labels_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_bytes(content)
    assert str(tmp_path / "a.csv") in refused(read_csv_labels, tmp_path / "a.csv")


def test_missing_csv_is_named(tmp_path: Path):
    assert f"there is no {tmp_path / 'a.csv'}" in refused(read_csv_labels, tmp_path / "a.csv")


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


def test_an_interrupted_run_never_leaks_and_the_next_one_completes_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    """Interrupted after each possible number of files, on the way from one ratio to another."""
    reorg_cifar10_data(data, 0.79)
    wanted = tree(data)
    real = os.link
    for stop in range(0, 60, 7):
        monkeypatch.setattr(os, "link", real)
        reorg_cifar10_data(data, 0.1)
        done: list[object] = []

        def interrupted(
            source: str, target: str, done: list[object] = done, stop: int = stop
        ) -> None:
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(source)
            real(source, target)
            assert not ids(data, "train") & ids(data, "valid")

        monkeypatch.setattr(os, "link", interrupted)
        if stop <= 6:  # 3 classes change 2 images each: those come to valid/
            with pytest.raises(KeyboardInterrupt):
                reorg_cifar10_data(data, 0.79)
        assert not ids(data, "train") & ids(data, "valid")
        monkeypatch.setattr(os, "link", real)
        reorg_cifar10_data(data, 0.79)
        assert tree(data) == wanted


def test_what_a_killed_process_left_is_removed(data: Path):
    """A hidden half of an image would be an example to torchvision's ImageFolder."""
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    (data / "train_valid_test/valid/cat/.5.4711.png").write_bytes(b"half")
    (data / "train_valid_test/test/unknown/.5.4711.png").write_bytes(b"half")
    reorg_cifar10_data(data, 0.4)
    assert tree(data) == wanted


def test_damaged_copies_are_replaced(data: Path):
    reorg_train_valid(data, LABELS, 0.4)
    wanted = tree(data)
    path = data / "train_valid_test/valid/cat/1.png"
    path.unlink()
    path.write_bytes(b"half")
    reorg_train_valid(data, LABELS, 0.4)
    assert tree(data) == wanted


def test_hidden_and_other_files_are_ignored(data: Path):
    for folder in ("train", "test"):
        for name in (".DS_Store", "._1.png", "Thumbs.db", "readme.txt"):
            (data / folder / name).write_bytes(b"no image")
    (data / "train" / "folder.png").mkdir()
    reorg_cifar10_data(data, 0.4)
    assert len(tree(data)) == 25 + 25 + 7


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


# ---- reorg_test


def test_test_images_go_to_the_class_unknown(data: Path):
    reorg_test(data)
    assert tree(data) == {f"test/unknown/{i}.png": f"test {i}".encode() for i in range(1, 8)}
    (data / "test/7.png").unlink()
    reorg_test(str(data))
    assert set(tree(data)) == {f"test/unknown/{i}.png" for i in range(1, 7)}
