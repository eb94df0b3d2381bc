"""MXNet's `.params` files without MXNet: read and written byte for byte, and never trusted."""

import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import UserError
from common.weights.params import TYPES, V1, V2, V3, Arrays, read_params, write_params

DTYPES = [dtype.newbyteorder("=") for dtype in TYPES.values()]
VALUES = np.arange(6, dtype="<f4")
# All examples of a property use the same folder.
ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def file_of(*arrays: bytes, names: tuple[bytes, ...] = (b"a",)) -> bytes:
    listed = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    content = struct.pack("<QQQ", 0x112, 0, len(arrays)) + b"".join(arrays)
    return content + struct.pack("<Q", len(names)) + listed


def array(*sizes: int, magic: int = V2, storage: int = 0, axes: int | None = None, kind: int = 0,
          values: bytes = VALUES.tobytes()) -> bytes:  # fmt: skip
    head = struct.pack("<I", magic) + (b"" if magic == V1 else struct.pack("<i", storage))
    shape = struct.pack(f"<i{len(sizes)}q", len(sizes) if axes is None else axes, *sizes)
    return head + shape + struct.pack("<iii", 1, 0, kind) + values


OLDEST = struct.pack("<III", 2, 2, 3) + struct.pack("<iii", 1, 0, 0) + VALUES.tobytes()


def read(tmp_path: Path, content: bytes) -> Arrays:
    path = tmp_path / "file.params"
    path.write_bytes(content)
    return read_params(path)


@pytest.fixture(scope="module")
def mx():
    load_or_skip("mxnet")
    import mxnet

    return mxnet


def equal(found: Arrays, wanted: Arrays) -> bool:
    return list(found) == list(wanted) and all(
        found[name].dtype == array.dtype
        and found[name].shape == array.shape
        and found[name].tobytes() == array.tobytes()
        for name, array in wanted.items()
    )


# --- Writing and reading ---------------------------------------------------------------------------------------------


@ONE_FOLDER
@given(
    arrays=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=20),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_side=4))
        ),
        max_size=4,
    )
)
def test_arrays_are_read_back_bit_for_bit(tmp_path, arrays):
    path = tmp_path / "any.params"
    write_params(path, arrays)
    assert equal(read_params(path), arrays)


@pytest.mark.parametrize(
    "content", [array(2, 3), array(2, 3, magic=V1), array(2, 3, magic=V3), OLDEST]
)
def test_every_version_of_an_array_is_read(tmp_path, content):
    found = read(tmp_path, file_of(content, content, names=(b"a", "日".encode())))
    assert equal(found, {"a": VALUES.reshape(2, 3), "日": VALUES.reshape(2, 3)})


def test_scalars_and_empty_arrays_are_read_in_versions_that_have_them(tmp_path):
    content = file_of(
        array(magic=V3, values=VALUES[:1].tobytes()), array(0, 3, magic=V3, values=b""), names=(b"a", b"b")
    )  # fmt: skip
    assert equal(
        read(tmp_path, content), {"a": VALUES[0].reshape(()), "b": np.ones((0, 3), np.float32)}
    )


def test_arrays_of_any_memory_layout_are_written_in_c_order(tmp_path):
    path, turned = tmp_path / "turned.params", VALUES.reshape(2, 3).T
    write_params(path, {"a": turned, "b": VALUES.astype(">f4")})
    assert equal(read_params(path), {"a": np.ascontiguousarray(turned), "b": VALUES})


@pytest.mark.parametrize(
    "unfit", [np.ones(1, np.uint16), np.ones(1, "U3"), np.ones(()), np.ones((0, 2))]
)
def test_arrays_that_v2_cannot_hold_are_refused(tmp_path, unfit):
    with pytest.raises(ValueError, match="fc: "):
        write_params(tmp_path / "unfit.params", {"fc": unfit})
    assert not list(tmp_path.iterdir())


# --- MXNet itself ----------------------------------------------------------------------------------------------------


def test_files_are_byte_for_byte_those_of_mxnet(tmp_path, mx, rng):
    from mxnet.util import np_array, np_shape

    theirs, ours = tmp_path / "theirs.params", tmp_path / "ours.params"
    arrays = {str(d): (rng.random((2, 3, 1)) * 9).astype(d) for d in DTYPES}
    with np_array(False), np_shape(False):
        mx.nd.save(str(theirs), {n: mx.nd.array(a, dtype=a.dtype) for n, a in arrays.items()})
    write_params(ours, arrays)
    assert ours.read_bytes() == theirs.read_bytes()
    assert equal(read_params(theirs), arrays)
    arrays |= {
        "scalar": np.array(3, np.int64),
        "none": np.ones((2, 0), np.float32),
        "日本": np.ones(1),
    }
    mx.npx.save(str(theirs), {n: mx.np.array(a, dtype=a.dtype) for n, a in arrays.items()})
    assert equal(read_params(theirs), arrays)


