"""Canonical weights: what every backend starts from, and the files that carry them."""

import json

import numpy as np
import pytest

from common.errors import UserError, UserNotice
from common.weights.canonical import initial_weights, is_buffer, num_parameters, weight_shapes
from common.weights.checks import check_values, check_weights
from common.weights.safetensors import load_weights, save_weights


def test_initial_weights_are_xavier_uniform_with_zero_biases_and_batch_norm_at_the_identity():
    for name, weight in initial_weights(10, seed=4).items():
        assert weight.dtype == np.float32
        if weight.ndim > 1:
            outputs, inputs, area = weight.shape[0], weight.shape[1], int(np.prod(weight.shape[2:]))
            bound = np.sqrt(6 / ((inputs + outputs) * area))
            assert np.abs(weight).max() <= bound * 1.0001
            assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
            assert abs(weight.mean()) < 4 * bound / np.sqrt(weight.size)
        else:
            ones = name.endswith("running_var") or ".weight" in name
            assert (weight == (1 if ones else 0)).all(), name


def test_initial_weights_depend_on_the_seed_alone():
    first, again, other = (
        initial_weights(10, seed=1),
        initial_weights(10, seed=1),
        initial_weights(10, seed=2),
    )
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["conv.weight"] != other["conv.weight"]).all()


def test_the_book_s_network_has_11_176_970_parameters():
    assert num_parameters(initial_weights(10)) == 11_176_970
    assert sum(is_buffer(name) for name in weight_shapes(10)) == 2 * 17


def test_a_file_brings_back_weights_and_metadata(tmp_path):
    weights = initial_weights(3, in_channels=1, seed=9)
    path = tmp_path / "new folder" / "weights.safetensors"
    save_weights(path, weights, {"classes": "a,b,c"})
    loaded, metadata = load_weights(path)
    assert list(loaded) == list(weights)
    assert all((loaded[name] == weights[name]).all() for name in weights)
    assert metadata == {"classes": "a,b,c"}
    assert [file.name for file in path.parent.iterdir()] == ["weights.safetensors"]


def test_files_that_are_no_weights_are_refused_in_one_line(tmp_path):
    from safetensors.numpy import save_file

    weights = initial_weights(3)
    cases = {
        "missing": None,
        "damaged": b"not a safetensors file",
        "foreign": {"layer.weight": np.ones((2, 2), np.float32)},
        "short": {name: w for name, w in weights.items() if name != "bn.bias"},
        "misshapen": weights | {"bn.bias": np.ones(63, np.float32)},
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


def test_a_framework_s_own_file_brings_back_the_weights(backend, tmp_path):
    weights = initial_weights(3, in_channels=1, seed=9)
    for name in weights:
        if is_buffer(name):
            weights[name] = weights[name] + np.float32(0.25)
    path = tmp_path / "new folder" / "weights"
    backend.weights.save_file(path, weights)
    loaded = backend.weights.load_file(path)
    assert list(loaded) == list(weights)
    for name, weight in weights.items():
        assert loaded[name].dtype == np.float32
        np.testing.assert_array_equal(loaded[name], weight, err_msg=name)
    assert [file.name for file in path.parent.iterdir()] == ["weights"]


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((), (2,)), ((4, 512), (64,))])
def test_layers_of_another_rank_are_refused(shapes):
    weights = initial_weights(4) | {
        name: np.ones(s) for name, s in zip(("fc.weight", "conv.weight"), shapes, strict=True)
    }
    with pytest.raises(UserError, match=r"conv\.weight has shape .*, not \(64, any, 3, 3\)"):
        check_weights(weights, "other")


