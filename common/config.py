"""What a run is made of: frozen records, where each number comes from, and the presets."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.errors import UserError

PRECISIONS = ("fp32", "bf16")
PIPELINES = ("batched", "native")
MOST_IMAGE_SIZE = 4096  # pixels; what is more fits no memory
MOST_SEED = 2**32 - 1  # what every framework takes


@dataclass(frozen=True)
class AdamConfig:
    """Adam (Kingma and Ba 2015): their values, and the learning rate of the chapter's `train_with_data_aug`."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _require(self.lr > 0 and math.isfinite(self.lr), "--lr", self.lr, "a number above 0")
        for beta in self.betas:
            _require(0 <= beta < 1, "--betas", beta, "two numbers from 0 to below 1")
        _require(self.eps > 0 and math.isfinite(self.eps), "--eps", self.eps, "a number above 0")


@dataclass(frozen=True)
class DataConfig:
    """Which data, and how much of it. ``limit`` keeps that many training and test images; None keeps all."""

    name: str = "shapes"
    data_dir: Path = Path("data")
    image_size: int = 32  # the chapter's CIFAR-10 images
    limit: tuple[int | None, int | None] = (None, None)

    def __post_init__(self) -> None:
        check_image_size(self.image_size)
        for limit in self.limit:
            _require(limit is None or limit >= 1, "--limit", limit, "1 or more")


@dataclass(frozen=True)
class RunConfig:
    """What both chapters' runs share: the options of the command line, one field each."""

    backend: str
    preset: str = "quick"
    pipeline: str = "batched"
    batch_size: int = 256
    num_epochs: int = 10
    precision: str = "fp32"
    compile: bool = False
    device: str = "auto"
    workers: int | None = None  # None: the backend's get_dataloader_workers
    seed: int = 0
    output: Path | None = None

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
        _require(self.num_epochs >= 1, "--epochs", self.num_epochs, "1 or more")
        _require(self.workers is None or self.workers >= 0, "--workers", self.workers, "0 or more")
        _require(0 <= self.seed <= MOST_SEED, "--seed", self.seed, f"from 0 to {MOST_SEED}")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A run of the image-augmentation chapter; its batches of 256 and its 10 epochs are the defaults."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: str = "flip"  # the chapter's train_augs
    adam: AdamConfig = field(default_factory=AdamConfig)
    image: Path | None = None
    weights: Path | None = None  # to start from, or to evaluate; None: drawn from the seed


@dataclass(frozen=True)
class KaggleConfig(RunConfig):
    """A run of the Kaggle chapter, by the names of its `train`; the defaults are those of its demo (14.13).

    ``lr`` is for the mean of the losses, in every backend, as in the book's MXNet tab. The PyTorch tab's 2e-4 is for
    their sum: at its batch size of 32, 6.4e-3 for the mean.
    """

    preset: str = "demo"
    data_dir: Path | None = None  # the competition's folder; None: the embedded shapes
    valid_ratio: float = 0.1
    image_size: int = 32
    batch_size: int = 32
    num_epochs: int = 20
    lr: float = 0.02
    wd: float = 5e-4
    lr_period: int = 4
    lr_decay: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.valid_ratio < 1, "--valid-ratio", self.valid_ratio, "from 0 to below 1")
        check_image_size(self.image_size)
        _require(self.lr > 0 and math.isfinite(self.lr), "--lr", self.lr, "a number above 0")
        _require(0 <= self.wd < 1, "--wd", self.wd, "from 0 to below 1")
        _require(self.lr_period >= 1, "--lr-period", self.lr_period, "1 or more")
        _require(0 < self.lr_decay <= 1, "--lr-decay", self.lr_decay, "above 0, at most 1")


def check_image_size(pixels: int) -> None:
    """Raise UserError for a side in pixels that ResNet-18 cannot take, or no memory can."""
    wanted = f"from 8 to {MOST_IMAGE_SIZE} pixels"
    _require(8 <= pixels <= MOST_IMAGE_SIZE, "--image-size", pixels, wanted)


def _require(holds: bool, option: str, value: object, wanted: str) -> None:
    if not holds:
        raise UserError(f"{option} {value}: must be {wanted}")


def plain(config: Any) -> Any:
    """Return a configuration as JSON can hold it."""
    if hasattr(config, "__dataclass_fields__"):
        return {f.name: plain(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, tuple):
        return [plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


PRESETS = {
    # The book's 1e-3 is for batches of 256 and 2,000 steps. The quick run has 220, and BatchNorm's running statistics
    # must keep up with the weights: where the steps are larger, single epochs score far lower in evaluation mode than
    # the same weights do with the statistics of the test batches (.765 and .988 in one run).
    "quick": TrainConfig("", "quick", batch_size=16, num_epochs=5, adam=AdamConfig(lr=3e-4)),
    # The chapter: CIFAR-10, batch_size 256, lr 0.001, 10 epochs.
    "book": TrainConfig(
        "", "book", data=DataConfig("cifar10"), batch_size=256, num_epochs=10, adam=AdamConfig()
    ),
}

KAGGLE_PRESETS = {
    # Both trainings, with the start, must be done within three minutes on two CPU cores.
    "quick": KaggleConfig("", "quick", batch_size=16, num_epochs=5, lr_period=2, lr_decay=0.3),
    # The chapter's demo, on 1,000 labelled images.
    "demo": KaggleConfig("", "demo"),
    # The chapter's first exercise, on all of the competition's images.
    "book": KaggleConfig(
        "", "book", batch_size=128, num_epochs=100, lr=0.1, lr_period=50, lr_decay=0.1
    ),
}
# The embedded competition that runs without --data-dir: shapes written as PNG files.
SHAPES_LABELLED, SHAPES_TEST = 600, 300
