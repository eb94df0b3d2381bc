"""Every backend trains the Kaggle chapter and predicts its labels: real steps on small data."""

import numpy as np
import pytest
from conftest import Recorder, bright_dataset, random_dataset, without_tracing

from common.augmentation.operations import Normalize, kaggle_test_augs
from common.datasets import Dataset
from common.interface import Backend
from common.metrics import KaggleSummary
from common.weights.canonical import initial_weights

LR, WD = 2**-9, 5e-4  # for few and small images; .02 is too large for them


class Training:
    """A network for two classes of 8 x 8 images, and batches of 8 that are only normalized."""

    def __init__(self, backend: Backend, n: int = 24, seed: int = 0):
        self.backend, self.devices = backend, [backend.devices.cpu()]
        self.net = backend.resnet.resnet18(2)
        backend.weights.set_weights(self.net, initial_weights(2, seed=seed))
        self.dataset, self.valid = bright_dataset(n, 0), bright_dataset(20, 1)
        self.train_iter, self.valid_iter = self.load(self.dataset, True), self.load(self.valid)
        self.recorder = Recorder()

    def load(self, dataset: Dataset, is_train: bool = False, batch_size: int = 8):
        augs = kaggle_test_augs()
        return self.backend.loaders.load_batched(dataset, augs, batch_size, is_train, 0)

    def run(self, num_epochs, lr=LR, lr_period=4, lr_decay=0.9, valid=True) -> KaggleSummary:
        return self.backend.kaggle.train(
            self.net,
            self.train_iter,
            self.valid_iter if valid else None,
            num_epochs,
            lr,
            WD,
            self.devices,
            lr_period,
            lr_decay,
            self.recorder,
        )

    def weights(self):
        return self.backend.weights.get_weights(self.net)


@pytest.fixture(autouse=True, scope="module")
def eager(backend):
    with without_tracing(backend.name):
        yield


@pytest.fixture
def training(backend: Backend) -> Training:
    return Training(backend)


@pytest.fixture(scope="module")
def learnt(backend: Backend) -> tuple[Training, KaggleSummary]:
    """A training that has learnt to tell bright from dark."""
    training = Training(backend, n=64)
    return training, training.run(5)


def test_training_learns_and_validates_after_each_epoch(learnt):
    training, summary = learnt
    assert summary.train_acc > 0.95
    assert summary.valid_acc > 0.95
    epochs = training.recorder.epochs
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4, 5]
    assert all(0 <= epoch.held_out_acc <= 1 for epoch in epochs)
    assert epochs[-1].held_out_acc == summary.valid_acc


def test_without_validation_images_it_only_trains(training, capsys):
    summary = training.run(2, valid=False)
    assert summary.valid_acc is None
    assert summary.examples == 48
    assert [epoch.held_out_acc for epoch in training.recorder.epochs] == [None, None]
    out = capsys.readouterr().out
    assert out.splitlines() == str(summary).splitlines()
    assert "valid" not in out


def test_validating_does_not_change_what_is_trained(backend):
    both = []
    for valid in (True, False):
        training = Training(backend, n=16)
        training.run(2, valid=valid)
        both.append(training.weights())
    for name, weight in both[0].items():
        np.testing.assert_array_equal(weight, both[1][name])


def test_the_learning_rate_falls_after_each_period_of_epochs(backend):
    """Five epochs of `train` equal the same steps by hand, with the schedule's learning rates."""
    training = Training(backend, n=16)
    training.run(5, lr=LR, lr_period=2, lr_decay=0.25)
    rates = [epoch.learning_rate for epoch in training.recorder.epochs]
    assert rates == pytest.approx([LR, LR, LR / 4, LR / 4, LR / 16], rel=1e-6)
    by_hand, trainer = Training(backend, n=16), backend.trainer
    sgd = trainer.sgd(by_hand.net, LR, 0.9, WD)
    loss = trainer.cross_entropy()
    for lr in (LR, LR, LR / 4, LR / 4, LR / 16):
        trainer.set_learning_rate(sgd, lr)
        for X, y in by_hand.train_iter:
            trainer.train_batch_ch13(by_hand.net, X, y, loss, sgd, by_hand.devices)
    for name, weight in by_hand.weights().items():
        np.testing.assert_array_equal(training.weights()[name], weight, err_msg=name)


