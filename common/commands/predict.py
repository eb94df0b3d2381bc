"""`run.py predict`: classify image files with the weights of any run, in any backend."""

import csv
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

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
    probabilities,
)
from common.config import PredictConfig
from common.datasets.decoding import image_chunks, whole_batches
from common.datasets.layouts import LeftOut, image_entries
from common.drawing import image_grid
from common.drawing.progress import progress_bar
from common.errors import UserError, UserNotice, counted, printable
from common.finite import check_logits
from common.interface import Backend, Device, Net, Registry
from common.system.console import PlainConsole
from common.system.environment import cores
from common.system.files import atomic_write, check_file, check_target
from common.system.terminal import print_error
from common.weights.files import Stored

IMAGE_SIZE = 32  # default: the size of the book's images
MAX_STORED_SIZE = 1024  # a file may ask for this size; one image of 4096 x 4096 takes 9.5 GB
MAX_NAME_WIDTH = 60  # columns for the file names; a longer name shifts only its own line
IMAGES_PER_CORE = 32  # that are decoded together
SHEET = 5, 8  # rows and columns of images of --sheet
MAX_COUNTED = 10  # classes whose images are counted in the summary
UNREADABLE = 2  # the exit code if some images could not be read or classified


class Prediction(NamedTuple):
    """The most probable classes of an image, and their probabilities: ``top_k`` of each."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def row(self) -> list[str]:
        """Return the row of the csv file."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return [self.name, *(cell for name, p in pairs for cell in (name, f"{p:.6f}"))]

    def words(self) -> str:
        """Return the classes and probabilities on one line."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return "  ".join(f"{printable(name)} {p:.3f}" for name, p in pairs)


class Classifier(NamedTuple):
    """A network with all that it needs to classify image files."""

    backend: Backend
    net: Net
    device: Device
    classes: Sequence[str]
    augs: Sequence[Augmentation]
    image_size: int
    batch_size: int
    top_k: int

    def predictions(
        self, names: Sequence[str], report: Callable[[str], None]
    ) -> Iterator[tuple[Prediction, NDArray[np.uint8]]]:
        """Yield the prediction of each file and the image that the network sees.

        Files are decoded while the network computes; a few chunks are in memory. ``report`` is called with a message
        about each image that cannot be read, or whose logits are not finite.
        """
        chunk_size = whole_batches(self.batch_size, self.image_size, IMAGES_PER_CORE * cores())
        chunks = image_chunks(
            "",
            names,
            self.image_size,
            chunk_size,
            report=lambda problem: report(
                f"cannot read the image {problem}: replace it by a complete copy"
            ),
        )
        for some, images in chunks:
            for start in range(0, len(some), self.batch_size):
                batch = slice(start, start + self.batch_size)
                y_hat = logits(self.backend, self.net, images[batch], self.augs, self.device)
                for name, image, row in zip(some[batch], images[batch], y_hat, strict=True):
                    try:
                        check_logits(row[None], os.fspath(name))
                    except UserError as error:
                        report(str(error))
                    else:
                        yield self._prediction(os.fspath(name), row), image

    def _prediction(self, name: str, y_hat: NDArray[np.float64]) -> Prediction:
        p = probabilities(y_hat)
        best = np.argsort(-p, kind="stable")[: self.top_k]
        return Prediction(name, tuple(self.classes[i] for i in best), tuple(p[best].tolist()))


def run(config: PredictConfig, registry: Registry) -> int:
    """Load the backend and the weights, classify the images, and return the exit code."""
    for path in filter(None, (config.output, config.sheet)):
        check_target(path, config.force)
    backend, stored = load_with_weights(config, registry)
    assert stored is not None  # --weights is required
    return classify(config, backend, stored)


def classify(config: PredictConfig, backend: Backend, stored: Stored) -> int:
    """Print the class and the probability of each image, or write them to a file; return the exit code.

    For an image that cannot be read, or whose logits are not finite, print an error and go on. Raises UserError for
    weights that do not take RGB images, and if there are fewer classes than ``--top-k``.
    """
    console = PlainConsole()
    device, *_ = backend.devices.get_devices(config.device)
    stored.check_rgb()
    classes = stored.classes or [f"class {i}" for i in range(stored.num_classes)]
    if config.top_k > len(classes):
        raise UserError(
            f"--top-k {config.top_k}: {stored.path} has {counted(len(classes), 'class', 'classes')}; "
            "use that many or fewer"
        )
    augs = _normalize(stored)
    size = config.image_size or _stored_size(stored)
    net = make_network(backend, [device], stored.weights)
    what = f"{describe_backend(backend)}, {stored.path}: {counted(len(classes), 'class', 'classes')}, {size} x {size}"
    console.print(what, soft_wrap=True)
    classifier = Classifier(
        backend, net, device, classes, augs, size, config.batch_size, config.top_k
    )
    names, problems = _list_images(config.images)
    for problem in problems:
        print_error(f"error: {problem}")
    numbers = _predict(config, console, classifier, names) if names else Counter[str]()
    return UNREADABLE if problems or numbers.total() < len(names) else 0


def _predict(
    config: PredictConfig, console: PlainConsole, classifier: Classifier, names: Sequence[str]
) -> Counter[str]:
    """Classify the images, print and write the results, and return the number of images of each class."""
    shown = [printable(name, max_length=None) for name in names]
    width = min(max(map(cell_len, shown)), MAX_NAME_WIDTH)
    numbers: Counter[str] = Counter()
    first: list[tuple[Prediction, NDArray[np.uint8]]] = []  # of the sheet
    began = time.perf_counter()
    # Between lines on standard output that is no terminal, there is no place for the bar's lines.
    own = console if console.is_terminal or config.output else None
    with (
        _rows(config.output, config.top_k) if config.output else nullcontext() as write,
        progress_bar("predicting", len(names), console=own) as advance,
    ):

        def report(problem: str) -> None:
            print_error(f"error: {problem}")
            advance(1)

        for prediction, image in classifier.predictions(names, report):
            numbers[prediction.classes[0]] += 1
            if write:
                write(prediction.row())
            else:
                name = padded(printable(prediction.name, max_length=None), width)
                console.print(f"{name}  {prediction.words()}", soft_wrap=True)
            if config.sheet and len(first) < SHEET[0] * SHEET[1]:
                first.append((prediction, image.copy()))
            advance(1)
    if config.output or len(names) > 1:
        _summarize(console, numbers, len(names), time.perf_counter() - began)
    if config.output:
        rows = counted(numbers.total(), "row")
        console.print(f"wrote {config.output}: {rows}", soft_wrap=True)
    if config.sheet and first:
        about = _draw(config.sheet, first, numbers.total())
        console.print(f"wrote {config.sheet}: {about}", soft_wrap=True)
    return numbers


def _list_images(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the files to classify, those of a folder in sorted order, and a message for each path without any.

    A notice names files in folders that are not images.
    """
    names: list[str] = []
    problems = []
    for path in paths:
        try:
            if not os.path.isdir(path):  # noqa: PTH112 - Path's raises for names that are too long
                check_file(path, "image")
                names.append(str(path))
                continue
            left_out = LeftOut()
            found = sorted(name for name, _ in image_entries(path, left_out))
            words = left_out.describe()
            if not found:
                others = f", only {words}" if words else ""
                raise UserError(f"{path} has no images{others}: check the path")
            names += [os.path.join(path, name) for name in found]  # noqa: PTH118 - faster
            if words:
                warnings.warn(UserNotice(f"left out of {path}: {words}"), stacklevel=3)
        except UserError as error:
            problems.append(str(error))
    return names, problems


