"""`run.py augment`: draw the results of each augmentation on one image as sheets of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.augmentation.decisions import decide, epoch_order, merged
from common.augmentation.operations import Augmentation, gallery, parse_augmentations
from common.commands.session import Session, example_image, session_of
from common.config import RunConfig, TrainConfig
from common.datasets import Dataset
from common.drawing import image_grid
from common.drawing.captions import captions, described
from common.errors import counted, printable
from common.interface import Backend, Device, Registry

Images = NDArray[np.uint8]
SHEET = (4, 8)  # rows and columns of a sheet of training images
TRAINING_IMAGES, AUGMENTED = "training-images.png", "augmented-images.png"


def run(config: TrainConfig, registry: Registry) -> int:
    """Draw the augmentations and the first training images, and return the exit code."""
    with session_of("augment", config, registry) as session:
        show(session)
    return 0


def show(session: Session) -> None:
    """Draw seven results of each of the chapter's augmentations, 32 training images, and some as augmented."""
    backend, config = session.backend, session.config
    original = example_image(config.image)
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
    # In the order of the first epoch, because a folder is sorted by class.
    first = epoch_order(len(train), session.config.seed, 0)[: SHEET[0] * SHEET[1]]
    image_grid.save_sheet(
        session.folder.path / TRAINING_IMAGES,
        [train.images[i] for i in first],
        *SHEET,
        f"the first {counted(len(first), 'training image')} of {session.data.name}",
        scale=0.8,
        names=[train.classes[train.labels[i]] for i in first],
    )
    number += 1
    if augs := parse_augmentations(config.augment, (train.images.shape[1], train.images.shape[2])):
        path, device = session.folder.path / AUGMENTED, session.devices[0]
        save_augmented(path, backend, config, device, train, augs, session.data.name)
        number += 1
    session.console.print(f"drew {number} sheets into {session.folder.path}", soft_wrap=True)


def save_augmented(
    path: Path,
    backend: Backend,
    config: RunConfig,
    device: Device,
    dataset: Dataset,
    augmentations: Sequence[Augmentation],
    data: str,
) -> None:
    """Draw some training images, each unchanged and then augmented seven times.

    In the batched pipeline these are the images of the first seven epochs: the same decisions and pixels as in
    training, rounded to uint8. In the native pipeline the framework draws others in training.
    """
    rows, columns = SHEET
    every = max(len(dataset) // rows, 1)
    indices = np.arange(len(dataset))[::every][:rows]
    if config.pipeline == "native":
        drawn = [
            draw(backend, dataset.images[i], augmentations, columns - 1, config, device, k)
            for k, i in enumerate(indices)
        ]
    else:
        drawn = _as_in_training(backend, config, device, dataset, augmentations, indices)
    pictures: list[Images] = []
    texts: list[str] = []
    for i, (images, said) in zip(indices, drawn, strict=True):
        pictures += [dataset.images[i], *images]
        texts += [f"original\n{printable(dataset.classes[dataset.labels[i]])}", *said]
    when = "" if config.pipeline == "native" else f" as in epochs 1 to {columns - 1}"
    image_grid.save_sheet(
        path,
        pictures,
        len(indices),
        columns,
        f"training images of {data}: originals (left) and augmented{when}\n"
        f"{described(augmentations, drawn_by(backend, config))}",
        scale=1.1,  # so that a caption such as "saturation × 1.20" fits
        captions=texts,
    )


def _as_in_training(
    backend: Backend,
    config: RunConfig,
    device: Device,
    dataset: Dataset,
    augmentations: Sequence[Augmentation],
    indices: NDArray[np.int64],
) -> list[tuple[list[Images], list[str]]]:
    """Return what the batched pipeline makes of images in the first seven epochs, and captions, for each image."""
    size = dataset.images.shape[1], dataset.images.shape[2]
    X = backend.transforms.from_images(np.stack([dataset.images[i] for i in indices]), device)
    found: list[tuple[list[Images], list[str]]] = [([], []) for _ in indices]
    for epoch in range(SHEET[1] - 1):
        decisions = decide(augmentations, indices, config.seed, epoch, size)
        augmented = backend.transforms.augment_to_float(X, merged(decisions))
        for i, image in enumerate(backend.transforms.to_images(augmented)):
            images, said = found[i]
            images.append(image)
            said.append(captions(decisions, i, short=True))
    return found


def draw(
    backend: Backend,
    image: Images,
    augmentations: Sequence[Augmentation],
    times: int,
    config: RunConfig,
    device: Device,
    first: int = 0,
) -> tuple[list[Images], list[str]]:
    """Augment one image, uint8 (height, width, 3), several times, as the chapter's `apply` does.

    Return the images and a caption for each with its random parameters. Captions are empty in the native pipeline,
    where the framework draws them. ``first`` is the index of the first draw; another value gives other draws.
    """
    if config.pipeline == "native":
        backend.devices.set_seed(config.seed + first)
        transform = backend.transforms.native(augmentations)
        return [_to_image(backend, transform(image)) for _ in range(times)], [""] * times
    indices = np.arange(first, first + times)
    decisions = decide(augmentations, indices, config.seed, 0, (image.shape[0], image.shape[1]))
    X = backend.transforms.from_images(np.repeat(image[None], times, axis=0), device)
    images = backend.transforms.to_images(backend.transforms.augment(X, decisions))
    return list(images), [captions(decisions, i) for i in range(times)]


def drawn_by(backend: Backend, config: RunConfig) -> str:
    """Return the title of the framework in the native pipeline, where it draws the random parameters, else ''."""
    return backend.title if config.pipeline == "native" else ""


def _to_image(backend: Backend, X: Any) -> Images:
    """Convert one image of the native pipeline, float in 0..1, to uint8 (height, width, 3)."""
    values = backend.devices.to_numpy(X)
    if backend.devices.image_layout == "NCHW":
        values = np.moveaxis(values, 0, -1)
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)
