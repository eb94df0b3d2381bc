"""Every option of every command, once: name, default, range and help in a dataclass field. And the presets.

`common.cli` builds the parsers from these classes. A field made by `option` is an option of the command line; any other
field is a number that the chapter fixes. Imports no framework.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError

PRECISIONS = ("fp32", "bf16")
PIPELINES = ("batched", "native")
MAX_IMAGE_SIZE = 4096  # pixels; a batch of larger images fits no memory
MAX_SEED = 2**32 - 1  # the largest seed that every framework takes
NUM_COMPARED_SEEDS = 3  # of --compare-augmentation without --seeds

# The groups of the help, in its order; options without a group come first.
GROUPS = DATA, TRAINING, AUGMENTATION, SPEED, OUTPUT = (
    "data",
    "training",
    "augmentation",
    "speed",
    "output",
)


class Range(NamedTuple):
    """The values that an option takes: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


AT_LEAST_0 = Range("0 or more", lambda n: n >= 0)
AT_LEAST_1 = Range("1 or more", lambda n: n >= 1)
POSITIVE = Range("a number above 0", lambda x: x > 0 and math.isfinite(x))
SHARE = Range("from 0 to below 1", lambda x: 0 <= x < 1)
FACTOR = Range("above 0, at most 1", lambda x: 0 < x <= 1)
SEEDS = Range(f"from 0 to {MAX_SEED}", lambda n: 0 <= n <= MAX_SEED)
# ResNet-18 downsamples three times: of 8 pixels, one is left.
SIDES = Range(f"from 8 to {MAX_IMAGE_SIZE} pixels", lambda n: 8 <= n <= MAX_IMAGE_SIZE)


class Option(NamedTuple):
    """What the command line must know of a field. Arguments without a flag are positional."""

    help: str
    group: str
    range: Range | None = None
    flag: str = ""  # if it is not the field's name
    metavar: str = ""  # if it does not follow from the type
    choices: tuple[str, ...] = ()
    default_words: str = ""  # if the value does not say it
    nargs: str | None = None
    positional: bool = False


def option(default: Any, help: str, group: str, range: Range | None = None, **known: Any) -> Any:
    """Return a dataclass field that is an option; see `Option` for the arguments."""
    return field(default=default, metadata={"option": Option(help, group, range, **known)})


def flag_of(name: str, known: Option) -> str:
    """Return how a field's option is written."""
    return known.flag or f"--{name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a command. Making one raises UserError for a value outside of its range."""

    def __post_init__(self) -> None:
        for f in fields(self):
            known: Option | None = f.metadata.get("option")
            if known is None or known.range is None:
                continue
            value = getattr(self, f.name)
            for one in value if isinstance(value, tuple) else (value,):
                if one is not None and not known.range.holds(one):
                    flag = flag_of(f.name, known)
                    raise UserError(f"{flag} {one}: must be {known.range.words}")


# --- What several commands share -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OnBackends(Options):
    """Which frameworks run the command."""

    backend: str = option(
        "",
        "the framework: {backends}; several joined by commas, or all, run one after another",
        "",
        metavar="NAME",
        default_words="all that are installed",
    )


