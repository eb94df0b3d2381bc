"""The cases of the parity checks: all pairs occur, --quick uses every value, inputs have the promised values."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_backend import numpy_backend

from common.parity import chance
from common.parity.checks.cases import (
    BATCH_SIZES,
    CHANNELS,
    CLASSES,
    QUICK_LOADERS,
    QUICK_NETWORKS,
    RECIPES,
    SHAPES,
    SPLITS,
    WHOLE_BATCHES,
    LoaderCase,
    NetworkCase,
    covering,
    draw_size,
    loader_cases,
    network_cases,
    pairs_of,
)
from common.parity.checks.initial_weights import distribution, initial_checks
from common.weights.canonical import initial_weights

SEEDS = range(5)


def met(rows, *dimensions):
    """Return whether one of the rows contains each two values of two dimensions. A row has a set for each dimension."""
    return all(
        any(a in row[i] and b in row[j] for row in rows)
        for i, j in combinations(range(len(dimensions)), 2)
        for a, b in product(dimensions[i], dimensions[j])
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pair_of_values_occurs_in_a_network_case(seed):
    cases = network_cases(seed)
    rows = [({c.batch_size, c.last_size}, {c.num_classes}, {c.in_channels}) for c in cases]
    assert met(rows, BATCH_SIZES, CLASSES, CHANNELS)
    assert (
        len(cases) <= 27
    )  # at least 20: eight batch sizes times five numbers of classes, two sizes in each case


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pair_of_values_occurs_in_a_loader_case(seed):
    cases = loader_cases(seed)
    rows = [({c.batch_size, c.last_size}, {c.recipe}, {c.split}, {c.whole}) for c in cases]
    assert met(rows, BATCH_SIZES, RECIPES, SPLITS, WHOLE_BATCHES)
    assert len(cases) <= 25
    assert {c.num_examples for c in cases} & {1}
    assert any(c.num_examples > 300 for c in cases)
    assert any(c.num_examples < c.batch_size for c in cases)
    assert any(c.num_examples % c.batch_size == 0 and c.whole for c in cases)


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_covering_contains_all_pairs_and_no_superfluous_row(sizes, seed, several):
    """With ``several``, an option of the first dimension may have two values."""
    dimensions = {f"d{i}": [(value,) for value in range(n)] for i, n in enumerate(sizes)}
    if several:
        dimensions["d0"] += [(a, b) for a, b in combinations(range(sizes[0]), 2)]
    rows = covering(dimensions, seed)
    found = [[set(row[name]) for name in dimensions] for row in rows]
    assert met(found, *(range(n) for n in sizes))
    every = set().union(*(pairs_of(row) for row in rows))
    for i, row in enumerate(rows):  # each row adds a new pair
        before = set().union(*(pairs_of(earlier) for earlier in rows[:i]))
        assert set(pairs_of(row)) - before
        before |= set(pairs_of(row))
    most, second = sorted(sizes)[-1], sorted(sizes)[-2]
    assert len(rows) <= len(every)
    assert len(rows) >= (most * second if not several else 1)


def test_quick_has_every_value_in_few_cases():
    cases = network_cases(0, quick=True)
    assert {n for c in cases for n in (c.batch_size, c.last_size)} == set(BATCH_SIZES)
    assert {c.num_classes for c in cases} == set(CLASSES)
    assert {c.in_channels for c in cases} == set(CHANNELS)
    assert {shape for row in QUICK_NETWORKS for shape in row["shape"]} == set(SHAPES)
    loaders = loader_cases(0, quick=True)
    assert {n for c in loaders for n in (c.batch_size, c.last_size)} >= set(BATCH_SIZES)
    for name, values in (("recipe", RECIPES), ("split", SPLITS), ("whole", WHOLE_BATCHES)):
        assert {getattr(c, name) for c in loaders} == set(values)
    assert {shape for row in QUICK_LOADERS for shape in row["shape"]} == set(SHAPES)
    assert len(cases) <= 5
    assert len(QUICK_LOADERS) <= 6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_drawn_size_has_the_requested_shape(shape):
    rng = np.random.default_rng(0)
    for least in (2, 4, 9):
        sizes = [draw_size(shape, least, rng) for _ in range(50)]
        assert all(min(size) >= least for size in sizes)
        assert len(set(sizes)) >= 3
        for height, width in sizes:
            right = {
                "square": height == width,
                "wide": height < width,
                "high": height > width,
                "odd": height % 2 == width % 2 == 1 and height != width,
            }
            assert right[shape]


@pytest.mark.parametrize("seed", SEEDS)
def test_small_last_batches_have_images_large_enough_for_batch_norm(seed):
    for case in (*network_cases(seed), *network_cases(seed, quick=True)):
        positions = np.prod([-(-side // 8) for side in case.size])
        assert case.last_size * positions >= 4, case


@pytest.mark.parametrize("quick", [False, True])
def test_batches_contain_the_first_and_last_class_and_the_values_0_and_255(quick):
    for case in network_cases(3, quick):
        for batch, n in zip(
            case.batches((case.batch_size, case.last_size), 0), (0, 1), strict=True
        ):
            assert batch.X.shape[1:] == (case.in_channels, *case.size)
            assert len(batch.X) == len(batch.y) == (case.batch_size, case.last_size)[n]
            assert batch.X.min() == 0
            assert batch.X.max() == 1
            assert batch.y[-1] == case.num_classes - 1
            assert 0 in batch.y or len(batch.y) == 1
    for case in loader_cases(3, quick):
        dataset = case.dataset(0)
        assert len(dataset) == case.num_examples
        assert dataset.labels.max() == case.num_classes - 1
        assert dataset.images.max() == 255


def test_the_name_of_a_case_lists_its_values():
    case = NetworkCase(37, 1, (9, 14), 33, 5)
    assert str(case) == "37 classes, 1 channel, 9 x 14, batches of 33 and 5"
    loader = LoaderCase("Kaggle", "test", (9, 14), 33, 1, 0, 10)
    assert str(loader) == "1 image of 9 x 14 in batches of 33, 5 epochs, test, Kaggle"


# --- The initial weights ---------------------------------------------------------------------------------------------


SIZES = (10, 3, 8)


def rejected(change):
    """Return the layers that `distribution` rejects after a change of correct weights."""
    weights = {
        name: change(name, w.astype(np.float64)) for name, w in initial_weights(*SIZES).items()
    }
    return {d.place for d in distribution(weights, SIZES) if d.value > 1}


def test_xavier_weights_stay_well_below_the_limit():
    for seed in range(20):
        found = distribution(initial_weights(*SIZES, seed=seed), SIZES)
        # The median layer is at a fifth of the limit, and one layer in 400 reaches a half.
        assert max(d.value for d in found) < 0.7


def test_other_distributions_are_rejected():
    rng = np.random.default_rng(0)
    matrices = [name for name, w in initial_weights(*SIZES).items() if w.ndim > 1]
    wider = rejected(lambda _, w: w * 1.01 if w.ndim > 1 else w)
    assert (
        len(wider) >= len(matrices) - 2
    )  # beyond Xavier's bound, unless a small layer's largest value is below it
    narrower = rejected(lambda _, w: w * 0.9 if w.ndim > 1 else w)
    assert {name for name in matrices if "block4" in name and "conv3" not in name} <= narrower
    normal = rejected(lambda _, w: rng.normal(0, w.std(), w.shape) if w.ndim > 1 else w)
    assert normal == set(matrices)


def test_wrong_biases_wrong_statistics_and_equal_layers_are_rejected():
    assert rejected(lambda name, w: w + (name == "conv.bias")) == {"conv.bias"}
    assert rejected(lambda name, w: w * (name != "bn.running_var")) == {"bn.running_var"}
    first = initial_weights(*SIZES)["resnet_block1.0.conv1.weight"]
    found = rejected(lambda name, w: first if name == "resnet_block1.0.conv2.weight" else w)
    assert found == {"resnet_block1.0.conv1.weight and resnet_block1.0.conv2.weight: equal"}


def test_a_false_alarm_is_less_likely_than_1e_9():
    (result,) = initial_checks(numpy_backend())
    assert len(result.differences) * chance.FALSE_ALARM < 1e-9
    assert result.passed
