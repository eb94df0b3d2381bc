"""The traps of docs/traps.md in files, augmentations, random numbers and imports.

Each trap fails as the page says, and its fix does not.
"""

import functools
import importlib.metadata
import json
import os
import random
import re
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from conftest import load_or_skip, python

from docs.examples.traps import (
    added_brightness,
    compose_appends,
    crop_edges,
    flip_probability,
    hidden_file,
    ids_by_position,
    import_mxnet,
    jitter_hue,
    last_batch_dropped,
    listing_order,
    no_antialiasing,
    odd_flip,
    parallel_map,
    random_rotation,
    rows_without_images,
    saturation,
    shadowed,
    sorted_twice,
    tensorflow_first,
    thread_pool,
    three_generators,
    worker_flips,
    zero_jitter,
)

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def run_alone(function):
    """Call an example in a new process."""
    return python(f"from {function.__module__} import {function.__name__} as example\nexample()")


# --- Data and files --------------------------------------------------------------------------------------------------


def test_64_of_80_validation_images_are_seen_and_no_ship_and_no_truck(pytorch):
    valid = [(pytorch.zeros(1), label) for label in range(10) for _ in range(8)]
    seen = last_batch_dropped.trap(valid)
    assert len(seen) == 64
    assert [CIFAR10[label] for label in range(10) if label not in seen] == ["ship", "truck"]
    assert Counter(last_batch_dropped.fixed(valid)) == dict.fromkeys(range(10), 8)


def test_gluon_s_discard_loses_the_same_images(mxnet):
    valid = [(mxnet.np.zeros(1), label) for label in range(10) for _ in range(8)]
    batches = mxnet.gluon.data.DataLoader(valid, 32, last_batch="discard")
    seen = np.concatenate([y.asnumpy() for _, y in batches])
    assert np.bincount(seen.astype(int)).tolist() == [8] * 8


def test_the_order_of_the_listing_chooses_the_validation_images(monkeypatch):
    found = {"trap": [], "fixed": []}
    for names in (["1.png", "2.png", "10.png"], ["10.png", "2.png", "1.png"]):
        monkeypatch.setattr(os, "listdir", lambda folder, names=names: list(names))
        found["trap"].append(listing_order.trap("train", 2))
        found["fixed"].append(listing_order.fixed("train", 2))
    assert found["trap"] == [["1.png", "2.png"], ["10.png", "2.png"]]
    assert found["fixed"] == [["1.png", "2.png"]] * 2


@pytest.mark.parametrize(("sort", "num_both"), [(sorted_twice.trap, 6), (sorted_twice.fixed, 0)])
def test_of_20_images_that_are_sorted_again_6_are_in_both_folders(tmp_path, sort, num_both):
    images = [tmp_path / f"{i}.png" for i in range(20)]
    for image in images:
        image.touch()
    for num_valid in (8, 2):
        sort(images, tmp_path / "out", num_valid)
    train, valid = (set(os.listdir(tmp_path / "out" / split)) for split in ("train", "valid"))
    assert len(train & valid) == num_both
    assert len(train | valid) == 20


def test_sorting_again_with_the_same_ratio_is_harmless(tmp_path):
    images = [tmp_path / f"{i}.png" for i in range(20)]
    for image in images:
        image.touch()
    for _ in range(2):
        sorted_twice.trap(images, tmp_path / "out", 8)
    assert len(os.listdir(tmp_path / "out" / "valid")) == 8
    assert len(os.listdir(tmp_path / "out" / "train")) == 12


def test_a_hidden_file_is_looked_up_as_an_image():
    names, labels = ["1.png", ".DS_Store", "2.png"], {"1": "cat", "2": "dog"}
    with pytest.raises(KeyError, match=r"^''$"):
        hidden_file.trap(names, labels)
    assert hidden_file.fixed(names, labels) == ["cat", "dog"]


def test_1000_images_beside_50000_labels_leave_none_to_train_on():
    labels = {i: CIFAR10[i % 10] for i in range(50_000)}
    ids = range(1_000)
    train, valid = rows_without_images.trap(ids, labels, 0.1)
    assert (len(train), len(valid)) == (0, 1_000)
    train, valid = rows_without_images.fixed(ids, labels, 0.1)
    assert (len(train), len(valid)) == (900, 100)
    assert rows_without_images.split(ids, labels, 10) == (train, valid)


def test_counted_ids_are_right_until_one_is_missing():
    def rows(ids):
        """Return the rows that both write for files with these ids, each labelled with its own id."""
        names = sorted(f"{i}.png" for i in ids)  # as a dataset reads a folder
        labels = [name.removesuffix(".png") for name in names]
        return ids_by_position.trap(names, labels), ids_by_position.fixed(names, labels)

    trap, fixed = rows(range(1, 13))
    assert trap == fixed
    trap, fixed = rows([i for i in range(1, 13) if i != 9])
    assert sum(str(i) != label for i, label in trap) == 8
    assert all(str(i) == label for i, label in fixed)
    assert len(fixed) == 11


