"""The options of all commands, and the presets.

Each option is one dataclass field with its name, default, range and help. `common.cli` builds the parsers from these
classes. A field made by `option` is an option of the command line; any other field is a constant of the chapter.
Imports no framework.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from common.errors import UserError

PRECISIONS = ("fp32", "bf16")
PIPELINES = ("batched", "native")
MAX_IMAGE_SIZE = 4096  # pixels; a batch of larger images does not fit into memory
MAX_SEED = 2**32 - 1  # the largest seed that every framework accepts
NUM_COMPARED_SEEDS = 3  # default of --seeds for --compare-augmentation

# The groups of options in the help, in this order; options without a group come first.
GROUPS = DATA, TRAINING, AUGMENTATION, SPEED, OUTPUT = (
    "data",
    "training",
    "augmentation",
    "speed",
    "output",
)


class Range(NamedTuple):
    """The valid values of an option: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


AT_LEAST_0 = Range("0 or more", lambda n: n >= 0)
AT_LEAST_1 = Range("1 or more", lambda n: n >= 1)
POSITIVE = Range("a number above 0", lambda x: x > 0 and math.isfinite(x))
SHARE = Range("at least 0 and below 1", lambda x: 0 <= x < 1)
PART = Range("above 0 and below 1", lambda x: 0 < x < 1)
FACTOR = Range("above 0 and at most 1", lambda x: 0 < x <= 1)
SEEDS = Range(f"from 0 to {MAX_SEED}", lambda n: 0 <= n <= MAX_SEED)
# ResNet-18 downsamples three times, which turns 8 pixels into one.
SIDES = Range(f"from 8 to {MAX_IMAGE_SIZE} pixels", lambda n: 8 <= n <= MAX_IMAGE_SIZE)


class Option(NamedTuple):
    """The command line's metadata of a field."""

    help: str
    group: str
    range: Range | None = None
    flag: str = ""  # default: made from the field's name
    metavar: str = ""  # default: made from the type
    choices: tuple[str, ...] = ()
    default_words: str = ""  # shown in the help instead of the default value
    nargs: str | None = None
    positional: bool = False


def option(default: Any, help: str, group: str, range: Range | None = None, **known: Any) -> Any:
    """Return a dataclass field that is a command-line option; see `Option` for the arguments."""
    return field(default=default, metadata={"option": Option(help, group, range, **known)})


