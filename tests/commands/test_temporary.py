"""Temporary folders: one for each write, and none left of a killed process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.system import temporary
from common.system.files import atomic_write, write_text
from common.system.temporary import PREFIX, temporary_folder

ROOT = Path(__file__).parents[2]

WRITING = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from common.system.files import atomic_write

with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("half written", flush=True)
    time.sleep(100)
"""
Started = subprocess.Popen[str]


@pytest.fixture(autouse=True)
def nothing_swept(monkeypatch):
    """Each test is a new run."""
    monkeypatch.setattr(temporary, "_swept", set())


@pytest.fixture
def writer(tmp_path) -> Iterator[Started]:
    """Start a process that has written a half of ``tmp_path``/file.txt."""
    command = [sys.executable, "-c", WRITING, str(tmp_path / "file.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half written\n"
        yield process
        process.kill()


def left(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(PREFIX)]


def test_the_next_run_removes_what_a_killed_one_left(writer, tmp_path):
    writer.kill()
    writer.wait()
    assert len(left(tmp_path)) == 1
    write_text(tmp_path / "other.txt", "")
    assert os.listdir(tmp_path) == ["other.txt"]


def test_a_file_that_another_process_is_writing_is_kept(writer, tmp_path):
    write_text(tmp_path / "other.txt", "")
    ((folder,), inner) = left(tmp_path), "new/file.txt"
    assert (tmp_path / folder / inner).read_text() == "half"


def test_ctrl_c_leaves_nothing(writer, tmp_path):
    writer.send_signal(signal.SIGINT)
    writer.wait()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces of Linux")
def test_two_containers_with_the_same_process_ids_keep_each_other_s_files(writer, tmp_path):
    """The writer's id does not exist in the other namespace, as if the writer were dead."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a namespace")
    code = (
        "import os, sys; from pathlib import Path; from common.system.files import write_text; "
        "write_text(Path(sys.argv[1]), str(os.getpid()))"
    )
    other = tmp_path / "other.txt"
    subprocess.run([*apart, sys.executable, "-c", code, str(other)], cwd=ROOT, check=True)
    assert other.read_text() == "1"
    assert len(left(tmp_path)) == 1


def test_a_folder_that_was_not_locked_yet_is_removed_only_if_empty(tmp_path):
    (tmp_path / f"{PREFIX}empty").mkdir()
    (tmp_path / f"{PREFIX}mine").mkdir()
    (tmp_path / f"{PREFIX}mine" / "thesis.txt").touch()
    write_text(tmp_path / "other.txt", "")
    assert left(tmp_path) == [f"{PREFIX}mine"]


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, calls = temporary._lock, []

    def removed_first(handle: int, wait: bool = True) -> bool:
        if not calls:  # as if another process had locked it first
            for folder in tmp_path.iterdir():
                (folder / temporary.LOCK).unlink()
                folder.rmdir()
        calls.append(handle)
        return real(handle, wait)

    monkeypatch.setattr(temporary, "_lock", removed_first)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert len(calls) == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stage", ["sweeping", "at the end"])
def test_a_removal_that_is_killed_is_finished_by_the_next_run(stage, tmp_path, monkeypatch, writer):
    class Killed(BaseException):
        pass

    def killed_after_the_lock(folder: Path, ignore_errors: bool) -> None:
        if not (folder / temporary.LOCK).exists():
            return real(folder, ignore_errors=ignore_errors)
        (folder / temporary.LOCK).unlink()
        raise Killed

    if stage == "sweeping":
        writer.kill()
        writer.wait()
    real = temporary.shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(temporary.shutil, "rmtree", killed_after_the_lock)
        with pytest.raises(Killed):
            write_text(tmp_path / "other.txt", "")
    temporary._swept.clear()
    if stage == "at the end":
        writer.kill()
        writer.wait()
    write_text(tmp_path / "other.txt", "")
    assert os.listdir(tmp_path) == ["other.txt"]


def test_without_locks_nothing_is_removed_and_writing_works(tmp_path, monkeypatch, writer):
    monkeypatch.setattr(temporary, "_lock", lambda handle, wait=True: False)
    writer.kill()
    writer.wait()
    write_text(tmp_path / "other.txt", "text")
    assert (tmp_path / "other.txt").read_text() == "text"
    assert len(left(tmp_path)) == 1


def test_links_and_files_with_such_a_name_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    (outside / "new").mkdir(parents=True)
    (outside / temporary.LOCK).touch()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / f"{PREFIX}link").symlink_to(outside)
    (inside / f"{PREFIX}file").touch()
    write_text(inside / "other.txt", "")
    assert outside.is_dir()
    assert (inside / f"{PREFIX}file").exists()


def test_the_longest_file_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".txt")
    with atomic_write(path) as own:
        own.write_text("text")
        assert own.name == path.name
    assert path.read_text() == "text"


def test_a_folder_is_listed_once_per_process(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(temporary, "_remove_left", listed.append)
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_text(Path(name), "")
    assert listed == [Path()]
