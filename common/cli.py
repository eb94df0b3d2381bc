"""The command line: what the options of `common.options` become. Imports no framework."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from common.config import (
    KAGGLE_PRESETS,
    MOST_SEED,
    PRESETS,
    KaggleConfig,
    TrainConfig,
    check_image_size,
)
from common.errors import UserError
from common.options import make_parser

COMMANDS = (
    "train",
    "augment",
    "evaluate",
    "kaggle",
    "check-submission",
    "predict",
    "convert",
    "parity",
)


@dataclass(frozen=True)
class Command:
    """What to do: ``train``, ``augment``, ``evaluate`` or ``compare``, and how; ``seeds`` is for ``compare``."""

    name: str
    config: TrainConfig
    seeds: int = 1


@dataclass(frozen=True)
class Kaggle:
    """Run the Kaggle chapter."""

    config: KaggleConfig
    name: ClassVar[str] = "kaggle"


@dataclass(frozen=True)
class CheckSubmission:
    """Which file to check against which competition's folder."""

    submission: Path
    data_dir: Path


@dataclass(frozen=True)
class Predict:
    """Which images to classify, with which weights.

    ``image_size`` is the side in pixels that images are brought to, None for the one that the weights were trained on.
    """

    backend: str
    weights: Path
    images: tuple[Path, ...]
    device: str = "auto"
    image_size: int | None = None


@dataclass(frozen=True)
class Convert:
    """Which file of weights to convert, into which; ``force`` replaces one that is there."""

    source: Path
    target: Path
    force: bool = False


@dataclass(frozen=True)
class Parity:
    """Which backends to hold against the arbiter, none for all that are installed; ``quick`` on small images.

    ``precision`` and ``compile`` are those of the training that is checked.
    """

    backends: tuple[str, ...]
    seed: int = 0
    quick: bool = False
    precision: str = "fp32"
    compile: bool = False
    output: Path | None = None


AnyCommand = Command | Kaggle | CheckSubmission | Predict | Convert | Parity


def parse(arguments: Sequence[str], backends: Sequence[str]) -> AnyCommand:
    """Read a command line. Raises UserError for what it cannot mean; ``--help`` prints and exits."""
    arguments = list(arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "train")
    elif not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        choices = " or ".join((", ".join(COMMANDS[:-1]), COMMANDS[-1]))
        raise UserError(f"unknown command '{arguments[0]}': choose {choices}")
    options = vars(make_parser(backends).parse_args(arguments))
    match options.pop("command"):
        case "kaggle":
            return Kaggle(_kaggle(options))
        case "check-submission":
            return CheckSubmission(**options)
        case "predict":
            return _predict(options, backends)
        case "convert":
            return Convert(**options)
        case "parity":
            return _parity(options, backends)
        case name:
            return _chapter(name, options)


def _chapter(name: str, options: dict[str, Any]) -> Command:
    compare, seeds = options.pop("compare", False), options.pop("seeds", None)
    if seeds is not None and not compare:
        raise UserError("--seeds is for --compare-augmentation: add it, or use --seed")
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds {seeds}: must be 1 or more")
    config = _config(options)
    if compare and config.augment == "none":
        raise UserError("--compare-augmentation compares none with --augment: give it a list")
    if compare and config.seed + (seeds or 3) > MOST_SEED + 1:
        raise UserError(f"--seed {config.seed} leaves no room for {seeds or 3} seeds from there")
    return Command("compare", config, seeds or 3) if compare else Command(name, config)


def _kaggle(options: dict[str, Any]) -> KaggleConfig:
    """Lay the given options over the preset's: quick on the embedded images, demo on a competition's folder."""
    given = {name: value for name, value in options.items() if value is not None}
    preset = given.pop("preset", "demo" if "data_dir" in given else "quick")
    if preset != "quick" and "data_dir" not in given:
        raise UserError(
            f"--preset {preset} needs the competition's files: unpack trainLabels.csv, train/ and test/ of "
            "https://www.kaggle.com/c/cifar-10 into a folder and add --data-dir FOLDER"
        )
    return replace(KAGGLE_PRESETS[preset], **given)


def _predict(options: dict[str, Any], backends: Sequence[str]) -> Predict:
    given = {name: value for name, value in options.items() if value is not None}
    command = Predict(**given | {"images": tuple(given["images"])})
    if len(backend_names(command.backend, backends)) > 1:
        raise UserError("predict takes one backend: give --backend one name")
    if command.image_size is not None:
        check_image_size(command.image_size)
    return command


def _parity(options: dict[str, Any], backends: Sequence[str]) -> Parity:
    chosen = options.pop("backend")
    if not 0 <= options["seed"] <= MOST_SEED:
        raise UserError(f"--seed {options['seed']}: must be from 0 to {MOST_SEED}")
    names = backend_names(",".join(chosen), backends) if chosen else []
    given = {name: value for name, value in options.items() if value is not None}
    return Parity(tuple(names), **given)


def backend_names(chosen: str, backends: Sequence[str]) -> list[str]:
    """Return the backends that ``--backend`` asks for: one, several joined by commas, or 'all' of ``backends``.

    Raises UserError for an unknown name and for one that comes twice.
    """
    if chosen == "all":
        return list(backends)
    names = chosen.split(",")
    if "all" in names:
        raise UserError(f"--backend {chosen}: all is all of them, without others")
    for name in names:
        if name not in backends:
            raise UserError(
                f"unknown backend '{name}': choose from {', '.join(backends)}, several joined by commas, or all"
            )
    if len(set(names)) < len(names):
        raise UserError(f"--backend {chosen} names a backend twice")
    return names


def _config(options: dict[str, Any]) -> TrainConfig:
    """Lay the given options over the preset's."""
    given = {name: value for name, value in options.items() if value is not None}
    config = replace(PRESETS[given.pop("preset", "quick")], backend=given.pop("backend"))
    adam = {name: given.pop(name) for name in ("lr", "betas", "eps") if name in given}
    if "betas" in adam:
        adam["betas"] = tuple(adam["betas"])
    data: dict[str, Any] = {
        name: given.pop(name) for name in ("data_dir", "image_size", "limit") if name in given
    }
    if "data" in given:
        data["name"] = given.pop("data")
    if "limit" in data:
        data["limit"] = _limits(data["limit"])
    return replace(
        config, adam=replace(config.adam, **adam), data=replace(config.data, **data), **given
    )


def _limits(numbers: list[int]) -> tuple[int, int]:
    if len(numbers) > 2:
        raise UserError("--limit takes one or two numbers: training images, test images")
    return numbers[0], numbers[-1]
