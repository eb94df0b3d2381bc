"""Zip files: unpacked as streams, within a limit of size; damaged and unusual ones raise only a UserError."""

import io
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.datasets import archives
from common.datasets.archives import unpack_zip
from common.errors import UserError

FILES = {"tiny/train/1.png": b"one" * 50, "tiny/labels.csv": b"id,label\n" * 20, "tiny/\u00e9": b""}
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def zipped(method: int = zipfile.ZIP_DEFLATED, files: dict[str, bytes] = FILES) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("method", METHODS)
def test_every_compression_is_unpacked(tmp_path, method):
    (tmp_path / "a.zip").write_bytes(zipped(method))
    unpack_zip(tmp_path / "a.zip", tmp_path / "out" / "tiny")
    assert tree(tmp_path / "out") == FILES


def test_a_zip_that_unpacks_to_more_than_the_limit_is_refused_before_anything_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(archives, "MAX_UNPACKED", 100_000)
    (tmp_path / "a.zip").write_bytes(zipped(files={"1": bytes(60_000), "2": bytes(60_000)}))
    assert (tmp_path / "a.zip").stat().st_size < 1000
    with pytest.raises(UserError, match="would unpack to 120,000 bytes, more than 100,000"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_that_is_larger_than_it_says_is_refused(tmp_path):
    content = zipped(files={"1": bytes(60_000)})
    said = (60_000).to_bytes(4, "little")
    assert content.count(said) == 2  # before the member and in the index
    (tmp_path / "a.zip").write_bytes(content.replace(said, (1000).to_bytes(4, "little")))
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_large_member_is_neither_unpacked_nor_checked_in_memory(tmp_path):
    pytest.importorskip("resource")
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("zeros", "w") as member,
    ):
        for _ in range(100):
            member.write(bytes(1 << 20))
    script = (
        "import resource, sys; from pathlib import Path; "
        "from common.datasets.archives import unpack_zip; "
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak(); "
        "[unpack_zip(Path(sys.argv[1]), Path(sys.argv[2])) for _ in range(2)]; "
        "print(peak() - before)"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "a.zip"), str(tmp_path / "out")]
    printed = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert int(printed) < 30 * 1024  # KiB, for a member of 100 MiB
    assert (tmp_path / "out" / "zeros").stat().st_size == 100 << 20


@pytest.mark.parametrize("name", ["a" * 300, "b/" * 3000 + "x", "c\x1b[31m\n"])
def test_an_impossible_name_raises_only_a_user_error(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(zipped(files={name: b"1", name + "/below": b"2"}))
    with pytest.raises(UserError):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
@given(
    method=st.sampled_from(METHODS),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_a_damaged_zip_raises_only_a_user_error_and_writes_no_other_values(
    tmp_path_factory, method, flips
):
    folder = tmp_path_factory.mktemp("zip")
    content = bytearray(zipped(method))
    for place, bits in flips:
        content[place % len(content)] ^= bits
    (folder / "a.zip").write_bytes(content)
    with suppress(UserError):
        unpack_zip(folder / "a.zip", folder / "out" / "tiny")
    # A damaged name can pass, but not a damaged content.
    found = tree(folder / "out") if (folder / "out").exists() else {}
    assert set(found.values()) <= set(FILES.values())
    assert {path.name for path in folder.iterdir()} <= {"a.zip", "out"}
