"""The traps of docs/traps.md in the network, the optimizer and the training loop.

Each trap fails as the page says, and its fix does not.
"""

import copy

import numpy as np
import pytest
from conftest import load_or_skip

from docs.examples.traps import (
    adam_epsilon,
    batch_norm_defaults,
    batch_norm_momentum,
    default_argument,
    dry_run,
    few_batches,
    kvstore_none,
    lazy_layers,
    mean_twice,
    no_class,
    no_gpu,
    order_restarts,
    rate_in_momentum,
    same_padding,
    schedule_restarts,
    statistics_on_backward,
    sum_of_losses,
    timer_after_fetch,
    training_argument,
    training_mode,
    uneven_batch,
    weight_decay,
    weights_alone,
)

# --- The network -----------------------------------------------------------------------------------------------------


def lazy_resnet18():
    """Return this project's network with the book's lazy layers: the convolutions of its blocks."""
    from torch import nn

    net = load_or_skip("pytorch").resnet.resnet18(10)
    for block in net.modules():
        for name in ("conv1", "conv2", "conv3"):
            conv = getattr(block, name, None)
            if conv is not None:
                settings = {"stride": conv.stride, "padding": conv.padding}
                setattr(block, name, nn.LazyConv2d(conv.out_channels, conv.kernel_size, **settings))
    return net


@pytest.mark.parametrize(("make", "reached"), [(lazy_layers.trap, 2), (lazy_layers.fixed, 21)])
def test_an_initialization_reaches_2_layers_of_21(pytorch, make, reached):
    from torch import nn

    def init_cnn(module):
        if type(module) in (nn.Linear, nn.Conv2d):
            nn.init.constant_(module.weight, 0.5)

    net = lazy_resnet18()
    make(net, pytorch.rand(2, 3, 8, 8), init_cnn)
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 21
    assert sum(bool((layer.weight == 0.5).all()) for layer in layers) == reached
    assert net.training


def test_isinstance_would_have_found_out(pytorch):
    from torch import nn

    with pytest.raises(ValueError, match="uninitialized parameter"):
        nn.init.xavier_uniform_(nn.LazyConv2d(4, 3).weight)
    assert isinstance(nn.LazyConv2d(4, 3), nn.Conv2d)


def test_a_dry_run_leaves_a_tenth_of_its_batch_in_the_statistics(pytorch):
    from torch import nn

    X = pytorch.full((4, 3, 2, 2), 10.0)
    for make, mean, variance in ((dry_run.trap, 1, 0.9), (dry_run.fixed, 0, 1)):
        net = nn.Sequential(nn.LazyBatchNorm2d())
        make(net, X)
        np.testing.assert_allclose(net[0].running_mean, [mean] * 3)
        np.testing.assert_allclose(net[0].running_var, [variance] * 3)
        assert net.training


@pytest.mark.parametrize("size", [7, 8])
def test_same_padding_shifts_the_grid_by_one_pixel_where_the_size_is_even(
    pytorch, tensorflow, size
):
    X = np.arange(size * size, dtype=np.float32).reshape(1, size, size, 1)
    middle = np.zeros((3, 3, 1, 1), np.float32)
    middle[1, 1] = 1  # the layer returns the pixels on which it is centred

    def centres(layer):
        layer(X)  # makes the weights
        layer.set_weights([middle, np.zeros(1)])
        return layer(X).numpy()[0, :, :, 0]

    theirs = pytorch.nn.functional.conv2d(
        pytorch.tensor(X[:, None, :, :, 0]),
        pytorch.tensor(middle[None, None, :, :, 0, 0]),
        None,
        2,
        1,
    )
    np.testing.assert_array_equal(theirs[0, 0], X[0, ::2, ::2, 0])
    np.testing.assert_array_equal(centres(same_padding.fixed(1)), X[0, ::2, ::2, 0])
    first = 1 if size % 2 == 0 else 0
    np.testing.assert_array_equal(centres(same_padding.trap(1)), X[0, first::2, first::2, 0])


