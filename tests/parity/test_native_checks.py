"""The native checks recover random parameters from test pictures, and compare them within statistical bounds."""

import itertools

import numpy as np
import pytest
from numpy_backend import changed, numpy_backend

from common.augmentation.decisions import HUE, decide
from common.augmentation.operations import RandomFlipLeftRight, RandomResizedCrop
from common.config import MAX_SEED
from common.parity import chance
from common.parity.adapter import Adapter
from common.parity.checks.initial_weights import initial_checks
from common.parity.native import pictures as known
from common.parity.native.checks import (
    FULL_AMOUNT,
    QUICK_AMOUNT,
    native_checks,
    reproducibility_check,
)
from common.parity.native.colours import colour_draws, factors_of
from common.parity.native.crops import CROPS, crop_draws
from common.parity.native.draws import flip_draws
from common.parity.native.visits import LEAST, Amount, Plan, dataset_of, seed_after, visit, visited
from common.parity.tolerances import FACTORS
from common.reference import ALIGNED, Conventions, transforms
from common.reference.boxes import draw_boxes


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_flips_are_recovered_from_pixels(size, rng):
    images = known.noise(40, size, 0)
    plain = transforms.from_images(images)
    left_right, top_bottom = rng.random((2, 40)) < 0.5
    X = transforms.flip_top_bottom(transforms.flip_left_right(plain, left_right), top_bottom)
    found = known.flips_of(X, plain)
    np.testing.assert_array_equal(found[0], left_right)
    np.testing.assert_array_equal(found[1], top_bottom)
    assert found[2].max() == 0


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("name", CROPS)
def test_crop_boxes_are_recovered_from_rounded_pixels(name, mirrored, rng):
    recipe = CROPS[name]
    boxes = draw_boxes(recipe.crop, 300, recipe.cut_from, rng)
    image = transforms.from_images(known.ramps(recipe.size, 0)[None])
    image = transforms.crop_resize(image, np.array([[0, 0, *recipe.size]]), recipe.cut_from)
    X = transforms.crop_resize(np.repeat(image, 300, axis=0), boxes, recipe.crop.size)
    X = transforms.to_uint8(X[..., ::-1] if mirrored else X) / 255
    found, flipped = known.boxes_of(X, recipe.size, recipe.cut_from)
    np.testing.assert_array_equal(found, boxes)
    assert (flipped == mirrored).all()


@pytest.mark.parametrize("conventions", [ALIGNED, Conventions(brightness="add")])
@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_jitter_factors_are_recovered_from_rounded_pixels(kind, conventions, rounding, rng):
    factors = rng.uniform(-0.5, 0.5, 300) + (kind != HUE)
    plain = np.repeat(transforms.from_images(known.PALETTE[None]), 300, axis=0)
    X = transforms.ADJUST[kind](plain, factors, conventions)
    X = transforms.to_uint8(X, Conventions(rounding=rounding)) / 255
    assert np.abs(factors_of(X, kind, conventions) - factors).max() < 1.01 * FACTORS.measured


def test_the_measures_of_the_wheel_do_not_depend_on_the_order_of_changes(rng):
    factors = rng.uniform([0.7, 0.7, 0.7, -0.5], [1.3, 1.3, 1.3, 0.5], (60, 4))
    plain = np.repeat(transforms.from_images(known.WHEEL[None]), 60, axis=0)
    orders = np.tile(np.arange(4), (60, 1))
    X = transforms.color_jitter(plain, factors, orders)
    Y = transforms.color_jitter(plain, factors, rng.permuted(orders, axis=1))
    for measure in (known.level, known.spread, known.chroma):
        np.testing.assert_allclose(measure(X), measure(Y), rtol=1e-2)
    np.testing.assert_allclose(known.turn(X, known.WHEEL), known.turn(Y, known.WHEEL), atol=1e-9)
    np.testing.assert_allclose(known.turn(X, known.WHEEL), factors[:, HUE], atol=1e-9)


@pytest.mark.parametrize("name", CROPS)
def test_the_reference_draws_boxes_like_the_batched_pipeline(name, rng):
    recipe = CROPS[name]
    boxes = draw_boxes(recipe.crop, 20_000, recipe.cut_from, rng)
    (found,) = decide([recipe.crop], np.arange(20_000), 0, 0, recipe.cut_from)
    for column in range(4):
        assert chance.same_distribution(found.boxes[:, column], np.sort(boxes[:, column])) < 1


def test_a_box_that_never_fits_becomes_the_central_box_of_the_batched_pipeline(rng):
    crop = RandomResizedCrop((4, 4), (1.0, 1.0), (0.5, 0.6))
    boxes = draw_boxes(crop, 5, (30, 30), rng)
    (found,) = decide([crop], np.arange(5), 0, 0, (30, 30))
    np.testing.assert_array_equal(found.boxes, boxes)


