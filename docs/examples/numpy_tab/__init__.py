"""A fourth tab, in NumPy: the example of docs/add-a-backend.md.

It computes what the others do, slowly and only in float32, with the layers,
optimizers and colours of common.reference.
"""

# ruff: noqa: E402
from backends import FRAMEWORKS
from common import book
from common.system import environment

environment.prepare(FRAMEWORKS["numpy"])

from common.book import *  # noqa: F403
from common.interface import Backend

from . import (
    devices,
    kaggle,
    loaders,
    probes,
    processes,
    resnet,
    trainer,
    transforms,
    weights,
)
from .devices import cpu, gpu, num_gpus, try_all_gpus, try_gpu
from .loaders import get_dataloader_workers
from .resnet import Residual, init_cnn, resnet18
from .trainer import (
    accuracy,
    evaluate_accuracy_gpu,
    train_batch_ch13,
    train_ch13,
)

__all__ = [
    *book.__all__,
    "BACKEND",
    "Residual",
    "accuracy",
    "cpu",
    "evaluate_accuracy_gpu",
    "get_dataloader_workers",
    "gpu",
    "init_cnn",
    "num_gpus",
    "resnet18",
    "train_batch_ch13",
    "train_ch13",
    "try_all_gpus",
    "try_gpu",
]

BACKEND = Backend(
    FRAMEWORKS["numpy"],
    devices,
    transforms,
    loaders,
    processes,
    resnet,
    weights,
    trainer,
    kaggle,
    probes,
)


def __getattr__(name):
    return book.lazy(__name__, name)