def test_a_copied_momentum_keeps_a_tenth_where_nine_were_meant(pytorch):
    X = pytorch.ones(2, 4, 3, 3)  # the mean is 1, the running one begins at 0
    for make, kept in ((batch_norm_momentum.trap, 0.9), (batch_norm_momentum.fixed, 0.1)):
        layer = make(4)
        layer(X)
        np.testing.assert_allclose(layer.running_mean, [kept] * 4, rtol=1e-6)


def test_a_momentum_of_nine_tenths_takes_a_tenth_in_gluon_and_in_keras(mxnet, tensorflow):
    from keras.layers import BatchNormalization

    layer = mxnet.gluon.nn.BatchNorm(momentum=0.9, in_channels=4)
    layer.initialize()
    with mxnet.autograd.record():
        y = layer(mxnet.np.ones((2, 4, 3, 3)))
    y.backward()
    mxnet.npx.waitall()
    np.testing.assert_allclose(layer.running_mean.data().asnumpy(), [0.1] * 4, rtol=1e-6)
    layer = BatchNormalization(momentum=0.9)
    layer(np.ones((2, 3, 3, 4), np.float32), training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), [0.1] * 4, rtol=1e-6)


def test_keras_batch_norm_shrinks_what_varies_little_and_moves_a_tenth_as_fast(tensorflow):
    X = 1 + np.sqrt(0.001) * np.array([[-1.0], [1.0]], np.float32)  # mean 1, variance .001
    for make, spread, mean in (
        (batch_norm_defaults.trap, 0.707, 0.01),
        (batch_norm_defaults.fixed, 0.995, 0.1),
    ):
        layer = make()
        Y = layer(X, training=True).numpy()
        assert Y.std() == pytest.approx(spread, abs=0.0005)
        assert layer.moving_mean.numpy() == pytest.approx(mean, rel=1e-4)


def test_gluon_s_statistics_wait_for_the_backward_pass(mxnet):
    layer = mxnet.gluon.nn.BatchNorm(in_channels=3)
    layer.initialize()
    X = mxnet.np.ones((2, 3, 4, 4))

    def mean():
        mxnet.npx.waitall()
        return layer.running_mean.data().asnumpy().tolist()

    for _ in range(5):
        statistics_on_backward.trap(layer, X)
    assert mean() == [0, 0, 0]
    statistics_on_backward.fixed(layer, X)
    assert mean() == pytest.approx([0.1] * 3)


# --- The optimizer ---------------------------------------------------------------------------------------------------


def distance(pytorch, take_step, make_optimizer, num_examples, num_steps=1, start=1.0):
    """Return a weight after some steps on the losses w * w / 2, whose minimum is at 0."""
    weight = pytorch.nn.Parameter(pytorch.tensor([start], dtype=pytorch.float64))
    optimizer = make_optimizer([weight])
    for _ in range(num_steps):
        losses = weight.expand(num_examples) ** 2 / 2
        take_step(losses, optimizer)
    return abs(weight.item())


def sgd(pytorch, lr, **settings):
    return lambda weights: pytorch.optim.SGD(weights, lr=lr, **settings)


def test_the_sum_of_32_losses_takes_32_times_the_step_and_diverges(pytorch):
    tenth = sgd(pytorch, 0.1)
    assert distance(pytorch, sum_of_losses.fixed, tenth, 32) == pytest.approx(1 - 0.1)
    assert distance(pytorch, sum_of_losses.trap, tenth, 32) == pytest.approx(abs(1 - 3.2))
    assert distance(pytorch, sum_of_losses.fixed, tenth, 32, 20) == pytest.approx(0.12, abs=0.005)
    assert distance(pytorch, sum_of_losses.trap, tenth, 32, 20) == pytest.approx(7.05e6, rel=1e-3)


