"""Shared by `train`, `augment` and `evaluate`: checks, loading, the description of the run, its folder."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import common
from common.augmentation.operations import Augmentation, parse_augmentations
from common.commands.processes import (
    all_or_none,
    announce,
    check_equal,
    first_process_first,
    interrupted,
    joined,
)
from common.commands.resume import describe_resume, digests, named, open_folder
from common.commands.run_folder import RunFolder, check_output
from common.commands.training import (
    check_batch_size,
    describe_backend,
    describe_machine,
    describe_pipeline,
    load_batches,
    load_with_weights,
    make_network,
    print_block,
    record,
)
from common.config import PRESETS, TrainConfig
from common.datasets import Data, Dataset, load_data
from common.datasets.images import read_image
from common.errors import UserError, UserNotice, counted
from common.interface import Backend, DataIter, Device, Net, Registry
from common.system.console import PlainConsole
from common.weights.canonical import initial_weights, with_new_last_layer
from common.weights.files import Stored

PARTS = {"augment": ", drawing only", "evaluate": ", evaluation only"}  # of the chapter
LONGEST_SIDE = 512  # pixels; a larger example image is downsampled to this


@dataclass(frozen=True)
class Session:
    """The backend, its devices, the data and the run folder."""

    command: str  # train, compare, augment or evaluate
    backend: Backend
    config: TrainConfig
    devices: list[Device]
    data: Data
    folder: RunFolder
    console: Console
    weights: Stored | None = None  # from the file of --weights
    startup_seconds: float | None = None  # from the start until the framework was loaded

    @property
    def keeps(self) -> bool:
        """Whether this process draws and keeps the results: only the first of several."""
        return self.backend.processes.rank() == 0


@contextmanager
def session_of(command: str, config: TrainConfig, registry: Registry) -> Iterator[Session]:
    """Check the settings, load the data, make the run folder, print what will run, and yield the session.

    Raises UserError for errors that the user can correct. After Ctrl-C, raises a KeyboardInterrupt whose message says
    what was kept.
    """
    backend, weights = load_with_weights(config, registry)
    startup_seconds = time.perf_counter() - common.STARTED
    with (
        joined(backend, config) as config,
        _session_of(command, config, backend, weights, startup_seconds) as session,
    ):
        yield session


@contextmanager
def _session_of(
    command: str,
    config: TrainConfig,
    backend: Backend,
    weights: Stored | None,
    startup_seconds: float,
) -> Iterator[Session]:
    console, processes = PlainConsole(), backend.processes
    with all_or_none(processes):
        devices = backend.devices.get_devices(config.device)
        # Fail early: `describe` raises UserError for settings that cannot work here.
        backend.devices.describe(devices, config.precision, config.compile, config.sync_batch_norm)
        parse_augmentations(config.augment, (config.data.image_size, config.data.image_size))
        check_output(config.output)
        if config.image is not None:  # fail early: it is needed only after the data has been loaded
            read_image(config.image, LONGEST_SIDE)
        with first_process_first(processes):
            data = load_data(
                config.data.name,
                data_dir=config.data.cache_dir,
                image_size=config.data.image_size,
                limit=config.data.limit,
                valid_ratio=config.data.valid_ratio,
                split_seed=config.seed,
                skip_broken=config.data.skip_broken,
                evaluation=command == "evaluate",
                stream=config.pipeline == "native",
            )
        if command in ("train", "compare"):
            config = _with_batch_size(config, len(data.train))
            longer_side = max(data.train.images.shape[1:3])
            check_batch_size(
                len(data.train), config.batch_size, longer_side, processes.num_processes()
            )
        if weights is not None and command in ("train", "compare"):
            weights.check_rgb()
        elif weights is not None:
            weights.check_data(data.name, data.train.classes)
        if weights is not None:
            _check_held_out(command, weights, data)
        size = data.train.images.shape[1], data.train.images.shape[2]
        augs = parse_augmentations(config.augment, size)
        found = digests((data.train, data.test), augs, config.seed)
    check_equal(command, backend, config, devices, named(found), weights)
    with (
        all_or_none(processes),
        open_folder(config, f"{config.backend}-{command}", found, processes.rank() == 0) as folder,
    ):
        session = Session(
            command, backend, config, devices, data, folder, console, weights, startup_seconds
        )
        description = describe(session)
        content = record(command, backend, config, data.train.classes, description)
        content |= {"seeds": config.all_seeds, "digests": found}
        print_block(console, description | describe_resume(config, content))
        folder.write_json("config.json", content)
        announce(backend, command, folder.path)
    try:
        yield session
    except KeyboardInterrupt as interrupt:
        raise interrupted(processes, command, folder) from interrupt
    console.print(f"results in {folder.path}", soft_wrap=True)


def _with_batch_size(config: TrainConfig, num_examples: int) -> TrainConfig:
    """Return ``config`` with a batch of all images if these are fewer than the preset's batch size."""
    if config.batch_size == PRESETS[config.preset].batch_size:
        return replace(config, batch_size=min(config.batch_size, num_examples))
    return config


def _check_held_out(command: str, weights: Stored, data: Data) -> None:
    """Tell if the training of the weights may have seen images that are now held out: those that are drawn.

    Raises UserError for ``evaluate``, whose accuracy would be wrong.
    """
    about = weights.metadata
    if not data.drawn or about.get("data") != data.name:
        return
    if about.get("train_files", data.train_files) == data.train_files:
        return
    what = (
        f"the weights of {weights.path} were trained on other images of {data.name}, perhaps on some of those that are "
        "held out now"
    )
    if command == "evaluate":
        raise UserError(
            f"{what}: use the --seed and --valid-ratio of that training and the folder as it was, or put images for "
            "evaluation into test/"
        )
    warnings.warn(UserNotice(f"{what}, so the accuracy on these is optimistic"), stacklevel=2)


