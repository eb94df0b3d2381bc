"""Every backend's chapter-13 trainer, with real steps on small data."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Recorder, bright_dataset, without_tracing

from common import metrics
from common.interface import Backend
from common.metrics import Accumulator
from common.reference import SGD, train_step
from common.weights.canonical import initial_weights, is_buffer

SIZE = 8


class Training:
    """A network for two classes of 8 x 8 images, with data to train it on."""

    def __init__(self, backend: Backend, n: int = 40, batch_size: int = 8, seed: int = 0):
        self.backend = backend
        self.devices = [backend.devices.cpu()]
        self.net = backend.resnet.resnet18(2)
        backend.weights.set_weights(self.net, initial_weights(2, seed=seed))
        self.trainer = backend.trainer.adam(self.net)
        self.loss = backend.trainer.cross_entropy()
        load = backend.loaders.load_batched
        self.train_iter = load(bright_dataset(n, 0), (), batch_size, True, seed)
        self.test_iter = load(bright_dataset(20, 1), (), batch_size, False)

    def run(self, num_epochs: int, animator=None):
        return self.backend.trainer.train_ch13(
            self.net,
            self.train_iter,
            self.test_iter,
            self.loss,
            self.trainer,
            num_epochs,
            self.devices,
            animator or Recorder(),
        )

    def weights(self):
        return self.backend.weights.get_weights(self.net)


@pytest.fixture(autouse=True)
def eager(request):
    """Trace graphs only in the tests about them; test_run.py traces the rest."""
    traced = any(word in request.node.name for word in ("compiled", "learns"))
    tensorflow = not traced and "tensorflow" in request.node.name
    with without_tracing("tensorflow" if tensorflow else ""):
        yield


@pytest.fixture
def training(backend: Backend) -> Training:
    return Training(backend)


def test_a_step_is_the_reference_s(backend):
    """The same step in the reference and in the tab."""
    data, weights = bright_dataset(8, 0), initial_weights(2, num_channels=16)
    lr, momentum, weight_decay = 0.1, 0.9, 1e-3

    X, y = np.moveaxis(data.images / 255, -1, 1), data.labels  # (n, 3, height, width)
    trainer = SGD(lr, momentum, weight_decay)
    wanted = train_step(weights, X, y, trainer)

    devices = [backend.devices.cpu()]
    net = backend.resnet.resnet18(2, num_channels=16)
    backend.weights.set_weights(net, weights)
    X = backend.transforms.to_float(backend.transforms.from_images(data.images, devices[0]))
    y = backend.devices.from_numpy(data.labels, devices[0])
    trainer = backend.trainer.sgd(net, lr, momentum, weight_decay)
    loss = backend.trainer.cross_entropy()
    l, correct = backend.trainer.train_batch_ch13(net, X, y, loss, trainer, devices)

    assert float(l) == pytest.approx(wanted.loss, rel=1e-5)
    assert int(correct) == wanted.correct
    for name, weight in backend.weights.get_weights(net).items():
        if not is_buffer(name):
            np.testing.assert_allclose(weight, wanted.weights[name], atol=1e-5, err_msg=name)


def test_training_learns(backend):
    summary = Training(backend, n=80, batch_size=16).run(8)
    assert summary.train_acc > 0.95
    assert summary.test_acc > 0.95
    assert summary.loss < 0.2


def test_the_summary_is_what_was_printed_and_counts_every_image(training, capsys):
    summary = training.run(2)
    assert summary.examples == 80
    assert 0 < summary.step_seconds <= summary.seconds
    lines = capsys.readouterr().out.splitlines()
    assert lines == str(summary).splitlines()
    assert lines[0].startswith("loss ")
    assert "examples/sec on [" in lines[1]
    assert "wall clock" in lines[2]


def test_reports_come_five_times_an_epoch_and_once_after_it(training):
    recorder = Recorder()
    training.run(2, recorder)
    shares = [(report.epoch, report.share) for report in recorder.reports]
    assert shares == [(epoch, i / 5) for epoch in (1, 2) for i in range(1, 6)]
    assert [epoch.epoch for epoch in recorder.epochs] == [1, 2]
    assert all(0 <= epoch.held_out_acc <= 1 for epoch in recorder.epochs)
    assert recorder.images == [8, 16, 24, 32, 40] * 2


def test_fewer_than_five_batches_are_trained_and_reported(backend):
    training, recorder = Training(backend, n=12), Recorder()
    training.run(1, recorder)
    assert [report.share for report in recorder.reports] == [0.5, 1]
    assert len(recorder.epochs) == 1


def test_a_batch_returns_the_sum_of_losses_and_the_number_right(backend, training):
    X, y = next(iter(training.train_iter))
    to_numpy = backend.devices.to_numpy
    l, acc = backend.trainer.train_batch_ch13(
        training.net, X, y, training.loss, training.trainer, training.devices
    )
    fresh = Training(backend)
    logits = to_numpy(backend.trainer.predict(fresh.net, X, training=True)).astype(np.float64)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    labels = to_numpy(y)
    assert float(to_numpy(l)) == pytest.approx(-logp[np.arange(8), labels].sum(), rel=1e-4)
    assert int(to_numpy(acc)) == (logits.argmax(1) == labels).sum()


def test_reported_numbers_are_those_of_the_batches_and_of_the_test_set(backend, monkeypatch):
    training, recorder, batches = Training(backend, n=20), Recorder(), []  # 8, 8 and 4 images
    test = bright_dataset(20, 1)
    test = replace(test, images=test.images[:15], labels=test.labels[:15])
    training.test_iter = backend.loaders.load_batched(test, (), 8, False)
    train_batch, to_numpy = backend.trainer.train_batch_ch13, backend.devices.to_numpy

    def note(*arguments):
        l, acc = train_batch(*arguments)
        batches.append((float(to_numpy(l)), int(to_numpy(acc)), len(arguments[2])))
        return l, acc

    monkeypatch.setattr(backend.trainer, "train_batch_ch13", note)
    summary = training.run(2, recorder)
    for epoch in range(2):
        loss, right, count = np.cumsum(batches[3 * epoch : 3 * epoch + 3], axis=0).T
        told = recorder.reports[3 * epoch : 3 * epoch + 3]
        assert [report.share for report in told] == [1 / 3, 2 / 3, 1]
        expected = np.stack([loss / count, right / count, count], 1)
        reported = [(report.loss, report.acc, report.images) for report in told]
        np.testing.assert_allclose(reported, expected, rtol=1e-5)
        after = recorder.epochs[epoch]
        assert (after.train_loss, after.train_acc, after.images) == reported[-1]
    assert (summary.loss, summary.train_acc) == (after.train_loss, after.train_acc)
    X, y = next(iter(backend.loaders.load_batched(test, (), 15, False)))
    right = to_numpy(backend.trainer.predict(training.net, X)).argmax(1) == to_numpy(y)
    assert summary.test_acc == after.held_out_acc == pytest.approx(right.mean())


class Clock:
    """A stand-in for the time module; the test sets the time."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def slow(self, data_iter, seconds):
        """Return the same batches, with this many seconds to fetch each."""
        clock = self

        class Slow:
            def __len__(self):
                return len(data_iter)

            def __iter__(self):
                for batch in data_iter:
                    clock.now += seconds
                    yield batch

        return Slow()


