"""The Kaggle chapter (14.13), from raw image files to a submission, written once against the contract.

The steps are: sort the files, train and validate, train again on all labelled images, predict the test set, and write
the submission. Training and prediction, which readers compare between frameworks, are in the backends.
"""

import gc
import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import common
from common.augmentation.operations import CIFAR10_NORMALIZE, kaggle_test_augs, kaggle_train_augs
from common.commands import results
from common.commands.augment import AUGMENTED, SHEET, save_augmented
from common.commands.checkpoints import Checkpoints
from common.commands.kaggle_session import Session, begin, chunk_size, images_in, part_of
from common.commands.processes import interrupted, joined
from common.commands.resume import where_it_goes_on
from common.commands.training import (
    load_batches,
    logits,
    make_network,
    predict_all,
    summary_of,
    weights_metadata,
)
from common.config import KaggleConfig
from common.datasets import Dataset
from common.datasets.kaggle import Split, load_split
from common.datasets.submission import check_submission, write_submission
from common.drawing import image_grid, plots
from common.drawing.progress import TrainingProgress, progress_bar
from common.errors import counted
from common.finite import check_logits
from common.interface import DataIter, Net, Registry
from common.metrics import Epoch, KaggleSummary, Timer
from common.system import environment
from common.weights.canonical import initial_weights
from common.weights.checkpoint import SGD
from common.weights.safetensors import save_weights


def run(config: KaggleConfig, registry: Registry) -> int:
    """Run the chapter, and return the exit code.

    Raises UserError for errors that the user can correct. After Ctrl-C, raises a KeyboardInterrupt whose message says
    what was kept.
    """
    backend = registry.load(config.backend, config.precision)
    startup_seconds = time.perf_counter() - common.STARTED
    with joined(backend, config) as config:
        _run(begin(config, backend), startup_seconds)
    return 0


def _run(session: Session, startup_seconds: float) -> None:
    summary: dict[str, Any] = {"startup_seconds": startup_seconds}
    folder, console = session.folder, session.console

    def keep(part: str, results: dict[str, Any]) -> None:
        """Add the results of a part to the summary file, so that a later interrupt does not lose them."""
        summary[part] = results
        memory = {"peak_memory_mib": environment.peak_memory_mib()}
        folder.write_json("summary.json", summary | memory)

    try:
        console.print()
        console.print(f"1. train on {images_in(session, 'train')}, validate on the rest")
        keep("validation", _validate(session))
        console.print()
        console.print(f"2. train again on {images_in(session, 'train_valid')}")
        net, training = _retrain(session)
        keep("training", asdict(training))
        console.print()
        console.print(f"3. predict {images_in(session, 'test')}")
        keep("test", _predict_and_submit(session, net))
    except KeyboardInterrupt as interrupt:
        raise interrupted(session.backend.processes, "kaggle", folder) from interrupt
    console.print(f"results in {folder.path}", soft_wrap=True)


# --- Training --------------------------------------------------------------------------------------------------------


def _validate(session: Session) -> dict[str, Any]:
    """Train on some of the labelled images and validate on the others; return the results."""
    train, valid = _load_split(session, "train"), _load_split(session, "valid")
    if session.keeps:
        path, device = session.folder.path / AUGMENTED, session.devices[0]
        augs = kaggle_train_augs(session.image_size)[:-1]  # a normalized image cannot be shown
        save_augmented(
            path, session.backend, session.config, device, train, augs, session.data_name
        )
    valid_iter = _test_batches(session, valid)
    net, summary = _train(session, "train", train, valid_iter, len(valid))
    augs, device = kaggle_test_augs(), session.devices[0]
    predictions = predict_all(session.backend, session.config, net, valid, augs, device)
    if not session.keeps:
        return {}
    about = "valid", session.data_name, session.config.backend
    path = session.folder.path
    confusion = results.report(session.console, path, valid, predictions, *about, "validation.png")
    return asdict(summary) | confusion.plain()


def _retrain(session: Session) -> tuple[Net, KaggleSummary]:
    """Train from the same initial weights on all labelled images, and save the weights."""
    dataset = _load_split(session, "train_valid")
    net, summary = _train(session, "train_valid", dataset, None, 0)
    if session.keeps:
        weights = session.backend.weights.get_weights(net)
        save_weights(session.folder.path / "weights.safetensors", weights, _metadata(session))
    return net, summary


def _metadata(session: Session) -> dict[str, str]:
    """Return the metadata of the weights of this run."""
    return weights_metadata(
        session.backend,
        session.data_name,
        session.files.classes,
        session.config.image_size,
        CIFAR10_NORMALIZE,
    )


def _load_split(session: Session, split: Split) -> Dataset:
    config = session.config
    return load_split(session.data_dir, split, session.files.classes, config.image_size)


def _test_batches(
    session: Session, dataset: Dataset, part: tuple[int, int] | None = None
) -> DataIter:
    """Return batches of images that are normalized but not augmented; of all processes, or only a ``part``."""
    backend, config, device = session.backend, session.config, session.devices[0]
    return load_batches(backend, config, dataset, kaggle_test_augs(), False, device, part=part)


