"""The image-augmentation chapter, written once against the contract.

What a reader compares between frameworks is in the backends. What the chapter does with it is here: say what will run,
show the augmentations, train, and compare training with and without them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from common import environment, plotting
from common.augmentation import Augmentation, gallery, parse_augmentations
from common.cli import Command
from common.config import TrainConfig, plain
from common.datasets import Data, Dataset, load_data
from common.datasets.images import read_image
from common.errors import UserError
from common.interface import Backend, DataIter, Device
from common.metrics import TrainingSummary
from common.progress import Points, TrainingProgress
from common.records import Metrics, RunFolder, default_folder
from common.sampling import decide
from common.weights import Weights, initial_weights, save_weights

Images = NDArray[np.uint8]
LONGEST_SIDE = 512  # pixels of the example image; a larger one is shrunk before it is drawn


@dataclass(frozen=True)
class Session:
    """What every command of the chapter needs: the backend, its devices, the data and where results go."""

    backend: Backend
    config: TrainConfig
    devices: list[Device]
    data: Data
    image: Images  # the example to augment, uint8 (height, width, 3)
    folder: RunFolder
    console: Console


@dataclass(frozen=True)
class Trained:
    """What one training left: its summary, its metrics by epoch, its curves and its weights."""

    summary: TrainingSummary
    metrics: list[Metrics]
    curves: dict[str, Points]
    weights: Weights


def run(command: Command, backend: Backend) -> None:
    """Run one command of the chapter. Raises UserError for what the user can put right."""
    session = _begin(command, backend)
    if command.name == "augment":
        _show(session)
    elif command.name == "compare":
        _compare(session, command.seeds)
    else:
        _show(session)
        _train_and_record(session)
    session.console.print(f"results in {session.folder.path}", soft_wrap=True)


def _begin(command: Command, backend: Backend) -> Session:
    """Check what can be checked before anything is written, then say what will run."""
    config = command.config
    console = Console(highlight=False)
    devices = backend.devices.get_devices(config.device)
    # Reading settings raises for those that cannot work, before anything is written.
    backend.devices.describe(devices, config.precision, config.compile)
    parse_augmentations(config.augment, (config.data.image_size, config.data.image_size))
    image = _example_image(config.image)
    data = _load_data(config)
    if command.name != "augment":
        _check_batches(len(data.train), config.batch_size)
    folder = RunFolder(config.output or default_folder(config.backend, command.name))
    session = Session(backend, config, devices, data, image, folder, console)
    description = _describe(session, command)
    for name, value in description.items():
        console.print(f"{name:>12}  {value}", soft_wrap=True)
    folder.write_json("config.json", _record(session, command, description))
    return session


def _load_data(config: TrainConfig) -> Data:
    data = config.data
    return load_data(
        data.name, data_dir=data.data_dir, image_size=data.image_size, limit=data.limit
    )


def _check_batches(num_examples: int, batch_size: int) -> None:
    if batch_size > num_examples:
        raise UserError(
            f"--batch-size {batch_size} is larger than the {num_examples} training images"
        )
    num_batches = -(-num_examples // batch_size)
    if num_batches < 5:
        raise UserError(
            f"--batch-size {batch_size} makes only {num_batches} batches of {num_examples} images, and the chapter "
            f"reports five times an epoch: use --batch-size {max(num_examples // 5, 1)} or less, or more images"
        )


def _describe(session: Session, command: Command) -> dict[str, str]:
    """Return the block that a run begins with, name by name."""
    config, data, backend = session.config, session.data, session.backend
    versions = environment.versions(backend.packages)
    height, width = data.train.images.shape[1:3]
    description = {
        "chapter": "image augmentation" + (", drawn only" if command.name == "augment" else ""),
        "backend": f"{backend.name} ({', '.join(f'{p} {versions[p]}' for p in backend.packages)})",
        "data": f"{data.name}: {len(data.train):,} training and {len(data.test):,} test images, "
        f"{height} x {width}, {len(data.train.classes)} classes",
    }
    if command.name != "augment":
        adam = config.adam
        description |= {
            "preset": config.preset,
            "training": f"ResNet-18, batch {config.batch_size}, {config.num_epochs} epochs, "
            f"Adam lr {adam.lr:g}, betas {adam.betas[0]:g} {adam.betas[1]:g}, eps {adam.eps:g}",
            "augment": config.augment,
        }
    settings = environment.in_force(backend.name)
    description |= {
        "pipeline": config.pipeline,
        "seed": ", ".join(str(config.seed + i) for i in range(command.seeds)),
        **backend.devices.describe(session.devices, config.precision, config.compile),
        "environment": ", ".join(f"{name} {value}" for name, value in settings.items()),
    }
    return description | {"output": str(session.folder.path)}


def _record(session: Session, command: Command, description: dict[str, str]) -> dict[str, Any]:
    return {
        "command": command.name,
        "config": plain(session.config),
        "classes": list(session.data.train.classes),
        "versions": environment.versions(session.backend.packages),
        "hardware": environment.hardware(),
        "description": description,
    }


# --- Showing ---------------------------------------------------------------------------------------------------------


def _show(session: Session) -> None:
    """Draw every augmentation of the chapter eight times on the example image, and 32 training images."""
    for number, (title, augmentations) in enumerate(gallery().items(), start=1):
        images = draw(
            session.backend, session.image, augmentations, 8, session.config, session.devices[0]
        )
        name = title.replace(",", "").replace(" ", "-")
        plotting.save_sheet(
            session.folder.path / f"augment-{number}-{name}.png", images, 2, 4, title
        )
    title = f"the first training images of {session.data.name}"
    first = list(session.data.train.images[:32])
    plotting.save_sheet(session.folder.path / "training-images.png", first, 4, 8, title, 0.8)
    session.console.print(f"drew {number + 1} sheets into {session.folder.path}", soft_wrap=True)


def _example_image(path: Path | None) -> Images:
    """Return the image to augment: the file's, or scikit-image's photograph of the cat Chelsea."""
    if path is not None:
        return read_image(path, LONGEST_SIDE)
    import skimage.data

    cat: Images = skimage.data.chelsea()  # type: ignore[no-untyped-call]
    return cat


def draw(
    backend: Backend,
    image: Images,
    augmentations: Sequence[Augmentation],
    times: int,
    config: TrainConfig,
    device: Device,
) -> list[Images]:
    """Augment one image, uint8 (height, width, 3), several times, as the chapter's `apply` does."""
    if config.pipeline == "native":
        backend.devices.set_seed(config.seed)
        transform = backend.transforms.native(augmentations)
        return [_to_image(backend, transform(image)) for _ in range(times)]
    decisions = decide(
        augmentations, np.arange(times), config.seed, 0, (image.shape[0], image.shape[1])
    )
    X = backend.transforms.from_images(np.repeat(image[None], times, axis=0), device)
    return list(backend.transforms.to_images(backend.transforms.augment(X, decisions)))


