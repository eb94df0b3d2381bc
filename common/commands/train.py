"""`run.py train`: draw the augmentations, train and evaluate, or --compare-augmentation."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.commands import results
from common.commands.augment import show
from common.commands.checkpoints import Checkpoints
from common.commands.processes import COPY, check_same
from common.commands.resume import where_it_goes_on
from common.commands.run_folder import Metrics
from common.commands.session import Session, batches, network, normalization, session_of
from common.commands.training import logits, predict_all, summary_of, weights_metadata
from common.config import TrainConfig
from common.datasets import Data
from common.drawing import plots
from common.drawing.progress import TrainingProgress
from common.errors import counted
from common.finite import check_logits
from common.interface import Net, Registry
from common.metrics import Epoch, TrainingSummary, spread
from common.system import environment
from common.weights.canonical import Weights
from common.weights.checkpoint import ADAM
from common.weights.files import BEST
from common.weights.safetensors import save_weights


@dataclass(frozen=True)
class Trained:
    """The result of one training: its summary, its epochs, its network and the network's weights."""

    summary: TrainingSummary
    epochs: list[Epoch]
    net: Net
    weights: Weights


def run(config: TrainConfig, registry: Registry) -> int:
    """Train once, or compare training with and without augmentation; return the exit code."""
    command = "compare" if config.compare_augmentation else "train"
    with session_of(command, config, registry) as session:
        if config.compare_augmentation:
            compare(session)
        else:
            if session.keeps:
                show(session)
            train_and_record(session)
    return 0


def train_and_record(session: Session) -> None:
    """Train once, and save metrics, curves, weights and what is right and wrong in the run folder.

    Start-up and memory are None if another framework was imported to read the weights file.
    """
    folder, config, data = session.folder, session.config, session.data
    trained = train(session, config)
    augs, device = normalization(session), session.devices[0]
    predictions = predict_all(session.backend, config, trained.net, data.test, augs, device)
    if not session.keeps:
        return
    save_weights(folder.path / "weights.safetensors", trained.weights, _metadata(session))
    about = data.held_out, data.name, config.backend
    confusion = results.report(session.console, folder.path, data.test, predictions, *about)
    session.console.print(best_epoch(trained.epochs, data), soft_wrap=True)
    _save_curves(session, config, trained.epochs)
    one_framework = session.weights is None or session.weights.reader in ("", config.backend)
    used = {
        "startup_seconds": session.startup_seconds if one_framework else None,
        "peak_memory_mib": environment.peak_memory_mib() if one_framework else None,
    }
    folder.write_json("summary.json", trained.summary.plain() | used | confusion.plain())


def best_epoch(epochs: Sequence[Epoch], data: Data) -> str:
    """Return the line about the epoch whose weights are in best.safetensors, and what chose it."""
    best = max(epochs, key=lambda epoch: epoch.held_out_acc or 0.0)  # of equal ones, the first
    line = f"best epoch {best.epoch}, {data.held_out} acc {best.held_out_acc:.3f}, in {BEST}"
    if data.held_out == "valid":
        return f"{line}: chosen by the validation images"
    line += ": chosen by the test images, so this accuracy is optimistic"
    if len(data.test.names):  # of a folder, which can be split
        line += "; --valid-ratio 0.2 holds out validation images"
    return line


def _metadata(session: Session) -> dict[str, str]:
    """Return the metadata of the weights of this run."""
    stored, train_set = session.weights, session.data.train
    metadata = weights_metadata(
        session.backend,
        session.data.name,
        train_set.classes,
        train_set.images.shape[1],
        stored.normalize if stored else None,
    )
    files = session.data.train_files
    return metadata | ({"train_files": files} if files else {})


def _save_curves(session: Session, config: TrainConfig, epochs: Sequence[Epoch]) -> None:
    title = f"{session.data.name}, {config.backend}, augmentation: {config.augment}"
    path = session.folder.path / "curves.png"
    plots.save_curves(path, epochs, _held_out(session), title)


def train(session: Session, config: TrainConfig, title: str = "") -> Trained:
    """Train the chapter's network with the initial weights and batches of the seed, or go on with its checkpoint.

    Save metrics and a checkpoint after each epoch. After Ctrl-C, draw the curves of the finished epochs.
    Raises UserError if training diverged.
    """
    backend = session.backend
    backend.devices.set_seed(config.seed)
    net = network(session, config.seed)
    trainer = backend.trainer.adam(net, config.adam.lr, config.adam.betas, config.adam.eps)
    name = f"{config.augment}-seed-{config.seed}"
    best, keeps, held_out = session.command != "compare", session.keeps, _held_out(session)
    run = session.folder.path if keeps else config.resume or session.folder.path
    with Checkpoints(
        run, name, backend, net, trainer, ADAM, best, keeps=keeps, freeze=config.freeze
    ) as checkpoints:
        first = checkpoints.start(config.resume is not None, config.num_epochs)
        if config.resume is not None:
            line = where_it_goes_on(first, config.num_epochs)
            session.console.print(f"{title} {line}".lstrip())
        about = {"augment": config.augment, "seed": config.seed}
        lines = [about | epoch.plain(held_out) for epoch in checkpoints.epochs]
        session.folder.set_metrics(lines, **about)
        if first < config.num_epochs:
            summary = _train(session, config, checkpoints, title, about)
    if first:
        summary = summary_of(TrainingSummary, checkpoints.epochs, session.devices)
        summary = replace(summary, held_out=held_out)
    return Trained(summary, checkpoints.epochs, net, backend.weights.get_weights(net))


