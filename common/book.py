"""The framework-free names that the cells of the two chapters take from ``d2l``.

Each backend exports them next to its own names. In a cell of the book, only the import line changes:
``from backends import pytorch as d2l``. `LAZY` names are imported on first use, because matplotlib and pandas are slow
to import.
"""

from importlib import import_module
from typing import Any

from common.datasets.download import DATA_HUB, DATA_URL, download, download_extract
from common.datasets.kaggle import (
    copyfile,
    read_csv_labels,
    reorg_cifar10_data,
    reorg_test,
    reorg_train_valid,
)
from common.drawing.plots import Animator, set_figsize, show_images, use_svg_display
from common.metrics import Accumulator, Timer

__all__ = [
    "DATA_HUB",
    "DATA_URL",
    "Accumulator",
    "Animator",
    "Timer",
    "copyfile",
    "download",
    "download_extract",
    "read_csv_labels",
    "reorg_cifar10_data",
    "reorg_test",
    "reorg_train_valid",
    "set_figsize",
    "show_images",
    "use_svg_display",
]

LAZY = {"plt": "matplotlib.pyplot", "Image": "PIL.Image", "pd": "pandas", "np": "numpy", "os": "os"}


def lazy(module: str, name: str) -> Any:
    """Import and return the module for a name in `LAZY`; called by a backend's ``__getattr__``."""
    if name in LAZY:
        return import_module(LAZY[name])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