def _to_image(backend: Backend, X: Any) -> Images:
    """Return one image of the native pipeline, floats 0..1, as uint8 (height, width, 3)."""
    values = backend.devices.to_numpy(X)
    if backend.devices.image_layout == "NCHW":
        values = np.moveaxis(values, 0, -1)
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


# --- Training --------------------------------------------------------------------------------------------------------


def _train_and_record(session: Session) -> None:
    """Train once, and leave metrics, curves and weights in the run folder."""
    folder, config = session.folder, session.config
    trained = train(session, config)
    plotting.save_curves(folder.path / "curves.png", trained.curves, _title(session))
    metadata = {
        "backend": config.backend,
        "data": session.data.name,
        "classes": ",".join(session.data.train.classes),
    }
    save_weights(folder.path / "weights.safetensors", trained.weights, metadata)
    folder.write_json("summary.json", asdict(trained.summary))


def _title(session: Session) -> str:
    return f"{session.data.name}, {session.config.backend}, augmentation: {session.config.augment}"


def train(session: Session, config: TrainConfig, title: str = "") -> Trained:
    """Train the chapter's network from the weights and batches of the seed.

    Each epoch's metrics go to the run folder as it ends. Ctrl-C keeps them, and the curves so far, and passes on a
    KeyboardInterrupt that says where they are.
    """
    backend, devices, data = session.backend, session.devices, session.data
    backend.devices.set_seed(config.seed)
    weights = initial_weights(len(data.train.classes), seed=config.seed)
    net = backend.resnet.resnet18(len(data.train.classes))
    backend.weights.set_weights(net, weights)
    prepared = backend.trainer.prepare(net, devices, config.precision, config.compile)
    trainer = backend.trainer.adam(net, config.adam.lr, config.adam.betas, config.adam.eps)
    train_iter, test_iter = (
        _load(session, config, data.train, True),
        _load(session, config, data.test, False),
    )

    metrics: list[Metrics] = []

    def keep(epoch: Metrics) -> None:
        metrics.append({"augment": config.augment, "seed": config.seed, **epoch})
        session.folder.add_metrics(metrics[-1])

    sizes = len(data.train), len(data.test)
    progress = TrainingProgress(session.console, config.num_epochs, sizes, keep, title)
    try:
        with progress:
            summary = backend.trainer.train_ch13(
                prepared,
                progress.training(train_iter),
                progress.evaluation(test_iter),
                backend.trainer.cross_entropy(),
                trainer,
                config.num_epochs,
                devices,
                progress,
            )
    except KeyboardInterrupt as interrupt:
        plotting.save_curves(session.folder.path / "curves.png", progress.points, _title(session))
        raise KeyboardInterrupt(
            f"interrupted in epoch {progress.epoch} of {config.num_epochs}: "
            f"the metrics so far are in {session.folder.path}"
        ) from interrupt
    return Trained(summary, metrics, progress.points, backend.weights.get_weights(net))


