"""docs/porting.md: names, defaults and layouts match the frameworks, the examples diverge as shown, the claims hold."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip

from common.reference import KNOWN_DIFFERENCES
from common.weights import gluon, keras
from common.weights.canonical import weight_shapes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "porting.md").read_text(encoding="utf-8")
COLUMNS = ((1, "mxnet"), (2, "pytorch"), (3, "tensorflow"))
EXACT = 1e-12  # in float64; 3e-14 measured


def rows(marker: str) -> list[list[str]]:
    """Return the cells of the table after a marker of the page, without its head."""
    (table,) = re.findall(rf"<!-- {marker} -->\n\n(.*?)\n\n<!-- end -->", PAGE, re.S)
    _, _, *lines = table.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    return cells


def spans(column: int) -> list[str]:
    """Return the names in a framework's column."""
    found = [span for row in rows("names") for span in re.findall(r"`([^`]+)`", row[column])]
    assert len(found) > 35
    return found


@pytest.fixture(scope="module")
def roots():
    """The objects that the first word of a name refers to, by column; PyTorch is imported before TensorFlow."""
    for name in ("pytorch", "mxnet", "tensorflow"):
        load_or_skip(name)
    import keras
    import mxnet
    import tensorflow as tf
    import torch

    words = ("gluon", "autograd", "init", "lr_scheduler", "np", "npx")
    gluon = {word: getattr(mxnet, word) for word in words}
    return {"mxnet": gluon, "pytorch": {"torch": torch}, "tensorflow": {"keras": keras, "tf": tf}}


# --- Names -----------------------------------------------------------------------------------------------------------


def resolve(name: str, roots: dict[str, object]):
    first, *rest = name.split(".")
    found = roots[first]
    for word in rest:
        if not hasattr(found, word) and inspect.isclass(found):
            # An attribute of instances, which the constructor's docstring lists.
            assert f"self.{word}:" in inspect.getsource(found.__init__), name
            return None
        found = getattr(found, word)
    return found


def parameters(thing) -> dict[str, object]:
    """Return the arguments of a function or a class's constructor, with their defaults."""
    function = thing.__init__ if inspect.isclass(thing) else thing
    signature = inspect.signature(function)
    return {name: p.default for name, p in signature.parameters.items() if name != "self"}


def wrong_arguments(span: str, roots: dict[str, object]) -> list[str]:
    """Return the mistakes in a name such as ``nn.Conv2D(channels, strides=(1, 1))``."""
    name, bracket, arguments = span.partition("(")
    thing = resolve(name, roots)
    if not bracket:
        return []
    has = parameters(thing)
    wrong = []
    for argument, value in re.findall(
        r"(\w+)(?:=(\([^)]*\)|[^,)]+))?", arguments.removesuffix(")")
    ):
        if argument not in has:
            wrong.append(f"{argument} is no argument")
        elif value and has[argument] != eval(value):
            wrong.append(f"{argument} is {has[argument]!r}")
    return wrong


@pytest.mark.parametrize(("column", "framework"), COLUMNS)
def test_every_name_argument_and_default_of_the_table_is_the_framework_s(column, framework, roots):
    wrong = {span: wrong_arguments(span, roots[framework]) for span in spans(column)}
    assert {span: faults for span, faults in wrong.items() if faults} == {}


@pytest.mark.parametrize(
    ("span", "fault"),
    [
        ("torch.nn.Conv3000d", "AttributeError"),
        ("torch.nn.Conv2d(filters)", "filters is no argument"),
        ("torch.nn.BatchNorm2d(eps=0.001)", "eps is 1e-05"),
    ],
)
def test_a_wrong_name_argument_or_default_is_found(span, fault, roots):
    try:
        (found,) = wrong_arguments(span, roots["pytorch"])
    except AttributeError as error:
        found = type(error).__name__
    assert found == fault


def test_the_table_of_layers_names_every_weight_as_the_files_do():
    table = [[cell.strip("`") for cell in row] for row in rows("layers")]
    for name in weight_shapes(1):
        ((own, by_position, path),) = [row for row in table if name.startswith(f"{row[0]}.")]
        *layer, value = name.removeprefix(f"{own}.").split(".")
        number = ("weight", "bias", "running_mean", "running_var").index(value)
        assert keras.NAMES[name] == "/".join([path, *layer, "vars", str(number)])
        if "bn" in name:
            value = {"weight": "gamma", "bias": "beta"}.get(value, value)
        assert gluon.NAMES[name] == ".".join([by_position, *layer, value])


