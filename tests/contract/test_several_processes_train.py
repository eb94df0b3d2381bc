"""Two processes train as one does: every framework's engine, started for real, in float64.

This file is also the program of these processes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Recorder, filled_weights, random_dataset

import backends
from common.augmentation.operations import parse_augmentations
from common.commands.launcher import free_port, run_together
from common.interface import Backend, DataIter

ROOT = Path(__file__).parents[2]
# 43 images in batches of 8: two processes have 4 each, and 2 and 1 of the last batch. Only one
# has an image of the last test batch.
TRAIN, TEST, BATCH_SIZE = 43, 17, 8
EPOCHS, SIZE = 2, 8
# The largest difference of a weight, as a share of the largest change of its tensor. Measured: 4.2e-14 (PyTorch),
# 2.6e-14 (MXNet) and 1.1e-14 (TensorFlow); ten times the largest.
SAME = 4e-13
# With synchronised BatchNorm, in bfloat16, after one step. Measured: .034 (PyTorch) and .0057 (TensorFlow), and without
# synchronisation 4.1 and 3.2; ten times the largest.
BFLOAT16 = 0.34
# The loss of an epoch on the command line, in float32. Measured: 3.4e-4 (PyTorch) and 1.4e-3 (TensorFlow), and .047
# without synchronisation (PyTorch); ten times the largest of the first two.
SAME_LOSS = 1.4e-2
COMMAND = ["--device", "cpu", "--limit", "43", "17", "--batch-size", "8", "--epochs", "1"]


class Converted:
    """The batches of a loader, with images of another type."""

    def __init__(self, backend: Backend, batches: DataIter, dtype: Any) -> None:
        self.backend, self.batches, self.dtype = backend, batches, dtype

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        devices = self.backend.devices
        for X, y in self.batches:
            yield devices.from_numpy(devices.to_numpy(X).astype(self.dtype)), y


def train(
    backend: Backend,
    part: tuple[int, int],
    mode: str,
    num_train: int = TRAIN,
) -> dict[str, Any]:
    """Return the weights after the training, and the losses and accuracies that it reports.

    ``mode``: with "frozen" statistics of BatchNorm, or only the "last layer", both in float64; or with synchronised
    statistics and in "bf16".
    """
    cpu, images = backend.devices.cpu(), random_dataset(num_train, size=SIZE)
    net = backend.resnet.resnet18(10, 3, 8)
    backend.weights.set_weights(net, filled_weights(10, num_channels=8))
    precision, dtype = "fp32", np.float32 if mode == "bf16" else np.float64
    if mode == "bf16":
        precision = mode
    else:
        net = backend.probes.in_float64(net)
    if mode == "frozen" and backend.name != "tensorflow":
        freeze(backend, net)
    if mode == "last layer":
        backend.trainer.freeze(net)
    net = backend.trainer.prepare(net, [cpu], precision, sync_batch_norm=mode == "bf16")
    if mode == "frozen" and backend.name == "tensorflow":  # `prepare` has copied it
        freeze(backend, net)
    trainer = backend.trainer.sgd(net, 0.01, 0.9, 1e-3)
    # Not jitter, which MXNet rounds differently for a part of a batch. A flip rounds nothing.
    augs = parse_augmentations("flip" if mode == "last layer" else "flip,crop", (SIZE, SIZE))
    load, recorder = backend.loaders.load_batched, Recorder()
    train_iter = load(images, augs, BATCH_SIZE, True, 3, cpu, part=part)
    test_iter = load(random_dataset(TEST, 1, size=SIZE), (), BATCH_SIZE, False, 3, cpu, part=part)
    backend.trainer.train_ch13(
        net,
        Converted(backend, train_iter, dtype),
        Converted(backend, test_iter, dtype),
        backend.trainer.cross_entropy(),
        trainer,
        EPOCHS if num_train == TRAIN else 1,
        [cpu],
        recorder,
    )
    figures = [[x for x in line if x is not None] for line in recorder.figures()]
    images = [epoch.images for epoch in recorder.epochs]
    return backend.weights.get_weights(net) | {"figures": json.dumps([figures, images])}


def freeze(backend: Backend, net: Any) -> None:
    """Make BatchNorm use its running statistics in training: those of a batch differ between parts of it."""
    if backend.name == "pytorch":
        for module in net.modules():
            if hasattr(module, "running_mean"):
                module.eval()
                module.train = lambda mode=True, module=module: module
    elif backend.name == "mxnet":
        for block in sys.modules["backends.mxnet.probes"]._layers(net).values():
            if "use_global_stats" in getattr(block, "_kwargs", {}):
                block._kwargs["use_global_stats"] = True
    else:
        for layer in sys.modules["backends.tensorflow._layers"].layers_of(net):
            if hasattr(layer, "moving_mean"):
                layer.trainable = False


def start(backend: Backend, folder: Path, *arguments: str) -> int:
    """Run this file in two processes, and return the exit code."""
    if backend.framework.engine is None:
        pytest.skip(f"{backend.title} has no engine for several processes")
    roles = backend.framework.engine.roles(2, free_port, ())
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return run_together(
        {role.name: os.environ | paths | dict(role.variables) for role in roles},
        [sys.executable, __file__, backend.name, str(folder), *arguments],
    )


def main(name: str, folder: str, mode: str, num_train: str) -> None:
    """Train in this process and others, and save the result."""
    backend = backends.load(name)
    processes = backend.processes
    processes.join()
    rank = processes.rank()
    result = train(backend, (rank, processes.num_processes()), mode, int(num_train))
    np.savez(Path(folder, f"{rank}.npz"), **result)
    processes.total(0)
    if backend.framework.engine.skips_finalizers:
        os._exit(0)


def difference(one: dict[str, Any], two: Any, mode: str) -> float:
    """Return the largest difference of a weight, as a share of the change of its tensor in training.

    BatchNorm removes the biases of the convolutions before it, unless it is frozen. They only decay, so the difference
    is a share of the bias itself.
    """
    first = filled_weights(10, num_channels=8)
    shares = []
    for name, weight in first.items():
        change = np.abs(one[name] - weight).max()
        if mode != "frozen" and name.endswith(("conv.bias", "conv1.bias", "conv2.bias")):
            change = np.abs(weight).max()
        off = np.abs(one[name] - two[name]).max()
        assert change or not off, name
        shares.append(off / change if change else 0)
    return max(shares)


def check_same(backend: Backend, folder: Path, mode: str, tolerance: float) -> None:
    """Compare training in two processes with training in one: weights, statistics, losses and accuracies."""
    assert start(backend, folder, mode, str(TRAIN)) == 0
    one = train(backend, (0, 1), mode)
    for rank in range(2):
        two = np.load(folder / f"{rank}.npz")
        assert difference(one, two, mode) < tolerance
        figures, images = json.loads(str(two["figures"]))
        expected, expected_images = json.loads(one["figures"])
        assert images == expected_images == [TRAIN] * EPOCHS
        assert len(figures) == len(expected)
        for line, wanted in zip(figures, expected, strict=True):
            np.testing.assert_allclose(line, wanted, rtol=tolerance)


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one_does(backend, tmp_path):
    check_same(backend, tmp_path, "frozen", SAME)


@pytest.mark.slow
def test_two_processes_train_the_last_layer_as_one_does(backend, tmp_path):
    """All other weights and all statistics stay bit for bit: a weight that one does not change has no difference."""
    check_same(backend, tmp_path, "last layer", SAME)
    two = np.load(tmp_path / "0.npz")
    changed = [n for n, w in filled_weights(10, num_channels=8).items() if (two[n] != w).any()]
    assert changed == ["fc.weight", "fc.bias"]


@pytest.mark.slow
def test_statistics_are_synchronised_in_bfloat16_too(backend, tmp_path):
    check_synchronises(backend)
    assert start(backend, tmp_path, "bf16", str(BATCH_SIZE)) == 0
    one, other = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
    assert difference(train(backend, (0, 1), "bf16", BATCH_SIZE), one, "bf16") < BFLOAT16


def check_synchronises(backend: Backend) -> None:
    if backend.framework.engine.no_sync_batch_norm:
        pytest.skip(backend.framework.engine.no_sync_batch_norm)


OPENING = "processes  2, BatchNorm's statistics are of the whole batch"


@pytest.mark.slow
def test_the_command_line_synchronises_or_refuses_in_one_line(backend, tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "run.py"), "--backend", backend.name, *COMMAND]
        return subprocess.run(
            [*command, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    result = run("--processes", "2", "--sync-batch-norm", "--output", "two")
    if why := backend.framework.engine.no_sync_batch_norm:
        assert result.returncode == 2
        assert not result.stdout
        assert result.stderr == f"error: --sync-batch-norm: in {backend.name}, {why}\n"
        assert not list(tmp_path.iterdir())
        return
    assert result.returncode == 0, result.stderr
    assert OPENING in result.stdout
    assert run("--output", "one").returncode == 0
    one, two = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two")
    )
    assert two["loss"] == pytest.approx(one["loss"], rel=SAME_LOSS)


if __name__ == "__main__":
    main(*sys.argv[1:])
