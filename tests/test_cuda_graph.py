"""PyTorch's training step in one CUDA graph trains as the step itself, and an epoch never stops for the GPU.

Each test of the graph runs on a stand-in for CUDA's streams and graphs, and on a GPU where there is one. The stand-in
keeps what a real graph keeps: the operations below autograd, with their numbers and the places of their operands. What
runs while it captures is undone, and what it has computed is filled with NaN until a replay.
"""

import contextlib
import copy
import warnings

import numpy as np
import pytest
from conftest import python, random_dataset, required

import backends
from common.augmentation import kaggle_train_augs, parse_augmentations
from common.errors import UserError
from common.metrics import Accumulator
from common.weights import initial_weights

if not backends.installed("pytorch") and "pytorch" not in required():
    pytest.skip("torch is not installed", allow_module_level=True)

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backends import pytorch as tab
from backends.pytorch import _cuda_graph
from backends.pytorch._cuda_graph import WARM_UP, OneGraph

NO_GPU = "there is no GPU here: the CUDA graph itself was not tried"
BATCHES = [8] * 7 + [4]  # an epoch with a smaller last batch


# --- A stand-in for CUDA ---------------------------------------------------------------------------------------------


def tensors(*values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class Recording(TorchDispatchMode):
    """Keeps the operations of a capture, and what all memory held before that they may write to."""

    def __init__(self):
        super().__init__()
        self.calls, self.before, self.made = [], {}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in tensors(args, kwargs):
            memory = tensor.untyped_storage()
            if memory.data_ptr() not in self.made | self.before:
                self.before[memory.data_ptr()] = memory, memory.clone()
        result = func(*args, **kwargs)
        for tensor in tensors(result):
            memory = tensor.untyped_storage()
            if memory.data_ptr() not in self.before:
                self.made[memory.data_ptr()] = memory
        self.calls.append((func, args, kwargs, result))
        return result


class StandInGraph:
    """Has what torch.cuda.CUDAGraph does, by a recording."""

    def replay(self):
        with torch.no_grad():
            for func, args, kwargs, results in self.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tensors(results), tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class StandInStream:
    """Has what torch.cuda.Stream does; remembers for which others it waits."""

    def __init__(self, _device=None):
        self.waited = []

    def wait_stream(self, other):
        self.waited.append(other)


class StandIn:
    """Has what the step uses of torch.cuda, on the CPU."""

    CUDAGraph, Stream = StandInGraph, StandInStream

    def __init__(self):
        self.now = self.default = StandInStream()

    def current_stream(self, _device):
        return self.now

    @contextlib.contextmanager
    def stream(self, stream):
        self.now, before = stream, self.now
        try:
            yield
        finally:
            self.now = before

    @contextlib.contextmanager
    def graph(self, graph, stream):
        recording = Recording()
        try:
            with self.stream(stream), recording:
                yield
        finally:
            for memory, held in recording.before.values():
                memory.copy_(held)
            for memory in recording.made.values():
                memory.copy_(torch.full((len(memory),), 255, dtype=torch.uint8).untyped_storage())
        graph.calls = recording.calls


@pytest.fixture
def stand_in(monkeypatch):
    cuda = StandIn()
    for name in ("CUDAGraph", "Stream", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(cuda, name))
    return cuda


@pytest.fixture(params=["stand-in", "gpu"])
def device(request):
    """The CPU with a stand-in for CUDA, and the first GPU."""
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
        return tab.cpu()
    if not tab.num_gpus():
        pytest.skip(NO_GPU)
    return tab.gpu()


# --- Training beside the ordinary step -------------------------------------------------------------------------------


class Doubled:
    """The same batches, in float64."""

    def __init__(self, data_iter):
        self.data_iter = data_iter

    def __len__(self):
        return len(self.data_iter)

    def __iter__(self):
        return ((X.double(), y) for X, y in self.data_iter)


class Quiet:
    """An animator that shows nothing."""

    def add(self, x, y):
        pass


def small_net(device=None, dtype=torch.float64):
    """A network of ten classes with all that ResNet-18 has; in float64, where every order of sums is as good."""
    torch.manual_seed(0)
    place = {"device": device, "dtype": dtype}
    layers = nn.Conv2d(3, 4, 3, **place), nn.BatchNorm2d(4, **place), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10, **place)
    return nn.Sequential(*layers, *head)