# --- Augmentations ---------------------------------------------------------------------------------------------------


def test_mxnet_s_saturation_of_0_is_nearly_black(mxnet):
    X = mxnet.np.array([[[200, 100, 50]]], dtype="uint8")
    assert saturation.trap(X, 0).asnumpy().tolist() == [[[5, 5, 5]]]
    assert saturation.fixed(X, 0).asnumpy().tolist() == [[[124, 124, 124]]]
    assert saturation.fixed(X, 1).asnumpy().tolist() == X.asnumpy().tolist()


HUES = """
import backends.mxnet
from mxnet import np
from docs.examples.traps import jitter_hue

red = np.array([[[200, 0, 0]]], dtype='uint8')
for _ in range(100):
    result = jitter_hue.{}(red, 1e-9).asnumpy().astype(int)
    assert abs(result - red.asnumpy()).max() <= 1, result
print("alive")
"""


@pytest.mark.parametrize(("jitter", "alive"), [(jitter_hue.trap, False), (jitter_hue.fixed, True)])
def test_mxnet_s_jitter_does_not_survive_red_that_is_turned_back(jitter, alive):
    """If the process survives, the pixel has an arbitrary colour: the memory after the table depends on the build."""
    load_or_skip("mxnet")
    done = python(HUES.format(jitter.__name__))
    assert (done.returncode == 0) == alive, done.stderr
    assert (done.stdout.strip() == "alive") == alive


def num_unwritten(mxnet, operators, name, change, X):
    """Return how many values of its result a flip does not write, through the operator that it calls.

    X contains no 200, and the result is filled with 200 before. `operators` is the module in which the operator is
    looked up.
    """
    result = mxnet.np.full(X.shape, 200, "uint8")
    writes = functools.partial(getattr(operators, name), out=result)
    with mock.patch.object(operators, name, writes):
        assert change(X) is result
    return int((result.asnumpy() == 200).sum())


@pytest.mark.parametrize("width", [31, 32, 33])
def test_mxnet_s_flips_leave_the_middle_of_an_odd_size_unwritten(mxnet, width):
    from mxnet.gluon.data.vision import transforms

    X = mxnet.np.full((8, width, 3), 7, "uint8")
    middle = 8 * 3 if width % 2 else 0  # the values of one column
    user_s, gluon_s = mxnet.npx.image, mxnet.nd.npx.image
    assert num_unwritten(mxnet, user_s, "flip_left_right", odd_flip.trap, X) == middle
    assert (odd_flip.fixed(X).asnumpy() == 7).all()

    def upside_down(X):
        return user_s.flip_top_bottom(X)

    X_turned = X.transpose(1, 0, 2)
    assert num_unwritten(mxnet, user_s, "flip_top_bottom", upside_down, X_turned) == middle
    flip = transforms.RandomFlipLeftRight()
    counts = [num_unwritten(mxnet, gluon_s, "random_flip_left_right", flip, X) for _ in range(50)]
    assert set(counts) == {0, middle}


def test_only_the_middle_column_is_wrong(mxnet):
    X = mxnet.np.array(np.random.default_rng(0).integers(0, 256, (8, 9, 3)), dtype="uint8")
    apart = odd_flip.trap(X).asnumpy() != odd_flip.fixed(X).asnumpy()
    assert not np.delete(apart, 4, axis=1).any()
    np.testing.assert_array_equal(odd_flip.fixed(X).asnumpy(), X.asnumpy()[:, ::-1])


def test_mxnet_s_jitter_of_zeros_writes_nothing(mxnet):
    X, operators = mxnet.np.full((4, 4, 3), 7, "uint8"), mxnet.nd.npx.image

    def unwritten(*strengths):
        def jitter(X):
            return zero_jitter.trap(X, *strengths)

        return num_unwritten(mxnet, operators, "random_color_jitter", jitter, X)

    assert unwritten(0, 0, 0, 0) == X.size
    assert unwritten(0.5, 0, 0, 0) == 0
    assert (zero_jitter.fixed(X, 0, 0, 0, 0).asnumpy() == 7).all()
    assert zero_jitter.fixed(X, 0.5, 0, 0, 0) is not X


@pytest.mark.parametrize("p", [0, 1])
def test_mxnet_s_flip_forgets_its_probability(mxnet, p):
    X = mxnet.np.array([[[0] * 3, [1] * 3]], dtype="uint8")
    mxnet.npx.random.seed(0)

    def count(flip):
        return sum(flip(X, p).asnumpy()[0, 0, 0] for _ in range(100))

    assert 30 < count(flip_probability.trap) < 70
    assert count(flip_probability.fixed) == 100 * p