# --- Layouts ---------------------------------------------------------------------------------------------------------

SIZES = {"outputs": 5, "inputs": 3, "height": 2, "width": 4}


def layers(framework: str, roots) -> dict[str, object]:
    """Return a convolution, a dense layer and a BatchNorm of these sizes."""
    outputs, inputs, *window = SIZES.values()
    if framework == "mxnet":
        nn = roots["mxnet"]["gluon"].nn
        made = {
            "convolution": nn.Conv2D(outputs, kernel_size=window, in_channels=inputs),
            "dense layer": nn.Dense(outputs, in_units=inputs),
            "BatchNorm": nn.BatchNorm(in_channels=inputs),
        }
        for layer in made.values():
            layer.initialize()
        return made
    if framework == "pytorch":
        nn = roots["pytorch"]["torch"].nn
        return {
            "convolution": nn.Conv2d(inputs, outputs, kernel_size=window),
            "dense layer": nn.Linear(inputs, outputs),
            "BatchNorm": nn.BatchNorm2d(inputs),
        }
    kinds = roots["tensorflow"]["keras"].layers
    made = {
        "convolution": kinds.Conv2D(outputs, kernel_size=window),
        "dense layer": kinds.Dense(outputs),
        "BatchNorm": kinds.BatchNormalization(),
    }
    for name, layer in made.items():
        layer.build((1, inputs) if name == "dense layer" else (1, 8, 8, inputs))
    return made


@pytest.mark.parametrize(("column", "framework"), COLUMNS)
def test_every_array_has_the_name_and_the_axes_of_the_table(column, framework, roots):
    made, whose = layers(framework, roots), "BatchNorm"
    table = rows("layouts")
    assert len(table) == 8
    for title, *cells in table:
        whose = next((kind for kind in made if title.startswith(kind)), whose)
        name, axes = re.fullmatch(r"`(\w+)` \((.*)\)", cells[column - 1]).groups()
        shape = tuple(SIZES[axis] for axis in axes.split(", "))
        assert tuple(getattr(made[whose], name).shape) == shape, title


