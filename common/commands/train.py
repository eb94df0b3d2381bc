"""The image-augmentation chapter, written once against the contract.

What a reader compares between frameworks is in the backends. What the chapter does with it is here: say what will run,
show the augmentations, train, and compare training with and without them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from common.augmentation.decisions import decide, epoch_order
from common.augmentation.operations import Augmentation, gallery, parse_augmentations
from common.cli import Command
from common.commands.convert import Stored
from common.commands.run_folder import Metrics, RunFolder, check_output
from common.commands.training import (
    check_batch_size,
    describe_backend,
    describe_machine,
    describe_pipeline,
    load_batches,
    make_console,
    make_network,
    print_block,
    record,
    weights_metadata,
)
from common.config import PRESETS, RunConfig, TrainConfig
from common.datasets import Data, Dataset, load_data
from common.datasets.images import read_image
from common.drawing import image_grid, plots
from common.drawing.captions import captions, described
from common.drawing.progress import TrainingProgress
from common.errors import UserError, counted
from common.interface import Backend, DataIter, Device, Net
from common.metrics import Epoch, Timer, TrainingSummary, spread
from common.system import environment
from common.weights.canonical import Weights, initial_weights
from common.weights.safetensors import save_weights

Images = NDArray[np.uint8]
PARTS = {"augment": ", drawn only", "evaluate": ", weights evaluated only"}  # of the chapter
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
    weights: Stored | None = None  # the file's of --weights
    startup_seconds: float | None = None  # until the framework was loaded


@dataclass(frozen=True)
class Trained:
    """The result of one training: its summary, its epochs and its weights."""

    summary: TrainingSummary
    epochs: list[Epoch]
    weights: Weights


def run(
    command: Command,
    backend: Backend,
    startup_seconds: float | None = None,
    weights: Stored | None = None,
) -> None:
    """Run one command of the chapter, with the ``weights`` of the file that the command names.

    ``startup_seconds``, which loading the backend took, is recorded. Raises UserError for what the user can put right.
    Ctrl-C passes on as a KeyboardInterrupt that says what was kept.
    """
    session = replace(_begin(command, backend, weights), startup_seconds=startup_seconds)
    folder = session.folder
    try:
        if command.name == "augment":
            _show(session)
        elif command.name == "compare":
            _compare(session, command.seeds)
        elif command.name == "evaluate":
            _evaluate(session)
        else:
            _show(session)
            _train_and_record(session)
    except KeyboardInterrupt as interrupt:
        epochs = counted(len(folder.metrics), "finished epoch")
        raise KeyboardInterrupt(f"interrupted: {epochs}, kept in {folder.path}") from interrupt
    session.console.print(f"results in {folder.path}", soft_wrap=True)


def _begin(command: Command, backend: Backend, weights: Stored | None) -> Session:
    """Check what can be checked before anything is written, then say what will run."""
    config = command.config
    console = make_console()
    devices = backend.devices.get_devices(config.device)
    # Reading settings raises for those that cannot work, before anything is written.
    backend.devices.describe(devices, config.precision, config.compile)
    parse_augmentations(config.augment, (config.data.image_size, config.data.image_size))
    check_output(config.output)
    image = _example_image(config.image)
    data = _load_data(config)
    if command.name in ("train", "compare"):
        _check_batches(data.train, config.batch_size)
    if weights is not None:
        weights.check_data(data.name, data.train.classes)
    folder = RunFolder(config.output, f"{config.backend}-{command.name}")
    session = Session(backend, config, devices, data, image, folder, console, weights)
    description = _describe(session, command)
    print_block(console, description)
    seeds = {"seeds": [config.seed + i for i in range(command.seeds)]}
    classes = data.train.classes
    folder.write_json(
        "config.json", record(command.name, backend, config, classes, description) | seeds
    )
    return session


def _load_data(config: TrainConfig) -> Data:
    data = config.data
    return load_data(
        data.name,
        data_dir=data.data_dir,
        image_size=data.image_size,
        limit=data.limit,
        workers=config.workers and max(config.workers, 1),
    )


def _check_batches(train: Dataset, batch_size: int) -> None:
    num_examples = len(train)
    check_batch_size(num_examples, batch_size, max(train.images.shape[1:3]))
    num_batches = -(-num_examples // batch_size)
    if num_batches < 5:
        raise UserError(
            f"--batch-size {batch_size} makes only {num_batches} batches of {num_examples} images, and the chapter "
            f"reports five times an epoch: use --batch-size {max(num_examples // 5, 1)} or less, or more images"
        )


def _describe(session: Session, command: Command) -> dict[str, str]:
    """Return the block that a run begins with, name by name."""
    config, data, backend = session.config, session.data, session.backend
    height, width = data.train.images.shape[1:3]
    description = {
        "chapter": "image augmentation" + PARTS.get(command.name, ""),
        "backend": describe_backend(backend),
        "data": f"{config.data.name}: {counted(len(data.train), 'training image')}, "
        f"{counted(len(data.test), 'test image')}, {height} x {width}, "
        f"{len(data.train.classes)} class" + ("" if len(data.train.classes) == 1 else "es"),
    }
    if config.weights is not None:
        description["weights"] = str(config.weights)
    if command.name in ("train", "compare"):
        if config.weights is not None:
            description["weights"] += ", to start from; the optimizer starts fresh"
        adam = config.adam
        description |= {
            "preset": config.preset + ("" if _as_preset(config) else ", with changes"),
            "training": f"ResNet-18, batch {config.batch_size}, {counted(config.num_epochs, 'epoch')}, "
            f"Adam lr {adam.lr:g}, betas {adam.betas[0]:g} {adam.betas[1]:g}, eps {adam.eps:g}",
            "augment": config.augment,
        }
    if session.weights is not None and (images := _images_of(session.weights)):
        description["images"] = images
    description["pipeline"] = describe_pipeline(backend, config)
    if command.name != "evaluate":
        description["seed"] = ", ".join(str(config.seed + i) for i in range(command.seeds))
    description |= describe_machine(backend, config, session.devices)
    return description | {"output": str(session.folder.path)}


def _images_of(stored: Stored) -> str:
    """Return what is done to all images for the sake of a file's network, '' where the file says that it is nothing."""
    if stored.normalize is not None:
        return "normalized, as those were that the weights have learnt from"
    return (
        "" if "classes" in stored.metadata else "not normalized: the weights do not say of theirs"
    )