@pytest.mark.parametrize(("rate", "num_examples", "other"), [(2e-4, 32, 6.4e-3), (0.1, 128, 12.8)])
def test_a_rate_for_the_sum_is_one_for_the_mean_times_the_batch(pytorch, rate, num_examples, other):
    of_sum = distance(pytorch, sum_of_losses.trap, sgd(pytorch, rate), num_examples)
    of_mean = distance(pytorch, sum_of_losses.fixed, sgd(pytorch, other), num_examples)
    assert of_sum == pytest.approx(of_mean, rel=1e-9)


def test_adam_hides_the_sum(pytorch):
    def adam(weights):
        return pytorch.optim.Adam(weights, lr=0.01)

    of_sum = distance(pytorch, sum_of_losses.trap, adam, 32, 10)
    assert of_sum == pytest.approx(distance(pytorch, sum_of_losses.fixed, adam, 32, 10), abs=1e-6)


def test_weight_decay_is_a_hundredth_at_a_hundredth_of_the_rate(pytorch):
    shrunk = []
    for rate in (0.02, 2e-4):
        weight = pytorch.nn.Parameter(pytorch.ones(1, dtype=pytorch.float64))
        weight.grad = pytorch.zeros_like(weight)
        sgd(pytorch, rate, weight_decay=5e-4)([weight]).step()
        shrunk.append(1 - weight.item())
    assert shrunk[0] / shrunk[1] == pytest.approx(100)


def test_gluon_s_trainer_divides_a_mean_by_the_batch_again(mxnet):
    from mxnet import gluon, np

    lengths = {}
    for take_step in (mean_twice.trap, mean_twice.fixed):
        net = gluon.nn.Dense(1, in_units=3)
        net.initialize("ones")
        before = net.weight.data().asnumpy()
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
        X, y = np.ones((32, 3)), np.zeros((32, 1))
        take_step(net, X, y, gluon.loss.L2Loss(), trainer)
        lengths[take_step] = np.abs(net.weight.data() - np.array(before)).max().item()
    assert lengths[mean_twice.fixed] / lengths[mean_twice.trap] == pytest.approx(32, rel=1e-4)


def test_keras_weight_decay_is_another_than_pytorchs(pytorch, tensorflow):
    import keras

    ends = {}
    for make in (weight_decay.trap, weight_decay.fixed):
        weight, step = keras.Variable([1.0]), make(0.1, 0.5)
        for _ in range(2):
            step(np.ones(1, np.float32), weight)
        ends[make] = weight.numpy().item()
    theirs = pytorch.nn.Parameter(pytorch.ones(1))
    optimizer = pytorch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        theirs.grad = pytorch.ones(1)
        optimizer.step()
    assert theirs.item() == pytest.approx(0.5725)
    assert ends[weight_decay.fixed] == pytest.approx(0.5725)
    assert ends[weight_decay.trap] == pytest.approx(0.6175)


def test_in_adam_the_two_decays_are_further_apart(pytorch, tensorflow):
    import keras

    ours, theirs = keras.Variable([1.0]), pytorch.nn.Parameter(pytorch.ones(1))
    keras.optimizers.Adam(0.1, weight_decay=0.5).apply([np.zeros(1, np.float32)], [ours])
    theirs.grad = pytorch.zeros(1)
    pytorch.optim.Adam([theirs], lr=0.1, weight_decay=0.5).step()
    assert 1 - ours.numpy().item() == pytest.approx(0.05, rel=1e-4)
    assert 1 - theirs.item() == pytest.approx(0.1, rel=1e-4)


RATES = (0.1, 0.1, 0.01, 0.01)
INSIDE = [0.9, 0.71, 0.5290, 0.3561]
OUTSIDE = [0.9, 0.71, 0.6829, 0.6485]


@pytest.mark.parametrize(
    ("change", "path"), [(rate_in_momentum.trap, INSIDE), (rate_in_momentum.fixed, OUTSIDE)]
)
def test_keras_momentum_keeps_the_rate_that_was(tensorflow, change, path):
    import keras

    weight, optimizer = keras.Variable([1.0]), keras.optimizers.SGD(RATES[0], momentum=0.9)
    optimizer.build([weight])
    found = []
    for rate in RATES:
        change(optimizer, rate)
        optimizer.apply([np.ones(1, np.float32)], [weight])
        found.append(weight.numpy().item())
    assert found == pytest.approx(path, abs=5e-5)


