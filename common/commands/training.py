"""Shared by both chapters: load the backend, describe the run, make the network and the batches."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console

from common.augmentation.decisions import decide
from common.augmentation.operations import Augmentation, Normalize
from common.commands.waiting import WatchedBatches
from common.config import PredictConfig, RunConfig, TrainConfig, plain
from common.datasets import Dataset
from common.datasets.image_files import ImageFiles
from common.errors import UserError, counted
from common.finite import labels_of
from common.interface import Backend, DataIter, Device, Net, Registry
from common.metrics import Epoch
from common.system import environment
from common.system.interrupts import UninterruptedBatches
from common.weights.canonical import Weights, network_sizes
from common.weights.files import Stored, read_stored, reader_of, weights_in


def load_with_weights(
    config: TrainConfig | PredictConfig, registry: Registry
) -> tuple[Backend, Stored | None]:
    """Load the backend of ``--backend``, and read the file of ``--weights``, if any, with the backend that can."""
    name, path, precision = config.backend, config.weights, getattr(config, "precision", "fp32")
    if path is None:
        return registry.load(name, precision), None
    path = weights_in(path)
    reader = reader_of(path, registry.FRAMEWORKS.values())
    if reader and not registry.installed(reader.name):
        raise UserError(
            f"{path} can only be read by {reader.name}, which is not installed: install it, or convert the file on a "
            f"computer that has it: python run.py convert {path} weights.safetensors"
        )
    readers = [reader.name] if reader else []
    loaded = registry.load_several([name, *readers], precision=precision)
    return loaded[name], read_stored(path, loaded)


def padded(text: str, width: int) -> str:
    """Pad ``text`` with spaces to a width in terminal columns; a Chinese character takes two."""
    return text + " " * (width - cell_len(text))


def print_block(console: Console, description: Mapping[str, str]) -> None:
    """Print the opening block of a run, one line per name."""
    for name, value in description.items():
        console.print(f"{name:>12}  {value}", soft_wrap=True)


def describe_backend(backend: Backend) -> str:
    """Return the backend's name and the versions of its packages."""
    versions = environment.versions(backend.packages)
    return f"{backend.name} ({', '.join(f'{p} {versions[p]}' for p in backend.packages)})"


def describe_pipeline(backend: Backend, config: RunConfig, dataset: Dataset | None = None) -> str:
    """Return the name of the pipeline, the number of workers of the native one, and whether it reads files."""
    if config.pipeline == "batched":
        return config.pipeline
    streams = dataset is not None and isinstance(dataset.images, ImageFiles)
    files = ", images from their files" if streams else ""
    return f"{config.pipeline}, {counted(workers_of(backend, config), 'worker')}{files}"


def describe_machine(backend: Backend, config: RunConfig, devices: list[Device]) -> dict[str, str]:
    """Return the device, its settings, and the current environment settings."""
    settings = environment.in_force(backend.framework)
    described = backend.devices.describe(devices, config.precision, config.compile)
    num_processes = backend.processes.num_processes()
    if config.sync_batch_norm:
        described["processes"] = f"{num_processes}, BatchNorm's statistics are of the whole batch"
    elif num_processes > 1:
        own = (
            ""
            if getattr(config, "freeze", False)
            else ", each with its own BatchNorm statistics of a batch"
        )
        described["processes"] = f"{num_processes}{own}"
    num_gpus = backend.devices.num_gpus()
    if config.device == "auto" and num_gpus > 1 and num_processes == 1:
        described["device"] += f" (1 of {num_gpus} GPUs; --device gpu takes all)"
    return {
        **described,
        "environment": ", ".join(f"{name} {value}" for name, value in settings.items()),
    }


def workers_of(backend: Backend, config: RunConfig) -> int:
    """Return the number of worker processes of the native loader."""
    workers = config.workers
    return backend.loaders.get_dataloader_workers() if workers is None else workers


def check_batch_size(
    num_examples: int, batch_size: int, image_size: int, num_processes: int = 1
) -> None:
    """Raise UserError for a batch size that the training cannot use."""
    if batch_size > num_examples:
        raise UserError(
            f"--batch-size {batch_size} is larger than the {num_examples} training images: choose a smaller one"
        )
    # ResNet-18 downsamples by 8: an image of 8 x 8 has one position, and BatchNorm needs more than one value.
    needed = num_processes * (2 if image_size <= 8 else 1)
    smallest = min(batch_size, num_examples % batch_size or batch_size)
    if num_processes > 1 and smallest < needed:
        raise UserError(
            f"--batch-size {batch_size} leaves a batch of {counted(smallest, 'image')}, and {num_processes} processes "
            f"need {needed} images of this size: choose another --batch-size or fewer processes"
        )
    if image_size <= 8 and (num_examples - 1) % batch_size == 0:
        raise UserError(
            f"--batch-size {batch_size} leaves a last batch of one image, and BatchNorm cannot learn from a single "
            "image of 8 x 8: choose another --batch-size or a larger --image-size"
        )