def test_the_step_timer_runs_from_the_batch_to_its_numbers_and_the_summary_s_all_along(
    backend, training, monkeypatch
):
    clock, recorder, train_batch = Clock(), Recorder(), backend.trainer.train_batch_ch13

    class SlowToRead(Accumulator):
        def __getitem__(self, idx):
            clock.now += 1 / 64 if (idx, len(self.data)) == (0, 3) else 0
            return super().__getitem__(idx)

    def slow_batch(*arguments):
        clock.now += 1
        return train_batch(*arguments)

    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    monkeypatch.setattr(metrics, "Accumulator", SlowToRead)
    monkeypatch.setattr(backend.trainer, "train_batch_ch13", slow_batch)
    training.train_iter = clock.slow(training.train_iter, 10)
    training.test_iter = clock.slow(training.test_iter, 100)
    recorder.on_report = lambda report: setattr(clock, "now", clock.now + 1000)
    summary = training.run(2, recorder)
    assert summary.step_seconds == 10 * (1 + 1 / 64)  # ten batches, each with a report
    assert summary.seconds == summary.step_seconds + 10 * 10 + 6 * 100 + 10 * 1000
    assert sum(epoch.seconds for epoch in recorder.epochs) == summary.seconds


def test_the_mean_of_the_losses_is_minimised(backend):
    """A batch with every example four times has the same mean, so the same step; a sum would change it."""
    steps = []
    for copies in (1, 4):
        training = Training(backend)
        X, y = next(iter(training.train_iter))
        images = np.concatenate([backend.transforms.to_images(X)] * copies)
        labels = np.concatenate([backend.devices.to_numpy(y)] * copies)
        X = backend.transforms.to_float(backend.transforms.from_images(images, training.devices[0]))
        y = backend.devices.from_numpy(labels)
        # An epsilon far above the gradients makes Adam's step proportional to them.
        trainer = backend.trainer.adam(training.net, lr=1e3, eps=1e3)
        before = training.weights()["fc.weight"]
        backend.trainer.train_batch_ch13(
            training.net, X, y, training.loss, trainer, training.devices
        )
        steps.append(training.weights()["fc.weight"] - before)
    np.testing.assert_allclose(steps[0], steps[1], rtol=2e-2, atol=1e-3 * np.abs(steps[0]).max())


