"""The MXNet/Gluon tab: `from backends import mxnet as d2l` runs its cells."""

# ruff: noqa: E402
from backends import FRAMEWORKS, require
from common import book
from common.system import environment

from ._compat import import_mxnet

require(["mxnet"])
environment.prepare(FRAMEWORKS["mxnet"])
import_mxnet()

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
from ._replicas import evaluate_accuracy_gpus, split_batch
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
    "evaluate_accuracy_gpus",
    "get_dataloader_workers",
    "gpu",
    "init_cnn",
    "num_gpus",
    "resnet18",
    "split_batch",
    "train_batch_ch13",
    "train_ch13",
    "try_all_gpus",
    "try_gpu",
]

BACKEND = Backend(
    FRAMEWORKS["mxnet"],
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
