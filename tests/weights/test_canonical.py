"""Canonical weights: the initial values of every backend, and the checks of names, shapes and values."""

import numpy as np
import pytest

from common.errors import UserError, UserNotice
from common.weights.canonical import initial_weights, is_buffer, num_parameters, weight_shapes
from common.weights.checks import check_values, check_weights


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


def test_initial_weights_depend_only_on_the_seed():
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


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((), (2,)), ((4, 512), (64,))])
def test_layers_of_another_rank_are_refused(shapes):
    weights = initial_weights(4) | {
        name: np.ones(s) for name, s in zip(("fc.weight", "conv.weight"), shapes, strict=True)
    }
    with pytest.raises(UserError, match=r"conv\.weight has shape .*, not \(64, any, 3, 3\)"):
        check_weights(weights, "other")


def test_every_wrong_name_shape_and_type_is_listed_on_its_own_line():
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
        "  more is not expected",
        "  \\x1b[31mred\\n is not expected",
        "  resnet_block1.0.bn1.weight has shape (63,), not (64,)",
        "  resnet_block4.1.conv2.weight has shape (512, 512, 3, 1), not (512, 512, 3, 3)",
        "  resnet_block4.1.conv2.bias holds int32, not floating-point numbers",
    ]


def test_a_narrow_network_is_accepted_with_the_channels_of_its_first_layer():
    narrow = initial_weights(3, num_channels=8)
    check_weights(narrow, "x")
    with pytest.raises(
        UserError, match=r"resnet_block2\.0\.bn1\.bias has shape \(8,\), not \(16,\)"
    ):
        check_weights(narrow | {"resnet_block2.0.bn1.bias": narrow["bn.bias"]}, "x")


def test_at_most_ten_faults_of_each_kind_are_listed():
    more = {f"more{i}": np.ones(1, np.float32) for i in range(1000)}
    with pytest.raises(UserError, match="1,000 faults") as error:
        check_weights(initial_weights(3) | more, "x")
    lines = str(error.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 990 more"


def test_weights_of_another_network_are_refused_by_their_names():
    with pytest.raises(
        UserError, match=r"none of its names is known; the first others are a, b\. "
    ):
        check_weights({"a": np.ones(1), "b": np.ones(1)}, "other")


def test_weights_of_torchvision_s_network_are_refused_in_one_line_that_says_what_to_do():
    """It has a fc, too."""
    theirs = {f"layer{i}.0.conv1.weight": np.ones(1) for i in range(1, 5)} | {"fc.bias": np.ones(9)}
    with pytest.raises(UserError, match=r"only 1 of its 5 names are known; .*layer1\.0") as error:
        check_weights(theirs, "resnet18.pth")
    assert "start from the weights of a run of this project" in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_are_float32_and_rounding_gives_a_notice():
    weights = initial_weights(3)
    half = {name: weight.astype(np.float16) for name, weight in weights.items()}
    exact = check_weights({name: w.astype(np.float64) for name, w in half.items()}, "x")
    assert all(w.dtype == np.float32 and (w == half[name]).all() for name, w in exact.items())
    with pytest.warns(
        UserNotice, match=r"x has values with more than 32 bits, .* in fc\.bias \(1 in all\)$"
    ):
        check_weights(weights | {"fc.bias": np.full(3, 0.1)}, "x")
    many = {name: w.astype(np.float64) + 1e-12 for name, w in weights.items()}
    with pytest.warns(UserNotice, match=r"in conv.weight, conv.bias, .*, \.\.\. \(\d+ in all\)$"):
        check_weights(many, "x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e-3])
def test_invalid_values_are_refused_by_name(value):
    weights = initial_weights(3)
    check_values(weights, "x")
    weights["bn.running_var"][5] = value
    with pytest.raises(
        UserError, match=r"x has invalid values .* in bn\.running_var \(1 in all\): "
    ):
        check_values(weights, "x")
