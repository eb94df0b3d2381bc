"""`run.py train`: draw the augmentations, train and evaluate, or --compare-augmentation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.commands.augment import show
from common.commands.run_folder import Metrics
from common.commands.session import Session, batches, network, normalization, session_of
from common.commands.training import logits, weights_metadata
from common.config import TrainConfig
from common.drawing import plots
from common.drawing.progress import TrainingProgress
from common.errors import counted
from common.finite import check_logits
from common.interface import Registry
from common.metrics import Epoch, TrainingSummary, spread
from common.system import environment
from common.weights.canonical import Weights
from common.weights.safetensors import save_weights


@dataclass(frozen=True)
class Trained:
    """The result of one training: its summary, its epochs and its weights."""

    summary: TrainingSummary
    epochs: list[Epoch]
    weights: Weights


def run(config: TrainConfig, registry: Registry) -> int:
    """Train once, or compare training with and without augmentation; return the exit code."""
    command = "compare" if config.compare_augmentation else "train"
    with session_of(command, config, registry) as session:
        if config.compare_augmentation:
            compare(session)
        else:
            show(session)
            train_and_record(session)
    return 0


def train_and_record(session: Session) -> None:
    """Train once, and save metrics, curves and weights in the run folder.

    Start-up and memory are None if another framework was imported to read the weights file.
    """
    folder, config = session.folder, session.config
    trained = train(session, config)
    _save_curves(session, config, trained.epochs)
    stored, train_set = session.weights, session.data.train
    metadata = weights_metadata(
        session.backend,
        session.data.name,
        train_set.classes,
        train_set.images.shape[1],
        stored.normalize if stored else None,
    )
    save_weights(folder.path / "weights.safetensors", trained.weights, metadata)
    one_framework = session.weights is None or session.weights.reader in ("", config.backend)
    used = {
        "startup_seconds": session.startup_seconds if one_framework else None,
        "peak_memory_mib": environment.peak_memory_mib() if one_framework else None,
    }
    folder.write_json("summary.json", asdict(trained.summary) | used)


def _save_curves(session: Session, config: TrainConfig, epochs: Sequence[Epoch]) -> None:
    title = f"{session.data.name}, {config.backend}, augmentation: {config.augment}"
    plots.save_curves(session.folder.path / "curves.png", epochs, "test acc", title)


def train(session: Session, config: TrainConfig, title: str = "") -> Trained:
    """Train the chapter's network with the initial weights and batches of the seed.

    Save the metrics after each epoch. After Ctrl-C, draw the curves of the finished epochs.

    Raises UserError if training diverged.
    """
    backend, devices, data = session.backend, session.devices, session.data
    backend.devices.set_seed(config.seed)
    net = network(session, config.seed)
    trainer = backend.trainer.adam(net, config.adam.lr, config.adam.betas, config.adam.eps)
    train_iter, test_iter = (
        batches(session, config, data.train, True),
        batches(session, config, data.test, False),
    )
    some, augs = data.test.images[: config.batch_size], normalization(session)
    rates = [config.adam.lr_at(epoch, config.num_epochs) for epoch in range(config.num_epochs)]

    def after_epoch(metrics: Metrics) -> None:
        # The last step comes after the last loss. If it diverged, the accuracy would still look like a result.
        check_logits(logits(backend, net, some, augs, devices[0]))
        epoch = metrics["epoch"]  # from 1
        run = {"augment": config.augment, "seed": config.seed, "lr": rates[epoch - 1]}
        session.folder.add_metrics(run | metrics)
        if epoch < config.num_epochs:
            backend.trainer.set_learning_rate(trainer, rates[epoch])

    sizes = len(data.train), len(data.test)
    progress = TrainingProgress(session.console, config.num_epochs, sizes, after_epoch, title)
    try:
        with progress:
            summary = backend.trainer.train_ch13(
                net,
                train_iter,
                test_iter,
                backend.trainer.cross_entropy(),
                trainer,
                config.num_epochs,
                devices,
                progress,
            )
    except KeyboardInterrupt:
        if progress.epochs:
            _save_curves(session, config, progress.epochs)
        raise
    return Trained(summary, progress.epochs, backend.weights.get_weights(net))


# --- Comparing -------------------------------------------------------------------------------------------------------


def compare(session: Session) -> None:
    """Train with and without augmentation, with the same initial weights and batches: the book's first exercise."""
    config = session.config
    runs: dict[str, list[Trained]] = {"none": [], config.augment: []}
    for seed in config.all_seeds:
        for augment, trained in runs.items():
            own = replace(
                config, augment=augment, seed=seed, compare_augmentation=False, seeds=None
            )
            one = train(session, own, f"{augment}, seed {seed}:")
            trained.append(replace(one, weights={}))  # 45 MB each, not needed any more
    report_comparison(session, runs)


def report_comparison(session: Session, runs: dict[str, list[Trained]]) -> None:
    """Print the accuracies of both over the seeds, and draw the test accuracies."""
    result: dict[str, Any] = {}
    width = max(len(augment) for augment in runs)
    for augment, trained in runs.items():
        train_acc = np.array([t.summary.train_acc for t in trained])
        test_acc = np.array([t.summary.test_acc for t in trained])
        result[augment] = {"train_acc": train_acc.tolist(), "test_acc": test_acc.tolist()}
        session.console.print(
            f"{augment:>{width}}: train acc {_spread(train_acc)}, test acc {_spread(test_acc)}",
            soft_wrap=True,
        )
    session.folder.write_json("comparison.json", result)
    accuracies = {
        augment: np.array([[epoch.held_out_acc for epoch in t.epochs] for t in trained])
        for augment, trained in runs.items()
    }
    seeds = counted(len(next(iter(runs.values()))), "seed")
    title = f"{session.data.name}, {session.config.backend}: mean, lowest and highest of {seeds}"
    plots.save_comparison(session.folder.path / "comparison.png", accuracies, title)


def _spread(values: NDArray[np.float64]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f} (1 seed)"
    return spread(values.tolist(), f", {len(values)} seeds")