def test_mxnet_s_rotation_refuses_floats_for_being_floats(mxnet):
    X = mxnet.np.array(np.random.default_rng(0).random((3, 9, 9)), dtype="float32")
    with pytest.raises(TypeError, match="only supports float32"):
        random_rotation.trap(X, 179.99, 180.01)
    turned = random_rotation.fixed(X, 179.99, 180.01).asnumpy()
    np.testing.assert_allclose(turned, X.asnumpy()[:, ::-1, ::-1], atol=0.01)


def test_compose_appends_none_to_its_argument(mxnet):
    from mxnet.gluon.data.vision import transforms

    augs = [transforms.RandomFlipLeftRight(), transforms.ToTensor()]
    compose_appends.fixed(augs)
    assert len(augs) == 2
    compose_appends.trap(augs)
    assert augs[2:] == [None]
    with pytest.raises(AttributeError, match="append"):
        compose_appends.trap(tuple(augs[:2]))
    compose_appends.fixed(tuple(augs[:2]))


def stripes():
    """Return floats (1, 8, 8, 1) with the columns 255, 0, 0, 255, twice: half of the image is white."""
    columns = np.array([255, 0, 0, 255] * 2, np.float32)
    return np.broadcast_to(columns[:, None], (1, 8, 8, 1)).copy()


def test_what_is_not_antialiased_may_miss_all_that_is_white(tensorflow):
    assert no_antialiasing.trap(stripes(), (2, 2)).numpy().max() == 0
    mean = no_antialiasing.fixed(stripes(), (2, 2)).numpy().mean()
    assert 100 < mean < 155


def test_gluon_s_resize_misses_it_too_and_pytorch_s_does_not(mxnet, pytorch):
    from torchvision.transforms import functional

    X = mxnet.np.array(stripes()[0])
    small = mxnet.gluon.data.vision.transforms.Resize(2)(X)
    assert small.asnumpy().max() == 0
    small = functional.resize(pytorch.tensor(stripes()).permute(0, 3, 1, 2), [2, 2])
    assert 100 < small.mean() < 155


def test_tensorflow_s_brightness_lifts_black(tensorflow):
    X = np.array([0, 0.5], np.float32)
    for factor, added, multiplied in ((1.5, [0.5, 1], [0, 0.75]), (0.5, [0, 0], [0, 0.25])):
        assert added_brightness.trap(X, factor).numpy().tolist() == added
        assert added_brightness.fixed(X, factor).numpy().tolist() == multiplied


def test_so_does_keras_random_brightness(tensorflow):
    from keras.layers import RandomBrightness

    brighter = RandomBrightness((0.25, 0.25), value_range=(0, 1))
    assert (brighter(np.zeros((2, 4, 4, 3), np.float32), training=True).numpy() == 0.25).all()


def test_tensorflow_s_crops_stop_one_pixel_short_of_the_edge(tensorflow):
    trap, fixed = (
        Counter(int(start) for seed in range(200) for start in place(seed))
        for place in (crop_edges.trap, crop_edges.fixed)
    )
    assert set(trap) == set(range(8))
    assert set(fixed) == set(range(9))


# --- Randomness and workers ------------------------------------------------------------------------------------------

WORKERS = """
import json, sys
from multiprocessing import Barrier
import backends.mxnet
from mxnet import np
from mxnet.gluon.data.vision import transforms
from docs.examples.traps import worker_flips

class Images:
    '''Images of two pixels; a batch begins when two workers have one.'''
    meet = Barrier(2)
    flip = transforms.RandomFlipLeftRight()
    def __len__(self):
        return 64
    def __getitem__(self, i):
        if i % 16 == 0:
            self.meet.wait(60)
        return self.flip(np.array([[[0] * 3, [1] * 3]], dtype='uint8'))

def flips(loader):
    return ["".join(str(x) for x in X.asnumpy()[:, 0, 0, 0]) for X in loader]

"""


def test_mxnet_s_workers_mirror_the_same_images_of_their_batches():
    load_or_skip("mxnet")
    calls = [f"worker_flips.{worker_flips.trap.__name__}(Images(), 16)"]
    calls += [
        f"worker_flips.{worker_flips.fixed.__name__}(Images(), 16, {epoch})" for epoch in (0, 0, 1)
    ]
    done = python(
        WORKERS + f"print(json.dumps([flips(loader) for loader in ({', '.join(calls)})]))"
    )
    trap, first, again, second = json.loads(done.stdout.splitlines()[-1])
    assert trap[0] == trap[1] != trap[2] == trap[3]
    assert len(set(first + second)) == 8
    assert first == again
    assert 0.3 < np.mean([int(x) for x in "".join(first + second)]) < 0.7