def some_batches(sizes, device, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    for size in sizes:
        X = torch.as_tensor(rng.standard_normal((size, 3, 6, 6)), dtype=dtype, device=device)
        yield X, torch.as_tensor(rng.integers(0, 10, size), device=device)


def adam(net):
    return tab.trainer.adam(net, lr=2**-5)


def sgd(net):
    return tab.trainer.sgd(net, lr=2**-4, momentum=0.875, weight_decay=2**-6)


def own_adam(net):
    """A user's own, with a learning rate that is a tensor: a new rate is written into it."""
    weights = list(net.parameters())
    lr = torch.tensor(2**-5, device=weights[0].device)
    return torch.optim.AdamW(weights, lr=lr, capturable=True, fused=True)


class Run:
    """A network in training, with what every step has returned, unread."""

    def __init__(
        self, device, make_trainer=adam, graph=True, wrap=lambda net: net, dtype=torch.float64
    ):
        net = wrap(small_net(device, dtype))
        self.net = OneGraph(net) if graph else net
        self.trainer, self.devices = make_trainer(self.net), [device]
        self.loss, self.results, self.dtype = tab.trainer.cross_entropy(), [], dtype

    def step(self, X, y):
        self.results.append(
            tab.train_batch_ch13(self.net, X, y, self.loss, self.trainer, self.devices)
        )

    def steps(self, sizes, seed=0):
        for X, y in some_batches(sizes, self.devices[0], seed, self.dtype):
            self.step(X, y)

    def all(self):
        """Weights, buffers, the optimizer's state and all results, as arrays."""
        inner = self.net.net if isinstance(self.net, OneGraph) else self.net
        states = [self.trainer.state[weight] for weight in inner.parameters()]
        return [
            tab.devices.to_numpy(tensor)
            for tensor in tensors(list(inner.state_dict().values()), states, self.results)
        ]

    def __eq__(self, other):
        mine, theirs = self.all(), other.all()
        assert len(mine) == len(theirs) > 20
        return all(
            np.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(mine, theirs, strict=True)
        )


def pair(device, make_trainer=adam, **options):
    return [Run(device, make_trainer, graph, **options) for graph in (True, False)]


@pytest.fixture
def captures(monkeypatch):
    """The shapes of the batches that were captured."""
    shapes, capture = [], OneGraph._capture

    def counted(net, train_batch, X, *others):
        shapes.append(len(X))
        return capture(net, train_batch, X, *others)

    monkeypatch.setattr(OneGraph, "_capture", counted)
    return shapes


@pytest.mark.parametrize("make_trainer", [adam, sgd, own_adam])
def test_the_graph_trains_as_the_step_and_returns_as_much(device, make_trainer, captures):
    graph, step = pair(device, make_trainer)
    for run in (graph, step):
        for epoch in range(3):
            run.steps(BATCHES, epoch)
    assert captures == [8]
    assert graph == step


@pytest.mark.parametrize("make_trainer", [adam, sgd, own_adam])
def test_a_new_learning_rate_holds_from_the_next_step_on(device, make_trainer, captures):
    runs = graph, step = pair(device, make_trainer)
    for run in runs:
        scheduler = torch.optim.lr_scheduler.StepLR(run.trainer, 1, 0.5)
        for epoch in range(3):
            run.steps(BATCHES, epoch)
            scheduler.step()
        tab.trainer.set_learning_rate(run.trainer, 2**-3)
        run.steps(BATCHES, 3)
    # A graph reads a rate on the GPU anew, until set_learning_rate puts a number in its place.
    in_place = make_trainer is own_adam and device.type == "cuda"
    assert captures == [8] * (2 if in_place else 4)
    assert graph == step


def test_a_graph_that_forgets_the_learning_rate_is_caught(device, monkeypatch):
    constants = _cuda_graph._constants

    def forgetful(*arguments):
        batch, loss, trainer, _, addresses = constants(*arguments)
        return batch, loss, trainer, addresses

    monkeypatch.setattr(_cuda_graph, "_constants", forgetful)
    graph, step = pair(device, sgd)
    for run in (graph, step):
        run.steps(BATCHES)
        tab.trainer.set_learning_rate(run.trainer, 2**-7)
        run.steps(BATCHES, 1)
    assert graph != step


def test_the_first_steps_and_the_capture_count_once_each(device):
    graph, step = pair(device)
    for X, y in some_batches([8] * (WARM_UP + 4), device):
        for run in (graph, step):
            run.step(X, y)
        assert graph == step
    assert graph.net.graph is not None


def test_a_learning_rate_that_always_changes_is_never_captured(device, captures):
    graph, step = pair(device)
    for i, (X, y) in enumerate(some_batches([8] * 10, device)):
        for run in (graph, step):
            tab.trainer.set_learning_rate(run.trainer, 2**-5 / (i + 1))
            run.step(X, y)
    assert captures == []
    assert graph == step


def test_a_smaller_last_batch_never_takes_the_graph_s_place(device, captures):
    run = Run(device)
    for epoch in range(3 * WARM_UP):
        run.steps([8] * 5 + [4], epoch)
    assert captures == [8]


def test_batches_of_another_size_are_captured_in_their_turn(device, captures):
    graph, step = pair(device)
    for run in (graph, step):
        run.steps([8] * 9 + [4] * 9 + [8] * 9)
    assert captures == [8, 4, 8]
    assert graph == step


def test_weights_and_states_that_are_put_in_between_are_trained_on(device):
    graph, step = pair(device)
    for run in (graph, step):
        run.steps(BATCHES)
        inner = run.net.net if run is graph else run.net
        inner.load_state_dict(small_net().state_dict())
        run.steps(BATCHES, 1)
        run.trainer.load_state_dict(copy.deepcopy(run.trainer.state_dict()))
        run.steps(BATCHES, 2)
        for weight in inner.parameters():
            weight.data = weight.data.clone()  # as net.to and net.double do
        run.steps(BATCHES, 3)
        inner[0].weight.requires_grad_(False)
        run.steps(BATCHES, 4)
    assert graph == step


def test_new_weights_are_put_where_a_graph_has_the_old_ones():
    net = OneGraph(tab.resnet18(10))
    places = [tensor.data_ptr() for tensor in net.state_dict().values()]
    tab.weights.set_weights(net, initial_weights(10, seed=1))
    assert [tensor.data_ptr() for tensor in net.state_dict().values()] == places


def test_another_loss_is_another_graph(device, captures):
    graph, step = pair(device)
    for run in (graph, step):
        run.steps(BATCHES)
        run.loss = lambda y_hat, y: 2 * nn.functional.cross_entropy(y_hat, y, reduction="none")
        run.steps(BATCHES, 1)
    assert captures == [8, 8]
    assert graph == step


def test_evaluation_between_the_steps_sees_the_weights_and_leaves_no_trace(device):
    graph, step = pair(device)
    for run in (graph, step):
        for epoch in range(3):
            run.steps(BATCHES, epoch)
            run.net.eval()
            accuracy = tab.evaluate_accuracy_gpu(run.net, list(some_batches([8, 5], device, 9)))
            X, _ = next(some_batches([8], device, 10))
            run.results.append((torch.tensor(accuracy), tab.trainer.predict(run.net, X)))
            assert not run.net.training
        run.steps(BATCHES, 3)
        assert run.net.training
    assert graph == step


def test_bf16_trains_the_same_and_casts_the_weights_of_each_step(device):
    """Inside autocast the casts of the first step would be kept, and the graph would repeat theirs."""
    bf16 = {"wrap": tab.trainer._MixedPrecision, "dtype": torch.float32}
    graph, step = pair(device, sgd, **bf16)
    with torch.autocast(device.type, torch.bfloat16):
        for epoch in range(2):
            graph.steps(BATCHES, epoch)
    for epoch in range(2):
        step.steps(BATCHES, epoch)
    assert graph.net.graph is not None
    for mine, theirs in zip(graph.all(), step.all(), strict=True):
        # bf16 keeps 8 bits, and an order of sums may differ on a GPU.
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=0 if device.type == "cpu" else 2**-5)