def test_so_does_gluon_s_and_pytorchs_does_not(pytorch, mxnet):
    weight = mxnet.gluon.Parameter("w", shape=(1,), init="ones")
    weight.initialize()
    settings = {"learning_rate": RATES[0], "momentum": 0.9}
    trainer = mxnet.gluon.Trainer([weight], "sgd", settings)
    theirs = pytorch.nn.Parameter(pytorch.ones(1))
    optimizer = pytorch.optim.SGD([theirs], lr=RATES[0], momentum=0.9)
    inside, outside = [], []
    for rate in RATES:
        trainer.set_learning_rate(rate)
        with mxnet.autograd.record():
            l = weight.data() * 1
        l.backward()
        trainer.step(1)
        inside.append(weight.data().asnumpy().item())
        optimizer.param_groups[0]["lr"] = rate
        theirs.grad = pytorch.ones(1)
        optimizer.step()
        outside.append(theirs.item())
    assert inside == pytest.approx(INSIDE, abs=5e-5)
    assert outside == pytest.approx(OUTSIDE, abs=5e-5)


def test_adams_first_step_by_a_small_gradient_depends_on_its_epsilon(pytorch, tensorflow):
    import keras

    for make, step in ((adam_epsilon.trap, 0.0031), (adam_epsilon.fixed, 0.0240)):
        weight = keras.Variable([1.0])
        make(0.1).apply([np.full(1, 1e-7, np.float32)], [weight])
        assert 1 - weight.numpy().item() == pytest.approx(step, abs=5e-5)
    theirs = pytorch.nn.Parameter(pytorch.ones(1))
    optimizer = pytorch.optim.Adam([theirs], lr=0.1)
    theirs.grad = pytorch.full((1,), 1e-7)
    optimizer.step()
    assert 1 - theirs.item() == pytest.approx(0.0909, abs=5e-5)


# --- The training loop and its devices -------------------------------------------------------------------------------


def test_a_list_of_gpus_is_empty_without_one(pytorch, monkeypatch):
    monkeypatch.setattr(pytorch.cuda, "device_count", lambda: 0)
    with pytest.raises(IndexError):
        no_gpu.trap()
    assert no_gpu.fixed() == pytorch.device("cpu")


def test_a_default_argument_is_evaluated_when_the_function_is_defined():
    there, searches = [], []

    def find_devices():
        searches.append(1)
        return list(there)

    fresh = default_argument.fixed(find_devices)
    assert fresh(["gpu(1)"]) == "trained on ['gpu(1)']"
    assert len(searches) == 0
    stale = default_argument.trap(find_devices)
    assert len(searches) == 1
    there.append("gpu(0)")
    assert stale() == "trained on []"
    assert fresh() == "trained on ['gpu(0)']"


def test_gluon_refuses_a_batch_that_does_not_divide_by_the_devices(mxnet):
    devices = [mxnet.cpu(i) for i in range(3)]
    for n in (256, 7):
        with pytest.raises(ValueError, match="cannot be evenly split"):
            uneven_batch.trap(mxnet.np.arange(n), devices)
    parts = uneven_batch.fixed(mxnet.np.arange(256), devices)
    assert [len(part) for part in parts] == [86, 85, 85]
    parts = uneven_batch.fixed(mxnet.np.arange(2), devices)
    assert [len(part) for part in parts] == [1, 1, 0]


@pytest.mark.parametrize("num_batches", range(1, 12))
def test_below_five_batches_the_report_divides_by_zero(num_batches):
    batches = few_batches.fixed(num_batches)
    if num_batches < 5:
        with pytest.raises(ZeroDivisionError):
            few_batches.trap(num_batches)
        assert batches == list(range(1, num_batches + 1))
    else:
        assert batches == few_batches.trap(num_batches)