def test_one_seed_of_mxnet_s_fixes_neither_crops_nor_the_order(mxnet):
    from mxnet import gluon, image

    X = mxnet.np.zeros((100, 100, 3), "uint8")
    picture = mxnet.np.array([[[0] * 3, [1] * 3]], dtype="uint8")
    flip = gluon.data.vision.transforms.RandomFlipLeftRight()

    def draws():
        flips = [int(flip(picture).asnumpy()[0, 0, 0]) for _ in range(30)]
        boxes = [image.random_size_crop(X, (8, 8), (0.1, 1), (0.5, 2))[1] for _ in range(5)]
        return flips, boxes, list(gluon.data.RandomSampler(30))

    states = random.getstate(), np.random.get_state()
    found = []
    for seed in (three_generators.trap, three_generators.fixed):
        for _ in range(2):
            seed(0)
            found.append(draws())
    random.setstate(states[0])
    np.random.set_state(states[1])
    same = [first == second for first, second in zip(found[0], found[1], strict=True)]
    assert same == [True, False, False]
    assert found[2] == found[3]


FORKS = """
import multiprocessing, random
def draw():
    return random.random()

random.seed(0)
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply(draw))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="without forks there are no such workers")
def test_python_seeds_its_generator_anew_in_every_fork():
    first, second = python(FORKS), python(FORKS)
    assert 0 <= float(first.stdout) != float(second.stdout) < 1


THREADS = """
import threading
import backends.mxnet
from mxnet import np
from mxnet.gluon import HybridBlock
from mxnet.gluon.data import SimpleDataset
from mxnet.gluon.data.vision import transforms
from docs.examples.traps import thread_pool

class Meet(HybridBlock):
    '''Changes nothing; while the graph is built, a thread waits here for another.'''
    meet = threading.Barrier(2)
    def hybrid_forward(self, F, x):
        if threading.current_thread() is not threading.main_thread():
            self.meet.wait(60)
        return x

images = SimpleDataset([(np.full((4, 4, 3), i, dtype='uint8'), i) for i in range(8)])
transform = transforms.Compose([Meet(), transforms.ToTensor()])
"""


@pytest.mark.parametrize("load", [thread_pool.trap, thread_pool.fixed])
def test_threads_that_build_one_graph_at_once_end_the_loading(load):
    load_or_skip("mxnet")
    call = f"loader = thread_pool.{load.__name__}(images, transform)\n"
    done = python(THREADS + call + "print([y.item() for _, y in loader])")
    if load is thread_pool.trap:
        assert "AttributeError: 'NoneType' object has no attribute '__exit__'" in done.stderr
    else:
        assert done.stdout.strip() == str(list(range(8))), done.stderr


def test_a_parallel_map_draws_otherwise_each_time(tensorflow):
    def runs(flips):
        return [tuple(bool(x) for x in flips(3000, 0)) for _ in range(5)]

    assert len(set(runs(parallel_map.trap))) > 1
    (flips,) = set(runs(parallel_map.fixed))
    assert 0.4 < np.mean(flips) < 0.6


# --- Importing -------------------------------------------------------------------------------------------------------


def test_mxnet_s_import_fails_and_not_with_an_import_error():
    load_or_skip("mxnet")
    trap, fixed = run_alone(import_mxnet.trap), run_alone(import_mxnet.fixed)
    message = r"^AttributeError: module 'numpy' has no attribute 'bool'"
    assert re.search(message, trap.stderr, re.M), trap.stderr
    assert (fixed.returncode, fixed.stdout) == (0, ""), fixed.stderr
    assert not issubclass(AttributeError, ImportError)
    requirements = importlib.metadata.requires("mxnet")
    assert any(re.match(r"numpy\b.*<2\b", requirement) for requirement in requirements)


@pytest.mark.slow
def test_triton_after_tensorflow_aborts_the_process():
    load_or_skip("tensorflow")
    pytest.importorskip("triton", reason="it comes with PyTorch for Linux")
    trap, fixed = run_alone(tensorflow_first.trap), run_alone(tensorflow_first.fixed)
    assert trap.returncode == -6  # SIGABRT: no exception, nothing to catch
    assert "LLVM ERROR: inconsistency in registered CommandLine options" in trap.stderr
    assert fixed.returncode == 0, fixed.stderr


def test_a_script_beside_a_folder_named_after_a_framework_imports_the_folder(tmp_path):
    for path, text in {
        "mxnet.py": "name = 'the framework'",
        "backends/mxnet/__init__.py": "name = 'the folder'",
        "backends/train.py": "import mxnet\nprint(mxnet.name)",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert shadowed.trap(tmp_path).stdout.strip() == "the folder"
    assert shadowed.fixed(tmp_path).stdout.strip() == "the framework"