def _train(
    session: Session, split: str, dataset: Dataset, valid_iter: DataIter | None, num_valid: int
) -> tuple[Net, KaggleSummary]:
    """Train the book's network with the initial weights and batches of the seed, or go on with its checkpoint.

    Save metrics and a checkpoint after each epoch. Raises UserError if training diverged.
    """
    backend, config, devices = session.backend, session.config, session.devices
    gc.collect()  # frees the network and images of the previous training
    backend.devices.set_seed(config.seed)
    weights = initial_weights(len(dataset.classes), seed=config.seed)
    net = make_network(
        backend, devices, weights, config.precision, config.compile, config.sync_batch_norm
    )
    trainer = backend.trainer.sgd(net, config.lr, momentum=0.9, weight_decay=config.wd)
    folder, later, keeps = session.folder.path, int(split == "train"), session.keeps
    run = folder if keeps else config.resume or folder
    held_out = None if valid_iter is None else "valid acc"
    with Checkpoints(
        run, split, backend, net, trainer, SGD, later=later, keeps=keeps
    ) as checkpoints:
        first = checkpoints.start(config.resume is not None, config.num_epochs)
        if config.resume is not None:
            session.console.print(where_it_goes_on(first, config.num_epochs))
        lines = [{"split": split} | epoch.plain(held_out) for epoch in checkpoints.epochs]
        session.folder.set_metrics(lines, split=split)
        try:
            if first < config.num_epochs:
                summary = _train_epochs(session, checkpoints, split, dataset, valid_iter, num_valid)
        finally:
            if checkpoints.epochs and keeps:
                title = f"{_title(session)}, {split}"
                plots.save_curves(
                    folder / f"curves-{split}.png", checkpoints.epochs, held_out, title
                )
    if first:
        summary = summary_of(KaggleSummary, checkpoints.epochs, devices)
    return net, summary


def _train_epochs(
    session: Session,
    checkpoints: Checkpoints,
    split: str,
    dataset: Dataset,
    valid_iter: DataIter | None,
    num_valid: int,
) -> KaggleSummary:
    """Train the epochs that are not in a checkpoint."""
    backend, config, first_epoch = session.backend, session.config, len(checkpoints.epochs)
    augs, device = kaggle_train_augs(session.image_size), session.devices[0]
    train_iter = load_batches(backend, config, dataset, augs, True, device, first_epoch)
    some = np.asarray(dataset.images[: config.batch_size])

    held_out = None if valid_iter is None else "valid acc"

    def keep(epoch: Epoch) -> None:
        # The last step comes after the last loss. If it diverged, the accuracy would still look like a result.
        check_logits(logits(backend, checkpoints.net, some, kaggle_test_augs(), device))
        session.folder.add_metrics({"split": split} | epoch.plain(held_out))
        checkpoints.add(epoch, epoch.epoch == config.num_epochs, _metadata(session))

    sizes = len(dataset), num_valid
    progress = TrainingProgress(
        session.console, config.num_epochs, sizes, keep, held_out=held_out, first_epoch=first_epoch
    )
    with progress:
        return backend.kaggle.train(
            checkpoints.net,
            train_iter,
            valid_iter,
            config.num_epochs,
            config.lr,
            config.wd,
            session.devices,
            config.lr_period,
            config.lr_decay,
            progress,
            checkpoints.trainer,
            first_epoch,
        )


def _batched(session: Session) -> Session:
    """Return the session with the batched pipeline, which starts no workers; predictions need no augmentation."""
    return replace(session, config=replace(session.config, pipeline="batched"))


def _title(session: Session) -> str:
    return f"{session.data_name}, {session.config.backend}"


# --- The test set ----------------------------------------------------------------------------------------------------


def _predict_and_submit(session: Session, net: Net) -> dict[str, Any]:
    """Predict the labels of the test images and write the submission; return the results."""
    test, console = session.test, session.console
    timer = Timer()
    labels = _predict(session, net)
    seconds = timer.stop()
    if not session.keeps:
        return {}
    _draw_predictions(session, labels)
    path = session.folder.path / "submission.csv"
    write_submission(path, test.ids, labels, session.files.classes)
    report = check_submission(path, session.data_dir)
    console.print(
        f"wrote {path}: {counted(report.rows, 'row')} in {seconds:.1f} s, "
        f"{len(labels) / seconds:,.0f} images/s",
        soft_wrap=True,
    )
    found: dict[str, Any] = {
        "images": len(labels),
        "seconds": seconds,
        "per_class": report.rows_per_class,
    }
    if report.score is not None:
        accuracy, known = report.score.accuracy, counted(report.score.count, "test image")
        console.print(f"score {accuracy:.3f} on the {known} whose labels are known", soft_wrap=True)
        found["score"] = accuracy
    return found


def _predict(session: Session, net: Net) -> NDArray[np.int64]:
    """Return the label of each test image. Several processes share the images.

    Images are decoded in chunks while the network computes, so only a few chunks are in memory.
    """
    config, processes = session.config, session.backend.processes
    batched, test = _batched(session), part_of(session.test, processes)
    predicted = [np.empty(0, np.int64)]
    chunks = test.chunks(config.image_size, chunk_size(config))
    with progress_bar("predicting", len(test.names), console=session.console) as advance:
        for _, images in chunks:
            unknown = np.zeros(len(images), np.int64)
            dataset = Dataset(images, unknown, session.files.classes)
            own = _test_batches(batched, dataset, (0, 1))
            predicted.append(session.backend.kaggle.predict_labels(net, own))
            advance(len(images))
    labels = np.zeros(len(session.test.names), np.int64)
    labels[processes.rank() :: processes.num_processes()] = np.concatenate(predicted)
    return np.asarray(processes.total(labels), np.int64)


def _draw_predictions(session: Session, labels: NDArray[np.int64]) -> None:
    rows, columns = SHEET
    test = session.test._replace(names=session.test.names[: rows * columns])
    ((_, images),) = test.chunks(session.config.image_size, rows * columns)
    image_grid.save_sheet(
        session.folder.path / "predictions.png",
        list(images),
        -(-len(images) // columns),
        columns,
        f"the first test images of {session.data_name} and their predicted classes",
        scale=0.8,
        names=[session.files.classes[label] for label in labels[: len(images)]],
    )