def test_a_timer_that_starts_after_the_loader_shows_four_times_the_rate():
    now = 0

    def loader():
        nonlocal now
        for _ in range(10):
            now += 3
            yield range(8)

    def train_batch(X):
        nonlocal now
        now += 1

    rates = [
        rate(loader(), train_batch, lambda: now)
        for rate in (timer_after_fetch.trap, timer_after_fetch.fixed)
    ]
    assert rates == [8, 2]


@pytest.fixture
def small_net(pytorch):
    from torch import nn

    pytorch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


def dark_and_bright(pytorch):
    """Return eight noise images, each brighter than the one before."""
    return pytorch.rand(8, 3, 8, 8) * pytorch.linspace(0.2, 1, 8).reshape(8, 1, 1, 1)


def test_in_training_mode_an_image_is_predicted_by_its_neighbours(pytorch, small_net):
    X = dark_and_bright(pytorch)
    together, alone = training_mode.trap(small_net, X), training_mode.trap(small_net, X[:1])
    assert (together[0] - alone[0]).abs().max() > 0.01
    assert together.requires_grad
    assert small_net[1].running_mean.abs().max() > 0


def test_in_evaluation_mode_it_is_not(pytorch, small_net):
    X = dark_and_bright(pytorch)
    together, alone = training_mode.fixed(small_net, X), training_mode.fixed(small_net, X[:1])
    pytorch.testing.assert_close(together[:1], alone)
    assert not together.requires_grad
    assert small_net[1].running_mean.abs().max() == 0


def test_a_keras_network_that_is_only_called_evaluates(tensorflow):
    import keras

    X = 3 + np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    found = {}
    for call in (training_argument.trap, training_argument.fixed):
        net = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization()])
        with tensorflow.GradientTape():
            Y = call(net, X)
        found[call] = np.abs(Y.numpy().mean(0)), net.layers[-1].moving_mean.numpy()
    mean, moving = found[training_argument.trap]
    assert mean.min() > 2.5
    assert (moving == 0).all()
    mean, moving = found[training_argument.fixed]
    assert mean.max() < 1e-3
    assert moving.min() > 0.02
    dropout = keras.layers.Dropout(0.5)
    dropped = {call: (call(dropout, X).numpy() == 0).mean() for call in found}
    assert dropped[training_argument.trap] == 0
    assert 0.3 < dropped[training_argument.fixed] < 0.7


def test_mxnet_takes_the_nearest_class_for_a_label_that_is_none(mxnet):
    logits = mxnet.np.array([[1.0, 2.0, 4.0]] * 3)
    labels = mxnet.np.array([3, -1, 1])
    nearest = no_class.trap(logits, mxnet.np.array([2, 0, 1]))
    np.testing.assert_array_equal(no_class.trap(logits, labels).asnumpy(), nearest.asnumpy())
    with pytest.raises(ValueError, match=r"label 3\.0 is no class"):
        no_class.fixed(logits, labels)
    right = no_class.fixed(logits, mxnet.np.array([2, 0, 1]))
    np.testing.assert_array_equal(right.asnumpy(), nearest.asnumpy())


def test_pytorch_ignores_the_label_of_minus_100(pytorch):
    loss = pytorch.nn.CrossEntropyLoss(reduction="none")
    assert loss(pytorch.zeros(1, 3), pytorch.tensor([-100])).item() == 0


@pytest.mark.parametrize(
    ("make", "together"), [(kvstore_none.trap, False), (kvstore_none.fixed, True)]
)
def test_devices_without_a_store_drift_apart(mxnet, make, together):
    from mxnet import gluon, np

    devices = [mxnet.cpu(0), mxnet.cpu(1)]
    net = gluon.nn.Dense(1, in_units=3)
    net.initialize("ones", ctx=devices)
    trainer, loss = make(net, 0.1), gluon.loss.L2Loss()
    with mxnet.autograd.record():
        losses = [
            loss(net(np.full((4, 3), i + 1, ctx=device)), np.zeros((4, 1), ctx=device))
            for i, device in enumerate(devices)
        ]
    for l in losses:
        l.backward()
    trainer.step(8)
    first, second = (weight.asnumpy() for weight in net.weight.list_data())
    assert bool(abs(first - second).max() < 1e-6) == together