def test_a_loss_without_one_value_per_example_is_refused(backend, training):
    X, y = next(iter(training.train_iter))

    def first_loss(*arguments):
        return training.loss(*arguments)[0]

    with pytest.raises(ValueError, match="one value per example"):
        backend.trainer.train_batch_ch13(
            training.net, X, y, first_loss, training.trainer, training.devices
        )


@pytest.mark.parametrize("label", [2, -1, -100])
def test_a_label_that_is_no_class_is_refused_by_name_and_no_weight_moves(backend, training, label):
    X, y = next(iter(training.train_iter))
    labels = backend.devices.to_numpy(y).copy()
    labels[5] = label
    y = backend.devices.from_numpy(labels, training.devices[0])
    before = training.weights()
    with pytest.raises(ValueError, match=f"label {label} is no class.* from 0 to 1"):
        backend.trainer.train_batch_ch13(
            training.net, X, y, training.loss, training.trainer, training.devices
        )
    for name, weight in training.weights().items():
        if not is_buffer(name):
            np.testing.assert_array_equal(weight, before[name])


def test_adam_takes_the_textbook_first_step(backend):
    """With bias correction, the first step is lr * g / (|g| + eps). Its size is lr if |g| is far above eps."""
    training = Training(backend)
    X, y = next(iter(training.train_iter))
    before = training.weights()
    trainer = backend.trainer.adam(training.net, lr=0.01, betas=(0.5, 0.75), eps=1e-8)
    backend.trainer.train_batch_ch13(training.net, X, y, training.loss, trainer, training.devices)
    step = np.abs(training.weights()["fc.weight"] - before["fc.weight"])
    moved = step > 0.005
    assert moved.mean() > 0.9
    np.testing.assert_allclose(step[moved], 0.01, rtol=1e-3)


def test_adam_takes_the_textbook_steps(backend):
    """The gradient of the last bias is the mean of softmax - one-hot, so all its steps can be computed."""
    training = Training(backend)
    start = initial_weights(2) | {"fc.bias": np.array([2, -1], np.float32)}
    backend.weights.set_weights(training.net, start)
    X, y = next(iter(training.train_iter))
    one_hot = np.eye(2)[backend.devices.to_numpy(y)]
    lr, (beta1, beta2), eps = 0.01, (0.5, 0.75), 0.02
    trainer = backend.trainer.adam(training.net, lr, (beta1, beta2), eps)
    bias = {"outside": start["fc.bias"].astype(float), "inside": start["fc.bias"].astype(float)}
    m, v = np.zeros(2), np.zeros(2)
    for t in range(1, 5):
        logits = backend.trainer.predict(training.net, X, training=True)
        exp = np.exp(backend.devices.to_numpy(logits).astype(float))
        gradient = (exp / exp.sum(1, keepdims=True) - one_hot).mean(0)
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        step, root = lr * m / (1 - beta1**t), np.sqrt(1 - beta2**t)
        bias["outside"] -= step / (np.sqrt(v) / root + eps)
        bias["inside"] -= step / ((np.sqrt(v) + eps) / root)
        backend.trainer.train_batch_ch13(
            training.net, X, y, training.loss, trainer, training.devices
        )
    found = training.weights()["fc.bias"]
    assert any(np.allclose(found, expected, atol=2e-6) for expected in bias.values())


@pytest.mark.parametrize("images", [1, 3, 8, 33])
@pytest.mark.parametrize("asked", [False, True])
def test_predictions_keep_no_graph_and_leave_a_network_in_its_mode(backend, images, asked):
    net, tab = backend.resnet.resnet18(2, num_channels=8), backend.transforms
    data = bright_dataset(images, size=16)  # one image of 8 x 8 has one value per channel
    X = tab.to_float(tab.from_images(data.images, backend.devices.cpu()))
    for mode in (True, False) if hasattr(net, "training") else (None,):
        if mode is not None:  # otherwise the network has no mode
            net.train(mode)
        y_hat = backend.trainer.predict(net, X, asked)
        assert not getattr(y_hat, "requires_grad", False)
        assert getattr(net, "training", None) is mode


def test_a_batch_is_trained_in_training_mode_whatever_came_before(backend, training):
    if hasattr(training.net, "training"):
        training.net.eval()
    X, y = next(iter(training.train_iter))
    before = training.weights()
    backend.trainer.train_batch_ch13(
        training.net, X, y, training.loss, training.trainer, training.devices
    )
    after = training.weights()
    assert all((before[name] != after[name]).any() for name in before if is_buffer(name))