def record(
    command: str,
    backend: Backend,
    config: RunConfig,
    classes: Sequence[str],
    description: Mapping[str, str],
) -> dict[str, Any]:
    """Return the content of ``config.json``."""
    return {
        "command": command,
        "config": plain(config),
        "classes": list(classes),
        "versions": environment.versions(backend.packages),
        "hardware": environment.hardware(),
        "description": dict(description),
    }


def make_network(
    backend: Backend,
    devices: list[Device],
    weights: Weights,
    precision: str = "fp32",
    compile: bool = False,
    sync_batch_norm: bool = False,
    freeze: bool = False,
) -> Net:
    """Return the book's ResNet-18 with these weights, prepared for the devices."""
    net = backend.resnet.resnet18(*network_sizes(weights))
    backend.weights.set_weights(net, weights)
    if freeze:
        backend.trainer.freeze(net)
    return backend.trainer.prepare(net, devices, precision, compile, sync_batch_norm)


def load_batches(
    backend: Backend,
    config: RunConfig,
    dataset: Dataset,
    augs: Sequence[Augmentation],
    is_train: bool,
    device: Device,
    first_epoch: int = 0,
    part: tuple[int, int] | None = None,
) -> DataIter:
    """Return the batches of a split from the chosen pipeline. ``part`` is by default this process's part of each."""
    part = part or (backend.processes.rank(), backend.processes.num_processes())
    if config.pipeline == "native":
        workers = workers_of(backend, config)
        native = backend.loaders.load_native(
            dataset,
            augs,
            config.batch_size,
            is_train,
            config.seed,
            workers,
            device,
            first_epoch,
            part,
        )
        return WatchedBatches(UninterruptedBatches(native))
    return WatchedBatches(
        backend.loaders.load_batched(
            dataset, augs, config.batch_size, is_train, config.seed, device, first_epoch, part
        )
    )


class Predictions(NamedTuple):
    """The predicted labels of n images, int64 (n,), and their probabilities, float64 (n,)."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def predict_all(
    backend: Backend,
    config: RunConfig,
    net: Net,
    dataset: Dataset,
    augs: Sequence[Augmentation],
    device: Device,
) -> Predictions:
    """Return the predicted label of each image and its probability. Several processes share the images.

    Raises UserError for logits that are not finite.
    """
    processes = backend.processes
    rank, number = processes.rank(), processes.num_processes()
    first, end = (len(dataset) * i // number for i in (rank, rank + 1))
    found = np.zeros((2, len(dataset)))
    if first < end:
        images, labels = dataset.images[first:end], dataset.labels[first:end]
        own = Dataset(images, labels, dataset.classes)
        batches = load_batches(backend, config, own, augs, False, device, part=(0, 1))
        y_hat = [backend.devices.to_numpy(backend.trainer.predict(net, X)) for X, _ in batches]
        found[:, first:end] = _most_probable(np.concatenate(y_hat))
    labels, probabilities = np.asarray(processes.total(found))
    return Predictions(labels.astype(np.int64), probabilities)


def _most_probable(
    logits: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the label of the largest logit of each image, and its probability."""
    return labels_of(logits), probabilities(logits).max(axis=1)


def probabilities(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the class probabilities, float64, for logits (..., classes)."""
    with np.errstate(under="ignore"):
        exps = np.exp(logits - logits.max(axis=-1, keepdims=True), dtype=np.float64)
        return np.asarray(exps / exps.sum(axis=-1, keepdims=True))


def summary_of(kind: Any, epochs: Sequence[Epoch], devices: Sequence[Device]) -> Any:
    """Return the summary of a training, an instance of ``kind``, from all of its epochs."""
    last = epochs[-1]
    return kind(
        last.train_loss,
        last.train_acc,
        last.held_out_acc,
        examples=sum(epoch.images for epoch in epochs),
        step_seconds=sum(epoch.step_seconds for epoch in epochs),
        seconds=sum(epoch.seconds for epoch in epochs),
        devices=str(devices),
    )


def weights_metadata(
    backend: Backend,
    data: str,
    classes: Sequence[str],
    image_size: int,
    normalize: Normalize | None = None,
) -> dict[str, str]:
    """Return the metadata of a weights file, so that any backend can classify images with it."""
    found = {
        "backend": backend.name,
        "data": data,
        "classes": json.dumps(list(classes)),
        "image_size": str(image_size),
    }
    if normalize is not None:
        found["normalize"] = json.dumps([normalize.mean, normalize.std])
    return found


def logits(
    backend: Backend,
    net: Net,
    images: NDArray[np.uint8],
    augs: Sequence[Augmentation],
    device: Device,
) -> NDArray[np.float64]:
    """Return the logits, (n, classes), of images, uint8 (n, height, width, 3)."""
    decisions = decide(augs, np.arange(len(images)), 0, 0, (images.shape[1], images.shape[2]))
    X = backend.transforms.to_float(backend.transforms.from_images(images, device))
    y_hat = backend.trainer.predict(net, backend.transforms.augment(X, decisions))
    return backend.devices.to_numpy(y_hat).astype(np.float64)