@dataclass(frozen=True, kw_only=True)
class OnDevice(Options):
    """Which processor computes."""

    device: str = option("auto", "auto, cpu, gpu, or numbers as gpu:0,1", SPEED, metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class Computing(Options):
    """How the network computes."""

    precision: str = option(
        "fp32", "bf16 is for convolutions and matrix products", SPEED, choices=PRECISIONS
    )
    compile: bool = option(False, "compile the network", SPEED)


@dataclass(frozen=True, kw_only=True)
class Seeded(Options):
    """Where the random decisions come from."""

    seed: int = option(0, "where all random numbers start", TRAINING, SEEDS)


@dataclass(frozen=True, kw_only=True)
class WithWeights(Options):
    """Where the weights come from."""

    weights: Path | None = option(
        None,
        "a file of weights: .safetensors, or of any framework's own kind ({suffixes})",
        DATA,
        metavar="FILE",
        default_words="drawn from the seed",
    )


@dataclass(frozen=True, kw_only=True)
class WithOutput(Options):
    """Where the results go."""

    output: Path | None = option(
        None,
        "the folder for the results",
        OUTPUT,
        metavar="DIR",
        default_words="a new one under runs/",
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig(WithOutput, Seeded, Computing, OnDevice, OnBackends):
    """What the runs of both chapters share."""

    pipeline: str = option(
        "batched",
        "batched: the same pixels in every backend; native: the framework's own transforms and loader",
        SPEED,
        choices=PIPELINES,
    )
    batch_size: int = option(256, "images in a step", TRAINING, AT_LEAST_1)
    num_epochs: int = option(
        10, "passes over the images, in each training", TRAINING, AT_LEAST_1, flag="--epochs"
    )
    workers: int | None = option(
        None,
        "worker processes of the native loader",
        SPEED,
        AT_LEAST_0,
        default_words="4, at most one for each core",
    )


# --- Image augmentation: train, augment, evaluate --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AdamConfig(Options):
    """Adam with the values of its paper (Kingma and Ba 2015); the chapter's `train_with_data_aug` sets the rate."""

    lr: float = option(1e-3, "Adam's learning rate", TRAINING, POSITIVE)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options):
    """Which images, and how many of them."""

    name: str = option(
        "shapes",
        "shapes (drawn by the program), cifar10, or a folder with train/ and test/",
        DATA,
        flag="--data",
        metavar="WHAT",
    )
    cache_dir: Path = option(
        Path("data"), "where downloads and decoded images are kept", DATA, metavar="DIR"
    )
    image_size: int = option(32, "side in pixels of the images of a folder", DATA, SIDES)
    # As many training and test images; None is all.
    limit: tuple[int | None, int | None] = option(
        (None, None),
        "use so many training and so many test images (one number: of each)",
        DATA,
        AT_LEAST_1,
        nargs="+",
        default_words="all",
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(WithWeights, RunConfig):
    """A run of the image-augmentation chapter; its batches of 256 and its 10 epochs are the defaults."""

    preset: str = option(
        "quick",
        "quick: drawn images, minutes on a CPU; book: CIFAR-10 with the chapter's numbers",
        "",
        choices=("quick", "book"),
    )
    data: DataConfig = field(default_factory=DataConfig)
    adam: AdamConfig = field(default_factory=AdamConfig)
    # flip is the chapter's train_augs.
    augment: str = option(
        "flip", "none, or a list from {augmentations}", AUGMENTATION, metavar="LIST"
    )
    image: Path | None = option(
        None, "the example image to augment", AUGMENTATION, metavar="FILE", default_words="a cat"
    )
    compare_augmentation: bool = option(
        False,
        "train with and without augmentation, from the same weights and batches",
        AUGMENTATION,
    )
    seeds: int | None = option(
        None,
        "how many seeds --compare-augmentation takes",
        AUGMENTATION,
        AT_LEAST_1,
        default_words=str(NUM_COMPARED_SEEDS),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.compare_augmentation:
            if self.seeds is not None:
                raise UserError("--seeds is for --compare-augmentation: add it, or use --seed")
            return
        if self.augment == "none":
            raise UserError("--compare-augmentation compares none with --augment: give it a list")
        _require_room(self.seed, self.seeds or NUM_COMPARED_SEEDS)

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that are trained with, one after another."""
        count = (self.seeds or NUM_COMPARED_SEEDS) if self.compare_augmentation else 1
        return [self.seed + i for i in range(count)]


PRESETS = {
    # The book's 1e-3 is for batches of 256 and 2,000 steps. The quick run has 220, and BatchNorm's running statistics
    # must keep up with the weights: where the steps are larger, single epochs score far lower in evaluation mode than
    # the same weights do with the statistics of the test batches (.765 and .988 in one run).
    "quick": TrainConfig(preset="quick", batch_size=16, num_epochs=5, adam=AdamConfig(lr=3e-4)),
    # The chapter: CIFAR-10, batch_size 256, lr 0.001, 10 epochs.
    "book": TrainConfig(preset="book", data=DataConfig(name="cifar10")),
}


# --- Kaggle ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Competition(Options):
    """The files of a Kaggle competition."""

    data_dir: Path | None = option(
        None,
        "the competition's folder: trainLabels.csv, train/ and test/",
        DATA,
        metavar="DIR",
        default_words="embedded images",
    )


@dataclass(frozen=True, kw_only=True)
class KaggleConfig(Competition, RunConfig):
    """A run of the Kaggle chapter (14.13), by the names of its `train`.

    ``lr`` is for the mean of the losses, in every backend, as in the book's MXNet tab. The PyTorch tab's 2e-4 is for
    their sum: at its batch size of 32, 6.4e-3 for the mean.
    """

    preset: str = option(
        "demo",
        "quick: minutes on a CPU; demo: the book's, for 1,000 images; book: all 50,000 and 100 epochs",
        "",
        choices=("quick", "demo", "book"),
        default_words="demo with --data-dir, quick without",
    )
    valid_ratio: float = option(
        0.1, "share of the rarest class's images to validate on", DATA, SHARE
    )
    image_size: int = option(32, "side in pixels that images are resized to", DATA, SIDES)
    lr: float = option(0.02, "SGD's learning rate, for the mean of the losses", TRAINING, POSITIVE)
    wd: float = option(5e-4, "weight decay", TRAINING, SHARE)
    lr_period: int = option(
        4, "epochs after which the learning rate falls, each time", TRAINING, AT_LEAST_1
    )
    lr_decay: float = option(0.9, "the factor that it falls by", TRAINING, FACTOR)


KAGGLE_PRESETS = {
    # Both trainings, with the start, must be done within three minutes on two CPU cores.
    "quick": KaggleConfig(preset="quick", batch_size=16, num_epochs=5, lr_period=2, lr_decay=0.3),
    # The chapter's demo, on 1,000 labelled images.
    "demo": KaggleConfig(preset="demo", batch_size=32, num_epochs=20),
    # The chapter's first exercise, on all of the competition's images.
    "book": KaggleConfig(
        preset="book", batch_size=128, num_epochs=100, lr=0.1, lr_period=50, lr_decay=0.1
    ),
}
# The embedded competition that runs without --data-dir: shapes written as PNG files.
SHAPES_LABELLED, SHAPES_TEST = 600, 300


# --- The other commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CheckSubmissionConfig(Competition):
    """Which submission to check against which competition."""

    submission: Path = option(
        None, "the submission to check", DATA, metavar="FILE", positional=True
    )


@dataclass(frozen=True, kw_only=True)
class PredictConfig(WithWeights, OnDevice, OnBackends):
    """Which images to classify, with which weights."""

    images: tuple[Path, ...] = option(
        (), "the files to classify", DATA, metavar="IMAGE", nargs="+", positional=True
    )
    image_size: int | None = option(
        None,
        "side in pixels that images are resized to",
        DATA,
        SIDES,
        default_words="as in training",
    )


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Options):
    """Which file of weights to convert, into which."""

    source: Path = option(None, "the file to read", DATA, metavar="IN", positional=True)
    target: Path = option(None, "the file to write", OUTPUT, metavar="OUT", positional=True)
    force: bool = option(False, "replace OUT if it exists", OUTPUT)


@dataclass(frozen=True, kw_only=True)
class ParityConfig(WithOutput, Seeded, Computing, OnDevice, OnBackends):
    """Which backends to compare with the reference, on how much, and where they compute."""

    # The tolerances were measured on the CPU, so a GPU is checked only where it is asked for.
    device: str = option(
        "cpu", "cpu, gpu, or a number as gpu:1; of several, the first", SPEED, metavar="NAME"
    )
    precision: str = option(
        "fp32",
        "bf16 is for convolutions and matrix products; tf32: fp32 with TF32 on, which fp32 switches off",
        SPEED,
        choices=(*PRECISIONS, "tf32"),
    )
    seeds: int = option(
        1, "how many seeds to check with, one after another from --seed on", TRAINING, AT_LEAST_1
    )
    quick: bool = option(
        False, "small images and few steps: less than a minute for a backend", SPEED
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "tf32" and self.device == "cpu":
            raise UserError("--precision tf32 needs an NVIDIA GPU: add --device gpu")
        _require_room(self.seed, self.seeds)

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that are checked with, one after another."""
        return [self.seed + i for i in range(self.seeds)]

    @property
    def prepared_for(self) -> str:
        """The precision that a network is prepared for: TF32 is how a GPU computes fp32 unless it is told not to."""
        return "bf16" if self.precision == "bf16" else "fp32"


def _require_room(seed: int, count: int) -> None:
    """Raise UserError if ``count`` seeds from ``seed`` on go beyond the largest."""
    if seed + count - 1 > MAX_SEED:
        raise UserError(f"--seed {seed} leaves no room for {count} seeds")


def plain(config: Any) -> Any:
    """Return a configuration as JSON can hold it."""
    if isinstance(config, Options):
        return {f.name: plain(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, tuple):
        return [plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config
