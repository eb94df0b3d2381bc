"""The reference's own runs of each chapter, and whether a backend's runs can show a mistake."""

from itertools import pairwise

import numpy as np
import pytest
from numpy_backend import numpy_backend

from common.parity.adapter import Adapter, drawn_weights, random_batch
from common.parity.checks import chapter_runs
from common.reference import ALIGNED, SGD, chapters, forward, train_step

SIZES = (8, 8, 3)  # of the batches in an epoch


def batches(epoch: int):
    drawn = [random_batch(n, 8, 10 * epoch + i) for i, n in enumerate(SIZES)]
    return [(batch.X, batch.y) for batch in drawn]


EPOCHS = [batches(epoch) for epoch in range(4)]
HELD_OUT = batches(9)


@pytest.fixture(scope="module")
def start():
    return drawn_weights(0, num_channels=4)


def test_the_reference_train_ch13_equals_its_single_steps(start):
    trained = chapters.train_ch13(start, EPOCHS, HELD_OUT, SGD(2**-7, 7 / 8))
    optimizer, weights = SGD(2**-7, 7 / 8), start
    for epoch, found in zip(EPOCHS, trained, strict=True):
        steps = []
        for X, y in epoch:
            steps.append(train_step(weights, X, y, optimizer))
            weights = steps[-1].weights
        assert found.images == [8, 16, 19]
        assert found.losses[0] == steps[0].loss / 8
        assert found.losses[-1] == pytest.approx(sum(step.loss for step in steps) / 19)
        assert found.accuracies[-1] == sum(step.correct for step in steps) / 19
        assert all(np.array_equal(found.weights[name], weights[name]) for name in weights)
        right = sum(int((forward(weights, X).logits.argmax(1) == y).sum()) for X, y in HELD_OUT)
        assert found.held_out_acc == right / 19


def test_the_reference_kaggle_training_multiplies_the_rate_after_each_period(start):
    trained = chapters.train(start, [*EPOCHS, batches(4)], None, 2**-4, 2**-11, 2, 0.5)
    assert [epoch.learning_rate for epoch in trained] == [2**-4, 2**-4, 2**-5, 2**-5, 2**-6]
    assert all(epoch.held_out_acc is None for epoch in trained)
    last = trained[-1].state
    assert last.lr == 2**-6
    assert last.steps == 15


def test_the_reference_predicts_the_label_of_the_largest_logit_of_every_image(start):
    labels = chapters.predict_labels(start, HELD_OUT)
    expected = [forward(start, x[None]).logits[0].argmax() for X, _ in HELD_OUT for x in X]
    assert labels.tolist() == expected


def test_the_runs_predict_several_classes():
    adapter = Adapter(numpy_backend(), "float64", num_channels=16)
    run = chapter_runs.kaggle_train(adapter, validate=True, seed=0)
    assert run.held_out_iter is not None
    images = run.held_out_iter.first_epoch(ALIGNED)
    predicted = [chapters.predict_labels(weights, images) for weights in run.recorder.weights]
    assert all(len(set(labels.tolist())) >= 2 for labels in predicted)
    assert all((a != b).any() for a, b in pairwise(predicted))
    assert len({epoch.held_out_acc for epoch in run.recorder.epochs}) > 1