def describe(session: Session) -> dict[str, str]:
    """Return the opening block of a run, by name."""
    config, data, backend = session.config, session.data, session.backend
    height, width = data.train.images.shape[1:3]
    classes = counted(len(data.train.classes), "class", "classes")
    description = {
        "chapter": "image augmentation" + PARTS.get(session.command, ""),
        "backend": describe_backend(backend),
        "data": f"{config.data.name}: {counted(len(data.train), 'training image')}, "
        f"{_held_out(data)}, {height} x {width}, {classes}",
    }
    if session.weights is not None:
        description["weights"] = str(session.weights.path)
    if session.command in ("train", "compare"):
        if session.weights is not None:
            description["weights"] = _start(session.weights, data.train.classes)
        if config.freeze:
            description["freeze"] = (
                "all but the last layer; BatchNorm keeps and uses its running statistics"
            )
        description |= {
            "preset": config.preset + ("" if _as_preset(config) else ", with changes"),
            "training": f"ResNet-18, batch {config.batch_size}{_why(config, len(data.train))}, "
            f"{counted(config.num_epochs, 'epoch')}, {config.adam}",
        }
    if session.command != "evaluate":
        description["augment"] = config.augment
    if session.weights is not None and (images := _images_of(session.weights)):
        description["images"] = images
    description["pipeline"] = describe_pipeline(backend, config, data.train)
    if session.command != "evaluate":
        description["seed"] = ", ".join(map(str, config.all_seeds))
    description |= describe_machine(backend, config, session.devices)
    return description | {"output": str(session.folder.path)}


def _start(stored: Stored, classes: Sequence[str]) -> str:
    """Return what a training takes from a weights file."""
    differs = stored.differs(classes)
    if not differs:
        return f"{stored.path}, as initial weights; the optimizer starts fresh"
    new = counted(len(classes), "class", "classes")
    return (
        f"{stored.path} ({differs}), as initial weights, with a new last layer for {new}; "
        "the optimizer starts fresh"
    )


def _held_out(data: Data) -> str:
    """Return the number of held-out images, and where validation images come from."""
    words = {"test": "test image", "valid": "validation image"}
    return counted(len(data.test), words[data.held_out]) + (f" ({data.how})" if data.how else "")


def _why(config: TrainConfig, num_examples: int) -> str:
    """Return why the batch is smaller than the preset's, if there are fewer images."""
    preset = PRESETS[config.preset].batch_size
    if config.batch_size == num_examples < preset:
        return f" (all training images; the preset's {preset} are more)"
    return ""


def _images_of(stored: Stored) -> str:
    """Return how images are normalized for the network in a file, '' if they are known not to be."""
    if stored.normalize is not None:
        return "normalized, as in the training of the weights"
    return (
        "" if "classes" in stored.metadata else "not normalized: the weights file has no metadata"
    )


def _as_preset(config: TrainConfig) -> bool:
    """Return whether the training settings are those of the preset."""
    preset = PRESETS[config.preset]
    names = (
        "backend",
        "output",
        "image",
        "device",
        "workers",
        "processes",
        "sync_batch_norm",
        "seed",
        "resume",
        "compare_augmentation",
    )
    free: dict[str, Any] = {name: getattr(preset, name) for name in (*names, "seeds")}
    data = replace(config.data, cache_dir=preset.data.cache_dir)
    return replace(config, data=data, **free) == preset


def example_image(path: Path | None) -> NDArray[np.uint8]:
    """Return the image to augment, (height, width, 3): from the file, or scikit-image's photograph of a cat."""
    # `skimage.data.chelsea()` reads the same file, but its import takes half a second.
    found = Path(str(files("skimage"))) / "data" / "chelsea.png" if path is None else path
    return read_image(found, LONGEST_SIDE)


def network(session: Session, seed: int) -> Net:
    """Return the network with the weights from the file or the seed, prepared for the devices.

    If the file is for other classes, the last layer is drawn from the seed.
    """
    classes, stored, config = session.data.train.classes, session.weights, session.config
    weights = stored.weights if stored else initial_weights(len(classes), seed=seed)
    if stored and stored.differs(classes):
        weights = with_new_last_layer(weights, len(classes), seed)
    return make_network(
        session.backend,
        session.devices,
        weights,
        config.precision,
        config.compile,
        config.sync_batch_norm,
        config.freeze,
    )


def batches(
    session: Session,
    config: TrainConfig,
    dataset: Dataset,
    is_train: bool,
    first_epoch: int = 0,
) -> DataIter:
    """Return the batches of a split from ``first_epoch`` on; only training images are augmented.

    All images are normalized if those of the training of ``--weights`` were.
    """
    size = dataset.images.shape[1], dataset.images.shape[2]
    augs = parse_augmentations(config.augment, size) if is_train else ()
    augs, device = (*augs, *normalization(session)), session.devices[0]
    return load_batches(session.backend, config, dataset, augs, is_train, device, first_epoch)


def normalization(session: Session) -> tuple[Augmentation, ...]:
    """Return how all images are normalized: as in the training of ``--weights``, if there was one."""
    normalize = session.weights.normalize if session.weights else None
    return () if normalize is None else (normalize,)