def test_a_dense_layer_after_flattening_needs_another_order(roots):
    from docs.examples.layout import dense_after_flatten

    rng = np.random.default_rng(0)
    weight, X = rng.standard_normal((5, 3 * 2 * 4)), rng.standard_normal((6, 3, 2, 4))
    expected = X.reshape(6, -1) @ weight.T
    flat = np.asarray(roots["tensorflow"]["keras"].layers.Flatten()(X.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(flat @ dense_after_flatten(weight, 3, 2, 4), expected, atol=1e-5)
    assert np.abs(flat @ weight.T - expected).max() > 1


def test_gluon_s_squares_are_halved(roots):
    X, y = np.array([[1.0, 4.0]]), np.array([[0.0, 0.0]])
    gluon, torch = roots["mxnet"]["gluon"], roots["pytorch"]["torch"]
    mx_np = roots["mxnet"]["np"]
    ours = float(gluon.loss.L2Loss()(mx_np.array(X), mx_np.array(y))[0])
    theirs = float(torch.nn.MSELoss()(torch.tensor(X), torch.tensor(y)))
    keras = roots["tensorflow"]["keras"]
    assert (2 * ours, theirs) == (8.5, 8.5)
    assert float(keras.losses.MeanSquaredError()(y, X)) == 8.5


def test_keras_leaves_padding_out_of_a_mean_and_the_others_count_it(roots):
    X = np.ones((1, 1, 2, 2), np.float32)
    torch, mx_np = roots["pytorch"]["torch"], roots["mxnet"]["np"]
    gluon = roots["mxnet"]["gluon"].nn.AvgPool2D(3, 1, 1)(mx_np.array(X)).asnumpy()
    theirs = torch.nn.AvgPool2d(3, 1, 1)(torch.tensor(X)).numpy()
    keras = roots["tensorflow"]["keras"].layers.AveragePooling2D(3, 1, "same")
    np.testing.assert_allclose(gluon, np.full((1, 1, 2, 2), 4 / 9), rtol=1e-6)
    np.testing.assert_allclose(theirs, gluon, rtol=1e-6)
    np.testing.assert_allclose(keras(X.transpose(0, 2, 3, 1)), 1, rtol=1e-6)


def test_keras_mean_of_an_image_has_two_axes_and_the_others_four(roots):
    X = np.ones((2, 3, 4, 4), np.float32)
    torch, mxnet = roots["pytorch"]["torch"], roots["mxnet"]
    pool = roots["tensorflow"]["keras"].layers.GlobalAveragePooling2D
    assert mxnet["gluon"].nn.GlobalAvgPool2D()(mxnet["np"].array(X)).shape == (2, 3, 1, 1)
    assert torch.nn.AdaptiveAvgPool2d(1)(torch.tensor(X)).shape == (2, 3, 1, 1)
    assert pool()(X.transpose(0, 2, 3, 1)).shape == (2, 3)
    assert pool(keepdims=True)(X.transpose(0, 2, 3, 1)).shape == (2, 1, 1, 3)


def test_gluon_writes_a_gradient_anew_and_pytorch_adds_it_up(roots):
    torch, mxnet = roots["pytorch"]["torch"], roots["mxnet"]
    parameter = mxnet["gluon"].Parameter("w", shape=(1,))
    parameter.initialize()
    weight = torch.zeros(1, requires_grad=True)
    for _ in range(2):
        with mxnet["autograd"].record():
            l = parameter.data() * 3
        l.backward()
        (weight * 3).sum().backward()
    assert (parameter.grad().item(), weight.grad.item()) == (3, 6)


# --- Settings --------------------------------------------------------------------------------------------------------


def test_the_settings_are_differences_that_are_measured_and_none_of_training_is_left_out():
    named = [re.fullmatch(r"\*\*(.+)\*\*", row[0])[1] for row in rows("settings")]
    # Two of the known differences are the same, seen from the other side.
    mirrored = {"unbiased running variance", "Adam's epsilon outside"}
    known = {d.name for d in KNOWN_DIFFERENCES if d.part != "transforms"} - mirrored
    assert set(named) == known
    assert len(named) == len(known)
    measured = (ROOT / "docs" / "differences.md").read_text()
    assert all(f"\n### {name[0].upper()}{name[1:]}\n" in measured for name in named)


@pytest.fixture(scope="module")
def torch_rows(roots):
    from docs.examples import train_port

    return train_port.rows()


@pytest.fixture(scope="module")
def keras_rows(roots):
    from docs.examples import train_port_keras

    return train_port_keras.rows()


TRAINED = ("step 1", "step 2", "step 3", "weights")


def test_a_port_to_pytorch_with_gluon_s_settings_agrees_to_rounding(torch_rows):
    aligned = torch_rows["Gluon's settings"]
    assert max(aligned[column] for column in TRAINED) < EXACT
    assert aligned["mean"] < 1e-6  # Gluon rounds BatchNorm's momentum to float32
    assert 1e-6 < aligned["variance"] < 1e-2  # unbiased, by n / (n - 1)


def test_a_port_to_keras_with_gluon_s_settings_agrees_to_rounding(keras_rows):
    aligned = keras_rows["Gluon's settings"]
    assert max(aligned[column] for column in TRAINED) < EXACT
    assert max(aligned["mean"], aligned["variance"]) < 1e-6


# By title: the columns in which a wrong setting shows, and those in which it does not.
DIVERGENCES = {
    "torch_rows": {
        "the sum of the losses": (("step 2", "step 3", "weights"), ("step 1",)),
        "momentum not rescaled at the new rate": (("weights",), ("step 1", "step 2", "step 3")),
        "BatchNorm's default epsilon, 1e-05": (TRAINED, ()),
        "BatchNorm's momentum copied, 0.9": (("mean", "variance"), TRAINED),
    },
    "keras_rows": {
        "decoupled decay, weight_decay=": (("step 3", "weights"), ("step 1",)),
        "padding='same' at stride 2": (TRAINED, ()),
        "PyTorch's BatchNorm epsilon, 1e-05": (TRAINED, ()),
        "BatchNorm's default momentum, 0.99": (("mean", "variance"), TRAINED),
    },
}


@pytest.mark.parametrize("which", DIVERGENCES)
def test_each_wrong_setting_diverges_where_the_page_says(which, request):
    found = request.getfixturevalue(which)
    assert set(found) == {"Gluon's settings", *DIVERGENCES[which]}
    for title, (shows, hides) in DIVERGENCES[which].items():
        for column in shows:
            assert found[title][column] > 1e-6, (title, column)
        for column in hides:
            assert found[title][column] < EXACT, (title, column)


@pytest.mark.parametrize("which", ["torch_rows", "keras_rows"])
def test_the_page_shows_what_the_example_prints(which, request):
    from docs.examples.divergence import table

    name = {"torch_rows": "train_port", "keras_rows": "train_port_keras"}[which]
    (shown,) = re.findall(rf"-m docs\.examples\.{name}\n```\n\n```text\n(.*?)```", PAGE, re.S)
    head, *lines = table(request.getfixturevalue(which)).splitlines()
    assert shown.splitlines()[0] == head
    for ours, theirs in zip(shown.splitlines()[1:], lines, strict=True):
        words, other = ours.split(), theirs.split()
        assert words[:-6] == other[:-6]
        for a, b in zip(words[-6:], other[-6:], strict=True):
            # One digit is shown. Differences that are float32 rounding depend on the machine.
            assert a == b or float(a) == pytest.approx(float(b), rel=0.5, abs=1e-7), (ours, theirs)


def test_what_a_batch_adds_to_pytorch_s_running_variance_is_gluon_s_times_n_by_n_minus_1(roots):
    from docs.examples import gluon_training, train_port

    before, _, after = gluon_training.trained_original()
    net = train_port.double_port()
    train_port.move_weights(before, net)
    train_port.train_pytorch(net)
    found = train_port.named_as_gluon(net, after)
    for name, n in (("1.running_var", 8 * 16 * 16), ("4.running_var", 8 * 8 * 8)):
        kept = 0.9**3 * before[name].astype(np.float64)
        new = (after[name] - kept) * n / (n - 1)
        np.testing.assert_allclose(found[name] - kept, new, rtol=1e-5)


def test_pytorch_s_adam_takes_gluon_s_steps_where_its_epsilon_is_set_before_each(roots):
    from docs.examples.train_port import set_epsilon_as_gluon

    torch, mxnet = roots["pytorch"]["torch"], roots["mxnet"]
    gradients, eps, lr = (1e-6, 3e-6, -2e-6), 1e-6, 0.125
    parameter = mxnet["gluon"].Parameter("w", shape=(1,))
    parameter.initialize(init="zeros")
    settings = {"learning_rate": lr, "epsilon": eps}
    gluon = mxnet["gluon"].Trainer([parameter], "adam", settings)
    ends = {}
    for aligned in (True, False):
        weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        trainer = torch.optim.Adam([weight], lr=lr, eps=eps)
        for step, gradient in enumerate(gradients, start=1):
            if aligned:
                set_epsilon_as_gluon(trainer, eps, step)
            weight.grad = torch.tensor([gradient], dtype=torch.float64)
            trainer.step()
        ends[aligned] = weight.item()
    for gradient in gradients:
        with mxnet["autograd"].record():
            l = parameter.data() * gradient
        l.backward()
        gluon.step(1)
    end = float(parameter.data()[0])
    assert ends[True] == pytest.approx(end, rel=1e-4)
    assert abs(ends[False] - end) > 0.1 * abs(end)


def test_gluon_s_momentum_is_minus_the_rate_times_pytorch_s_buffer(roots):
    from docs.examples.train_port import set_rate_as_gluon

    torch, mxnet = roots["pytorch"]["torch"], roots["mxnet"]
    parameter = mxnet["gluon"].Parameter("w", shape=(1,))
    parameter.initialize(init="ones")
    gluon = mxnet["gluon"].Trainer([parameter], "sgd", {"learning_rate": 0.25, "momentum": 0.5})
    weight = torch.ones(1, requires_grad=True)
    trainer = torch.optim.SGD([weight], lr=0.25, momentum=0.5)
    for rate in (0.25, 0.25, 0.125):
        gluon.set_learning_rate(rate)
        set_rate_as_gluon(trainer, rate)
        with mxnet["autograd"].record():
            l = (parameter.data() ** 2).sum()
        l.backward()
        gluon.step(1)
        trainer.zero_grad()
        (weight**2).sum().backward()
        trainer.step()
        kept = gluon._updaters[0].states[0].asnumpy().item()
        buffer = trainer.state[weight]["momentum_buffer"].item()
        assert kept == pytest.approx(-rate * buffer, rel=1e-6)
        assert float(parameter.data()[0]) == pytest.approx(weight.item(), rel=1e-6)


def test_every_parameter_decays_in_gluon_s_trainer_and_only_weights_and_scales_by_name(roots):
    import mxnet

    gluon = roots["mxnet"]["gluon"]
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Dense(2, in_units=2), gluon.nn.BatchNorm(in_channels=2))
    net.initialize()
    optimizer = gluon.Trainer(net.collect_params(), "sgd", {"wd": 0.5}).optimizer
    trained = [p for p in optimizer.param_dict.values() if p.grad_req != "null"]
    assert len(trained) == 4
    assert {optimizer._get_wd(i) for i in optimizer.param_dict} == {0.5}
    names = dict(enumerate(("fc_weight", "fc_bias", "bn_gamma", "bn_beta")))
    for kind in ("sgd", "adam"):
        alone = mxnet.optimizer.create(kind, wd=0.5, param_idx2name=names)
        assert [alone._get_wd(i) for i in names] == [0.5, 0, 0.5, 0]


def test_gluon_clips_the_gradient_of_the_sum_and_step_divides_it_after(roots):
    gluon, autograd = roots["mxnet"]["gluon"], roots["mxnet"]["autograd"]
    mx_np, torch = roots["mxnet"]["np"], roots["pytorch"]["torch"]
    X, batch = np.array([3.0, 5.0, 7.0, 1.0], np.float32), 4
    parameter = gluon.Parameter("w", shape=(1,))
    parameter.initialize(init="zeros")
    trainer = gluon.Trainer([parameter], "sgd", {"learning_rate": 1.0})
    with autograd.record():
        l = mx_np.array(X) * parameter.data()
    l.backward()
    gluon.utils.clip_global_norm([parameter.grad().as_nd_ndarray()], 8.0)
    trainer.step(batch)
    weight = torch.zeros(1, requires_grad=True)
    (torch.tensor(X) * weight).mean().backward()
    torch.nn.utils.clip_grad_norm_([weight], 8.0 / batch)
    assert float(parameter.data()[0]) == pytest.approx(-weight.grad.item(), rel=1e-5)
    assert float(parameter.data()[0]) == pytest.approx(-2, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "divisor", "end"),
    [
        ({}, 2, -4),
        ({}, 8, -1),  # the full size of a batch, on a smaller one
        ({"rescale_grad": 0.5}, 2, -2),
        ({"clip_gradient": 1.5}, 2, -1.5),
    ],
)
def test_step_multiplies_by_rescale_grad_divides_by_its_argument_and_clips_then(
    settings, divisor, end, roots
):
    gluon, autograd, mx_np = (roots["mxnet"][word] for word in ("gluon", "autograd", "np"))
    parameter = gluon.Parameter("w", shape=(1,))
    parameter.initialize(init="zeros")
    trainer = gluon.Trainer([parameter], "sgd", {"learning_rate": 1.0, **settings})
    with autograd.record():
        l = mx_np.array([4.0, 4.0]) * parameter.data()  # two examples, gradients of 4
    l.backward()
    trainer.step(divisor)
    assert float(parameter.data()[0]) == end