def test_whole_trainings_are_the_same(device):
    images = random_dataset(44, size=8)
    summaries = []
    for run in pair(device):
        loaders = [
            Doubled(tab.loaders.load_batched(images, (), 8, is_train, 0, device))
            for is_train in (True, False)
        ]
        summaries.append(
            tab.train_ch13(run.net, *loaders, run.loss, run.trainer, 3, run.devices, Quiet())
        )
    assert summaries[0].loss == pytest.approx(summaries[1].loss, rel=1e-9)
    assert summaries[0].train_acc == summaries[1].train_acc
    assert summaries[0].test_acc == summaries[1].test_acc


# --- What is refused, and what is chosen -----------------------------------------------------------------------------


def uncapturable_adam(net):
    return torch.optim.Adam(net.parameters())


def adagrad(net):
    """Counts its steps on the host, and says nothing of graphs."""
    return torch.optim.Adagrad(net.parameters(), lr_decay=0.5)


class OwnSGD(torch.optim.SGD):
    """May do anything."""


@pytest.mark.parametrize(
    ("make_trainer", "name"),
    [
        (uncapturable_adam, "Adam"),
        (adagrad, "Adagrad"),
        (lambda net: OwnSGD(net.parameters()), "OwnSGD"),
        (lambda net: tab.trainer.adam(net.net), "Adam"),
    ],
)
def test_an_optimizer_that_no_graph_can_hold_is_refused_at_the_first_step(
    device, make_trainer, name
):
    run = Run(device, make_trainer)
    before = copy.deepcopy(run.net.state_dict())
    with pytest.raises(
        UserError, match=rf"this {name}: make it after .* trainer\.adam .*capturable"
    ):
        run.steps([8])
    assert all(map(torch.equal, run.net.state_dict().values(), before.values()))