def flag_of(name: str, known: Option) -> str:
    """Return the flag of a field's option, such as "--batch-size"."""
    return known.flag or f"--{name.replace('_', '-')}"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a command. The constructor raises UserError for a value outside its range."""

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


# --- Options of several commands -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OnBackends(Options):
    """Which frameworks run the command."""

    backend: str = option(
        "",
        "framework: {backends}; several separated by commas, or all, run one after another",
        "",
        metavar="NAME",
        default_words="all that are installed",
    )


@dataclass(frozen=True, kw_only=True)
class OnDevice(Options):
    """On which devices the command runs."""

    device: str = option(
        "auto",
        "auto (the first GPU, or the CPU if there is none), cpu, gpu (all GPUs), or numbers such as gpu:0,1",
        SPEED,
        metavar="NAME",
    )


@dataclass(frozen=True, kw_only=True)
class Computing(Options):
    """In which precision the network computes, and whether it is compiled."""

    precision: str = option(
        "fp32",
        "bf16: convolutions and matrix products in bfloat16",
        SPEED,
        choices=PRECISIONS,
    )
    compile: bool = option(False, "compile the network", SPEED)


@dataclass(frozen=True, kw_only=True)
class Seeded(Options):
    """The seed of all random numbers."""

    seed: int = option(0, "seed of all random numbers", TRAINING, SEEDS)


@dataclass(frozen=True, kw_only=True)
class WithWeights(Options):
    """Where the weights come from."""

    weights: Path | None = option(
        None,
        "weights file: .safetensors, or a framework's own format ({suffixes}); or the folder of a run",
        DATA,
        metavar="FILE",
        default_words="random, from the seed",
    )


@dataclass(frozen=True, kw_only=True)
class WithOutput(Options):
    """Where the results go."""

    output: Path | None = option(
        None,
        "folder for the results",
        OUTPUT,
        metavar="DIR",
        default_words="a new folder in runs/",
    )


# The fields that may be given with --resume.
CHANGEABLE = ("num_epochs", "backend", "device", "workers", "processes", "output")


@dataclass(frozen=True, kw_only=True)
class RunConfig(WithOutput, Seeded, Computing, OnDevice, OnBackends):
    """Options of both chapters."""

    resume: Path | None = option(
        None,
        "continue the run in this folder with its options; only --epochs, --backend, --device, --workers, "
        "--processes and --output may be given with it",
        OUTPUT,
        metavar="DIR",
        default_words="a new run",
    )
    pipeline: str = option(
        "batched",
        "batched: the same augmented pixels in every backend; native: the framework's own transforms and loader",
        SPEED,
        choices=PIPELINES,
    )
    processes: int = option(
        1,
        "train in N processes of this machine, each with a part of every batch",
        SPEED,
        AT_LEAST_1,
    )
    sync_batch_norm: bool = option(
        False,
        "several processes compute BatchNorm's statistics of the whole batch together, not of each part",
        TRAINING,
    )
    batch_size: int = option(256, "images per training step", TRAINING, AT_LEAST_1)
    num_epochs: int = option(
        10, "passes over the training images", TRAINING, AT_LEAST_1, flag="--epochs"
    )
    workers: int | None = option(
        None,
        "worker processes of the native loader",
        SPEED,
        AT_LEAST_0,
        default_words="4, but at most one per core",
    )


# --- Image augmentation: train, augment, evaluate --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AdamConfig(Options):
    """Adam with the defaults of its paper (Kingma and Ba 2015), and the chapter's learning rate."""

    lr: float = option(1e-3, "Adam's learning rate", TRAINING, POSITIVE)
    lr_end_factor: float = option(
        1.0,
        "the learning rate of the last epoch as a factor of --lr; each epoch lowers it by the same ratio",
        TRAINING,
        FACTOR,
    )
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def lr_at(self, epoch: int, num_epochs: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.lr * float(self.lr_end_factor ** (epoch / max(num_epochs - 1, 1)))

    def __str__(self) -> str:
        """Return the settings as the opening lines show them."""
        end = "" if self.lr_end_factor == 1 else f" to {self.lr * self.lr_end_factor:.3g}"
        beta1, beta2 = self.betas
        return f"Adam lr {self.lr:g}{end}, betas {beta1:g} {beta2:g}, eps {self.eps:g}"


@dataclass(frozen=True, kw_only=True)
class DataConfig(Options):
    """Which images to use, and how many."""

    name: str = option(
        "shapes",
        "shapes (generated), cifar10 (downloaded), or a folder of images",
        DATA,
        flag="--data",
        metavar="WHAT",
    )
    cache_dir: Path = option(
        Path("data"), "folder for downloads and decoded images", DATA, metavar="DIR"
    )
    image_size: int = option(32, "images from a folder are resized to N x N pixels", DATA, SIDES)
    # (training, test) images; None keeps all.
    limit: tuple[int | None, int | None] = option(
        (None, None),
        "number of training images and of test images; one number sets both",
        DATA,
        AT_LEAST_1,
        nargs="+",
        default_words="all",
    )
    valid_ratio: float | None = option(
        None,
        "hold out this share of the training images of each class, drawn with --seed",
        DATA,
        PART,
        default_words=".2 for a folder without val/ and test/",
    )
    skip_broken: bool = option(
        False, "leave out images of a folder that cannot be read, instead of stopping", DATA
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(WithWeights, RunConfig):
    """Options of the image-augmentation chapter; batches of 256 and 10 epochs are the chapter's."""

    preset: str = option(
        "quick",
        "quick: generated images, minutes on a CPU; book: CIFAR-10 with the chapter's settings",
        "",
        choices=("quick", "book"),
    )
    data: DataConfig = field(default_factory=DataConfig)
    adam: AdamConfig = field(default_factory=AdamConfig)
    # flip is the chapter's train_augs.
    augment: str = option(
        "flip",
        "none, or a comma-separated list from: {augmentations}",
        AUGMENTATION,
        metavar="LIST",
    )
    freeze: bool = option(
        False, "train only the last layer, and keep the other values of --weights", TRAINING
    )
    image: Path | None = option(
        None,
        "example image to augment",
        AUGMENTATION,
        metavar="FILE",
        default_words="a photograph of a cat",
    )
    compare_augmentation: bool = option(
        False,
        "train with and without augmentation, with the same initial weights and batches",
        AUGMENTATION,
    )
    seeds: int | None = option(
        None,
        "number of seeds for --compare-augmentation",
        AUGMENTATION,
        AT_LEAST_1,
        default_words=str(NUM_COMPARED_SEEDS),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze and self.weights is None:
            raise UserError(
                "--freeze keeps the values of a weights file, and there is none: add --weights FILE"
            )
        if self.freeze and self.sync_batch_norm:
            raise UserError(
                "--freeze keeps BatchNorm's statistics, so there are none to synchronise: "
                "leave out --sync-batch-norm"
            )
        if not self.compare_augmentation:
            if self.seeds is not None:
                raise UserError(
                    "--seeds needs --compare-augmentation: add it, or use --seed for a single run"
                )
            return
        if self.augment == "none":
            raise UserError(
                "--compare-augmentation needs augmentations to compare with, and --augment is none: "
                "choose some, such as --augment flip,crop"
            )
        _check_last_seed(self.seed, self.seeds or NUM_COMPARED_SEEDS)

    @property
    def all_seeds(self) -> list[int]:
        """The seeds to train with, one after another."""
        count = (self.seeds or NUM_COMPARED_SEEDS) if self.compare_augmentation else 1
        return [self.seed + i for i in range(count)]


PRESETS = {
    # BatchNorm's running statistics lag behind the weights, the more the larger the steps are. At a constant 3e-4 the
    # accuracy of single epochs drops: PyTorch's with seed 0 were .608 .980 .828 .990 .988. So the rate falls here, by
    # 0.6 after each of the five epochs. Measured with `--seed` 0 to 4 in the three backends: test accuracy ends between
    # .990 and 1.000. After the second epoch it never falls by more than .0075.
    "quick": TrainConfig(
        preset="quick", batch_size=16, num_epochs=5, adam=AdamConfig(lr=3e-4, lr_end_factor=0.6**4)
    ),
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
        default_words="generated images",
    )


@dataclass(frozen=True, kw_only=True)
class KaggleConfig(Competition, RunConfig):
    """Options of the Kaggle chapter (14.13), named as the arguments of its `train`.

    ``lr`` applies to the mean of the losses in every backend, as in the book's MXNet tab. The book's PyTorch tab uses
    2e-4 for their sum; at its batch size of 32 that is 6.4e-3 for the mean.
    """

    preset: str = option(
        "demo",
        "quick: minutes on a CPU; demo: the book's settings for 1,000 images; book: all 50,000 images, 100 epochs",
        "",
        choices=("quick", "demo", "book"),
        default_words="demo with --data-dir, quick without",
    )
    valid_ratio: float = option(
        0.1,
        "validation images per class, as a share of the smallest class",
        DATA,
        SHARE,
    )
    image_size: int = option(32, "images are resized to N x N pixels", DATA, SIDES)
    lr: float = option(0.02, "SGD's learning rate, for the mean of the losses", TRAINING, POSITIVE)
    wd: float = option(5e-4, "weight decay", TRAINING, SHARE)
    lr_period: int = option(
        4, "number of epochs between decays of the learning rate", TRAINING, AT_LEAST_1
    )
    lr_decay: float = option(0.9, "factor of each decay of the learning rate", TRAINING, FACTOR)


KAGGLE_PRESETS = {
    # Both trainings, with the start, must be done within three minutes on two CPU cores. Measured with `--seed` 0 to 4
    # in the three backends: the validation accuracy ends between .990 and 1.000. After the second epoch it never falls
    # by more than .03, that is, three of 100 images.
    "quick": KaggleConfig(preset="quick", batch_size=16, num_epochs=5, lr_period=1, lr_decay=0.6),
    # The chapter's demo, on 1,000 labelled images.
    "demo": KaggleConfig(preset="demo", batch_size=32, num_epochs=20),
    # The chapter's first exercise, on all of the competition's images.
    "book": KaggleConfig(
        preset="book", batch_size=128, num_epochs=100, lr=0.1, lr_period=50, lr_decay=0.1
    ),
}
# The generated competition that runs without --data-dir: shapes written as PNG files.
SHAPES_LABELLED, SHAPES_TEST = 1_000, 300


# --- Options of the other commands -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CheckSubmissionConfig(Competition):
    """Which submission to check, and against which competition."""

    submission: Path = option(None, "submission to check", DATA, metavar="FILE", positional=True)


@dataclass(frozen=True, kw_only=True)
class PredictConfig(WithWeights, OnDevice, OnBackends):
    """Which images to classify, with which weights."""

    images: tuple[Path, ...] = option(
        (),
        "image files to classify, or folders: the images in them and below them",
        DATA,
        metavar="IMAGE",
        nargs="+",
        positional=True,
    )
    image_size: int | None = option(
        None,
        "images are resized to N x N pixels",
        DATA,
        SIDES,
        default_words="as in training",
    )
    batch_size: int = option(32, "images that the network computes together", SPEED, AT_LEAST_1)
    top_k: int = option(
        1, "number of classes of each image, most probable first", OUTPUT, AT_LEAST_1
    )
    output: Path | None = option(
        None,
        "csv file for the predictions, which are then not printed: path, class, probability, "
        "and with --top-k class_2, probability_2, ...",
        OUTPUT,
        metavar="FILE",
        default_words="none",
    )
    sheet: Path | None = option(
        None,
        "PNG file for a picture of the first 40 images and their classes",
        OUTPUT,
        metavar="FILE",
        default_words="none",
    )
    force: bool = option(False, "replace the files of --output and --sheet if they exist", OUTPUT)

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, path, suffix in (
            ("--output", self.output, ".csv"),
            ("--sheet", self.sheet, ".png"),
        ):
            if path is None:
                continue
            if path.suffix.lower() != suffix:
                raise UserError(f"{flag} {path}: choose a name that ends in {suffix}")
            if self.backend == "all" or "," in self.backend:
                raise UserError(
                    f"{flag} {path} can hold the results of one backend: name one, not --backend {self.backend}"
                )


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(Options):
    """Which weights file to convert, and into which file."""

    source: Path = option(None, "weights file to read", DATA, metavar="IN", positional=True)
    target: Path = option(None, "weights file to write", OUTPUT, metavar="OUT", positional=True)
    force: bool = option(False, "replace OUT if it exists", OUTPUT)


@dataclass(frozen=True, kw_only=True)
class ParityConfig(WithOutput, Seeded, Computing, OnDevice, OnBackends):
    """Which backends to compare with the reference, how thoroughly, and on which device."""

    # The tolerances were measured on the CPU, so a GPU must be asked for.
    device: str = option(
        "cpu",
        "cpu, gpu, or a GPU number such as gpu:1; only the first device is used",
        SPEED,
        metavar="NAME",
    )
    precision: str = option(
        "fp32",
        "bf16: convolutions and matrix products in bfloat16; tf32: fp32 with TF32 enabled (fp32 disables it)",
        SPEED,
        choices=(*PRECISIONS, "tf32"),
    )
    seeds: int = option(
        1, "number of consecutive seeds to check, starting at --seed", TRAINING, AT_LEAST_1
    )
    quick: bool = option(False, "small images and few steps: less than a minute per backend", SPEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "tf32" and self.device == "cpu":
            raise UserError("--precision tf32 needs an NVIDIA GPU: add --device gpu")
        _check_last_seed(self.seed, self.seeds)

    @property
    def all_seeds(self) -> list[int]:
        """The seeds to check with, one after another."""
        return [self.seed + i for i in range(self.seeds)]

    @property
    def prepared_for(self) -> str:
        """The precision to prepare a network for. tf32 is fp32 here: a GPU uses TF32 for fp32 unless it is disabled."""
        return "bf16" if self.precision == "bf16" else "fp32"


def _check_last_seed(seed: int, count: int) -> None:
    """Raise UserError if the last of ``count`` seeds, starting at ``seed``, exceeds the largest."""
    if seed + count - 1 > MAX_SEED:
        raise UserError(
            f"--seed {seed} is too large for {count} seeds: the last one would exceed {MAX_SEED}"
        )


def restored(kind: Any, value: Any) -> Any:
    """Return the value of a type of this file that `plain` turned into JSON types.

    Raises KeyError, TypeError, ValueError or OverflowError if the value is not of this type, or if a constant of the
    chapter has changed. Raises UserError for a value outside its range.
    """
    if isinstance(kind, type) and issubclass(kind, Options):
        types = get_type_hints(kind)
        found = kind(**{f.name: restored(types[f.name], value[f.name]) for f in fields(kind)})
        for f in fields(kind):
            one, known = getattr(found, f.name), f.metadata.get("option")
            if known and known.choices and one not in known.choices:
                raise ValueError(f"{one!r} is not one of {', '.join(known.choices)}")
            if not known and not isinstance(one, Options) and one != f.default:
                raise ValueError(f"{f.name} are {one!r}, not {f.default!r}")
        return found
    if isinstance(kind, UnionType):
        own, _none = get_args(kind)
        return None if value is None else restored(own, value)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        return tuple(restored(k, v) for k, v in zip(kinds, value, strict=True))
    if kind is Path:
        if "\0" in value:
            raise ValueError(f"no path is {value!r}")
        return Path(value)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def plain(config: Any) -> Any:
    """Return a configuration as JSON types."""
    if isinstance(config, Options):
        return {f.name: plain(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, tuple):
        return [plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config
