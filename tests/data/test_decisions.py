"""Random decisions are functions of (seed, epoch, index), with the distributions of the book's operations."""

import numpy as np
import pytest

from common.augmentation.decisions import (
    AUGMENT,
    BRIGHTNESS,
    CONTRAST,
    HUE,
    Crops,
    Decision,
    FlipsLeftRight,
    FlipsTopBottom,
    Jitters,
    Normalizes,
    Resamples,
    crops,
    decide,
    epoch_order,
    merged,
    random_bits,
    uniform,
)
from common.augmentation.operations import (
    CIFAR10_NORMALIZE,
    ColorJitter,
    Normalize,
    RandomFlipLeftRight,
    RandomFlipTopBottom,
    RandomResizedCrop,
    Resize,
    kaggle_train_augs,
    operation,
    split_normalize,
)
from common.reference import transforms

EVERYTHING = [operation(name, (24, 20)) for name in ("flip", "flip_top_bottom", "jitter", "crop")]


def arrays(decision: Decision) -> list[np.ndarray]:
    return list(vars(decision).values())


def test_the_hash_is_pinned_so_that_old_seeds_give_the_same_numbers():
    assert random_bits(0, 1, 2, 3) == np.uint64(18140757291318998914)
    assert epoch_order(8, 5, 2).tolist() == [2, 6, 0, 7, 3, 1, 5, 4]
    flips, _, jitters, crops = decide(EVERYTHING, np.array([4711]), 5, 2, (32, 30))
    assert not flips.flips
    assert jitters.order.tolist() == [[2, 1, 3, 0]]
    assert crops.boxes.tolist() == [[9, 3, 15, 22]]


def test_uniform_numbers_are_uniform_on_the_unit_interval():
    u = uniform(3, AUGMENT, 0, np.arange(100_000))
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, 50, (0, 1))[0]
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 85  # 49 degrees of freedom: above 85 once in a thousand seeds


@pytest.mark.parametrize("place", range(4))
def test_every_counter_changes_the_numbers_without_correlation(place):
    first = [7, AUGMENT, 3, 5]
    second = list(first)
    second[place] += 1
    index = np.arange(20_000)
    u, v = uniform(*first, index), uniform(*second, index)
    assert abs(np.corrcoef(u, v)[0, 1]) < 4 / np.sqrt(len(u))


def test_an_order_is_a_permutation_that_changes_with_seed_and_epoch():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_decisions_do_not_depend_on_the_batch_they_are_drawn_in():
    together = decide(EVERYTHING, np.arange(64), 1, 4, (32, 30))
    for indices in (np.arange(64)[::-1], np.array([17]), np.arange(10, 20)):
        apart = decide(EVERYTHING, indices, 1, 4, (32, 30))
        for whole, part in zip(together, apart, strict=True):
            for a, b in zip(arrays(whole), arrays(part), strict=True):
                np.testing.assert_array_equal(a[indices], b)


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 5}])
def test_decisions_change_with_seed_and_epoch(other):
    usual = {"seed": 1, "epoch": 4}
    first = decide(EVERYTHING, np.arange(64), image_size=(32, 30), **usual)
    second = decide(EVERYTHING, np.arange(64), image_size=(32, 30), **(usual | other))
    for a, b in zip(first, second, strict=True):
        assert (arrays(a)[0] != arrays(b)[0]).any()


def test_two_operations_of_the_same_kind_draw_independently():
    first, second = decide([RandomFlipLeftRight()] * 2, np.arange(1000), 0, 0, (8, 8))
    assert isinstance(first, FlipsLeftRight)
    assert isinstance(second, FlipsLeftRight)
    assert 0.4 < (first.flips == second.flips).mean() < 0.6


@pytest.mark.parametrize(
    ("flip", "kind"),
    [(RandomFlipLeftRight, FlipsLeftRight), (RandomFlipTopBottom, FlipsTopBottom)],
)
@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_flips_have_their_probability(p, flip, kind):
    (decision,) = decide([flip(p)], np.arange(10_000), 0, 0, (8, 8))
    assert isinstance(decision, kind)
    assert decision.flips.mean() == pytest.approx(p, abs=0.02 * (0 < p < 1))


