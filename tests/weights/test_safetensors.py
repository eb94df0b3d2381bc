"""Safetensors files: files that are read, and files that are refused."""

import json
import struct

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

from common.errors import UserError
from common.weights.canonical import initial_weights
from common.weights.safetensors import load_weights, save_weights, write_arrays


def test_weights_and_metadata_are_read_back(tmp_path):
    weights = initial_weights(3, in_channels=1, seed=9, num_channels=8)
    path = tmp_path / "new folder" / "weights.safetensors"
    save_weights(path, weights, {"classes": "a,b,c"})
    loaded, metadata = load_weights(path)
    assert list(loaded) == list(weights)
    assert all((loaded[name] == weights[name]).all() for name in weights)
    assert metadata == {"classes": "a,b,c"}
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_a_file_is_as_the_library_writes_it(tmp_path):
    arrays = {
        "b": np.arange(6, dtype=np.float32).reshape(3, 2),
        "a": np.array([True]),
        "d": np.arange(3, dtype=np.int16),
    }
    path = tmp_path / "x.safetensors"
    write_arrays(path, arrays | {"b": arrays["b"].copy(order="F")}, {"classes": "Schönes Bild, 图"})
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert metadata["classes"] == "Schönes Bild, 图"
    own, theirs = (
        (json.loads(content[8 : 8 + size]), content[8 + size :])
        for content in (path.read_bytes(), save(arrays, metadata))
        for size in [int.from_bytes(content[:8], "little")]
    )
    assert own == theirs


def test_files_that_are_not_weights_are_refused_in_one_line(tmp_path):
    weights = initial_weights(3, num_channels=8)
    cases = {
        "missing": None,
        "damaged": b"not a safetensors file",
        "foreign": {"layer.weight": np.ones((2, 2), np.float32)},
        "short": {name: w for name, w in weights.items() if name != "bn.bias"},
        "misshapen": weights | {"bn.bias": np.ones(9, np.float32)},
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            save_file(content, path)
        with pytest.raises(UserError, match=name) as error:
            load_weights(path)
        assert "\n" not in str(error.value)


def test_another_network_is_refused_before_its_values_are_read(tmp_path, monkeypatch):
    path = tmp_path / "other.safetensors"
    save_file(initial_weights(3, num_channels=8) | {"more": np.ones(1, np.float32)}, path)

    def read(*arguments):
        raise AssertionError("values were read")

    monkeypatch.setattr("common.weights.safetensors.check_weights", read)
    with pytest.raises(UserError, match="more is not expected"):
        load_weights(path)


def test_bfloat16_is_widened_to_float32_and_other_types_are_refused(tmp_path):
    weights = {
        name: w.view(np.uint32) >> 16 for name, w in initial_weights(3, num_channels=8).items()
    }
    header, values = {}, b""
    for name, upper in weights.items():
        half = upper.astype("<u2").tobytes()
        place = [len(values), len(values) + len(half)]
        header[name] = {"dtype": "BF16", "shape": upper.shape, "data_offsets": place}
        values += half
    path = tmp_path / "half.safetensors"

    def write():
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + values)

    write()
    loaded, _ = load_weights(path)
    assert all(
        (loaded[name].view(np.uint32) == upper << 16).all() for name, upper in weights.items()
    )
    header["fc.bias"] |= {"dtype": "F8_E4M3", "shape": [6]}
    write()
    with pytest.raises(UserError, match=r"fc\.bias has the dtype F8_E4M3: save it as F32"):
        load_weights(path)


def test_a_full_disk_leaves_no_incomplete_file(tmp_path, monkeypatch):
    def full(descriptor):  # a file system may notice only when the data leaves its cache
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        save_weights(tmp_path / "weights.safetensors", initial_weights(3, num_channels=8), {})
    assert list(tmp_path.iterdir()) == []


def safetensors(header: dict | bytes, values: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + values


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": ENTRY}, bytes(8), length=2**63),
        safetensors({"a": ENTRY}, bytes(8), length=2**40),
        safetensors({"a": ENTRY}),
        safetensors({"a": ENTRY}, bytes(800)),
        safetensors({"a": ENTRY | {"shape": [2**40]}}, bytes(8)),
        safetensors({"a": ENTRY | {"shape": [2**62, 2**62]}}, bytes(8)),
        safetensors({"a": ENTRY | {"shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(8)),
        safetensors({"a": ENTRY | {"data_offsets": [8, 0]}}, bytes(8)),
        safetensors({"a": ENTRY, "b": ENTRY}, bytes(8)),
        safetensors({"a": ENTRY | {"dtype": "BF16", "shape": [4]}}, bytes(8)),
        safetensors(b"\xff" * 20),
        safetensors(b"[" * 5000),
    ],
)
def test_a_safetensors_file_with_a_false_header_is_refused(tmp_path, content):
    path = tmp_path / "lying.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"lying\.safetensors") as error:
        load_weights(path)
    assert "\n" not in str(error.value)
