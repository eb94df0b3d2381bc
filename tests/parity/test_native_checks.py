"""The native pipeline's draws are found again in known pictures, and compared by bounds that chance does not exceed."""

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
from common.parity.native.checks import FULL_AMOUNT, QUICK_AMOUNT, native_checks, repeats_check
from common.parity.native.colours import colour_draws, factors_of
from common.parity.native.crops import CROPS, crop_draws
from common.parity.native.draws import flip_draws
from common.parity.native.visits import LEAST, Amount, Plan, dataset_of, seed_after, visit, visited
from common.parity.tolerances import FACTORS
from common.reference import ALIGNED, Conventions, transforms
from common.reference.boxes import draw_boxes


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_flips_are_found_again(size, rng):
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
def test_boxes_are_found_again_from_rounded_pixels(name, mirrored, rng):
    recipe = CROPS[name]
    boxes = draw_boxes(recipe.crop, 300, recipe.cut_from, rng)
    image = transforms.from_images(known.ramps(recipe.size, 0)[None])
    image = transforms.crop_resize(image, np.array([[0, 0, *recipe.size]]), recipe.cut_from)
    X = transforms.crop_resize(np.repeat(image, 300, axis=0), boxes, recipe.crop.size)
    X = transforms.to_levels(X[..., ::-1] if mirrored else X) / 255
    found, flipped = known.boxes_of(X, recipe.size, recipe.cut_from)
    np.testing.assert_array_equal(found, boxes)
    assert (flipped == mirrored).all()


@pytest.mark.parametrize("conventions", [ALIGNED, Conventions(brightness="add")])
@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("rounding", ["nearest", "down"])
def test_factors_are_found_again_from_rounded_pixels(kind, conventions, rounding, rng):
    factors = rng.uniform(-0.5, 0.5, 300) + (kind != HUE)
    plain = np.repeat(transforms.from_images(known.PALETTE[None]), 300, axis=0)
    X = transforms.ADJUST[kind](plain, factors, conventions)
    X = transforms.to_levels(X, Conventions(rounding=rounding)) / 255
    assert np.abs(factors_of(X, kind, conventions) - factors).max() < 1.01 * FACTORS.measured


def test_the_wheel_s_measures_do_not_depend_on_the_order_of_the_changes(rng):
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
def test_the_reference_s_boxes_are_those_of_the_batched_pipeline(name, rng):
    recipe = CROPS[name]
    boxes = draw_boxes(recipe.crop, 20_000, recipe.cut_from, rng)
    (found,) = decide([recipe.crop], np.arange(20_000), 0, 0, recipe.cut_from)
    for column in range(4):
        assert chance.same_distribution(found.boxes[:, column], np.sort(boxes[:, column])) < 1


def test_boxes_that_fit_in_no_attempt_are_the_central_ones_of_the_batched_pipeline(rng):
    crop = RandomResizedCrop((4, 4), (1.0, 1.0), (0.5, 0.6))
    boxes = draw_boxes(crop, 5, (30, 30), rng)
    (found,) = decide([crop], np.arange(5), 0, 0, (30, 30))
    np.testing.assert_array_equal(found.boxes, boxes)


def test_bounds_hold_for_draws_that_are_right(rng):
    for n in (80, 500, 3000):
        for _ in range(20):
            values = rng.random(n)
            assert chance.uniform(values) < 1
            assert chance.ends(values) < 1
            assert chance.share(values < 0.3, 0.3) < 1
            assert chance.same_share(values < 0.3, rng.random(9000) < 0.3) < 1
            assert chance.same_distribution(values, np.sort(rng.random(9000))) < 1
            assert chance.never(values < 0.01, np.full(n, 0.01)) < 1


def test_bounds_reject_draws_that_are_wrong(rng):
    values = rng.random(3000)
    assert chance.uniform(values**1.5) > 1
    assert chance.ends(0.98 * values) > 1
    assert chance.ends(1.01 * values) > 1
    assert chance.share(values < 0.35, 0.5) > 1
    assert chance.same_share(values < 0.35, rng.random(50_000) < 0.5) > 1
    assert chance.same_distribution(values**1.5, np.sort(rng.random(50_000))) > 1
    assert chance.never(values < 0, np.full(3000, 0.02)) > 1


def test_a_distance_of_one_is_the_probability_of_a_false_alarm():
    n = 1000
    assert 2 * np.exp(-2 * n * chance.bound(n) ** 2) == pytest.approx(chance.FALSE_ALARM)
    # n values miss both ends by that much, one of them with a probability of FALSE_ALARM / 2.
    reach = 1 - (chance.FALSE_ALARM / 2) ** (1 / n)
    assert chance.ends(np.linspace(reach, 1 - reach, n)) == pytest.approx(1)