def _as_preset(config: TrainConfig) -> bool:
    """Tell whether what is trained is what the preset says."""
    preset = PRESETS[config.preset]
    where: dict[str, Any] = {
        "output": None,
        "image": None,
        "device": "auto",
        "workers": None,
        "seed": 0,
    }
    data = replace(config.data, data_dir=preset.data.data_dir)
    return replace(config, backend=preset.backend, data=data, **where) == preset


# --- Showing ---------------------------------------------------------------------------------------------------------


def _show(session: Session) -> None:
    """Draw the example image and seven draws of every augmentation of the chapter, and 32 training images."""
    backend, config, original = session.backend, session.config, session.image
    height, width = original.shape[:2]
    for number, (title, augmentations) in enumerate(gallery().items(), start=1):
        images, drawn = draw(backend, original, augmentations, 7, config, session.devices[0])
        name = title.replace(",", "").replace(" ", "-")
        image_grid.save_sheet(
            session.folder.path / f"augment-{number}-{name}.png",
            [original, *images],
            2,
            4,
            described(augmentations, drawn_by(backend, config)),
            captions=[f"original, {height} × {width}", *drawn],
        )
    train = session.data.train
    # In the order of the first epoch: a folder comes class by class.
    first = epoch_order(len(train), session.config.seed, 0)[:32]
    image_grid.save_sheet(
        session.folder.path / "training-images.png",
        [train.images[i] for i in first],
        4,
        8,
        f"the first {counted(len(first), 'training image')} of {session.data.name}",
        scale=0.8,
        names=[train.classes[train.labels[i]] for i in first],
    )
    session.console.print(f"drew {number + 1} sheets into {session.folder.path}", soft_wrap=True)


def _example_image(path: Path | None) -> Images:
    """Return the image to augment: the file's, or scikit-image's photograph of the cat Chelsea."""
    if path is not None:
        return read_image(path, LONGEST_SIDE)
    # `skimage.data.chelsea()` reads the same file, after an import of half a second.
    skimage = find_spec("skimage")
    assert skimage is not None
    assert skimage.origin is not None
    return read_image(Path(skimage.origin).parent / "data" / "chelsea.png", LONGEST_SIDE)


def draw(
    backend: Backend,
    image: Images,
    augmentations: Sequence[Augmentation],
    times: int,
    config: RunConfig,
    device: Device,
    first: int = 0,
    short: bool = False,
) -> tuple[list[Images], list[str]]:
    """Augment one image, uint8 (height, width, 3), several times, as the chapter's `apply` does.

    Return the images and a caption for each, which says what was drawn for it (``short``: see `captions`). Captions
    are empty if the framework draws by itself. ``first`` is the index of the first draw: another gives other draws.
    """
    if config.pipeline == "native":
        backend.devices.set_seed(config.seed + first)
        transform = backend.transforms.native(augmentations)
        return [_to_image(backend, transform(image)) for _ in range(times)], [""] * times
    indices = np.arange(first, first + times)
    decisions = decide(augmentations, indices, config.seed, 0, (image.shape[0], image.shape[1]))
    X = backend.transforms.from_images(np.repeat(image[None], times, axis=0), device)
    images = backend.transforms.to_images(backend.transforms.augment(X, decisions))
    return list(images), [captions(decisions, i, short) for i in range(times)]