def test_the_batch_norm_of_a_symbol_has_another_epsilon_and_takes_its_scale_as_one(roots):
    import mxnet

    X = np.random.default_rng(0).standard_normal((4, 1, 3, 3)).astype(np.float32)
    values = {"gamma": 2, "beta": 0, "moving_mean": 0, "moving_var": 0.01}

    def computed(**settings):
        # New arrays for each call, because it also writes the 1 into the array.
        arrays = {name: mxnet.nd.array([value]) for name, value in values.items()}
        return mxnet.nd.BatchNorm(mxnet.nd.array(X), **arrays, **settings).asnumpy()

    found = computed()
    np.testing.assert_allclose(found, X / np.sqrt(0.01 + 1e-3), rtol=1e-5)
    scaled = computed(fix_gamma=False, eps=1e-5)
    np.testing.assert_allclose(scaled, 2 * X / np.sqrt(0.01 + 1e-5), rtol=1e-5)


# --- Schedules -------------------------------------------------------------------------------------------------------


def pytorch_rates(torch, make, n: int = 8) -> list[float]:
    trainer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, found = make(trainer), []
    for _ in range(n):
        found.append(trainer.param_groups[0]["lr"])
        trainer.step()
        schedule.step()
    return found


def gluon_rates(gluon, autograd, schedule, n: int = 8, **settings) -> list[float]:
    """Return the rates that the trainer has applied, read from the steps of a weight with gradient 1."""
    parameter = gluon.Parameter("w", shape=(1,))
    parameter.initialize(init="zeros")
    trainer = gluon.Trainer([parameter], "sgd", {"lr_scheduler": schedule, **settings})
    places = [0.0]
    for _ in range(n):
        with autograd.record():
            l = parameter.data().sum()
        l.backward()
        trainer.step(1)
        places.append(float(parameter.data()[0]))
    return list(-np.diff(places))