def test_bounds_accept_correct_samples(rng):
    for n in (80, 500, 3000):
        for _ in range(20):
            values = rng.random(n)
            assert chance.uniform(values) < 1
            assert chance.reaches_ends(values) < 1
            assert chance.share(values < 0.3, 0.3) < 1
            assert chance.same_share(values < 0.3, rng.random(9000) < 0.3) < 1
            assert chance.same_distribution(values, np.sort(rng.random(9000))) < 1
            assert chance.none_happened(values < 0.01, np.full(n, 0.01)) < 1


def test_bounds_reject_wrong_samples(rng):
    values = rng.random(3000)
    assert chance.uniform(values**1.5) > 1
    assert chance.reaches_ends(0.98 * values) > 1
    assert chance.reaches_ends(1.01 * values) > 1
    assert chance.share(values < 0.35, 0.5) > 1
    assert chance.same_share(values < 0.35, rng.random(50_000) < 0.5) > 1
    assert chance.same_distribution(values**1.5, np.sort(rng.random(50_000))) > 1
    assert chance.none_happened(values < 0, np.full(3000, 0.02)) > 1


def test_a_distance_of_1_has_the_probability_of_a_false_alarm():
    n = 1000
    assert 2 * np.exp(-2 * n * chance.bound(n) ** 2) == pytest.approx(chance.FALSE_ALARM)
    # The probability that n values miss one end by this much is FALSE_ALARM / 2.
    reach = 1 - (chance.FALSE_ALARM / 2) ** (1 / n)
    assert chance.reaches_ends(np.linspace(reach, 1 - reach, n)) == pytest.approx(1)


def test_values_must_reach_the_ends_of_the_reference_sample(rng):
    expected = rng.random(chance.SAMPLE)
    q = 1 - (chance.FALSE_ALARM / 2) ** (1 / 1000)
    assert chance.reaches_sample_ends(rng.random(1000), expected) == 0
    assert chance.reaches_sample_ends(np.linspace(2.2 * q, 1, 1000), expected) == np.inf
    assert chance.reaches_sample_ends(np.linspace(0, 1 - 2.2 * q, 1000), expected) == np.inf


@pytest.mark.parametrize("n", [QUICK_AMOUNT.direct, FULL_AMOUNT.direct, 4 * 230, 5 * 428])
def test_the_reference_sample_is_large_enough_for_every_number_of_crops(n, rng):
    expected = rng.random(chance.SAMPLE)
    assert chance.reaches_sample_ends(rng.random(n), expected) == 0


def test_too_few_values_are_rejected_and_too_many_are_an_error(rng):
    expected = rng.random(chance.SAMPLE)
    assert chance.reaches_sample_ends(rng.random(100), expected) == np.inf
    message = "a sample of 50000 is too small to compare the ends of 30000 values"
    with pytest.raises(ValueError, match=message):
        chance.reaches_sample_ends(rng.random(30_000), expected)


def test_an_empty_sample_is_rejected():
    none, expected = np.array([]), np.linspace(0, 1, 9)
    assert chance.same_distribution(none, expected) == np.inf
    assert chance.same_share(none < 0, expected < 0.5) == np.inf


def test_the_distance_of_samples_is_that_of_their_cumulative_distributions(rng):
    values, expected = rng.integers(0, 9, 50), np.sort(rng.integers(0, 12, 70))
    apart = max(abs((values <= x).mean() - (expected <= x).mean()) for x in range(12))
    bounds = chance.bound(50) + chance.bound(70)
    assert chance.same_distribution(values, expected) * bounds == pytest.approx(apart)


@pytest.mark.parametrize("amount", [QUICK_AMOUNT, FULL_AMOUNT])
def test_last_batches_have_enough_images(amount):
    assert {plan.workers > 0 for plan in amount.plans} == {False, True}
    for plan in amount.plans:
        assert plan.epochs >= 4
        for count in (amount.count, amount.flips):
            assert 0 < count % plan.batch_size < plan.batch_size
            assert plan.epochs * (count % plan.batch_size) >= LEAST


@pytest.mark.parametrize(("count", "flips"), [(230, 100), (100, 230)])
def test_last_batches_with_too_few_images_are_an_error(count, flips):
    with pytest.raises(ValueError, match="4 images in the last batches of 100, 2 workers"):
        Amount(count, flips, 150, (Plan(4, 40), Plan(4, 33, workers=2)))


def test_a_backend_with_too_small_last_batches_is_rejected():
    tab = numpy_backend()

    class Cut:
        """The batches of a loader, with only one image in the last."""

        def __init__(self, batches):
            self.batches = batches

        def __len__(self):
            return len(self.batches)

        def __iter__(self):
            for X, y in self.batches:
                n = len(y) if len(y) == QUICK_AMOUNT.plans[0].batch_size else 1
                yield X[:n], y[:n]

    cut = changed(tab, "loaders", load_native=lambda *given: Cut(tab.loaders.load_native(*given)))
    places = {
        difference.place.rpartition(": ")[2]
        for draws in (flip_draws, crop_draws, colour_draws)
        for result in draws(Adapter(cut, "float32"), QUICK_AMOUNT, 0)
        for difference in result.differences
        if difference.value == np.inf
    }
    assert places == {"enough images in last batches", "sizes and labels of batches"}


