"""`compare_ports` and `compare_arrays`: the first divergence, hints, and the examples in the docs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from common.parity.ports import TOLERANCES, compare_arrays, compare_ports, keep

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bring-your-own-port.md"
DTYPES = ("float32", "float64")
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


def activations(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape or (4, 8, 16, 16)).astype(dtype)


def network(n: int, perturb: int = -1, factor: float = 1.0, extra: float = 0.0):
    """Return a network of n layers. Layer ``perturb`` is multiplied by ``factor``, and ``extra`` is added."""

    def run(X):
        arrays = {}
        for i in range(n):
            X = np.tanh(X) * 2 + X[::-1]
            if i == perturb:
                X = X * X.dtype.type(factor) + X.dtype.type(extra)
            arrays[f"layer{i}"] = X
        return arrays

    return run


def hints(original: np.ndarray, port: np.ndarray, **options) -> str:
    report = compare_arrays({"x": original}, {"x": port}, **options)
    assert report.first is not None
    return " ".join(report.hints)


# The first divergence


@settings(deadline=None)
@given(st.integers(1, 8), shapes, st.sampled_from(DTYPES))
def test_the_same_network_agrees_in_every_layer(n, shape, dtype):
    report = compare_ports(network(n), network(n), activations(*shape, dtype=dtype))
    assert report.first is None
    assert [layer.difference for layer in report.layers] == [0] * n
    assert f"({n} compared)" in str(report)
    report.check()


@settings(deadline=None)
@given(st.integers(1, 8), st.data(), shapes, st.sampled_from(DTYPES), st.booleans())
def test_the_first_perturbed_layer_is_named_and_no_other(n, data, shape, dtype, scale):
    k = data.draw(st.integers(0, n - 1))
    bug = {"factor": 1.001} if scale else {"extra": 0.1}
    X = activations(*shape, dtype=dtype)
    report = compare_ports(network(n), network(n, k, **bug), X)
    assert report.first is not None
    assert report.first.name == f"layer{k}"
    assert [layer.verdict for layer in report.layers[: k + 1]] == ["agrees"] * k + ["differs"]
    with pytest.raises(AssertionError, match=rf"First divergence: layer{k}: "):
        report.check()


@pytest.mark.parametrize("dtype", DTYPES)
def test_differences_are_relative_to_the_largest_value_of_the_layer(dtype):
    X = 50 * activations(dtype=dtype)
    X[0, 0, 0, 0] = 1000
    for share, verdict in ((0.9, "agrees"), (1.1, "differs")):
        Y = X.copy()
        Y[1, 2, 3, 4] += share * TOLERANCES[dtype] * 1000
        (layer,) = compare_arrays({"x": X}, {"x": Y}).layers
        assert (layer.verdict, layer.largest) == (verdict, 1000)
        assert layer.relative == pytest.approx(share * TOLERANCES[dtype], rel=0.05)


@pytest.mark.parametrize(("dtype", "share"), [("float32", 2e-4), ("float64", 2e-12)])
def test_the_default_tolerances_reject_twice_the_limit(dtype, share):
    X = activations(dtype=dtype)
    assert compare_arrays({"x": X}, {"x": (X * (1 + share)).astype(dtype)}).first is not None


def test_mixed_dtypes_use_the_tolerance_of_the_less_precise():
    X = activations()
    assert compare_arrays({"x": X}, {"x": X.astype("float32")}).first is None
    assert compare_arrays({"x": X}, {"x": X * (1 + 1e-6)}).first is not None


def test_a_given_tolerance_is_used_and_float16_needs_one():
    X = activations()
    assert compare_arrays({"x": X}, {"x": 1.01 * X}, tolerance=0.02).first is None
    assert compare_arrays({"x": X}, {"x": X}, tolerance=0).first is None
    half = {"x": X.astype("float16")}
    assert compare_arrays(half, half, tolerance=1e-3).first is None
    with pytest.raises(ValueError, match="float16"):
        compare_arrays(half, half)


def test_any_difference_from_zeros_is_a_divergence():
    zeros = {"x": np.zeros((2, 3))}
    assert compare_arrays(zeros, {"x": np.zeros((2, 3))}).first is None
    first = compare_arrays(zeros, {"x": np.full((2, 3), 1e-30)}).first
    assert first is not None
    assert first.relative == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sides", ["original", "port", "original and port"])
def test_nan_and_inf_never_agree(bad, sides):
    X = {"original": activations(2, 3), "port": activations(2, 3)}
    for side in sides.split(" and "):
        X[side][1, 2] = bad
    first = compare_arrays({"x": X["original"]}, {"x": X["port"]}).first
    assert first is not None
    assert first.verdict == "not finite"
    assert f"1 of 6 values are NaN or infinite in the {sides.split()[0]}" in first.reason


def test_values_too_large_to_subtract_differ():
    first = compare_arrays({"x": np.full(3, 1e308)}, {"x": np.full(3, -1e308)}).first
    assert first is not None
    assert first.relative == np.inf


def test_different_shapes_differ_even_if_they_would_broadcast():
    first = compare_arrays({"x": np.ones((4, 1))}, {"x": np.ones((1, 4))}).first
    assert first is not None
    assert first.verdict == "shape"
    assert "(4, 1) in the original, (1, 4) in the port" in first.reason


def test_scalars_are_compared():
    first = compare_arrays({"loss": np.array(1.0)}, {"loss": np.array(2.0)}).first
    assert first is not None
    assert compare_arrays({"loss": np.array(1.0)}, {"loss": np.array(1.0)}).first is None


def test_the_report_shows_growth_and_later_divergences():
    X = activations(16, 16)

    def tenfold(by):
        return lambda X: {"a": X * (1 + by), "b": X * (1 + 10 * by)}

    report = compare_ports(tenfold(0), tenfold(0.001), X)
    rows = str(report).splitlines()
    assert rows[0].split() == ["layer", "shape", "difference", "relative", "growth", "verdict"]
    assert rows[1].split()[1] == "16x16"
    assert rows[2].split()[3:] == ["0.01", "10", "differs"]
    assert "1 of the 1 layers after it diverge too, possibly as a consequence" in str(report)


# Names


def test_a_name_map_pairs_layers_in_the_order_of_the_original_and_reports_the_rest():
    a, b, c = activations(3), activations(4), activations(5)
    report = compare_arrays(
        {"0": a, "1": b, "2": c}, {"bn": b, "conv": a, "flatten": c}, {"1": "bn", "0": "conv"}
    )
    assert [(layer.name, layer.port_name) for layer in report.layers] == [
        ("0", "conv"),
        ("1", "bn"),
    ]
    assert report.not_compared == (("2",), ("flatten",))
    assert "Not compared, in the original only: 2." in str(report)
    assert "Not compared, in the port only: flatten." in str(report)


def test_without_a_name_map_a_missing_layer_is_a_divergence():
    a = activations(3)
    for original, port in (({"a": a, "b": a}, {"a": a}), ({"a": a}, {"a": a, "b": a})):
        report = compare_arrays(original, port)
        assert report.first is not None
        assert (report.first.name, report.first.verdict) == ("b", "missing")
        side = "port" if "b" in original else "original"
        assert f"missing in the {side}" in str(report)


# Layouts


def test_layouts_transpose_only_port_arrays_with_that_number_of_axes():
    X, y = activations(2, 3, 4, 5), activations(2, 10)
    port = {"conv": X.transpose(0, 2, 3, 1), "fc": y}
    assert compare_arrays({"conv": X, "fc": y}, port, layouts=("NCHW", "NHWC")).first is None
    weight = {"w": activations(8, 3, 5, 5)}
    moved = {"w": weight["w"].transpose(2, 3, 1, 0)}
    assert compare_arrays(weight, moved, layouts=("OIHW", "HWIO")).first is None


@settings(deadline=None)
@given(st.permutations(range(4)), st.lists(st.integers(2, 4), min_size=4, max_size=4))
def test_another_layout_never_passes_and_gets_a_hint(axes, sizes):
    X = activations(*sizes)
    Y = X.transpose(axes)
    report = compare_arrays({"x": X}, {"x": Y})
    if axes == [0, 1, 2, 3]:
        assert report.first is None
        return
    assert report.first is not None
    assert "another layout: the port's values transposed by" in " ".join(report.hints)


def test_another_layout_is_suspected_even_if_the_values_differ():
    X = activations(2, 3, 4, 5)
    other = activations(2, 4, 5, 3, seed=1)
    assert "probably another layout" in hints(X, other)
    assert hints(X, activations(2, 3, 4, 6)) == ""


def test_a_missing_reshape_gets_a_hint():
    X = activations(4, 16, 1, 1)
    assert "reshape" in hints(X, X.reshape(4, 16))
    assert hints(X, 1.1 * X.reshape(4, 16)) == ""


# Hints: each is given if its relation holds, and not if it almost holds

NOISE = 0.01 * activations(seed=9)


@pytest.mark.parametrize("factor", [1.001, 1 / 255, -1.0, 16.0])
def test_a_constant_factor_gets_a_hint(factor):
    X = activations()
    assert f"constant factor: the port's values times {1 / factor:.5g} agree" in hints(
        X, X * factor
    )
    assert hints(X, X * factor + factor * NOISE) == ""
    assert "constant factor" not in hints(X, X * np.linspace(1.1, 2, 8).reshape(8, 1, 1))


def test_an_offset_in_each_channel_gets_a_hint():
    X, offsets = activations(), activations(8, 1, 1, seed=1)
    assert "constant offset in each channel" in hints(X, X + offsets)
    assert hints(X, X + offsets + NOISE) == ""
    assert "constant offset in each channel" in hints(X[:, :, 0, 0], (X + offsets)[:, :, 0, 0])


def test_offsets_are_searched_along_the_channel_axis_of_the_layout():
    X, offsets = activations(4, 16, 16, 8), activations(8, seed=1)
    assert hints(X, X + offsets) == ""
    assert "constant offset" in hints(X, X + offsets, layouts=("NHWC", "NHWC"))


def batch_norm(X, mean, variance, eps, gamma, beta):
    one = (1, -1, 1, 1)
    scale = (gamma / np.sqrt(variance + eps)).reshape(one)
    return (X - mean.reshape(one)) * scale + beta.reshape(one)


NORM = dict(zip(("gamma", "beta"), np.random.default_rng(3).uniform(0.5, 2, (2, 8)), strict=True))
MEAN, VARIANCE = np.random.default_rng(4).uniform(0.5, 2, (2, 8))


def test_another_batch_norm_epsilon_gets_a_hint():
    X = activations()
    Y = batch_norm(X, MEAN, VARIANCE, 1e-3, **NORM)
    text = hints(Y, batch_norm(X, MEAN, VARIANCE, 1e-5, **NORM))
    assert "another epsilon in BatchNorm" in text
    X[:, 3] = 1  # a constant channel has no factor
    Y = batch_norm(X, MEAN, VARIANCE, 1e-3, **NORM)
    assert "another epsilon" in hints(Y, batch_norm(X, MEAN, VARIANCE, 1e-5, **NORM))
    assert hints(Y, np.tanh(batch_norm(X, MEAN, VARIANCE, 1e-5, **NORM))) == ""


def test_batch_instead_of_running_statistics_get_a_hint():
    X = activations()
    Y = batch_norm(X, MEAN, VARIANCE, 1e-5, **NORM)
    batch = batch_norm(X, X.mean((0, 2, 3)), X.var((0, 2, 3)), 1e-5, **NORM)
    text = hints(Y, batch)
    assert "other statistics in BatchNorm" in text
    assert "epsilon" not in text
    assert hints(Y, batch + NOISE) == ""


def test_factors_below_and_above_1_are_not_mistaken_for_epsilon():
    X, sides = activations(), 1 + 0.01 * np.resize([1, -1], (8, 1, 1))
    text = hints(X, X * sides)
    assert "other statistics in BatchNorm" in text
    assert "another epsilon" in hints(X, X * (sides + 0.02))


def test_too_few_distinct_values_get_no_hint():
    X, Y = activations(2, 10), activations(2, 10, seed=1)
    assert hints(X, Y) == ""  # two values per channel: a line passes through any two points
    X, Y = (np.repeat(array[:1], 8, axis=0) for array in (X, Y))
    assert hints(X, Y) == ""  # eight equal values count as one
    assert hints(np.ones((4, 8, 4, 4)), np.full((4, 8, 4, 4), 2.0)) == ""


def test_values_that_differ_by_rounding_count_as_equal():
    X, Y = (np.repeat(activations(1, 10, seed=seed), 8, axis=0) for seed in (0, 1))
    assert hints(X + 1e-15 * activations(8, 10), Y + 1e-15 * activations(8, 10, seed=1)) == ""


def test_a_difference_just_above_the_tolerance_gets_no_hint():
    X, noise = activations(), np.sign(activations(seed=1))
    X[0, 0, 0, 0], noise[0, 0, 0, 0] = 10, 1
    # The difference is 1.2 times the tolerance, and 0.9 times without the factor.
    assert hints(X, 1.0003 * X + 0.009 * noise, tolerance=1e-3) == ""


def test_hints_are_given_only_for_the_first_divergence():
    X = activations()
    report = compare_arrays({"a": X, "b": X, "c": X}, {"a": X, "b": np.tanh(X), "c": 2 * X})
    assert report.hints == ()


def test_a_relu_in_only_one_network_gets_a_hint():
    X = activations()
    assert "ReLU in the port only" in hints(X, np.maximum(X, 0))
    assert "ReLU in the original only" in hints(np.maximum(X, 0), X)
    assert hints(X, np.maximum(X, 0.01 * X)) == ""  # leaky


@pytest.mark.parametrize("axis", range(4))
def test_slices_in_another_order_get_a_hint(axis):
    X = activations()
    flipped = np.flip(X, axis)
    assert f"axis {axis} reversed" in hints(X, flipped)
    assert "reversed" not in hints(X, flipped + NOISE)
    assert f"axis {axis} in another order" in hints(X, np.roll(X, 1, axis))


def test_features_flattened_in_another_order_get_a_hint():
    X = activations(32, 4, 5, 5)
    flat = X.reshape(32, -1), X.transpose(0, 2, 3, 1).reshape(32, -1)
    assert "axis 1 in another order" in hints(*flat)


def test_a_transposed_square_matrix_gets_a_hint():
    X = activations(8, 8)
    assert "transposed by (1, 0)" in hints(X, X.T)
    assert hints(X, X.T + 0.01) == ""


@pytest.mark.parametrize("shift", [(1, 1), (1, 0), (0, -1), (-1, 1)])
def test_a_shift_by_one_pixel_gets_a_hint(shift):
    X = activations(4, 8, 18, 18)
    original, port = (
        X[:, :, 1:-1, 1:-1],
        np.roll(X, (-shift[0], -shift[1]), (2, 3))[:, :, 1:-1, 1:-1],
    )
    assert f"shift by one pixel, {shift} along axes (2, 3)" in hints(original, port)
    two = np.roll(X, (2, 2), (2, 3))[:, :, 1:-1, 1:-1]
    assert hints(original, two) == ""


def test_a_difference_only_at_the_edges_gets_a_hint():
    X = activations()
    Y = X.copy()
    Y[..., 0], Y[..., -1, :] = 0, 0
    assert "only the edges" in hints(X, Y)
    Y[0, 0, 8, 8] = 0
    assert hints(X, Y) == ""


def convolution(pad, kernel_seed=0, strides=2):
    """Return a network of a convolution at stride 1 and one at stride 2 with padding ``pad``."""

    def convolve(X, padding, seed, stride):
        X = np.pad(X, ((0, 0), (0, 0), padding, padding))
        windows = sliding_window_view(X, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
        return np.einsum("nchwij,ocij->nohw", windows, activations(4, X.shape[1], 3, 3, seed=seed))

    def run(X):
        X = convolve(X, (1, 1), 5, 1)
        return {"conv1": X, "conv2": convolve(X, pad, kernel_seed, strides)}

    return run


SAME, BOTH = (0, 1), (1, 1)


@pytest.mark.parametrize(("original", "port", "shift"), [(BOTH, SAME, 1), (SAME, BOTH, -1)])
def test_padding_on_the_other_side_at_stride_2_gets_a_hint(original, port, shift):
    X = activations(2, 3, 16, 16)
    report = compare_ports(convolution(original), convolution(port), X)
    assert report.first is not None
    assert report.first.name == "conv2"
    assert f"shifted by {(shift, shift)} along axes (2, 3)" in " ".join(report.hints)


def test_another_kernel_at_stride_2_is_not_mistaken_for_padding():
    X = activations(2, 3, 16, 16)
    for other in (convolution(SAME, kernel_seed=1), convolution(BOTH, kernel_seed=1)):
        assert compare_ports(convolution(BOTH), other, X).hints == ()


def test_without_probe_each_version_is_called_once_on_its_own_copy():
    calls = []

    def counted(run):
        def run_and_spoil(X):
            calls.append(run)
            arrays = run(X)
            X[:] = 0
            return arrays

        return run_and_spoil

    X = activations(2, 3, 16, 16)
    original, port = counted(convolution(BOTH)), counted(convolution(SAME))
    report = compare_ports(original, port, X, probe=False)
    assert (len(calls), report.hints) == (2, ())
    assert (activations(2, 3, 16, 16) == X).all()
    compare_ports(original, port, X)
    assert 4 < len(calls) <= 4 + 8


def test_inputs_may_be_several_arrays():
    def run(X):
        return {"sum": X["a"] + X["b"]}

    assert compare_ports(run, run, {"a": activations(3), "b": activations(3)}).first is None


# Recording


def test_keep_copies_arrays_and_numbers_repeated_calls():
    arrays, X = {}, activations(3)
    for _ in range(3):
        keep(arrays, "relu", X)
        X *= 2
    assert list(arrays) == ["relu", "relu#2", "relu#3"]
    assert (arrays["relu"] == activations(3)).all()


# Misuse


@pytest.mark.parametrize(
    ("original", "port", "message"),
    [
        ({}, {"a": np.ones(1)}, "the original returned no layers"),
        ({"a": np.ones(1)}, None, "the port returned no layers"),
        ({"a": np.ones(1)}, [np.ones(1)], "the port returned no layers"),
        ({"a": np.ones(1)}, {"a": [1.0]}, "'a' of the port is a builtins.list"),
        ({"a": np.ones(1)}, {"a": np.ones(1, int)}, "'a' of the port has dtype int64"),
        ({"a": np.ones(1)}, {"a": np.ones(1, object)}, "'a' of the port has dtype object"),
        ({"a": np.ones((0, 3))}, {"a": np.ones((0, 3))}, "'a' of the original is empty"),
        ({1: np.ones(1)}, {1: np.ones(1)}, r"named 1\. Names must be strings"),
        ({"a": np.ones(1)}, {"b": np.ones(1)}, "have no name in common"),
    ],
)
def test_anything_but_a_dict_of_float_arrays_is_an_error(original, port, message):
    with pytest.raises(ValueError, match=message):
        compare_arrays(original, port)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "names must be a dict"),
        ([("conv1", "conv1")], "names must be a dict"),
        ({"conv": "conv1"}, r"names has 'conv', but the original has \['conv1'\]"),
        ({"conv1": "c"}, r"names has 'c', but the port has \['conv1', 'bn1'\]"),
        ({"conv1": 1}, "names has 1, but the port"),
    ],
)
def test_a_name_map_that_does_not_fit_is_an_error(names, message):
    arrays = {"conv1": np.ones(1), "bn1": np.ones(1)}
    with pytest.raises(ValueError, match=message):
        compare_arrays(arrays, arrays, names)


@pytest.mark.parametrize("tolerance", [-1e-3, 1, np.nan, "1e-3"])
def test_a_tolerance_outside_0_to_1_is_an_error(tolerance):
    with pytest.raises(ValueError, match="Pass a number from 0 to below 1"):
        compare_arrays({"a": np.ones(1)}, {"a": np.ones(1)}, tolerance=tolerance)


@pytest.mark.parametrize(
    "layouts", ["NCHW", ("NCHW",), ("NCHW", "NHW"), ("NN", "NN"), ("", ""), (1, 2)]
)
def test_layouts_other_than_a_matching_pair_are_an_error(layouts):
    with pytest.raises(ValueError, match="layouts"):
        compare_arrays({"a": np.ones(1)}, {"a": np.ones(1)}, layouts=layouts)


def test_a_dict_instead_of_a_function_is_an_error():
    with pytest.raises(ValueError, match="the port must be a function"):
        compare_ports(network(1), {"a": np.ones(1)}, np.ones(1))


# The examples


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "frameworks"),
    [("own_port", ("mxnet", "pytorch")), ("own_port_keras", ("mxnet", "tensorflow"))],
)
def test_the_page_shows_what_the_example_prints(module, frameworks):
    for framework in frameworks:
        load_or_skip(framework)
    done = subprocess.run(
        [sys.executable, "-m", f"docs.examples.{module}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    match = re.search(
        rf"-m docs\.examples\.{module}\n```\n+```text\n(.*?)```", PAGE.read_text(), re.S
    )
    assert match, "the page has no output after the command"
    assert_same_text(match[1], done.stdout)


def assert_same_text(shown: str, printed: str) -> None:
    """Compare word by word: numbers within a tenth. Skip numbers that are rounding errors."""
    assert len(shown.splitlines()) == len(printed.splitlines()), printed
    above_agrees = True
    for ours, theirs in zip(shown.splitlines(), printed.splitlines(), strict=True):
        words = [line.split() for line in (ours, theirs)]
        agrees = ours.endswith(" agrees")
        if agrees or ours.endswith(" differs"):
            for row in words:  # skip differences of layers that agree, and growth from or to these
                row[-4:-1] = [] if agrees else row[-4:-2] if above_agrees else row[-4:-1]
        above_agrees = agrees
        assert len(words[0]) == len(words[1]), (ours, theirs)
        for a, b in zip(*words, strict=True):
            assert a == b or number(a) == pytest.approx(number(b), rel=0.1), (ours, theirs)


def number(word: str) -> float:
    """Return the number that a word spells, or NaN, which equals nothing."""
    try:
        return float(word.rstrip(",;."))
    except ValueError:
        return np.nan


def test_every_snippet_of_the_page_is_in_an_example_or_runs():
    scripts = "\n".join(path.read_text() for path in (ROOT / "docs" / "examples").glob("*.py"))
    blocks = re.findall(r"(<!-- runs -->\n)?```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 2
    for runs, block in blocks:
        if runs:
            exec(block, {})
        else:
            assert block.strip() in scripts, block


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("port", "dtype"),
    [("pytorch", "float32"), ("pytorch", "float64"), ("tensorflow", "float32")],
)
def test_correct_ports_differ_by_less_than_a_fifth_of_the_tolerance(port, dtype, training):
    for framework in ("pytorch", "mxnet", "tensorflow"):
        load_or_skip(framework)
    from docs.examples.tolerances import largest_difference

    assert largest_difference(port, dtype, training) < TOLERANCES[dtype] / 5


def test_the_pytorch_recorder_keeps_arrays_before_an_inplace_relu_and_each_call():
    load_or_skip("pytorch")
    load_or_skip("mxnet")
    from torch import nn

    from docs.examples.own_port import record_pytorch

    relu = nn.ReLU(inplace=True)
    net = nn.Sequential(nn.BatchNorm1d(4), relu, nn.Linear(4, 4), relu)
    arrays = record_pytorch(net)(activations(8, 4, dtype="float32"))
    assert list(arrays) == ["0", "1", "2", "1#2"]
    assert (arrays["0"] < 0).any()
    assert (arrays["1"] == np.maximum(arrays["0"], 0)).all()


def test_a_hybridized_gluon_network_is_recorded():
    load_or_skip("mxnet")
    from docs.examples.gluon_original import original_net, record_gluon

    net, X = original_net(), activations(2, 3, 8, 8, dtype="float32")
    plain = record_gluon(net)(X)
    net.hybridize()
    assert list(plain) == list("01234567")
    assert compare_ports(lambda X: plain, record_gluon(net), X).first is None


def test_an_exported_gluon_network_is_recorded(tmp_path):
    load_or_skip("mxnet")
    from docs.examples.gluon_original import np as mx_np
    from docs.examples.gluon_original import original_net, record_exported, record_gluon

    net, X = original_net(), activations(2, 3, 8, 8, dtype="float32")
    net.hybridize()
    net(mx_np.array(X))
    net.export(str(tmp_path / "net"))
    files = str(tmp_path / "net-symbol.json"), str(tmp_path / "net-0000.params")
    exported = record_exported(*files)
    names = dict(zip("01234567", exported(X), strict=True))
    assert all(name.endswith("_fwd_output") for name in names.values())
    assert compare_ports(record_gluon(net), exported, X, names).first is None