def test_schedules_give_the_rates_that_the_page_says(roots):
    torch, keras = roots["pytorch"]["torch"], roots["tensorflow"]["keras"]
    gluon, autograd, own = (roots["mxnet"][w] for w in ("gluon", "autograd", "lr_scheduler"))
    schedules, theirs = keras.optimizers.schedules, torch.optim.lr_scheduler

    def keras_rates(schedule, n=8):
        return [float(schedule(i)) for i in range(n)]

    def same(*rates):
        for other in rates[1:]:
            np.testing.assert_allclose(other, rates[0], rtol=1e-4)

    same(
        [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25],
        gluon_rates(gluon, autograd, own.FactorScheduler(3, 0.5, base_lr=1)),
        pytorch_rates(torch, lambda trainer: theirs.StepLR(trainer, 3, 0.5)),
        keras_rates(schedules.ExponentialDecay(1.0, 3, 0.5, staircase=True)),
    )
    same(
        [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25],
        gluon_rates(gluon, autograd, own.MultiFactorScheduler([2, 5], 0.5, base_lr=1)),
        pytorch_rates(torch, lambda trainer: theirs.MultiStepLR(trainer, [2, 5], 0.5)),
        keras_rates(schedules.PiecewiseConstantDecay([2 - 1, 5 - 1], [1.0, 0.5, 0.25])),
    )
    late = keras_rates(schedules.PiecewiseConstantDecay([2, 5], [1.0, 0.5, 0.25]))
    assert late == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    ahead = gluon_rates(gluon, autograd, own.CosineScheduler(10, base_lr=1))
    cosine = pytorch_rates(torch, lambda trainer: theirs.CosineAnnealingLR(trainer, 10), 9)
    same(cosine, keras_rates(schedules.CosineDecay(1.0, 10), 9))
    same(cosine[1:], ahead)
    assert cosine[0] == 1
    assert ahead[0] == pytest.approx((1 + math.cos(math.pi / 10)) / 2, rel=1e-5)


