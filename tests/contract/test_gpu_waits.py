"""An epoch in PyTorch never makes the host wait for the GPU: checked on fake tensors, and on a GPU if there is one."""

# ruff: noqa: E402

import numpy as np
import pytest
from conftest import random_dataset, required

import backends
from common.augmentation.operations import kaggle_train_augs, parse_augmentations
from common.errors import UserError
from common.metrics import Accumulator

if not backends.installed("pytorch") and "pytorch" not in required():
    pytest.skip("torch is not installed", allow_module_level=True)

backends.load(
    "pytorch"
)  # before PyTorch, so that its waiting threads sleep in all tests of this process

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from backends import pytorch as tab

NO_GPU = "there is no GPU here"


def small_net(device=None):
    """A network of ten classes with every kind of layer of ResNet-18."""
    torch.manual_seed(0)
    place = {"device": device}
    layers = nn.Conv2d(3, 4, 3, **place), nn.BatchNorm2d(4, **place), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10, **place)
    return nn.Sequential(*layers, *head)


class Waits(TorchDispatchMode):
    """Records the operations that make the host wait for a GPU, on tensors without values."""

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
    """Train for one epoch and return the sums without reading them."""
    metric = Accumulator(3)
    for X, y in train_iter:
        metric.add(*tab.train_batch_ch13(net, X, y, loss, trainer, devices), len(y))
    return metric


def small_training(device, augs):
    train_iter = tab.loaders.load_batched(random_dataset(44, size=8), augs, 8, True, 0, device)
    net = small_net(device)
    return net, train_iter, tab.trainer.cross_entropy(), tab.trainer.adam(net), [device]


@recipes
@pytest.mark.parametrize("free", [2**30, 0], ids=["images on the GPU", "copied batches"])
def test_an_epoch_has_nothing_that_would_wait_for_a_gpu(augs, free, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2**30))
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
def test_an_epoch_does_not_wait_for_the_gpu(augs):
    if not tab.num_gpus():
        pytest.skip(NO_GPU)
    training = small_training(tab.gpu(), augs)
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


def test_batches_of_the_native_loader_are_pinned_for_a_gpu_only_and_copied_without_waiting(
    monkeypatch,
):
    made = []
    monkeypatch.setattr(tab.loaders, "DataLoader", lambda *_, **options: made.append(options))
    for device in (tab.gpu(), "cuda:1", tab.cpu(), None):
        tab.loaders.load_native(random_dataset(4), (), 2, True, device=device)
    assert [options["pin_memory"] for options in made] == [True, True, False, False]
    monkeypatch.setattr(torch.Tensor, "backward", lambda _: None)
    # A tensor without values has no labels.
    monkeypatch.setattr(tab.trainer, "check_labels_on_host", lambda y, pred: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        net = small_net(tab.gpu())
        step = tab.trainer.cross_entropy(), tab.trainer.sgd(net, 0.1), [tab.gpu()]
        X, y = torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
        with Waits() as waits:
            tab.train_batch_ch13(net, X.pin_memory(), y.pin_memory(), *step)
    assert waits.found == []


def test_tf32_is_described_for_products_and_convolutions(monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    found = []
    for precision, convolutions in (("highest", False), ("highest", True), ("high", True)):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda p=precision: p)
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", convolutions)
        found.append(tab.devices.describe([tab.gpu()])["precision"])
    both = "fp32, TF32 in products and convolutions"
    assert found == ["fp32", "fp32, TF32 in convolutions", both]


@pytest.mark.parametrize("name", ["TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE"])
def test_a_variable_that_disables_the_compiler_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    tab.devices.describe([tab.cpu()])
    with pytest.raises(UserError, match=f"{name}=1 disables it"):
        tab.devices.describe([tab.cpu()], compile=True)


def test_compiling_is_inductor_and_on_a_gpu_with_cuda_graphs(monkeypatch):
    modes = []
    monkeypatch.setattr(torch, "compile", lambda net, mode: modes.append(mode) or net)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    monkeypatch.setattr(nn.Module, "to", lambda net, *place, **layout: net)  # no GPU is needed
    for device in (tab.cpu(), tab.gpu()):
        tab.trainer.prepare(small_net(), [device], compile=True)
    assert modes == ["default", "reduce-overhead"]
    described = tab.devices.describe([tab.gpu()], "fp32", compile=True)
    assert described["compile"] == "inductor, in CUDA graphs"
    assert "compile" not in tab.devices.describe([tab.gpu()])