def test_evaluation_changes_nothing_and_uses_the_running_statistics(backend, training):
    training.run(1)
    before = training.weights()
    whole = backend.trainer.evaluate_accuracy_gpu(training.net, training.test_iter)
    one_by_one = backend.loaders.load_batched(bright_dataset(20, 1), (), 1, False)
    assert backend.trainer.evaluate_accuracy_gpu(training.net, one_by_one) == whole
    for name, weight in training.weights().items():
        np.testing.assert_array_equal(weight, before[name])


def test_training_moves_batch_norm_s_running_statistics(training):
    before = training.weights()
    training.run(1)
    after = training.weights()
    assert all((before[name] != after[name]).any() for name in before if is_buffer(name))


@pytest.mark.slow  # test_run.py checks it for the command
def test_the_same_seed_trains_to_the_same_bits(backend):
    recorders, weights = [], []
    for _ in range(2):
        training, recorder = Training(backend, seed=5), Recorder()
        training.run(2, recorder)
        recorders.append(recorder.figures())
        weights.append(training.weights())
    assert recorders[0] == recorders[1]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.slow
def test_another_seed_trains_differently(backend):
    recorders = []
    for seed in (0, 1):
        recorder = Recorder()
        Training(backend, seed=seed).run(1, recorder)
        recorders.append(recorder.figures())
    assert recorders[0] != recorders[1]


def test_bf16_trains_the_same_weights_in_lower_precision(backend):
    losses = []
    for precision in ("fp32", "bf16"):
        training = Training(backend)
        prepared = backend.trainer.prepare(training.net, training.devices, precision)
        weights = training.weights()
        for name, weight in initial_weights(2).items():
            np.testing.assert_array_equal(weights[name], weight)
        X, y = next(iter(training.train_iter))
        l, _ = backend.trainer.train_batch_ch13(
            prepared, X, y, training.loss, training.trainer, training.devices
        )
        losses.append(float(backend.devices.to_numpy(l)))
        weights = training.weights()
        assert (weights["fc.weight"] != initial_weights(2)["fc.weight"]).any()
        assert all(weight.dtype == np.float32 for weight in weights.values())
    assert losses[0] != losses[1]  # bf16 is active
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_network_may_be_prepared_again_in_full_precision(backend, training):
    X, _ = next(iter(training.train_iter))
    to_numpy, logits = backend.devices.to_numpy, []
    for precision in ("fp32", "bf16", "fp32"):
        net = backend.trainer.prepare(training.net, training.devices, precision)
        logits.append(to_numpy(backend.trainer.predict(net, X)))
    assert (logits[0] != logits[1]).any()
    np.testing.assert_array_equal(logits[0], logits[2])


def test_the_metrics_of_a_batch_are_not_read_back(backend, training):
    """A batch returns tensors, so the host does not wait for the device."""
    X, y = next(iter(training.train_iter))
    results = backend.trainer.train_batch_ch13(
        training.net, X, y, training.loss, training.trainer, training.devices
    )
    assert not any(isinstance(result, int | float) for result in results)


@pytest.mark.slow  # compiling takes half a minute
def test_a_compiled_network_trains_whole_epochs_with_a_smaller_last_batch_and_another_rate(backend):
    losses = []
    for compile in (False, True):
        training, recorder = Training(backend, n=20), Recorder()  # 8, 8 and 4 images
        training.net = backend.trainer.prepare(training.net, training.devices, compile=compile)
        training.trainer = backend.trainer.sgd(training.net, 2**-9)
        training.run(1, recorder)
        backend.trainer.set_learning_rate(training.trainer, 2**-10)
        training.run(1, recorder)
        losses.append([epoch.train_loss for epoch in recorder.epochs])
        assert all(np.isfinite(weight).all() for weight in training.weights().values())
    # Training amplifies rounding. Measured differences: .003 in the first epoch, .009 in the second.
    np.testing.assert_allclose(losses[1], losses[0], atol=0.03)


@pytest.mark.slow  # compiling takes half a minute
def test_a_compiled_network_trains_like_the_network_itself(backend):
    losses = []
    for compile in (False, True):
        training = Training(backend)
        backend.devices.describe(training.devices, "fp32", compile)
        prepared = backend.trainer.prepare(training.net, training.devices, compile=compile)
        X, y = next(iter(training.train_iter))
        for _ in range(2):
            l, _ = backend.trainer.train_batch_ch13(
                prepared, X, y, training.loss, training.trainer, training.devices
            )
        losses.append(float(backend.devices.to_numpy(l)))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_an_epoch_adds_the_metrics_of_its_batches_up_unread(backend, training, monkeypatch):
    added = []

    class Watched(Accumulator):
        def add(self, *args):
            added.append(args)
            super().add(*args)

    monkeypatch.setattr(metrics, "Accumulator", Watched)
    monkeypatch.setattr(backend.trainer, "Accumulator", Watched)
    training.run(1)
    assert len(added) == 5 + 3
    assert not any(isinstance(value, int | float) for args in added for value in args[:-1])