def drawn_by(backend: Backend, config: RunConfig) -> str:
    """Return the title of the framework if it draws by itself, else ''."""
    return backend.title if config.pipeline == "native" else ""


def _to_image(backend: Backend, X: Any) -> Images:
    """Return one image of the native pipeline, floats 0..1, as uint8 (height, width, 3)."""
    values = backend.devices.to_numpy(X)
    if backend.devices.image_layout == "NCHW":
        values = np.moveaxis(values, 0, -1)
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)


# --- Training --------------------------------------------------------------------------------------------------------


def _train_and_record(session: Session) -> None:
    """Train once, and leave metrics, curves and weights in the run folder.

    Start-up and memory are None where another framework was imported to read the file of weights.
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
    # Start-up and memory are the framework's own only where no second one had to read the weights.
    alone = session.weights is None or session.weights.reader in ("", config.backend)
    used = {
        "startup_seconds": session.startup_seconds if alone else None,
        "peak_memory_mib": environment.peak_memory_mib() if alone else None,
    }
    folder.write_json("summary.json", asdict(trained.summary) | used)


def _save_curves(session: Session, config: TrainConfig, epochs: Sequence[Epoch]) -> None:
    title = f"{session.data.name}, {config.backend}, augmentation: {config.augment}"
    plots.save_curves(session.folder.path / "curves.png", epochs, "test acc", title)


def train(session: Session, config: TrainConfig, title: str = "") -> Trained:
    """Train the chapter's network from the weights and batches of the seed.

    Each epoch's metrics go to the run folder as it ends; Ctrl-C keeps them, and draws the curves so far.
    """
    backend, devices, data = session.backend, session.devices, session.data
    backend.devices.set_seed(config.seed)
    net = _network(session, config.seed)
    trainer = backend.trainer.adam(net, config.adam.lr, config.adam.betas, config.adam.eps)
    train_iter, test_iter = (
        _load(session, config, data.train, True),
        _load(session, config, data.test, False),
    )

    def keep(metrics: Metrics) -> None:
        session.folder.add_metrics({"augment": config.augment, "seed": config.seed} | metrics)

    sizes = len(data.train), len(data.test)
    progress = TrainingProgress(session.console, config.num_epochs, sizes, keep, title)
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


def _network(session: Session, seed: int) -> Net:
    """Return the network with the weights of the file, or those of the seed, ready for the devices."""
    num_classes = len(session.data.train.classes)
    stored = session.weights
    weights = stored.weights if stored else initial_weights(num_classes, seed=seed)
    config = session.config
    return make_network(session.backend, session.devices, weights, config.precision, config.compile)


def _load(session: Session, config: TrainConfig, dataset: Dataset, is_train: bool) -> DataIter:
    """Return the batches of a split; only training images are augmented.

    All are normalized where the network of ``--weights`` has learnt from normalized images.
    """
    size = dataset.images.shape[1], dataset.images.shape[2]
    augs: Sequence[Augmentation] = parse_augmentations(config.augment, size) if is_train else ()
    if session.weights is not None and (normalize := session.weights.normalize):
        augs = (*augs, normalize)
    return load_batches(session.backend, config, dataset, augs, is_train, session.devices[0])


# --- Evaluating ------------------------------------------------------------------------------------------------------


def _evaluate(session: Session) -> None:
    """Compute the accuracy of the file's weights on the test images, and leave it in the run folder."""
    test = session.data.test
    net = _network(session, session.config.seed)
    test_iter = _load(session, session.config, test, False)
    timer = Timer()
    accuracy = session.backend.trainer.evaluate_accuracy_gpu(net, test_iter)
    summary = {"test_acc": accuracy, "examples": len(test), "seconds": timer.stop()}
    session.console.print(f"test acc {accuracy:.3f} on {counted(len(test), 'image')}")
    session.folder.write_json("summary.json", summary)


# --- Comparing -------------------------------------------------------------------------------------------------------


def _compare(session: Session, num_seeds: int) -> None:
    """Train with and without augmentation, from the same weights and batches: the book's first exercise."""
    config = session.config
    runs: dict[str, list[Trained]] = {"none": [], config.augment: []}
    for seed in range(config.seed, config.seed + num_seeds):
        for augment, trained in runs.items():
            one = train(
                session, replace(config, augment=augment, seed=seed), f"{augment}, seed {seed}:"
            )
            trained.append(replace(one, weights={}))  # 45 MB each, and not looked at
    _report_comparison(session, runs)


def _report_comparison(session: Session, runs: dict[str, list[Trained]]) -> None:
    """Print mean and spread of both, and draw the test accuracies."""
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