def _held_out(session: Session) -> str:
    """Return the name of the accuracy after each epoch: "test acc" or "valid acc"."""
    return f"{session.data.held_out} acc"


def _train(
    session: Session,
    config: TrainConfig,
    checkpoints: Checkpoints,
    title: str,
    about: Metrics,
) -> TrainingSummary:
    """Train the epochs that are not in a checkpoint."""
    backend, data, epochs = session.backend, session.data, checkpoints.epochs
    first_epoch, held_out = len(epochs), _held_out(session)
    some, augs = np.asarray(data.test.images[: config.batch_size]), normalization(session)

    def rate(epoch: int) -> float:
        return config.adam.lr_at(epoch, config.num_epochs)

    def after_epoch(epoch: Epoch) -> None:
        # The last step comes after the last loss. If it diverged, the accuracy would still look like a result.
        check_logits(logits(backend, checkpoints.net, some, augs, session.devices[0]))
        epoch = replace(epoch, learning_rate=rate(epoch.epoch - 1))
        session.folder.add_metrics(about | epoch.plain(held_out))
        checkpoints.add(epoch, epoch.epoch == config.num_epochs, _metadata(session))
        if epoch.epoch < config.num_epochs:
            backend.trainer.set_learning_rate(checkpoints.trainer, rate(epoch.epoch))

    backend.trainer.set_learning_rate(checkpoints.trainer, rate(first_epoch))

    sizes = len(data.train), len(data.test)
    progress = TrainingProgress(
        session.console, config.num_epochs, sizes, after_epoch, title, held_out, first_epoch
    )
    try:
        with progress:
            return backend.trainer.train_ch13(
                checkpoints.net,
                batches(session, config, data.train, True, first_epoch),
                batches(session, config, data.test, False),
                backend.trainer.cross_entropy(),
                checkpoints.trainer,
                config.num_epochs,
                session.devices,
                progress,
                first_epoch,
            )
    except KeyboardInterrupt:
        if epochs and session.keeps:
            _save_curves(session, config, epochs)
        raise


# --- Comparing -------------------------------------------------------------------------------------------------------


def compare(session: Session) -> None:
    """Train with and without augmentation, with the same initial weights and batches: the book's first exercise."""
    config = session.config
    every = [(augment, seed) for seed in config.all_seeds for augment in ("none", config.augment)]
    left = [one for one in every if len(_epochs_of(session, *one)) < config.num_epochs]
    check_same(session.backend.processes, {"the trainings that are left": left}, COPY)
    for augment, seed in left:
        own = replace(config, augment=augment, seed=seed, compare_augmentation=False, seeds=None)
        train(session, own, f"{augment}, seed {seed}:")
        # Its metrics are all that counts.
        shutil.rmtree(session.folder.path / "checkpoints", ignore_errors=True)
    if session.keeps:
        report_comparison(session)


def _epochs_of(session: Session, augment: str, seed: int) -> list[Metrics]:
    """Return the metrics of the finished epochs of one training."""
    return [
        line
        for line in session.folder.metrics
        if line["augment"] == augment and line["seed"] == seed
    ]


def report_comparison(session: Session) -> None:
    """Print the accuracies of both over the seeds, and draw those on the held-out images."""
    config, held_out = session.config, session.data.held_out
    key = f"{held_out}_acc"
    result: dict[str, Any] = {}
    accuracies: dict[str, NDArray[np.float64]] = {}
    width = max(len(augment) for augment in ("none", config.augment))
    for augment in ("none", config.augment):
        trainings = [_epochs_of(session, augment, seed) for seed in config.all_seeds]
        train_acc = [epochs[-1]["train_acc"] for epochs in trainings]
        held_out_acc = [epochs[-1][key] for epochs in trainings]
        result[augment] = {"train_acc": train_acc, key: held_out_acc}
        accuracies[augment] = np.array([[e[key] for e in epochs] for epochs in trainings])
        session.console.print(
            f"{augment:>{width}}: train acc {_spread(train_acc)}, "
            f"{held_out} acc {_spread(held_out_acc)}",
            soft_wrap=True,
        )
    session.folder.write_json("comparison.json", result)
    seeds = counted(len(config.all_seeds), "seed")
    title = f"{session.data.name}, {config.backend}: mean, lowest and highest of {seeds}"
    path = session.folder.path / "comparison.png"
    plots.save_comparison(path, accuracies, title, f"{held_out} accuracy")


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f} (1 seed)"
    return spread(values, f", {len(values)} seeds")
