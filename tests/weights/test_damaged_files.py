"""One flipped bit in a weights file is found by a checksum, wherever it is; a result is never read from such a file."""

import importlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import load_or_skip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from common.errors import UserError
from common.weights.canonical import Weights, initial_weights
from common.weights.digest import DIGEST, with_digest
from common.weights.files import read_stored
from common.weights.keras import NAMES, add_metadata, to_keras
from common.weights.safetensors import load_weights, save_weights

METADATA = {"classes": '["ant", "bee", "cow"]', "image_size": "16"}


def save_h5(path: Path, weights: Weights) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, weight in weights.items():
            file[NAMES[name]] = to_keras(weight)
    add_metadata(path, with_digest(weights, METADATA))


def save_pt(path: Path, weights: Weights) -> None:
    load_or_skip("pytorch").weights.save_file(path, weights)


SAVE: dict[str, Callable[[Path, Weights], None]] = {
    ".safetensors": lambda path, weights: save_weights(path, weights, METADATA),
    ".weights.h5": save_h5,
    ".pt": save_pt,
}


@pytest.fixture(scope="module", params=SAVE)
def saved(request, tmp_path_factory) -> tuple[Path, Weights]:
    """A file of a narrow network, and its weights."""
    weights = initial_weights(3, num_channels=2)
    path = tmp_path_factory.mktemp("saved") / f"net{request.param}"
    SAVE[request.param](path, weights)
    return path, weights


def read(path: Path):
    backends = {"pytorch": load_or_skip("pytorch")} if path.suffix == ".pt" else {}
    return read_stored(path, backends)


def test_an_undamaged_file_is_read_with_its_metadata(saved):
    path, weights = saved
    stored = read(path)
    assert all(np.array_equal(stored.weights[name], weights[name]) for name in weights)
    assert stored.metadata == ({} if path.suffix == ".pt" else METADATA)


def test_one_flipped_bit_in_a_value_is_found(saved, tmp_path):
    path, weights = saved
    content = bytearray(path.read_bytes())
    values = weights["fc.weight"]
    layout = to_keras(values) if path.suffix == ".h5" else values
    place = content.index(np.ascontiguousarray(layout).tobytes())
    content[place] ^= 1  # the last bit of a float32
    damaged = tmp_path / path.name
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged, or .* checksum"):
        read(damaged)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)
@given(share=st.floats(0, 1, exclude_max=True), end=st.booleans(), bit=st.integers(0, 7))
def test_a_file_with_a_flipped_bit_gives_the_same_weights_or_an_error(
    saved, tmp_path, share, end, bit
):
    path, weights = saved
    content = bytearray(path.read_bytes())
    near_the_end = len(content) - 1 - int(share * 9000)  # where a zip has its index
    content[near_the_end if end else int(share * len(content))] ^= 1 << bit
    damaged = tmp_path / path.name
    damaged.write_bytes(content)
    try:
        stored = read(damaged)
    except UserError:
        return
    for name, weight in weights.items():
        np.testing.assert_array_equal(stored.weights[name], weight)
    assert stored.metadata in ({}, METADATA)


def test_flipped_metadata_are_found(tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, initial_weights(3, num_channels=2), METADATA)
    path.write_bytes(path.read_bytes().replace(b"bee", b"bed"))
    with pytest.raises(UserError, match="does not match its checksum"):
        load_weights(path)


@pytest.mark.parametrize("bit", range(7))
def test_a_checksum_with_a_damaged_name_is_found_and_one_of_another_program_is_kept(tmp_path, bit):
    path = tmp_path / "net.safetensors"
    save_weights(path, initial_weights(3, num_channels=2), METADATA)
    content = bytearray(path.read_bytes())
    content[content.index(DIGEST.encode())] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged, or|not a safetensors file"):
        load_weights(path)
    foreign = {"model_hash": "0" * 64}
    save_file(initial_weights(3, num_channels=2), path, foreign)
    assert load_weights(path)[1] == foreign


def test_files_of_other_programs_have_no_checksum_and_are_read(tmp_path):
    weights = initial_weights(3, num_channels=2)
    save_file(weights, tmp_path / "net.safetensors", {"format": "pt"})
    read_back, metadata = load_weights(tmp_path / "net.safetensors")
    assert metadata == {"format": "pt"}
    assert np.array_equal(read_back["fc.weight"], weights["fc.weight"])


def test_the_message_names_the_entry_to_remove_after_a_change_on_purpose(tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(path, initial_weights(3, num_channels=2), METADATA)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    changed = initial_weights(3, num_channels=2, seed=1)
    save_file(changed, path, metadata)
    with pytest.raises(UserError, match=f"remove {DIGEST} from the metadata"):
        load_weights(path)
    del metadata[DIGEST]
    save_file(changed, path, metadata)
    assert load_weights(path)[1] == METADATA


def test_a_record_that_pytorch_would_take_for_a_folder_is_refused(tmp_path):
    """PyTorch reads nothing of it. Memory that still has the values from before would pass the checksum."""
    backend = load_or_skip("pytorch")
    path = tmp_path / "net.pt"
    backend.weights.save_file(path, initial_weights(3, num_channels=2))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("data/0"))
        values = archive.read(entry)
    content[content.rindex(entry.filename.encode()) - 46 + 38] ^= 0x10  # its attributes
    path.write_bytes(content)
    # Only data/0 is looked at, with memory that has the right values.
    state_dict = importlib.import_module("backends.pytorch._state_dict")
    reader = SimpleNamespace(get_all_records=lambda: ["data/0"], get_record=lambda _: values)
    with pytest.raises(UserError, match="is damaged"):
        state_dict._check_records(path, reader)


def test_an_archive_in_which_pytorch_and_zipfile_find_different_values_is_refused(tmp_path):
    backend = load_or_skip("pytorch")
    path = tmp_path / "net.pt"
    backend.weights.save_file(path, initial_weights(3, num_channels=2))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("data/0"))
    # The checksum in the index is the one that counts.
    place = content.rindex(entry.filename.encode()) - 46
    assert struct.unpack("<I", content[place + 16 : place + 20])[0] == entry.CRC
    content[place + 16] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        backend.weights.load_file(path)