def test_the_optimizer_s_rate_overwrites_a_scheduler_s_but_not_a_cosine_s_or_a_power_s(
    roots, capsys
):
    gluon, autograd, own = (roots["mxnet"][w] for w in ("gluon", "autograd", "lr_scheduler"))
    factor = gluon_rates(gluon, autograd, own.FactorScheduler(3, 0.5), 1)
    assert factor == pytest.approx([0.01], rel=1e-4)
    factor = gluon_rates(gluon, autograd, own.FactorScheduler(3, 0.5), 1, learning_rate=1.0)
    assert factor == pytest.approx([1], rel=1e-4)
    capsys.readouterr()
    for schedule in (own.CosineScheduler(10_000), own.PolyScheduler(10_000)):
        rates = gluon_rates(gluon, autograd, schedule, 1, learning_rate=1.0)
        assert rates == pytest.approx([0.01], rel=1e-3)
        assert "has been overwritten by ``learning_rate``" in capsys.readouterr().out


# --- Weights ---------------------------------------------------------------------------------------------------------


def test_weights_go_to_pytorch_and_back_to_the_bit_also_through_a_file(roots, tmp_path):
    from docs.examples.gluon_original import original_net, weights_of
    from docs.examples.own_port import port_net
    from docs.examples.train_port import move_back, move_file, named_as_gluon

    original, port = original_net(), port_net(1e-3)
    weights = weights_of(original)
    original.save_parameters(str(tmp_path / "net.params"))
    move_file(tmp_path / "net.params", port)
    for name, weight in named_as_gluon(port, weights).items():
        np.testing.assert_array_equal(weight, weights[name], err_msg=name)
    original.initialize(force_reinit=True)
    assert any((weights_of(original)[name] != weights[name]).any() for name in weights)
    move_back(port, original)
    for name, weight in weights_of(original).items():
        np.testing.assert_array_equal(weight, weights[name], err_msg=name)


def test_weights_go_to_keras_and_come_back_to_the_bit(roots):
    from docs.examples.gluon_original import original_net, weights_of
    from docs.examples.own_port_keras import move_weights, port_net
    from docs.examples.train_port_keras import named_as_gluon

    weights, port = weights_of(original_net()), port_net(same=False)
    move_weights(weights, port)
    found = named_as_gluon(port, weights)
    assert found.keys() == weights.keys()
    for name, weight in found.items():
        np.testing.assert_array_equal(weight, weights[name], err_msg=name)