def test_the_learning_rate_is_told_as_it_was_set(backend, monkeypatch):
    """Keras' optimizers keep it in float32, where .018 is .01799999922."""
    training = Training(backend, n=8)
    monkeypatch.setattr(backend.kaggle, "train_batch_ch13", lambda *arguments: (1.0, 1))
    training.run(3, lr=0.02, lr_period=1, lr_decay=0.9, valid=False)
    assert [epoch.learning_rate for epoch in training.recorder.epochs] == [0.02, 0.018, 0.0162]


def test_without_an_animator_the_book_s_plot_is_drawn(training):
    from matplotlib import pyplot as plt

    before = set(plt.get_fignums())
    training.recorder = None
    training.run(1, valid=False)
    (number,) = set(plt.get_fignums()) - before
    (axis,) = plt.figure(number).axes
    assert [line.get_label() for line in axis.lines][:2] == ["train loss", "train acc"]
    assert len(axis.lines[0].get_xdata()) >= 3
    plt.close(number)


def test_validation_counts_every_image_also_those_of_a_smaller_last_batch(backend):
    """The book drops the last batch of a folder in class order, and with it whole classes."""
    training = Training(backend, n=16)
    valid = bright_dataset(19, 3)  # two batches of 8 and one of 3
    training.valid_iter = training.load(valid)
    summary = training.run(1)
    predicted = backend.kaggle.predict_labels(training.net, training.load(valid))
    assert len(predicted) == 19
    assert summary.valid_acc == pytest.approx(np.mean(predicted == valid.labels))
    assert (summary.valid_acc * 19) == pytest.approx(round(summary.valid_acc * 19))


def test_labels_are_those_of_the_images_in_order(backend, learnt):
    training, _ = learnt
    shown = bright_dataset(30, 5)
    predicted = backend.kaggle.predict_labels(training.net, training.load(shown))
    assert (predicted.dtype, predicted.shape) == (np.int64, (30,))
    assert np.mean(predicted == shown.labels) >= 0.9
    backwards = Dataset(shown.images[::-1].copy(), shown.labels[::-1].copy(), shown.classes)
    again = backend.kaggle.predict_labels(training.net, training.load(backwards))
    np.testing.assert_array_equal(again[::-1], predicted)


def test_a_label_does_not_depend_on_the_other_images_of_its_batch(backend, learnt):
    """In training mode it would. The book's PyTorch tab predicts the test set in that mode."""
    training, _ = learnt
    shown = random_dataset(17, 4, size=8)
    labels = [
        backend.kaggle.predict_labels(training.net, training.load(shown, batch_size=n))
        for n in (1, 5, 17)
    ]
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[0], labels[2])


def test_the_test_set_is_predicted_without_a_graph(backend, training):
    """With a graph, every batch of 300,000 images keeps its activations until its labels are read."""
    if backend.name != "pytorch":
        pytest.skip("the others record a graph only when they are asked to")
    import torch

    seen = []
    training.net.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    backend.kaggle.predict_labels(training.net, training.valid_iter)
    assert seen == [False] * 3


def test_predicting_after_training_leaves_the_running_statistics(backend, learnt):
    training, _ = learnt
    before = training.weights()
    backend.kaggle.predict_labels(training.net, training.valid_iter)
    for name, weight in training.weights().items():
        np.testing.assert_array_equal(weight, before[name])


def test_the_recipe_normalizes_as_the_book_does():
    assert kaggle_test_augs() == (Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),)