@contextmanager
def _rows(path: Path, top_k: int) -> Iterator[Callable[[Sequence[str]], object]]:
    """Yield a function that writes a row of the csv file, which is there after the block."""
    # If the path is a link, replace the file that it points to, not the link.
    with (
        atomic_write(path.resolve()) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        more = [f"{column}_{k}" for k in range(2, top_k + 1) for column in ("class", "probability")]
        writer.writerow(["path", "class", "probability", *more])
        yield writer.writerow


def _summarize(console: PlainConsole, numbers: Counter[str], total: int, seconds: float) -> None:
    """Print how many images were classified, how fast, and the number of each class."""
    done, images = numbers.total(), counted(total, "image")
    if done < total:
        images = f"{done:,} of {images}"
    most = numbers.most_common(MAX_COUNTED)
    classes = [f"{printable(name)} {number:,}" for name, number in most]
    if rest := len(numbers) - len(most):
        number = done - sum(number for _, number in most)
        classes.append(f"{counted(rest, 'other class', 'other classes')} {number:,}")
    per_class = f": {', '.join(classes)}" if classes else ""
    rate = f"{done / max(seconds, 1e-9):,.1f} images/s"
    console.print(f"{images} in {seconds:.1f} s, {rate}{per_class}", soft_wrap=True)


def _draw(path: Path, first: Sequence[tuple[Prediction, NDArray[np.uint8]]], total: int) -> str:
    """Draw images with their names, classes and probabilities; return which ones."""
    columns = min(len(first), SHEET[1])
    about = counted(total, "image")
    if len(first) < total:
        about = f"the first {len(first)} of {about}"
    font, cell = image_grid.load_font(image_grid.TEXT_SIZE), image_grid.PIXELS_PER_INCH
    image_grid.save_sheet(
        path.resolve(),
        [image for _, image in first],
        -(-len(first) // columns),
        columns,
        f"{about}, as the network sees them, and their predicted classes",
        scale=1.0,
        names=[
            image_grid.shortened(Path(p.name).name, font, cell, keeps_end=True) for p, _ in first
        ],
        captions=[f"{printable(p.classes[0])}\n{p.probabilities[0]:.3f}" for p, _ in first],
    )
    return about


def _stored_size(stored: Stored) -> int:
    """Return the size of the training images. Raises UserError if one could take gigabytes of memory."""
    size = stored.image_size or IMAGE_SIZE
    if size > MAX_STORED_SIZE:
        raise UserError(
            f"the metadata of {stored.path} ask for images of {size} x {size}, and one may take gigabytes of memory: "
            f"pass --image-size {size} if you want that, or a smaller number"
        )
    return size


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
