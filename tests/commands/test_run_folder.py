"""Files are written atomically, and a run folder holds one run."""

import errno
import json
import os
from pathlib import Path

import pytest

from common.commands import run_folder
from common.commands.run_folder import RunFolder, check_output
from common.errors import UserError
from common.system.files import atomic_write, write_text


def test_an_atomic_write_renames_the_complete_file(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.suffix == ".txt"
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_two_processes_never_write_the_same_temporary_file(tmp_path):
    """Not even with the same process id, as in two containers."""
    with atomic_write(tmp_path / "file.txt") as mine:
        with atomic_write(tmp_path / "file.txt") as theirs:
            theirs.write_text("theirs")
        mine.write_text("mine")
    assert mine != theirs


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "choose another"),
        (errno.EROFS, "choose another"),
    ],
)
def test_an_error_of_the_file_system_becomes_one_line(tmp_path, code, words):
    path = tmp_path / "file.txt"

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            raise OSError(code, os.strerror(code))

    with pytest.raises(UserError, match=words) as error:
        fail()
    assert str(path) in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another folder"):
        write_text(tmp_path / "file" / "below.txt", "")
    with pytest.raises(UserError, match="choose another"):
        RunFolder(tmp_path / "file", "")


def test_metrics_are_one_json_line_per_epoch_and_always_complete(tmp_path):
    folder = RunFolder(tmp_path / "run", "")
    for epoch in (1, 2, 3):
        folder.add_metrics({"epoch": epoch, "train_loss": 0.5})
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, epoch + 1))


def test_a_non_empty_folder_is_refused_and_an_empty_one_is_used(tmp_path):
    RunFolder(tmp_path, "").write_json("config.json", {})
    with pytest.raises(UserError, match="not empty"):
        RunFolder(tmp_path, "")
    with pytest.raises(UserError, match="not empty"):
        check_output(tmp_path)


def test_checking_an_output_creates_nothing(tmp_path):
    check_output(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="choose another"):
            check_output(path)


def test_new_folders_never_collide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "20260101-120000")
    names = [str(RunFolder(None, "pytorch-train").path) for _ in range(3)]
    first = str(Path("runs") / "20260101-120000-pytorch-train")
    assert names == [first, f"{first}-2", f"{first}-3"]


def test_a_new_folder_that_stays_empty_is_removed_after_the_block(tmp_path):
    def fail(path: Path, write: bool) -> None:
        with RunFolder(path, "") as folder:
            if write:
                folder.write_json("config.json", {})
            raise BrokenPipeError

    (tmp_path / "mine").mkdir()
    for name, write in (("empty", False), ("written", True), ("mine", False)):
        with pytest.raises(BrokenPipeError):
            fail(tmp_path / name, write)
    assert sorted(os.listdir(tmp_path)) == ["mine", "written"]
