"""The names that the two chapters' cells take from ``d2l`` and that no framework touches.

Each backend offers them beside its own, so that ``from backends import pytorch as d2l`` is the one line to change in a
cell. `LAZY` names are imported when they are first used, since matplotlib and pandas take a while.
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
    """Return the module behind a name of `LAZY`, for a backend's ``__getattr__``."""
    if name in LAZY:
        return import_module(LAZY[name])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