def test_a_loss_that_reads_its_value_is_refused_each_time(stand_in):
    run = reading_run(tab.cpu())
    run.steps([8] * (WARM_UP + 1))
    before = copy.deepcopy(run.net.state_dict())
    for _ in range(2):
        with pytest.raises(UserError, match=r"leave --compile out: .*capturing"):
            run.steps([8])
    assert all(map(torch.equal, run.net.state_dict().values(), before.values()))


def reading_run(device):
    run = Run(device)
    cross_entropy, read = run.loss, []

    def loss(y_hat, y):
        l = cross_entropy(y_hat, y)
        read.append(float(l.detach().sum()))
        return l

    run.loss = loss
    return run


def test_a_gpu_refuses_a_loss_that_reads_its_value():
    if not tab.num_gpus():
        pytest.skip(NO_GPU)
    # In a process of its own: a capture that has failed may leave CUDA in disorder.
    result = python(
        "import sys; sys.path.insert(0, 'tests'); import test_cuda_graph as t; "
        "t.reading_run(t.tab.gpu()).steps([8] * 9)"
    )
    assert "UserError: no CUDA graph can hold this training step" in result.stderr


def test_a_loss_without_one_value_per_example_is_refused(device):
    run = Run(device)
    run.loss = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="one value per example"):
        run.steps([8])


def test_steps_before_a_capture_wait_for_the_stream_of_the_batches_and_it_for_them(stand_in):
    run = Run(tab.cpu())
    run.steps([8])
    side = run.net.stream
    assert side is not stand_in.default
    assert (side.waited, stand_in.default.waited) == ([stand_in.default], [side])


def test_adam_s_warning_of_steps_without_a_graph_is_left_out_and_others_are_not(
    stand_in, monkeypatch
):
    run = Run(tab.cpu())
    texts = ["This instance was constructed with capturable=True or", "anything else"]
    monkeypatch.setattr(
        run.trainer, "step", lambda: [warnings.warn(t, stacklevel=1) for t in texts]
    )
    with pytest.warns(UserWarning, match="anything") as seen:
        run.steps([8])
    assert [str(warning.message) for warning in seen] == texts[1:]


def test_the_book_s_adam_can_be_captured_where_it_will_be():
    net = small_net()
    for trainer, capturable in ((tab.trainer.adam(OneGraph(net)), True), (adam(net), False)):
        (group,) = trainer.param_groups
        assert (group["capturable"], group["fused"]) == (capturable, True)