# --- Saving and resuming ---------------------------------------------------------------------------------------------


def of_one_weight(mxnet, name, **settings):
    """Return a network with a weight of 1, its trainer, and a function that takes a step and returns the weight."""
    from mxnet import gluon

    net = gluon.nn.Sequential()
    net.add(gluon.nn.Dense(1, in_units=1, use_bias=False))
    net.initialize("ones")
    trainer = gluon.Trainer(net.collect_params(), name, settings)

    def step(gradient):
        with mxnet.autograd.record():
            l = net(mxnet.np.array([[gradient]])).sum()
        l.backward()
        trainer.step(1)
        return net[0].weight.data().item()

    return net, trainer, step


def last_steps(mxnet, path, save, gradients, name, **settings):
    """Return the last step's length, for a training that ran through and one resumed just before that step."""
    *first, last = gradients
    net, trainer, step = of_one_weight(mxnet, name, **settings)
    for gradient in first:
        before = step(gradient)
    save(str(path / "saved"), net, trainer)
    straight = before - step(last)
    net, trainer, step = of_one_weight(mxnet, name, **settings)
    net.load_parameters(str(path / "saved.params"))
    if (path / "saved.states").exists():
        trainer.load_states(str(path / "saved.states"))
    return straight, before - step(last)


@pytest.mark.parametrize(
    ("save", "end"),
    [
        (lambda path, net, _: weights_alone.trap(path, net), 0.610),
        (weights_alone.fixed, 0.439),
    ],
)
def test_gluon_s_weights_without_their_trainer_lose_the_momentum(mxnet, tmp_path, save, end):
    settings = {"learning_rate": 0.1, "momentum": 0.9}
    straight, resumed = last_steps(mxnet, tmp_path, save, [1.0] * 3, "sgd", **settings)
    assert 0.71 - straight == pytest.approx(0.439, abs=1e-6)
    assert 0.71 - resumed == pytest.approx(end, abs=1e-6)


@pytest.mark.parametrize(
    ("save", "length"),
    [
        (lambda path, net, _: weights_alone.trap(path, net), 0.1),
        (weights_alone.fixed, 0.0101),
    ],
)
def test_gluon_s_adam_starts_again_with_a_step_of_full_length(mxnet, tmp_path, save, length):
    gradients = [1.0, -1.0] * 5 + [1.0]
    straight, resumed = last_steps(mxnet, tmp_path, save, gradients, "adam", learning_rate=0.1)
    assert straight == pytest.approx(0.0101, abs=5e-5)
    assert resumed == pytest.approx(length, abs=5e-5)


def test_gluon_s_scheduler_counts_the_updates_of_the_trainer(mxnet, tmp_path):
    def new():
        halved = mxnet.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.1)
        return of_one_weight(mxnet, "sgd", learning_rate=0.1, lr_scheduler=halved)

    net, trainer, step = new()
    for _ in range(4):
        step(1.0)
    weights_alone.fixed(tmp_path / "saved", net, trainer)
    assert trainer.learning_rate == pytest.approx(0.05)
    net, again, step = new()
    net.load_parameters(str(tmp_path / "saved.params"))
    assert again.learning_rate == pytest.approx(0.1)
    again.load_states(str(tmp_path / "saved.states"))
    assert again.learning_rate == pytest.approx(0.05)
    assert again.optimizer.num_update == 4


def rates_of_epochs(trainer, schedule, num_epochs):
    """Train for some epochs of one step; return the learning rate of each."""
    (group,) = trainer.param_groups
    rates = []
    for _ in range(num_epochs):
        rates.append(group["lr"])
        trainer.step()
        schedule.step()
    return rates


