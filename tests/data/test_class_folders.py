"""Sorting files into class folders: links, copies, and the user's own files."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from small_competition import CLASSES, LABELS, ids, make_competition, refused, tree, write_csv

from common.datasets import class_folders
from common.datasets.kaggle import load_split, reorg_cifar10_data, reorg_test
from common.errors import UserNotice


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_competition(tmp_path)


# ---- The user's own files


def test_images_of_the_user_among_the_sorted_ones_are_set_aside_and_never_lost(data: Path):
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    sorted_files = data / "train_valid_test"
    for name in ("train/cat/mine.png", "train/cat/._1.png", "valid/fox/mine.jpg"):
        (sorted_files / name).parent.mkdir(exist_ok=True)
        (sorted_files / name).write_bytes(b"mine")
    with pytest.warns(UserNotice) as said:
        placed = reorg_cifar10_data(data, 0.4).placed
    assert placed == "32 in place already, 25 hard links", "train/ and valid/ are sorted again"
    assert [str(warning.message) for warning in said] == [
        f"moved to {sorted_files / 'set_aside'}, because they may be your only copies: "
        "train/cat/._1.png, train/cat/mine.png, valid/fox/mine.jpg (3 in all)"
    ]
    aside = {f"set_aside/train/cat/{name}": b"mine" for name in ("mine.png", "._1.png")}
    assert tree(data) == wanted | aside | {"set_aside/valid/fox/mine.jpg": b"mine"}
    assert not (sorted_files / "valid/fox").exists()


def test_files_of_the_same_name_that_are_set_aside_are_all_kept(data: Path):
    path = data / "train_valid_test/train/cat/mine.png"
    for content in (b"first", b"second", b"third"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with pytest.warns(UserNotice, match="moved to"):
            reorg_cifar10_data(data, 0.4)
    aside = sorted((data / "train_valid_test/set_aside/train/cat").iterdir())
    assert [file.name for file in aside] == ["mine-2.png", "mine-3.png", "mine.png"]
    assert [file.read_bytes() for file in aside] == [b"second", b"third", b"first"]


def test_the_last_copy_of_a_removed_original_is_kept(data: Path):
    reorg_cifar10_data(data, 0.4)
    content = (data / "train/25.png").read_bytes()
    (data / "train/25.png").unlink()
    write_csv(data, {name: label for name, label in LABELS.items() if name != "25"})
    with pytest.warns(UserNotice, match=r"moved to .*25.png \(1 in all\)"):
        reorg_cifar10_data(data, 0.4)
    assert [path for path in tree(data) if "25" in path] == ["set_aside/train/cat/25.png"]
    assert tree(data)["set_aside/train/cat/25.png"] == content


@pytest.mark.parametrize("name", ["train/cat/masks/14.png", "train/fox/1.png", "valid/14.png"])
def test_a_user_s_file_with_the_name_of_an_original_is_set_aside(data: Path, name: str):
    reorg_cifar10_data(data, 0.4)
    path = data / "train_valid_test" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    path.with_suffix(".txt").hardlink_to(path)  # both would be removed
    with pytest.warns(UserNotice, match=r"moved to .* \(1 in all\)"):
        reorg_cifar10_data(data, 0.7)
    aside = [path for path in tree(data) if path.startswith("set_aside/")]
    assert [tree(data)[path] for path in aside] == [b"mine"]
    assert len(tree(data)) == 58


def test_a_second_name_for_the_bytes_of_a_replaced_original_is_set_aside(data: Path):
    """A second name for the bytes of an original that was replaced."""
    reorg_cifar10_data(data, 0.4)
    folder = data / "train_valid_test/train/cat"
    (folder / "kept.png").hardlink_to(folder / "7.png")
    (data / "train/7.png").unlink()
    (data / "train/7.png").write_bytes(b"another image")
    with pytest.warns(UserNotice, match=r"train/cat/kept.png \(1 in all\)"):
        reorg_cifar10_data(data, 0.7)
    assert tree(data)["set_aside/train/cat/kept.png"] == b"train 7"


def test_copies_of_an_image_whose_label_changed_are_not_set_aside(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    refuse_with(monkeypatch, errno.EPERM, "link", "symlink")
    reorg_cifar10_data(data, 0.4)
    write_csv(data, {name: label.replace("eel", "fox") for name, label in LABELS.items()})
    reorg_cifar10_data(data, 0.4)
    assert {name.split("/")[1] for name in tree(data)} == {"cat", "dog", "fox", "unknown"}


def test_links_to_other_images_are_removed_and_their_targets_are_kept(data: Path):
    (data / "mine.png").write_bytes(b"mine")
    folder = data / "train_valid_test/train/cat"
    folder.mkdir(parents=True)
    (folder / "soft.png").symlink_to(data / "mine.png")
    (folder / "hard.png").hardlink_to(data / "mine.png")
    (folder / "circle.png").symlink_to("circle.png")
    reorg_cifar10_data(data, 0.4)
    assert len(tree(data)) == 57
    assert (data / "mine.png").read_bytes() == b"mine"


def test_files_that_are_not_images_stay_until_their_split_is_sorted_again(data: Path):
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
@pytest.mark.parametrize("target", ["train", "nowhere"])
def test_links_in_the_place_of_folders_are_refused(data: Path, split: str, target: str):
    """They may point to the originals; a broken link may point to a disk that is not mounted."""
    link = data / "train_valid_test" / split
    link.parent.mkdir(parents=True)
    link.symlink_to(data / target)
    sort = reorg_test if split.startswith("test") else reorg_cifar10_data
    arguments = [data] if sort is reorg_test else [data, 0.4]
    said = refused(sort, *arguments)
    assert f"in the place of folders, {link} (1 in all): remove the links" in said
    assert len(list((data / "train").iterdir())) == 25
    assert list(link.parent.rglob("*")) == [link]


@pytest.mark.parametrize("target", [".", "train", "train/deep"])
def test_a_link_from_the_sorted_files_into_the_originals_is_refused(data: Path, target: str):
    (data / "train/deep").mkdir()
    (data / "train/deep/mine.png").write_bytes(b"mine")
    (data / "train_valid_test").symlink_to(target)
    with pytest.warns(UserNotice, match="ignored"):
        assert "contain each other" in refused(reorg_cifar10_data, data, 0.4)
    assert len(list((data / "train").rglob("*"))) == 27
    assert len(list((data / "test").rglob("*"))) == 7


def test_originals_inside_the_sorted_files_are_refused(data: Path):
    (data / "train_valid_test/train").mkdir(parents=True)
    (data / "train").rename(data / "train_valid_test/train/all")
    (data / "train").symlink_to("train_valid_test/train/all")
    assert "contain each other" in refused(reorg_cifar10_data, data, 0.4)
    assert len(list((data / "train").iterdir())) == 25


def test_the_sorted_files_may_be_on_another_disk(
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


def test_a_file_in_the_place_of_the_sorted_files_is_reported(data: Path):
    (data / "train_valid_test").write_bytes(b"mine")
    assert f"cannot write {data / 'train_valid_test'}" in refused(reorg_cifar10_data, data, 0.4)
    assert (data / "train_valid_test").read_bytes() == b"mine"


def test_a_folder_in_the_place_of_an_image_is_removed(data: Path):
    (data / "train_valid_test/valid/cat/1.png").mkdir(parents=True)
    reorg_cifar10_data(data, 0.4)
    assert tree(data)["valid/cat/1.png"] == b"train 1"


# ---- Links and copies


def refuse_with(monkeypatch: pytest.MonkeyPatch, code: int, *names: str) -> list[str]:
    """Make these functions fail with an error code; return a list that records the calls."""
    tried: list[str] = []
    for name in names:

        def refuse(*_: object, name: str = name, **__: object) -> None:
            tried.append(name)
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, name, refuse)
    return tried


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_symbolic_links_are_used_if_hard_links_fail(
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


def test_copies_are_used_if_all_links_fail(data: Path, monkeypatch: pytest.MonkeyPatch):
    reorg_cifar10_data(data, 0.4)
    wanted = tree(data)
    shutil.rmtree(data / "train_valid_test")
    refuse_with(monkeypatch, errno.EPERM, "link", "symlink")
    assert reorg_cifar10_data(data, 0.4).placed == "57 copies"
    assert tree(data) == wanted
    assert not (data / "train_valid_test/valid/cat/1.png").samefile(data / "train/1.png")
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"


def test_a_full_disk_is_an_error_and_copies_are_not_tried(
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


def test_an_original_that_disappears_is_reported_and_nothing_links_to_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    real = os.link

    def late(source: str, target: str) -> None:
        (data / "train/1.png").unlink(missing_ok=True)
        real(source, target)

    monkeypatch.setattr(os, "link", late)
    assert f"{data / 'train/1.png'} disappeared" in refused(reorg_cifar10_data, data, 0.4)
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
    fcntl.flock(handle, fcntl.LOCK_SH)  # a shared lock: the child must ask for an exclusive one
    child = sorting(data, 0.79)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(3)
    assert tree(data) == before
    os.close(handle)
    assert child.communicate() == (None, b"")
    assert len(ids(data, "valid")) == 9


def test_files_are_sorted_on_a_file_system_without_locks(
    data: Path, monkeypatch: pytest.MonkeyPatch
):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert reorg_cifar10_data(data, 0.4).placed == "57 hard links"


@pytest.mark.parametrize("changed", ["train/1.png", "train_valid_test/valid/cat/1.png"])
@pytest.mark.parametrize("keep_time", [False, True])
def test_a_copy_is_replaced_if_it_or_its_original_changed(
    data: Path, monkeypatch: pytest.MonkeyPatch, changed: str, keep_time: bool
):
    """Also with the same size and time as before."""
    refuse_with(monkeypatch, errno.EPERM, "link", "symlink")
    reorg_cifar10_data(data, 0.4)
    assert reorg_cifar10_data(data, 0.4).placed == "57 in place already"
    path = data / changed
    time = path.stat().st_mtime_ns if keep_time else 1
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(time, time))
    reorg_cifar10_data(data, 0.4)
    assert tree(data)["valid/cat/1.png"] == (data / "train/1.png").read_bytes()
    assert len(tree(data)) == 57


def test_an_interrupted_copy_is_removed(data: Path, monkeypatch: pytest.MonkeyPatch):
    def half(_: object, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    refuse_with(monkeypatch, errno.EPERM, "link", "symlink")
    monkeypatch.setattr(shutil, "copy2", half)
    with pytest.raises(KeyboardInterrupt):
        reorg_cifar10_data(data, 0.4)
    assert tree(data) == {}


def test_the_progress_bar_counts_every_file(data: Path, monkeypatch: pytest.MonkeyPatch):
    moved: dict[str, list[int]] = {}

    @contextmanager
    def counting(title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        moved[title] = [total]
        yield moved[title].append

    monkeypatch.setattr(class_folders, "progress_bar", counting)
    for _ in range(2):
        reorg_cifar10_data(data, 0.4)
        assert [title.rpartition("/")[2] for title in moved] == ["train", "test"]
        assert [numbers[0] for numbers in moved.values()] == [50, 7]
        assert [sum(numbers[1:]) for numbers in moved.values()] == [50, 7]


def test_a_new_original_replaces_the_old_one(data: Path):
    reorg_cifar10_data(data, 0.4)
    (data / "train/1.png").unlink()
    (data / "train/1.png").write_bytes(b"another image")
    reorg_cifar10_data(data, 0.4)
    assert tree(data)["valid/cat/1.png"] == b"another image"