def test_compiling_is_one_graph_on_a_gpu_and_inductor_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda net: ("inductor", net))
    prepare, names = tab.trainer.prepare, ["net.0.weight", "net.net.0.weight"]
    assert prepare(small_net(), [tab.cpu()], compile=True)[0] == "inductor"
    elsewhere = [torch.device("meta")]
    for precision, name in zip(("fp32", "bf16"), names, strict=True):
        net = prepare(small_net(), elsewhere, precision, compile=True)
        assert isinstance(net, OneGraph)
        assert next(iter(net.state_dict())) == name
        assert "0.weight" in tab.weights.tensors_by_name(net)
        assert not isinstance(prepare(small_net(), elsewhere, precision), OneGraph)


def test_the_description_says_what_compiles_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    described = tab.devices.describe([tab.gpu()], "fp32", compile=True)
    assert described["compile"] == "the step in one CUDA graph"
    assert "compile" not in tab.devices.describe([tab.gpu()])


# --- No waiting for the GPU ------------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Keeps the operations that make the host wait for a GPU, on tensors that have no values."""

    def __init__(self):
        super().__init__()
        self.found, self.pinned = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        aten = torch.ops.aten
        if func is aten._pin_memory.default:  # which needs a GPU even here
            self.pinned.append(args[0])
            return args[0]
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[-1 if func is aten.copy_.default else 0]
            target = kwargs.get("device", args[0].device)
            pinned = any(source is tensor for tensor in self.pinned)
            waits = not (pinned and kwargs.get("non_blocking")) or target.type == "cpu"
            if source.device != target and waits:
                self.found.append(func)
        if func is aten._local_scalar_dense.default and args[0].device.type == "cuda":
            self.found.append(func)
            return 0
        return func(*args, **kwargs)


RECIPES = {
    "jitter": parse_augmentations("flip,flip_top_bottom,jitter,crop", (8, 8)),
    "kaggle": kaggle_train_augs((8, 8)),
}
recipes = pytest.mark.parametrize("augs", RECIPES.values(), ids=RECIPES)


def an_epoch(net, train_iter, loss, trainer, devices):
    """Train for one epoch and return the sums, unread."""
    metric = Accumulator(3)
    for X, y in train_iter:
        metric.add(*tab.train_batch_ch13(net, X, y, loss, trainer, devices), len(y))
    return metric


def small_training(device, augs):
    train_iter = tab.loaders.load_batched(random_dataset(44, size=8), augs, 8, True, 0, device)
    net = small_net(device, torch.float32)
    return net, train_iter, tab.trainer.cross_entropy(), tab.trainer.adam(net), [device]


@recipes
def test_an_epoch_has_nothing_that_would_wait_for_a_gpu(augs, monkeypatch):
    with FakeTensorMode(allow_non_fake_inputs=True):
        training = small_training(tab.gpu(), augs)
        weights = list(training[0].parameters())

        def backward(_):  # autograd needs a real GPU for it
            for weight in weights:
                weight.grad = torch.zeros_like(weight)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        with Waits() as waits:
            metric = an_epoch(*training)
            assert waits.found == []
            assert len(waits.pinned) >= 6 * 3  # indices and decisions of every batch
            assert metric[0] == 0
            assert len(waits.found) == 1


@recipes
@pytest.mark.parametrize("compile", [False, True])
def test_an_epoch_does_not_wait_for_the_gpu(augs, compile):
    if not tab.num_gpus():
        pytest.skip(NO_GPU)
    net, train_iter, loss, _, devices = small_training(tab.gpu(), augs)
    net = OneGraph(net) if compile else net
    training = net, train_iter, loss, tab.trainer.adam(net), devices
    an_epoch(*training)
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric = an_epoch(*training)
        with pytest.raises(RuntimeError, match="synchronizing"):
            metric[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(metric[0])


def test_arrays_go_to_a_gpu_through_pinned_memory_and_stay_where_they_are_on_the_cpu(rng):
    array = rng.random((3, 4))
    assert np.shares_memory(tab.devices.from_numpy(array, tab.cpu()).numpy(), array)
    assert np.shares_memory(tab.devices.from_numpy(array).numpy(), array)
    with FakeTensorMode(allow_non_fake_inputs=True), Waits() as waits:
        X = tab.devices.from_numpy(array, tab.gpu())
    assert X.device.type == "cuda"
    assert (len(waits.pinned), waits.found) == (1, [])