def boxes(crop: RandomResizedCrop, image_size: tuple[int, int], n: int = 20_000) -> np.ndarray:
    """Return the boxes of n examples, drawn in parts, because all matrices would take half a gigabyte."""
    parts = np.array_split(np.arange(n), max(n // 1000, 1))
    crops = [decide([crop], indices, 0, 0, image_size)[0] for indices in parts]
    return np.concatenate([decision.boxes for decision in crops])


def test_crops_are_within_the_image_the_scale_and_the_ratio():
    top, left, height, width = boxes(RandomResizedCrop((9, 9), (0.1, 1), (0.5, 2)), (40, 50)).T
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 40
    assert (left + width).max() <= 50
    share, ratio = height * width / 2000, width / height
    assert 0.08 < share.min() < 0.15
    assert 0.9 < share.max() <= 1
    assert 0.45 < ratio.min() < 0.55
    assert 1.8 < ratio.max() < 2.2


def test_the_ratio_of_a_crop_is_its_width_to_its_height():
    _, _, height, width = boxes(RandomResizedCrop((9, 9), (0.3, 0.3), (2, 2)), (100, 100)).T
    assert set((width / height).round(1)) == {2.0}


def test_a_second_crop_is_taken_from_the_result_of_the_first():
    both = [RandomResizedCrop((24, 20)), RandomResizedCrop((9, 7))]
    _, second = decide(both, np.arange(50), 0, 0, (60, 50))
    assert isinstance(second, Crops)
    assert (second.rows.shape, second.columns.shape) == ((50, 9, 24), (50, 7, 20))
    assert (second.boxes[:, :2] + second.boxes[:, 2:] <= (24, 20)).all()


def test_crops_have_the_distribution_of_torchvision():
    # torchvision 0.29, 20,000 draws on the same image: mean area .4289, standard deviation of the log ratio .3573.
    _, _, height, width = boxes(RandomResizedCrop((9, 9), (0.1, 1), (0.5, 2)), (400, 400)).T
    assert (height * width / 160_000).mean() == pytest.approx(0.4289, abs=0.006)
    assert np.log(width / height).std() == pytest.approx(0.3573, abs=0.006)


def test_crops_reach_every_place():
    top, left, height, width = boxes(RandomResizedCrop((9, 9), (0.2, 0.2), (1, 1)), (20, 20)).T
    assert set(top) == set(range(20 - height[0] + 1))
    assert set(left) == set(range(20 - width[0] + 1))


def test_a_crop_that_never_fits_becomes_the_largest_central_box():
    wide = boxes(RandomResizedCrop((9, 9), (1, 1), (0.5, 2)), (10, 100), n=50)
    assert (wide == [0, 40, 10, 20]).all()
    high = boxes(RandomResizedCrop((9, 9), (1, 1), (0.5, 2)), (100, 10), n=50)
    assert (high == [40, 0, 20, 10]).all()


def test_a_resize_is_a_crop_of_the_whole_image_and_later_crops_use_its_result():
    augs = [Resize((30, 50)), RandomResizedCrop((9, 7), (0.5, 1.0), (1.0, 1.0))]
    whole, cut = decide(augs, np.arange(200), 0, 0, (24, 20))
    assert isinstance(whole, Crops)
    assert isinstance(cut, Crops)
    assert (whole.boxes == [0, 0, 24, 20]).all()
    wanted = crops(np.array([[0, 0, 24, 20]]), (24, 20), (30, 50))
    assert (whole.rows == wanted.rows).all()
    assert (whole.columns == wanted.columns).all()
    assert (cut.rows.shape[2], cut.columns.shape[2]) == (30, 50)
    assert (cut.boxes[:, :2] + cut.boxes[:, 2:]).max(0).tolist() == [30, 50]


def test_kaggle_crops_are_squares_of_32_to_40_pixels_at_all_places():
    _, cut, _, _ = decide(kaggle_train_augs((32, 32)), np.arange(5000), 0, 0, (32, 32))
    assert isinstance(cut, Crops)
    top, left, height, width = cut.boxes.T
    assert (height == width).all()
    assert set(height) == set(range(32, 41))
    for start in (top, left):
        for side in range(32, 41):
            assert set(start[height == side]) == set(range(40 - side + 1))


def test_merged_crops_and_flips_give_the_same_result(rng):
    crop = RandomResizedCrop((9, 7), (0.3, 1.0))
    flips = [RandomFlipLeftRight(), RandomFlipTopBottom()]
    augs = [*flips, Resize((30, 50)), crop, *flips, ColorJitter(hue=0.1), crop, CIFAR10_NORMALIZE]
    decisions = decide(augs, np.arange(40), 0, 0, (24, 20))
    steps = merged(decisions)
    kinds = [FlipsLeftRight, FlipsTopBottom, Resamples, Jitters, Resamples, Normalizes]
    assert [type(step) for step in steps] == kinds
    assert isinstance(steps[2], Resamples)
    X = rng.random((40, 3, 24, 20))
    wanted = transforms.augment(X, decisions[2:6])
    found = steps[2].rows[:, None] @ X @ steps[2].columns[:, None].swapaxes(2, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert decisions[3].rows.shape == (40, 9, 30)  # merging does not change the decisions


def test_normalizing_is_the_same_for_all_images():
    (decision,) = decide([CIFAR10_NORMALIZE], np.arange(5), 3, 1, (8, 8))
    assert isinstance(decision, Normalizes)
    assert decision.mean.dtype == decision.std.dtype == np.float32
    np.testing.assert_allclose(decision.mean, CIFAR10_NORMALIZE.mean, rtol=1e-7)
    np.testing.assert_allclose(decision.std, CIFAR10_NORMALIZE.std, rtol=1e-7)


def test_normalize_is_split_off_at_the_end_and_refused_before_it():
    flip, normalize = RandomFlipLeftRight(), Normalize((0, 0, 0), (1, 1, 1))
    assert split_normalize([]) == ((), ())
    assert split_normalize([flip, flip]) == ((flip, flip), ())
    assert split_normalize([normalize]) == ((), (normalize,))
    assert split_normalize([flip, normalize]) == ((flip,), (normalize,))
    for wrong in ([normalize, flip], [normalize, normalize], [flip, normalize, flip]):
        with pytest.raises(ValueError, match="Normalize must be the last"):
            split_normalize(wrong)


def jitters(jitter: ColorJitter, n: int = 10_000) -> Jitters:
    (decision,) = decide([jitter], np.arange(n), 0, 0, (8, 8))
    assert isinstance(decision, Jitters)
    return decision


def test_jitter_factors_are_uniform_in_their_ranges():
    factors = jitters(ColorJitter(0.5, 0.25, 2.0, 0.1)).factors
    low, high = np.array([0.5, 0.75, 0, -0.1]), np.array([1.5, 1.25, 3, 0.1])
    assert (factors >= low.astype(np.float32)).all()
    assert (factors <= high.astype(np.float32)).all()
    np.testing.assert_allclose(factors.mean(0), (low + high) / 2, atol=0.03)
    np.testing.assert_allclose(factors.std(0), (high - low) / np.sqrt(12), rtol=0.03)


def test_jitter_orders_are_all_permutations_equally_often():
    order = jitters(ColorJitter(0.5, 0.5, 0.5, 0.5)).order
    kinds, counts = np.unique(order, axis=0, return_counts=True)
    assert len(kinds) == 24
    assert counts.min() > 330  # of 417 on average
    assert counts.max() < 510


def test_the_order_is_independent_of_the_factors():
    jitter = jitters(ColorJitter(0.5, 0.5, 0.5, 0.5))
    for turn in range(4):
        chosen = jitter.factors[jitter.order[:, turn] == BRIGHTNESS, BRIGHTNESS]
        assert chosen.mean() == pytest.approx(1, abs=0.03)  # 0.006 standard error


def test_only_changing_properties_are_in_the_order():
    assert set(jitters(ColorJitter(contrast=0.5, hue=0.1)).order.ravel()) == {CONTRAST, HUE}
    assert jitters(ColorJitter()).order.shape == (10_000, 0)
