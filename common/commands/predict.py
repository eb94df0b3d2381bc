"""`run.py predict`: classify image files with the weights of any run, in any backend."""

import time
import warnings

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len

from common.augmentation.operations import Augmentation
from common.commands.training import (
    describe_backend,
    load_with_weights,
    logits,
    make_network,
    padded,
)
from common.config import PredictConfig
from common.datasets.decoding import read_images
from common.errors import UserError, UserNotice, counted, printable
from common.finite import check_logits
from common.interface import Backend, Registry
from common.system.console import PlainConsole
from common.system.files import check_file
from common.system.terminal import print_error
from common.weights.files import Stored

IMAGE_SIZE = 32  # default: the size of the book's images
MAX_STORED_SIZE = 1024  # a file may ask for this size; one image of 4096 x 4096 takes 9.5 GB
MAX_NAME_WIDTH = 60  # columns for the file names; a longer name shifts only its own line
UNREADABLE = 2  # the exit code if some images could not be read or classified


def run(config: PredictConfig, registry: Registry) -> int:
    """Load the backend and the weights, classify the images, and return the exit code."""
    backend, stored = load_with_weights(config, registry)
    assert stored is not None  # --weights is required
    return classify(config, backend, stored)


def classify(config: PredictConfig, backend: Backend, stored: Stored) -> int:
    """Print the class of each image, its probability and the network's time in ms; return the exit code.

    For an image that cannot be read, or whose logits are not finite, print an error and go on. Raises UserError for
    weights that do not take RGB images.
    """
    console = PlainConsole()
    device, *_ = backend.devices.get_devices(config.device)
    stored.check_rgb()
    classes = stored.classes or [f"class {i}" for i in range(stored.num_classes)]
    augs = _normalize(stored)
    size = config.image_size or _stored_size(stored)
    net = make_network(backend, [device], stored.weights)
    what = f"{describe_backend(backend)}, {stored.path}: {counted(len(classes), 'class', 'classes')}, {size} x {size}"
    console.print(what, soft_wrap=True)
    # Some frameworks build a graph for the first image; do not time that.
    logits(backend, net, np.zeros((1, size, size, 3), np.uint8), augs, device)
    names = [printable(str(path), max_length=None) for path in config.images]
    width, failed = min(max(map(cell_len, names)), MAX_NAME_WIDTH), 0
    for path, name in zip(config.images, names, strict=True):
        try:
            check_file(path, "image")
            image = read_images([path], size, progress=False)
            began = time.perf_counter()
            y_hat = logits(backend, net, image, augs, device)
            milliseconds = 1000 * (time.perf_counter() - began)
            p = probabilities(check_logits(y_hat, name)[0])
        except UserError as error:
            print_error(f"error: {error}")
            failed += 1
            continue
        best = int(p.argmax())
        console.print(
            f"{padded(name, width)}  {printable(classes[best])} {p[best]:.3f}  {milliseconds:.1f} ms",
            soft_wrap=True,
        )
    return UNREADABLE if failed else 0


def _stored_size(stored: Stored) -> int:
    """Return the size of the training images. Raises UserError if one could take gigabytes of memory."""
    size = stored.image_size or IMAGE_SIZE
    if size > MAX_STORED_SIZE:
        raise UserError(
            f"the metadata of {stored.path} ask for images of {size} x {size}, and one may take gigabytes of memory: "
            f"pass --image-size {size} if you want that, or a smaller number"
        )
    return size


def probabilities(y_hat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the class probabilities of one image for its logits, both (classes,)."""
    exps = np.exp(y_hat - y_hat.max())
    return np.asarray(exps / exps.sum())


def _normalize(stored: Stored) -> tuple[Augmentation, ...]:
    """Return the normalization of the training, if any. Warn if the file has no metadata about it."""
    if "classes" not in stored.metadata:  # files of other programs may have other metadata
        warnings.warn(
            UserNotice(
                f"{stored.path} has no class names, normalization or image size: classes are shown as numbers, and "
                f"images are {IMAGE_SIZE} x {IMAGE_SIZE} and not normalized; pass --image-size, or the run's "
                "weights.safetensors"
            ),
            stacklevel=2,
        )
    normalize = stored.normalize
    return () if normalize is None else (normalize,)