@pytest.mark.parametrize("content", [array(2, 3, magic=V1), OLDEST])
def test_older_versions_are_read_as_mxnet_reads_them(tmp_path, mx, content):
    from mxnet.util import np_array, np_shape

    ours = read(tmp_path, file_of(content))
    with np_array(False), np_shape(False):
        theirs = mx.nd.load(str(tmp_path / "file.params"))
    assert equal({name: array.asnumpy() for name, array in theirs.items()}, ours)


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin"),
        (b"a text file, and no list of arrays", "does not begin"),
        (bytes(1000), "does not begin"),
        (struct.pack("<QQQ", 0x112, 0, 2**64 - 1), "ends early"),
        (struct.pack("<QQQ", 0x112, 0, 2**61) + bytes(100), "ends early"),
        (file_of(array(2**62, 3)), "impossible size"),
        (file_of(array(2**40)), "ends early"),
        (file_of(array(2**32, 2**32)), "impossible size"),
        (file_of(array(0, 2**40, 2**40, magic=V3, values=b"")), "impossible size"),
        (file_of(array(-2, -3)), "unknown shape"),
        (file_of(array(-1, magic=V3)), "unknown shape"),
        (file_of(array(axes=-1, magic=V3, values=b"")), "unknown shape"),
        (file_of(array(axes=2**31 - 1)), "unknown shape"),
        (file_of(struct.pack("<I", 33) + bytes(300)), "unknown shape"),
        (file_of(array(values=b"")), "without values"),
        (file_of(array(0, 3, values=b"")), "without values"),
        (file_of(array(2, 3, storage=1)), "sparse"),
        (file_of(array(2, 3, storage=-1)), "sparse"),
        (file_of(array(2, 3, kind=12)), "type 12"),
        (file_of(array(2, 3, kind=-1)), "type -1"),
        (file_of(array(2, 3), names=(b"\xff",)), "UTF-8"),
        (file_of(array(2, 3), names=(b"a", b"b")), "1 arrays and 2 names"),
        (file_of(array(2, 3), array(2, 3), names=(b"a", b"a")), "repeated name"),
        (file_of(array(2, 3), names=()), "without names"),
        (file_of(array(2, 3)) + b"more", "4 bytes follow"),
        (file_of(array(2, 3))[:-9] + struct.pack("<Q", 2**63), "ends early"),
    ],
)  # fmt: skip
def test_an_inconsistent_file_is_refused_in_one_line(tmp_path, content, why):
    with pytest.raises(UserError, match=why) as error:
        read(tmp_path, content)
    assert "file.params" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.params"):
        with pytest.raises(UserError, match="there is no weights file"):
            read_params(path)


def test_no_memory_is_allocated_for_missing_values(tmp_path, monkeypatch):
    def taken(*arguments):
        raise AssertionError("memory was taken")

    monkeypatch.setattr(np, "fromfile", taken)
    with pytest.raises(UserError, match="ends early"):
        read(tmp_path, file_of(array(2, 3), array(2**30), names=(b"a", b"b")))


WHOLE = file_of(
    array(2, 3), array(2, 3, magic=V3), array(2, 3, magic=V1), OLDEST, names=(b"a", b"bc", b"d", b"e")
)  # fmt: skip


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_a_truncated_file_is_refused(tmp_path, length):
    with pytest.raises(UserError, match=r"file\.params"):
        read(tmp_path, WHOLE[:length])


@ONE_FOLDER
@given(
    flips=st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(1, 255)), min_size=1, max_size=4
    )
)
@example(flips=[(16, 0xFF)])
def test_flipped_bits_raise_only_a_user_error(tmp_path, flips):
    content = bytearray(WHOLE)
    for place, bits in flips:
        content[place] ^= bits
    try:
        found = read(tmp_path, bytes(content))
    except UserError:
        return
    assert sum(array.nbytes for array in found.values()) <= len(content)


@ONE_FOLDER
@given(content=st.binary(max_size=200))
def test_random_bytes_raise_only_a_user_error(tmp_path, content):
    with pytest.raises(UserError):
        read(tmp_path, struct.pack("<QQ", 0x112, 0) + content + b"\1")
