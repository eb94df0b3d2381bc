"""`run.py augment`: draw the results of each augmentation on one image as sheets of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.augmentation.decisions import decide, epoch_order
from common.augmentation.operations import Augmentation, gallery
from common.commands.session import Session, example_image, session_of
from common.config import RunConfig, TrainConfig
from common.drawing import image_grid
from common.drawing.captions import captions, described
from common.errors import counted
from common.interface import Backend, Device, Registry

Images = NDArray[np.uint8]


def run(config: TrainConfig, registry: Registry) -> int:
    """Draw the augmentations and the first training images, and return the exit code."""
    with session_of("augment", config, registry) as session:
        show(session)
    return 0


def show(session: Session) -> None:
    """Draw the example image with seven results of each augmentation of the chapter, and 32 training images."""
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

    Return the images and a caption for each with its random parameters (``short``: see `captions`). Captions are empty
    in the native pipeline, where the framework draws them. ``first`` is the index of the first draw; another value
    gives other draws.
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
    """Return the title of the framework in the native pipeline, where it draws the random parameters, else ''."""
    return backend.title if config.pipeline == "native" else ""


def _to_image(backend: Backend, X: Any) -> Images:
    """Convert one image of the native pipeline, float in 0..1, to uint8 (height, width, 3)."""
    values = backend.devices.to_numpy(X)
    if backend.devices.image_layout == "NCHW":
        values = np.moveaxis(values, 0, -1)
    return np.rint(values * 255).clip(0, 255).astype(np.uint8)