@pytest.mark.parametrize("seed", [MAX_SEED, MAX_SEED - 1])
def test_the_seed_after_the_largest_is_0(seed):
    """MXNet and TensorFlow refuse larger ones."""
    used = []
    tab = numpy_backend()

    def set_seed(seed):
        used.append(seed)
        tab.devices.set_seed(seed)

    def load_native(dataset, augs, batch_size, is_train, seed, num_workers):
        used.append(seed)
        return tab.loaders.load_native(dataset, augs, batch_size, is_train, seed, num_workers)

    backend = changed(
        changed(tab, "devices", set_seed=set_seed), "loaders", load_native=load_native
    )
    adapter = Adapter(backend, "float32")
    images = known.noise(2, (4, 4), 0)
    amount = Amount(230, 230, 1, (Plan(4, 33), Plan(4, 33), Plan(4, 33)))
    assert all(result.passed for result in initial_checks(backend, quick=True, seed=seed))
    assert reproducibility_check(adapter, QUICK_AMOUNT, seed).passed
    assert len(list(visited(adapter, images, [], amount, seed))) == 4
    assert {seed, seed_after(seed), 0} <= set(used)
    assert max(used) == MAX_SEED


def test_data_sets_have_ten_classes_like_the_chapter():
    dataset = dataset_of(known.noise(40, (2, 2), 0))
    assert len(set(dataset.classes)) == 10
    assert set(dataset.labels.tolist()) <= set(range(10))


def test_one_mirrored_crop_in_thousands_is_rejected():
    tab = numpy_backend()

    def native(augs):
        transform = tab.transforms.native(augs)
        flips = any(isinstance(aug, RandomFlipLeftRight) for aug in augs)
        calls = itertools.count()

        def mirroring(image, seed=None):
            X = transform(image, seed)
            return X[..., ::-1] if next(calls) == 7 and not flips else X

        return mirroring

    wrong = Adapter(changed(tab, "transforms", native=native), "float32")
    (draws, pixels) = crop_draws(wrong, QUICK_AMOUNT, 0)
    found = {d.place for d in draws.differences if d.value > 1}
    assert found == {f"{name}, applied directly: mirrored" for name in ("crop", "wide crop")}
    assert pixels.passed


@pytest.mark.slow
def test_a_full_run_raises_less_than_one_false_alarm_in_1e9():
    results = list(native_checks(Adapter(numpy_backend(), "float32")))
    assert [result.sentence() for result in results if not result.passed] == []
    # Comparisons with a sample of the reference count twice. Count all of them twice.
    assert 2 * sum(len(result.differences) for result in results) * chance.FALSE_ALARM < 1e-9


@pytest.mark.parametrize(
    "conventions",
    [
        Conventions(brightness="add"),
        Conventions(contrast="channel"),
        Conventions(saturation="hsv"),
        Conventions(saturation="blue"),
    ],
)
def test_a_declared_native_difference_passes(conventions):
    wrong = numpy_backend(conventions)
    declared = changed(wrong, "probes", NATIVE=conventions)
    for backend, passed in ((declared, True), (wrong, False)):
        results = colour_draws(Adapter(backend, "float32"), QUICK_AMOUNT, 0)
        assert all(result.passed for result in results) == passed


def test_boxes_drawn_by_height_are_rejected_unless_declared(rng):
    recipe = CROPS["crop"]
    by_area, by_height = (
        draw_boxes(recipe.crop, 3000, recipe.cut_from, rng, Conventions(crop_box=box))
        for box in ("area", "height")
    )
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (by_height, by_area)]
    assert chance.same_distribution(areas[0], np.sort(areas[1])) > 1


def test_visits_know_their_epoch_batch_and_place():
    images = known.noise(7, (2, 2), 0)
    visits = visit(Adapter(numpy_backend(), "float32"), images, [], Plan(2, 3), 0)
    assert visits.epoch.tolist() == [0] * 7 + [1] * 7
    assert visits.batch.tolist() == [0, 0, 0, 1, 1, 1, 2] * 2
    assert visits.place.tolist() == [0, 1, 2, 0, 1, 2, 0] * 2
    np.testing.assert_allclose(visits.X, transforms.from_images(images)[visits.index], atol=1e-6)
    assert visits.groups(1)["last batches"].sum() == 2
    assert visits.in_order
    assert visits.batched
    assert "last batches" not in visits.groups()


def test_one_worker_is_singular():
    assert [str(Plan(workers=n)) for n in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]
