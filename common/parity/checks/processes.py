"""Parity of training by two processes on the framework's own engine, compared with the reference.

Each process has a part of every batch. The reference trains on whole batches: its BatchNorm takes the statistics of
each part, or of the whole batch where a framework can synchronise them. The gradients are exact in both cases, so no
layer has to be frozen.
"""

import contextlib
import io
import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

import common
from common.augmentation.operations import gallery, kaggle_train_augs
from common.commands.launcher import THREADS, free_port, run_together
from common.interface import Backend, Engine
from common.metrics import Epoch, KaggleSummary, Report, TrainingSummary
from common.parity.adapter import Adapter
from common.parity.checks.chapter_runs import (
    DETERMINISTIC,
    LR,
    LR_DECAY,
    LR_PERIOD,
    NUM_HELD_OUT,
    SIZE,
    WD,
    Pipeline,
    RecordedBatches,
    Run,
    RunRecorder,
    images_to_predict,
    small_shapes,
    start_weights,
)
from common.parity.checks.chapters import chapter_checks
from common.parity.checks.steps import sgd
from common.parity.comparison import Array, Arrays, CheckResult, difference
from common.reference import Conventions, State, chapters
from common.reference.chapters import TrainedEpoch
from common.system.processes import end_program, skip_finalizers
from common.system.temporary import temporary_folder
from common.weights.canonical import Weights

ROOT = Path(common.__file__).parents[1]
NUM_PROCESSES, NUM_CHANNELS = 2, 16
# In batches of 8, each process has 4 images. The last batch of an epoch has 5: one process has 3 and the other 2. The
# last batch of the held-out images has 5 too. Ten steps in all.
NUM_TRAIN, EPOCHS = 37, 2
SECONDS = 300.0  # in which the processes end; a wrong backend may wait for ever
Batches = list[list[tuple[Array, Array]]]


@dataclass(frozen=True)
class Case:
    """A training by several processes: the chapter whose function trains, and whether BatchNorm is synchronised."""

    name: str
    is_kaggle: bool = False
    synchronised: bool = False

    def splits(self, seed: int) -> tuple[Pipeline, Pipeline]:
        """Return the training images and the held-out ones, and how they are read."""
        size = SIZE, SIZE
        augs = kaggle_train_augs(size) if self.is_kaggle else gallery(size)["flip, jitter and crop"]
        native = self.synchronised  # so that each pipeline runs once
        train = Pipeline(
            small_shapes(NUM_TRAIN, seed),
            DETERMINISTIC if native else augs,
            True,
            native,
            seed,
        )
        held_out = Pipeline(
            small_shapes(NUM_HELD_OUT, seed, "test"), DETERMINISTIC[1:], False, native, seed
        )
        return train, images_to_predict(native, seed) if self.is_kaggle else held_out


CASES = (
    Case("2 processes, train_ch13"),
    Case("2 processes, train_ch13, synchronised", synchronised=True),
    Case("2 processes, kaggle.train", is_kaggle=True),
)


@dataclass(frozen=True)
class Trained:
    """The batches, reports and weights of one process, epoch by epoch."""

    train: Batches
    held_out: Batches
    reports: list[Report]
    epochs: list[Epoch]
    weights: list[Weights]
    states: list[State]
    summary: TrainingSummary | KaggleSummary


def process_checks(
    backend: Backend,
    seed: int,
    cases: Sequence[Case] = CASES,
    package: str = "backends",
    root: Path = ROOT,
) -> Iterator[CheckResult]:
    """Train in two processes, and compare their batches, metrics, weights, buffers and state with the reference.

    The processes import the backend from ``package``, which is in the folder ``root``. Yields nothing for a backend
    without an engine. Raises RuntimeError if a process fails or does not end.
    """
    engine = backend.framework.engine
    if engine is None:
        return
    if engine.no_sync_batch_norm:
        cases = [case for case in cases if not case.synchronised]
    adapter = Adapter(backend, "float64", num_channels=NUM_CHANNELS)
    with temporary_folder() as folder:
        _start(engine, backend.name, package, root, folder, seed, cases)
        ranks = [
            pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(NUM_PROCESSES)
        ]
    for case in cases:
        trained = [rank[case.name] for rank in ranks]
        yield from chapter_checks(_joined(adapter, case, trained, seed))
        yield _equal(adapter, case, trained)


def _start(
    engine: Engine,
    name: str,
    package: str,
    root: Path,
    folder: Path,
    seed: int,
    cases: Sequence[Case],
) -> None:
    roles = engine.roles(NUM_PROCESSES, free_port, ())
    settings = {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "1"}
    settings |= dict.fromkeys(THREADS, "1")
    code = run_together(
        {role.name: os.environ | settings | dict(role.variables) for role in roles},
        [sys.executable, "-m", __name__, package, name, str(folder), str(seed)]
        + [case.name for case in cases],
        SECONDS,
    )
    if code:
        raise RuntimeError(f"{NUM_PROCESSES} processes ended with exit code {code}")


# --- In each process -------------------------------------------------------------------------------------------------


