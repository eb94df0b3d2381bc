"""Report on the held-out images: the accuracy of each class, a confusion picture, the most confident mistakes.

Shared by `train`, `evaluate` and `kaggle`.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console

from common.commands.training import Predictions, padded
from common.datasets import Dataset
from common.drawing import image_grid, plots
from common.errors import counted, printable
from common.metrics import Confusion

MAX_CLASSES_LISTED = 20  # up to 20 classes are all printed; of more, only the ten hardest
MISTAKES = "mistakes.png"
SHEET = (4, 5)  # rows and columns of the sheet of mistakes
SCALE = 1.4  # width of its cells in inches, so that file names fit
IN_WORDS = {"test": "test", "valid": "validation"}  # the images that are held out


def report(
    console: Console,
    folder: Path,
    dataset: Dataset,
    predictions: Predictions,
    held_out: str,
    data: str,
    backend: str,
    picture: str = "confusion.png",
) -> Confusion:
    """Print the accuracy of each class, and draw the confusion matrix and the most confident mistakes.

    ``held_out`` is "test" or "valid"; ``data`` and ``backend`` are names for the titles. Returns the confusion matrix.
    If there is no mistake, there is no sheet of mistakes.
    """
    confusion = Confusion.of(dataset.labels, predictions.labels, dataset.classes)
    print_classes(console, confusion, held_out)
    plots.save_confusion(folder / picture, confusion, f"{data}, {backend}")
    wrong = most_confident_mistakes(dataset.labels, predictions)
    images = counted(len(dataset), f"{IN_WORDS[held_out]} image")
    if not len(wrong):
        (folder / MISTAKES).unlink(missing_ok=True)  # of a shorter training, which was resumed
        console.print(f"no mistake on {images}, so there is no {MISTAKES}", soft_wrap=True)
        return confusion
    drawn = wrong[: SHEET[0] * SHEET[1]]
    mistakes = f"{counted(len(wrong), 'mistake')} on {images}"
    which = f"; the {len(drawn)} most confident are" if len(drawn) < len(wrong) else ","
    console.print(f"{mistakes}{which} in {MISTAKES}", soft_wrap=True)
    where = f"the {IN_WORDS[held_out]} images of {data}, {backend}"
    _draw_mistakes(folder / MISTAKES, dataset, predictions, drawn, len(wrong), where)
    return confusion


def print_classes(console: Console, confusion: Confusion, held_out: str) -> None:
    """Print the accuracy of each class that has images, or of the hardest ones if there are many."""
    known = np.flatnonzero(confusion.counts.sum(axis=1))
    order = known
    if len(known) > MAX_CLASSES_LISTED:
        hardest = np.argsort(confusion.accuracies[known], kind="stable")
        order = known[hardest[: MAX_CLASSES_LISTED // 2]]
        console.print(f"the {len(order)} hardest of {len(known)} classes:")
    names = [printable(confusion.classes[i]) for i in order]
    width = max(map(cell_len, names))
    for i, name in zip(order, names, strict=True):
        right, total = confusion.counts[i, i], confusion.counts[i].sum()
        accuracy = confusion.accuracies[i]
        console.print(
            f"  {padded(name, width)}  {held_out} acc {accuracy:.3f}  {right} of {total}",
            soft_wrap=True,
        )
    if missing := len(confusion.classes) - len(known):
        images = f"{IN_WORDS[held_out]} images"
        console.print(f"  {counted(missing, 'class has', 'classes have')} no {images}")


def most_confident_mistakes(
    labels: NDArray[np.int64], predictions: Predictions
) -> NDArray[np.int64]:
    """Return the indices of the wrong predictions, the most probable first; equal ones in the order of the images."""
    wrong = np.flatnonzero(predictions.labels != labels)
    return wrong[np.argsort(-predictions.probabilities[wrong], kind="stable")]


def _draw_mistakes(
    path: Path,
    dataset: Dataset,
    predictions: Predictions,
    drawn: NDArray[np.int64],
    num_mistakes: int,
    where: str,
) -> None:
    columns = SHEET[1]  # also for one image, because the title needs the width
    classes = [printable(name, max_length=None) for name in dataset.classes]
    pairs = zip(dataset.labels[drawn], predictions.labels[drawn], strict=True)
    probabilities = predictions.probabilities[drawn]
    which = f"{len(drawn)} most confident of {num_mistakes:,} mistakes"
    if len(drawn) == num_mistakes:
        which = counted(num_mistakes, "mistake")
    image_grid.save_sheet(
        path,
        [dataset.images[i] for i in drawn],
        -(-len(drawn) // columns),
        columns,
        f"{which} on {where}\n"
        "above an image its file, below its class, and the predicted class with its probability",
        scale=SCALE,
        names=[_end_of(_name(dataset, i)) for i in drawn],
        captions=[
            f"is {classes[true]}\n{p:.3f} {classes[predicted]}"
            for (true, predicted), p in zip(pairs, probabilities, strict=True)
        ],
    )


def _name(dataset: Dataset, i: int) -> str:
    """Return the file of an image, or its index if it has none."""
    return dataset.names[i] if len(dataset.names) else f"image {i}"


def _end_of(name: str) -> str:
    """Return the end of a path that fits above an image: files of a folder differ at the end."""
    width = round(SCALE * image_grid.PIXELS_PER_INCH)
    return image_grid.shortened(name, image_grid.load_font(image_grid.TEXT_SIZE), width, True)
