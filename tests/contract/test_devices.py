"""Every backend has a device, and describes its settings."""

import ast
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from backends import FRAMEWORKS
from common.augmentation.operations import parse_augmentations
from common.errors import UserError


def test_there_is_always_a_device(backend):
    devices = backend.devices
    assert len(devices.try_all_gpus()) == max(devices.num_gpus(), 1)
    assert devices.try_gpu(devices.num_gpus()) == devices.cpu()
    assert devices.get_devices("auto") == devices.try_all_gpus()[:1]
    assert devices.get_devices("cpu") == [devices.cpu()]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_choices_take_the_gpus_there_are(backend, monkeypatch, count):
    devices = backend.devices
    monkeypatch.setattr(devices, "num_gpus", lambda: count)
    gpus = [devices.gpu(i) for i in range(count)]
    assert [devices.try_gpu(i) for i in range(3)] == gpus + [devices.cpu()] * (3 - count)
    assert devices.try_all_gpus() == (gpus or [devices.cpu()])
    assert devices.get_devices("auto") == (gpus[:1] or [devices.cpu()])


def test_a_gpu_that_is_not_there_is_refused(backend):
    with pytest.raises(UserError, match="there is no GPU"):
        backend.devices.get_devices(f"gpu:{backend.devices.num_gpus()}")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_description_says_device_and_precision(backend, precision):
    described = backend.devices.describe([backend.devices.cpu()], precision)
    assert described["device"].startswith("cpu: ")
    assert described["precision"].startswith(precision)
    assert int(described["threads"]) >= 1


def test_the_description_says_how_many_threads_compute_and_what_compiles(backend, monkeypatch):
    if backend.name != "pytorch":
        pytest.skip("threads and compilers are each framework's own")
    import torch

    monkeypatch.setenv("CXX", sys.executable)  # any program that is there
    before, other = torch.get_num_threads(), (os.cpu_count() or 1) + 1
    try:
        torch.set_num_threads(other)
        described = backend.devices.describe([backend.devices.cpu()], "fp32", compile=True)
    finally:
        torch.set_num_threads(before)
    assert (described["threads"], described["compile"]) == (str(other), "inductor")


def test_compiling_on_the_cpu_without_a_compiler_is_refused_before_anything_runs(
    backend, monkeypatch
):
    if backend.name != "pytorch":
        pytest.skip("only PyTorch compiles through C++")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="--compile needs no-such-compiler"):
        backend.devices.describe([backend.devices.cpu()], "fp32", compile=True)


def test_several_devices_are_not_compiled_for(backend):
    if backend.name != "pytorch":
        pytest.skip("DataParallel and torch.compile do not go together")
    with pytest.raises(UserError, match="a single device"):
        backend.devices.describe([backend.devices.cpu()] * 2, "fp32", compile=True)


def test_where_batch_norm_cannot_be_synchronised_it_is_refused_before_anything_runs(backend):
    devices = [backend.devices.cpu()] * 2
    if backend.name == "tensorflow":
        assert backend.devices.describe(devices, sync_batch_norm=True)
        return
    for refuses in (backend.devices.describe, backend.trainer.prepare):
        net = [backend.resnet.resnet18(2)] if refuses is backend.trainer.prepare else []
        with pytest.raises(
            UserError, match=r"--sync-batch-norm: .*(of one|NumPy trains in one process)"
        ):
            refuses(*net, devices, sync_batch_norm=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_arrays_come_back_as_they_went_in(backend, rng, dtype):
    array = rng.integers(0, 200, (2, 3, 4)).astype(dtype)
    device = backend.devices.cpu()
    returned = backend.devices.to_numpy(backend.devices.from_numpy(array, device))
    assert returned.dtype == dtype
    np.testing.assert_array_equal(returned, array)


def test_a_seed_repeats_what_the_framework_draws(backend, rng):
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    transform = backend.transforms.native(parse_augmentations("jitter,crop", (9, 9)))

    def draws(seed: int) -> list[np.ndarray]:
        backend.devices.set_seed(seed)
        return [backend.devices.to_numpy(transform(image)) for _ in range(3)]

    np.testing.assert_array_equal(draws(3), draws(3))
    assert (np.stack(draws(3)) != np.stack(draws(4))).any()


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_devices_are_looked_for_when_they_are_needed_not_when_the_tab_is_imported(name):
    """The book's `devices=d2l.try_all_gpus()` as a default argument is evaluated at the import."""
    files = list((Path(__file__).parents[2] / "backends" / name).glob("*.py"))
    assert files
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.FunctionDef):
            defaults = [*node.args.defaults, *node.args.kw_defaults]
            assert not any(isinstance(default, ast.Call) for default in defaults), node.name