def main(package: str, name: str, folder: str, seed: str, *names: str) -> None:
    """Join the other processes, train with them in the cases of these ``names``, and save what this one records."""
    backend: Backend = import_module(package).load(name)
    # TensorFlow warns that untraced steps are slow.
    logging.getLogger(backend.packages[0]).setLevel(logging.ERROR)
    processes = backend.processes
    processes.join()
    part = processes.rank(), processes.num_processes()
    own = cache(partial(Adapter, backend, "float64", num_channels=NUM_CHANNELS))
    with backend.probes.without_tracing():
        trained = {
            case.name: _train(own(sync_batch_norm=case.synchronised), case, int(seed), part)
            for case in CASES
            if case.name in names
        }
    Path(folder, f"{part[0]}.pickle").write_bytes(pickle.dumps(trained))
    processes.total(0)  # so that all end together
    if backend.framework.engine and backend.framework.engine.skips_finalizers:
        skip_finalizers()
    end_program(0)


def _train(adapter: Adapter, case: Case, seed: int, part: tuple[int, int]) -> Trained:
    train, held_out = case.splits(seed)
    train_iter = RecordedBatches(train, adapter, part=part)
    held_out_iter = RecordedBatches(held_out, adapter, part=part)
    net = adapter.network(start_weights(adapter, train, seed))
    backend, devices = adapter.backend, adapter.devices
    recipe = sgd(EPOCHS).trainer
    optimizer = backend.trainer.sgd(net, LR, 0.9, WD) if case.is_kaggle else recipe(adapter, net)
    recorder = RunRecorder(adapter, net, optimizer)
    given = net, train_iter, held_out_iter
    summary: TrainingSummary | KaggleSummary
    with contextlib.redirect_stdout(io.StringIO()):  # the closing lines
        if case.is_kaggle:
            summary = backend.kaggle.train(
                *given, EPOCHS, LR, WD, devices, LR_PERIOD, LR_DECAY, recorder, optimizer
            )
        else:
            summary = backend.trainer.train_ch13(
                *given, adapter.loss, optimizer, EPOCHS, devices, recorder
            )
    return Trained(
        train_iter.epochs,
        held_out_iter.epochs,
        recorder.reports,
        recorder.epochs,
        recorder.weights,
        recorder.states,
        summary,
    )


# --- In the process that compares ------------------------------------------------------------------------------------


def _joined(adapter: Adapter, case: Case, ranks: Sequence[Trained], seed: int) -> Run:
    """Return the run of all processes: their batches together, and what the first one reports."""
    train, held_out = case.splits(seed)
    start = start_weights(adapter, train, seed)
    train_iter, held_out_iter = (RecordedBatches(split, adapter) for split in (train, held_out))
    train_iter.epochs = _whole([rank.train for rank in ranks])
    held_out_iter.epochs = _whole([rank.held_out for rank in ranks])
    first = ranks[0]
    recorder = RunRecorder(
        adapter, None, None, first.reports, first.epochs, first.weights, first.states
    )

    @cache
    def reference(conventions: Conventions) -> list[TrainedEpoch]:
        num_processes = 1 if case.synchronised else NUM_PROCESSES
        epochs, images = train_iter.epochs, held_out_iter.first_epoch(conventions)
        if case.is_kaggle:
            schedule = LR, WD, LR_PERIOD, LR_DECAY
            return chapters.train(start, epochs, images, *schedule, conventions, num_processes)
        optimizer = sgd(EPOCHS).optimizer(conventions)
        return chapters.train_ch13(start, epochs, images, optimizer, conventions, num_processes)

    return Run(
        case.name,
        case.is_kaggle,
        adapter,
        None,
        EPOCHS,
        train_iter,
        held_out_iter,
        recorder,
        first.summary,
        start,
        reference,
    )


def _whole(parts: Sequence[Batches]) -> Batches:
    """Return the batches of all processes, epoch by epoch: the first process has the first images of each."""
    return [
        [
            tuple(np.concatenate(arrays) for arrays in zip(*filter(None, batch), strict=True))
            for batch in zip_longest(*epoch)
        ]
        for epoch in zip_longest(*parts, fillvalue=[])
    ]


def _equal(adapter: Adapter, case: Case, ranks: Sequence[Trained]) -> CheckResult:
    """Check that all processes have the same weights, buffers and metrics after each epoch."""
    first, *others = [_left(rank) for rank in ranks]
    got = {f"rank {r}, {name}": a for r, own in enumerate(others, 1) for name, a in own.items()}
    expected = {f"rank {r}, {name}": a for r in range(1, len(ranks)) for name, a in first.items()}
    return adapter.compare(f"{case.name}: equal ranks", got, lambda _: expected, difference, ())


def _left(trained: Trained) -> Arrays:
    weights: Mapping[str, Any] = {
        f"epoch {e}: {name}": array
        for e, epoch in enumerate(trained.weights, start=1)
        for name, array in epoch.items()
    }
    figures = [(e.train_loss, e.train_acc, e.held_out_acc) for e in trained.epochs]
    return {**weights, "metrics": np.array(figures, np.float64)}


if __name__ == "__main__":
    # Import this file again under its name, so that the other process can read `Trained`.
    import_module("common.parity.checks.processes").main(*sys.argv[1:])