def test_ends_that_a_sample_reaches_must_be_reached(rng):
    wanted = rng.random(chance.SAMPLE)
    q = 1 - (chance.FALSE_ALARM / 2) ** (1 / 1000)
    assert chance.ends_of_sample(rng.random(1000), wanted) == 0
    assert chance.ends_of_sample(np.linspace(2.2 * q, 1, 1000), wanted) == np.inf
    assert chance.ends_of_sample(np.linspace(0, 1 - 2.2 * q, 1000), wanted) == np.inf


@pytest.mark.parametrize("n", [QUICK_AMOUNT.direct, FULL_AMOUNT.direct, 4 * 230, 5 * 428])
def test_the_ends_of_every_number_of_crops_can_be_compared(n, rng):
    wanted = rng.random(chance.SAMPLE)
    assert chance.ends_of_sample(rng.random(n), wanted) == 0


def test_ends_of_too_few_values_are_rejected_and_of_too_many_an_error(rng):
    wanted = rng.random(chance.SAMPLE)
    assert chance.ends_of_sample(rng.random(100), wanted) == np.inf
    with pytest.raises(ValueError, match="a sample of 50000 cannot tell the ends of 30000 values"):
        chance.ends_of_sample(rng.random(30_000), wanted)


def test_no_draws_at_all_are_rejected():
    none, wanted = np.array([]), np.linspace(0, 1, 9)
    assert chance.same_distribution(none, wanted) == np.inf
    assert chance.same_share(none < 0, wanted < 0.5) == np.inf


def test_distances_of_samples_are_those_of_their_cumulative_distributions(rng):
    values, wanted = rng.integers(0, 9, 50), np.sort(rng.integers(0, 12, 70))
    apart = max(abs((values <= x).mean() - (wanted <= x).mean()) for x in range(12))
    bounds = chance.bound(50) + chance.bound(70)
    assert chance.same_distribution(values, wanted) * bounds == pytest.approx(apart)


@pytest.mark.parametrize("amount", [QUICK_AMOUNT, FULL_AMOUNT])
def test_last_batches_have_enough_images_to_be_judged(amount):
    assert {plan.workers > 0 for plan in amount.plans} == {False, True}
    for plan in amount.plans:
        assert plan.epochs >= 4
        for count in (amount.count, amount.flips):
            assert 0 < count % plan.batch_size < plan.batch_size
            assert plan.epochs * (count % plan.batch_size) >= LEAST


@pytest.mark.parametrize(("count", "flips"), [(230, 100), (100, 230)])
def test_last_batches_of_too_few_images_are_an_error(count, flips):
    with pytest.raises(ValueError, match="4 images in the last batches of 100, 2 workers"):
        Amount(count, flips, 150, (Plan(4, 40), Plan(4, 33, workers=2)))


def test_a_backend_whose_last_batches_are_too_small_to_be_judged_is_rejected():
    tab = numpy_backend()

    class Cut:
        """The batches of a loader, the last one with a single image."""

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
    assert places == {"images of last batches suffice", "sizes and labels of batches"}


@pytest.mark.parametrize("seed", [MAX_SEED, MAX_SEED - 1])
def test_seeds_after_the_largest_one_begin_again_at_0(seed):
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
    assert repeats_check(adapter, QUICK_AMOUNT, seed).passed
    assert len(list(visited(adapter, images, [], amount, seed))) == 4
    assert {seed, seed_after(seed), 0} <= set(used)
    assert max(used) == MAX_SEED


def test_the_data_sets_have_the_chapter_s_classes():
    dataset = dataset_of(known.noise(40, (2, 2), 0))
    assert len(set(dataset.classes)) == 10
    assert set(dataset.labels.tolist()) <= set(range(10))


def test_one_mirrored_crop_of_thousands_is_rejected():
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
def test_a_run_makes_fewer_comparisons_than_its_false_alarms_allow():
    results = list(native_checks(Adapter(numpy_backend(), "float32")))
    assert [result.sentence() for result in results if not result.passed] == []
    # Those with a sample of the reference's count twice: count all of them so.
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
def test_a_native_difference_that_is_declared_is_no_false_alarm(conventions):
    wrong = numpy_backend(conventions)
    declared = changed(wrong, "probes", NATIVE=conventions)
    for backend, passed in ((declared, True), (wrong, False)):
        results = colour_draws(Adapter(backend, "float32"), QUICK_AMOUNT, 0)
        assert all(result.passed for result in results) == passed


def test_a_box_drawn_by_its_height_is_rejected_where_it_is_not_declared(rng):
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


def test_a_number_of_workers_is_named_in_the_singular_where_it_is_one():
    assert [str(Plan(workers=n)) for n in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]
