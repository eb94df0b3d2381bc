"""What a run is made of: frozen records, where each number comes from, and the presets."""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.errors import UserError

PRECISIONS = ("fp32", "bf16")
PIPELINES = ("batched", "native")
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
        _require(self.image_size >= 8, "--image-size", self.image_size, "8 pixels or more")
        for limit in self.limit:
            _require(limit is None or limit >= 1, "--limit", limit, "1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """One training: the options of ``python run.py``, one field each."""

    backend: str
    preset: str = "quick"
    data: DataConfig = field(default_factory=DataConfig)
    augment: str = "flip"  # the chapter's train_augs
    pipeline: str = "batched"
    batch_size: int = 256  # the chapter's
    num_epochs: int = 10  # the chapter's
    adam: AdamConfig = field(default_factory=AdamConfig)
    precision: str = "fp32"
    compile: bool = False
    device: str = "auto"
    workers: int | None = None  # None: the backend's get_dataloader_workers
    seed: int = 0
    output: Path | None = None
    image: Path | None = None
    weights: Path | None = None  # to start from, or to evaluate; None: drawn from the seed

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
        _require(self.num_epochs >= 1, "--epochs", self.num_epochs, "1 or more")
        _require(self.workers is None or self.workers >= 0, "--workers", self.workers, "0 or more")
        _require(0 <= self.seed <= MOST_SEED, "--seed", self.seed, f"from 0 to {MOST_SEED}")


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