def _load(session: Session, config: TrainConfig, dataset: Dataset, is_train: bool) -> DataIter:
    """Return the batches of a split through the chosen pipeline; only training images are augmented."""
    size = dataset.images.shape[1], dataset.images.shape[2]
    augs = parse_augmentations(config.augment, size) if is_train else ()
    loaders = session.backend.loaders
    if config.pipeline == "native":
        workers = loaders.get_dataloader_workers() if config.workers is None else config.workers
        return loaders.load_native(dataset, augs, config.batch_size, is_train, config.seed, workers)
    return loaders.load_batched(
        dataset, augs, config.batch_size, is_train, config.seed, session.devices[0]
    )


# --- Comparing -------------------------------------------------------------------------------------------------------


def _compare(session: Session, num_seeds: int) -> None:
    """Train with and without augmentation, from the same weights and batches: the book's first exercise."""
    config = session.config
    runs: dict[str, list[Trained]] = {"none": [], config.augment: []}
    for seed in range(config.seed, config.seed + num_seeds):
        for augment, trained in runs.items():
            title = f"augment {augment}, seed {seed}:"
            trained.append(train(session, replace(config, augment=augment, seed=seed), title))
    _report_comparison(session, runs)


def _report_comparison(session: Session, runs: dict[str, list[Trained]]) -> None:
    """Print mean and spread of both, and draw the test accuracies."""
    result: dict[str, Any] = {}
    for augment, trained in runs.items():
        train_acc = np.array([t.summary.train_acc for t in trained])
        test_acc = np.array([t.summary.test_acc for t in trained])
        result[augment] = {"train_acc": train_acc.tolist(), "test_acc": test_acc.tolist()}
        session.console.print(
            f"augment {augment:>8}: train acc {_spread(train_acc)}, test acc {_spread(test_acc)}",
            soft_wrap=True,
        )
    session.folder.write_json("comparison.json", result)
    accuracies = {
        augment: np.array([[m["test_acc"] for m in t.metrics] for t in trained])
        for augment, trained in runs.items()
    }
    title = f"{session.data.name}, {session.config.backend}, {len(next(iter(runs.values())))} seeds"
    plotting.save_comparison(session.folder.path / "comparison.png", accuracies, title)


def _spread(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f}, {len(values)} seeds)"