def test_every_wrong_name_shape_and_type_is_listed_on_a_line_of_its_own():
    weights = initial_weights(3)
    for name in ("bn.bias", "fc.bias", "resnet_block2.0.conv3.weight"):
        del weights[name]
    weights["resnet_block1.0.bn1.weight"] = np.ones(63, np.float32)
    weights["resnet_block4.1.conv2.weight"] = weights["resnet_block4.1.conv2.weight"][..., :1]
    weights["resnet_block4.1.conv2.bias"] = np.ones(512, np.int32)
    weights["more"] = weights["\x1b[31mred\n"] = np.ones(1, np.float32)
    with pytest.raises(UserError) as error:
        check_weights(weights, "x.pt")
    first, *lines = str(error.value).splitlines()
    assert first == "x.pt does not hold the weights of this project's ResNet-18: 8 faults"
    assert lines == [
        "  bn.bias is missing",
        "  resnet_block2.0.conv3.weight is missing",
        "  fc.bias is missing",
        "  more is not wanted",
        "  \\x1b[31mred\\n is not wanted",
        "  resnet_block1.0.bn1.weight has shape (63,), not (64,)",
        "  resnet_block4.1.conv2.weight has shape (512, 512, 3, 1), not (512, 512, 3, 3)",
        "  resnet_block4.1.conv2.bias holds int32, not floating-point numbers",
    ]


def test_weights_of_another_network_are_refused_by_their_names():
    with pytest.raises(UserError, match=r"none of its 2 names is known, the first are a, b"):
        check_weights({"a": np.ones(1), "b": np.ones(1)}, "other")


def test_weights_come_as_float32_and_rounding_is_noticed():
    weights = initial_weights(3)
    half = {name: weight.astype(np.float16) for name, weight in weights.items()}
    exact = check_weights({name: w.astype(np.float64) for name, w in half.items()}, "x")
    assert all(w.dtype == np.float32 and (w == half[name]).all() for name, w in exact.items())
    with pytest.warns(UserNotice, match=r"x holds more than 32 bits, .* in fc\.bias$"):
        check_weights(weights | {"fc.bias": np.full(3, 0.1)}, "x")
    many = {name: w.astype(np.float64) + 1e-12 for name, w in weights.items()}
    with pytest.warns(UserNotice, match=r"in conv.weight, conv.bias, bn.weight and \d+ more$"):
        check_weights(many, "x")


def test_ten_faults_of_each_kind_are_listed():
    more = {f"more{i}": np.ones(1, np.float32) for i in range(1000)}
    with pytest.raises(UserError, match="1,000 faults") as error:
        check_weights(initial_weights(3) | more, "x")
    lines = str(error.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 990 more"


def test_another_network_is_refused_before_its_values_are_read(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file(initial_weights(3) | {"more": np.ones(1, np.float32)}, path)

    def read(*arguments):
        raise AssertionError("values were read")

    monkeypatch.setattr("common.weights.safetensors.check_weights", read)
    with pytest.raises(UserError, match="more is not wanted"):
        load_weights(path)


def test_bfloat16_becomes_float32_and_other_types_are_named(tmp_path):
    weights = {name: w.view(np.uint32) >> 16 for name, w in initial_weights(3).items()}
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
    with pytest.raises(UserError, match=r"fc\.bias holds F8_E4M3: save it as F32"):
        load_weights(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-3])
def test_values_that_no_network_computes_with_are_refused_by_name(value):
    weights = initial_weights(3)
    check_values(weights, "x")
    weights["bn.running_var"][5] = value
    with pytest.raises(UserError, match=r"x holds values .* in bn\.running_var$"):
        check_values(weights, "x")


def test_weights_of_another_network_are_not_written(backend, tmp_path):
    weights = initial_weights(3)
    del weights["fc.bias"]
    with pytest.raises(UserError, match=r"fc\.bias"):
        backend.weights.save_file(tmp_path / "weights", weights)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"no weights", bytes(1000), "cut"])
def test_files_that_a_framework_did_not_write_are_refused_in_one_line(backend, tmp_path, content):
    path, weights = tmp_path / "suspect", initial_weights(3)
    if content == "cut":
        backend.weights.save_file(path, weights)
        path.write_bytes(path.read_bytes()[:-100_000])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="suspect") as error:
        backend.weights.load_file(path)
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, initial_weights(3), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        load_weights(path)


def test_nothing_half_written_is_left_when_the_disk_fills(tmp_path, monkeypatch):
    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match="disk is full"):
        save_weights(tmp_path / "weights.safetensors", initial_weights(3), {})
    assert list(tmp_path.iterdir()) == []
