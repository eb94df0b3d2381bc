"""Keras' weights files: references outside the file and false sizes are refused."""

import struct
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError


@pytest.fixture(scope="module")
def written(loaded, weights, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("keras") / "net.weights.h5"
    loaded["tensorflow"].weights.save_file(path, weights)
    return path.read_bytes()


def spoil_h5(path: Path, how: str, elsewhere: Path) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        group, kernel = file["layers/dense/vars"], file["layers/dense/vars/0"][()]
        del group["0"]
        if how == "external link":
            with h5py.File(elsewhere, "w") as other:
                other["kernel"] = kernel
            group["0"] = h5py.ExternalLink(elsewhere, "/kernel")
        elif how == "soft link":
            file["kernel"] = kernel
            group["0"] = h5py.SoftLink("/kernel")
        elif how == "external storage":
            elsewhere.write_bytes(kernel.tobytes())
            places = [(elsewhere, 0, kernel.nbytes)]
            group.create_dataset("0", kernel.shape, kernel.dtype, external=places)
        elif how == "virtual":
            with h5py.File(elsewhere, "w") as other:
                source = h5py.VirtualSource(other.create_dataset("kernel", data=kernel))
            layout = h5py.VirtualLayout(kernel.shape, kernel.dtype)
            layout[:] = source
            group.create_virtual_dataset("0", layout)
        elif how == "absurd shape":
            group.create_dataset("0", (512, 2**50), np.float32)
        elif how == "absurd shape in chunks":
            group.create_dataset("0", (512, 2**50), np.float32, chunks=(1, 1024))
        elif how == "compressed":
            group.create_dataset("0", data=kernel, compression="gzip")
        elif how == "text":
            group["0"] = "no numbers"
        elif how == "objects":
            group.create_dataset("0", (3,), h5py.vlen_dtype(np.float32))
        elif how == "circle":
            group["0"] = kernel
            group["again"] = file["layers"]
        elif how == "twice":
            group["0"] = kernel
            group["2"] = group["0"]
        elif how == "deep":
            file.create_group("a/" * 40)
        elif how == "type":
            group["0"] = np.dtype("f4")
        elif how == "mistaken":
            group["0"] = kernel
            file["fc.bias"] = np.ones(3, np.float32)
        elif how == "metadata":
            group["0"] = kernel
            file.attrs["metadata"] = [1, 2]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("external link", "link to another place"),
        ("soft link", "link to another place"),
        ("external storage", "in another file"),
        ("virtual", "in another file"),
        ("absurd shape", "more values than the file has"),
        ("absurd shape in chunks", "more values than the file has"),
        ("compressed", "compressed"),
        ("text", "no numbers"),
        ("objects", "no numbers"),
        ("circle", "is there twice"),
        ("twice", "is there twice"),
        ("deep", "deeper than"),
        ("type", "neither a group nor an array"),
        ("mistaken", r"fc\.bias and layers/dense/vars/1, which are both fc\.bias"),
        ("metadata", "damaged"),
    ],
)
def test_an_h5_file_with_outside_references_or_false_sizes_is_refused(
    loaded, written, tmp_path, how, why
):
    path, elsewhere = tmp_path / "odd.weights.h5", tmp_path / "elsewhere"
    path.write_bytes(written)
    spoil_h5(path, how, elsewhere)
    for read in (loaded["tensorflow"].weights.load_file, loaded["tensorflow"].weights.load_net):
        with pytest.raises(UserError, match=why) as error:
            read(path)
        assert "odd.weights.h5" in str(error.value)
        assert "\n" not in str(error.value)


def test_arrays_of_an_h5_file_that_share_their_values_are_refused(loaded, tmp_path):
    import h5py

    path, values = tmp_path / "shared.weights.h5", np.ones(10_000, np.float32)
    with h5py.File(path, "w") as file:
        file["first"] = values
        for i in range(50):
            file.create_dataset(f"other{i}", values.shape, values.dtype)  # without storage
        file.flush()
        place = struct.pack("<Q", file["first"].id.get_offset())
    size = struct.pack("<Q", values.nbytes)
    content = path.read_bytes()
    assert content.count(b"\xff" * 8 + size) == 50
    path.write_bytes(content.replace(b"\xff" * 8 + size, place + size))
    with h5py.File(path) as file:
        assert all((file[f"other{i}"][()] == values).all() for i in range(50))
    with pytest.raises(UserError, match="claims more values than the file has"):
        loaded["tensorflow"].weights.load_file(path)
