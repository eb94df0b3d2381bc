"""Each framework's own weights files restore the canonical weights, and other files are refused."""

import numpy as np
import pytest

from common.errors import UserError
from common.weights.canonical import initial_weights, is_buffer


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