def resumed_rates(pytorch, lr, new_schedule, resume):
    """Return the rates of epochs 7 to 12 of a training that ran through, and of one resumed after epoch 6."""

    def new():
        weight = pytorch.nn.Parameter(pytorch.ones(1))
        weight.grad = pytorch.ones(1)
        return pytorch.optim.SGD([weight], lr=lr, momentum=0.9)

    trainer = new()
    schedule = new_schedule(trainer)
    rates_of_epochs(trainer, schedule, 6)
    # Copies, because the states are those of the objects, which go on.
    saved = copy.deepcopy({"trainer": trainer.state_dict(), "schedule": schedule.state_dict()})
    straight = rates_of_epochs(trainer, schedule, 6)
    trainer = new()
    return straight, rates_of_epochs(trainer, resume(saved, trainer, new_schedule), 6)


def test_a_step_schedule_that_starts_again_drops_two_epochs_late(pytorch):
    def new_schedule(trainer):
        return pytorch.optim.lr_scheduler.StepLR(trainer, 4, 0.9)

    second, third = 2e-4 * 0.9, 2e-4 * 0.81
    straight, trap = resumed_rates(pytorch, 2e-4, new_schedule, schedule_restarts.trap)
    assert straight == pytest.approx([second] * 2 + [third] * 4)
    assert trap == pytest.approx([second] * 4 + [third] * 2)
    straight, fixed = resumed_rates(pytorch, 2e-4, new_schedule, schedule_restarts.fixed)
    assert straight == fixed


def test_a_lambda_schedule_that_starts_again_has_21_times_the_rate(pytorch):
    def new_schedule(trainer):
        return pytorch.optim.lr_scheduler.LambdaLR(trainer, lambda epoch: 0.6**epoch)

    straight, trap = resumed_rates(pytorch, 0.02, new_schedule, schedule_restarts.trap)
    assert straight[0] == pytest.approx(0.00093, abs=5e-6)
    assert trap[0] == 0.02
    assert trap[0] / straight[0] == pytest.approx(21, abs=0.5)
    straight, fixed = resumed_rates(pytorch, 0.02, new_schedule, schedule_restarts.fixed)
    assert straight == fixed

    def too_late(saved, trainer, new_schedule):
        schedule = schedule_restarts.trap(saved, trainer, new_schedule)
        schedule.load_state_dict(saved["schedule"])
        return schedule

    _, late = resumed_rates(pytorch, 0.02, new_schedule, too_late)
    assert late == [0.02, *straight[1:]]


def test_keras_fit_counts_its_epochs_from_0_unless_it_is_told_otherwise(tensorflow):
    import keras

    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    X, counted = np.ones((4, 1), np.float32), []

    def rate(epoch):
        counted.append(epoch)
        return 0.1

    schedule = keras.callbacks.LearningRateScheduler(rate)
    net.fit(X, X, epochs=2, callbacks=[schedule], verbose=0)
    net.fit(X, X, epochs=4, initial_epoch=2, callbacks=[schedule], verbose=0)
    assert counted == [0, 1, 2, 3]
    counted.clear()
    net.fit(X, X, epochs=2, callbacks=[schedule], verbose=0)
    assert counted == [0, 1]


def test_a_seeded_order_starts_again_after_a_resume(tensorflow):
    straight, resumed = list(order_restarts.trap(64, 0, 3)), list(order_restarts.trap(64, 2, 3))
    assert resumed == straight[:1]
    orders, flips = ([[pair[i] for pair in epoch] for epoch in straight] for i in (0, 1))
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert flips[0] == flips[1] == flips[2]


def test_an_order_that_is_a_function_of_the_epoch_does_not(tensorflow):
    straight = list(order_restarts.fixed(64, 0, 3))
    assert list(order_restarts.fixed(64, 2, 3)) == straight[2:]
    orders, flips = ([[pair[i] for pair in epoch] for epoch in straight] for i in (0, 1))
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert flips[0] != flips[1] != flips[2] != flips[0]
    assert 0.3 < np.mean(flips) < 0.7
    assert list(map(sorted, orders)) == [list(range(64))] * 3
