"""Damaged, inconsistent and malicious files of every format are refused in one line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from common.errors import UserError
from common.weights import files as weight_files
from common.weights.files import read_stored, write_weights
from common.weights.keras import add_metadata

SUFFIXES = [".safetensors", ".params", ".weights.h5", ".pt", ".pth"]
METADATA = {"data": "shapes"}


def refused(path: Path, backends: dict) -> str:
    """Read a file that must be refused in one line with its name, and return the line."""
    with pytest.raises(UserError) as error:
        read_stored(path, backends)
    line = str(error.value)
    assert path.name in line
    assert "\n" not in line
    return line


@pytest.fixture(scope="module")
def contents(loaded, weights, tmp_path_factory) -> dict[str, bytes]:
    """The bytes of a file in each format."""
    folder = tmp_path_factory.mktemp("contents")
    paths = {suffix: folder / f"net{suffix}" for suffix in SUFFIXES}
    for path in paths.values():
        write_weights(path, weights, METADATA, loaded)
    return {suffix: path.read_bytes() for suffix, path in paths.items()}


class Touches:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("how", ["pickle", "archive"])
def test_no_code_in_a_file_is_executed(loaded, weights, tmp_path, suffix, how):
    import torch

    path, touched = tmp_path / f"evil{suffix}", tmp_path / "touched"
    state = {name: torch.from_numpy(w) for name, w in weights.items()} | {"x": Touches(touched)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path)
    refused(path, loaded)
    assert not touched.exists()
    # Check the test itself: loading the pickle creates the file.
    if how == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path.rename(tmp_path / "evil"), weights_only=False)
    assert touched.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_with_other_content_or_a_truncated_file_is_refused(
    loaded, contents, tmp_path, suffix
):
    path, whole = tmp_path / f"suspect{suffix}", contents[suffix]
    another = contents[SUFFIXES[(SUFFIXES.index(suffix) + 2) % len(SUFFIXES)]]
    cut = [whole[: int(len(whole) * share)] for share in (0.0001, 0.3, 0.9999)]
    for content in (b"", b"a text file\n" * 50, bytes(5000), another, *cut):
        path.write_bytes(content)
        refused(path, loaded)


def test_a_file_that_is_larger_than_memory_is_refused(tmp_path, monkeypatch):
    def load(path: Path) -> None:
        raise MemoryError

    monkeypatch.setitem(weight_files.READERS, ".params", load)
    assert "does not fit into memory" in refused(tmp_path / "huge.params", {})


def test_many_names_on_one_storage_are_counted_before_their_values_are_read(
    loaded, tmp_path, monkeypatch
):
    import h5py
    import torch

    one = torch.ones(1000, dtype=torch.float16)
    torch.save({"fc.bias": one, **{f"{i}": one for i in range(1000)}}, tmp_path / "many.pt")
    monkeypatch.setattr("backends.pytorch.weights.values", None)
    with pytest.raises(UserError, match="only 1 of its 1,001 names are known"):
        loaded["pytorch"].weights.load_file(tmp_path / "many.pt")
    with h5py.File(tmp_path / "many.weights.h5", "w") as file:
        file["layers/dense/vars/1"] = np.ones(3, np.float32)
        file["more"] = np.ones(3, np.float32)
    monkeypatch.setattr("common.weights.keras.from_keras", None)
    with pytest.raises(UserError, match="more is not expected"):
        loaded["tensorflow"].weights.load_file(tmp_path / "many.weights.h5")


def write_small(path: Path) -> None:
    """Write two arrays in the format of the suffix."""
    values = {"fc.bias": np.ones(3, np.float32), "other": np.ones((2, 2), np.float32)}
    if path.suffix == ".pt":
        import torch

        torch.save({name: torch.from_numpy(value) for name, value in values.items()}, path)
    elif path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            for name, value in values.items():
                file[f"layers/{name}"] = value
        add_metadata(path, METADATA)
    else:
        save_file(values, path)


# Derandomized, because the libraries that read these files are not part of this project.
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)
@given(
    flips=st.lists(st.tuples(st.integers(0, 7000), st.integers(1, 255)), min_size=1, max_size=4),
    suffix=st.sampled_from([".pt", ".safetensors", ".weights.h5"]),
)
def test_flipped_bits_raise_only_a_user_error(loaded, tmp_path, flips, suffix):
    path = tmp_path / f"flipped{suffix}"
    write_small(path)
    content = bytearray(path.read_bytes())
    for place, bits in flips:
        content[place % len(content)] ^= bits
    path.write_bytes(content)
    with pytest.raises(UserError, match="flipped"):  # the network needs 108 arrays more
        read_stored(path, loaded)
