"""The command line: options, presets, and what they become. Imports no framework."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn

from common.augmentation import OPERATIONS
from common.config import MOST_SEED, PIPELINES, PRECISIONS, PRESETS, TrainConfig
from common.errors import UserError

COMMANDS = ("train", "augment", "evaluate", "convert", "parity", "differences")


@dataclass(frozen=True)
class Command:
    """What to do: ``train``, ``augment``, ``evaluate`` or ``compare``, and how; ``seeds`` is for ``compare``."""

    name: str
    config: TrainConfig
    seeds: int = 1


@dataclass(frozen=True)
class Convert:
    """Which file of weights to convert, into which; ``force`` replaces one that is there."""

    source: Path
    target: Path
    force: bool = False


@dataclass(frozen=True)
class Parity:
    """Which backends to hold against the arbiter, none for all that are installed; ``quick`` on small images.

    ``into`` is where the process of one backend writes what it finds.
    """

    backends: tuple[str, ...]
    seed: int = 0
    quick: bool = False
    output: Path | None = None
    into: Path | None = None


@dataclass(frozen=True)
class Differences:
    """Which known differences to measure, none for all, and the page to write."""

    only: tuple[str, ...] = ()
    output: Path | None = None


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option as one line, like every other user error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python run.py --help")


def parse(
    arguments: Sequence[str], backends: Sequence[str]
) -> Command | Convert | Parity | Differences:
    """Read a command line. Raises UserError for what it cannot mean; ``--help`` prints and exits."""
    arguments = list(arguments)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "train")
    elif not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        choices = " or ".join((", ".join(COMMANDS[:-1]), COMMANDS[-1]))
        raise UserError(f"unknown command '{arguments[0]}': choose {choices}")
    options = vars(_parser(backends).parse_args(arguments))
    match options.pop("command"):
        case "convert":
            return Convert(**options)
        case "parity":
            return _parity(options, backends)
        case "differences":
            return Differences(tuple(options["only"] or ()), options["output"])
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


def _parity(options: dict[str, Any], backends: Sequence[str]) -> Parity:
    given = options.pop("backend")
    if not 0 <= options["seed"] <= MOST_SEED:
        raise UserError(f"--seed {options['seed']}: must be from 0 to {MOST_SEED}")
    names = backend_names(",".join(given), backends) if given else []
    return Parity(tuple(names), **options)


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


def _parser(backends: Sequence[str]) -> _Parser:
    parser = _Parser(
        prog="run.py",
        description="The image-augmentation chapter of Dive into Deep Learning, on the framework you choose.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    train = commands.add_parser(
        "train", help="show the augmentations, train, evaluate", allow_abbrev=False
    )
    augment = commands.add_parser("augment", help="only draw the augmentations", allow_abbrev=False)
    evaluate = commands.add_parser(
        "evaluate", help="compute the test accuracy of weights from a file", allow_abbrev=False
    )
    convert = commands.add_parser(
        "convert", help="convert weights between the frameworks' files", allow_abbrev=False
    )
    for command in (train, augment, evaluate):
        _add_shared(command, backends)
    for command in (train, augment):
        _add_drawing(command)
    _add_training(train)
    for command in (train, evaluate):
        _add_computing(command)
    _add_weights(train, "start from these weights", required=False)
    _add_weights(evaluate, "the weights", required=True)
    _add_convert(convert)
    parity = commands.add_parser(
        "parity", help="prove that backends compute what the arbiter does", allow_abbrev=False
    )
    _add_parity(parity, backends)
    differences = commands.add_parser(
        "differences",
        help="measure what each known difference between the frameworks does",
        allow_abbrev=False,
    )
    _add_differences(differences)
    # Whoever asks for help wants the options of the main job too.
    parser.epilog = f"Without a COMMAND, train:\n\n{train.format_help()}"
    return parser


def _add_shared(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    add = parser.add_argument
    add(
        "--backend",
        required=True,
        metavar="NAME",
        help=f"the framework: {', '.join(backends)}; several joined by commas, or all, "
        "run one after another and are laid side by side",
    )
    add(
        "--preset",
        choices=PRESETS,
        help="quick (default): embedded data, minutes on a CPU; "
        "book: CIFAR-10 with the chapter's numbers",
    )
    add("--data", metavar="WHAT", help="shapes, cifar10, or a folder with train/ and test/")
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="where downloads and caches are kept (default: data)",
    )
    add(
        "--image-size",
        type=int,
        metavar="N",
        help="side in pixels of the images of a folder (default: 32)",
    )
    add(
        "--limit",
        type=int,
        nargs="+",
        metavar="N",
        help="use so many training and so many test images (one number: of each)",
    )
    add(
        "--pipeline",
        choices=PIPELINES,
        help="batched (default): same pixels in every backend; "
        "native: the framework's own transforms and loader",
    )
    add("--device", metavar="NAME", help="auto (default), cpu, gpu, or numbers as gpu:0,1")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes of the native loader (default: 4, at most one a core), and threads that decode a folder",
    )
    add(
        "--output", type=Path, metavar="DIR", help="the run folder (default: a new one under runs/)"
    )


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--image", type=Path, metavar="FILE", help="the example image to augment (default: a cat)")
    add("--seed", type=int, metavar="N", help="of weights, order and augmentation (default: 0)")


def _add_weights(parser: argparse.ArgumentParser, what: str, required: bool) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        required=required,
        help=f"{what}: .safetensors, .pt, .pth, .params or .weights.h5, of any framework",
    )


def _add_convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = (
        "Convert the weights of the book's ResNet-18, read the result back, and let both frameworks compute the same "
        "images: the file stays only where they agree. Kinds are told by suffix: .safetensors (canonical; keeps "
        "classes and data), .pt and .pth (a PyTorch state dict), .params (Gluon), .weights.h5 (Keras; keeps them too)."
    )
    add("source", type=Path, metavar="IN", help="the file to read")
    add("target", type=Path, metavar="OUT", help="the file to write")
    add("--force", action="store_true", help="replace OUT where it is there already")


def _add_parity(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    add = parser.add_argument
    parser.description = (
        "Hold every operation, layer, gradient and step of the backends against the arbiter, which is written in "
        "NumPy and computes in float64. Ends with exit code 1 where one is further off than correct backends are."
    )
    names = ", ".join(backends)
    add(
        "--backend",
        action="append",
        metavar="NAME",
        help=f"check this one: {names}; may be given again (default: all that are installed)",
    )
    add(
        "--quick",
        action="store_true",
        help="small images and few steps: less than a minute a backend",
    )
    add("--seed", type=int, default=0, metavar="N", help="of weights and images (default: 0)")
    add("--output", type=Path, metavar="DIR", help="the folder of the report (default: a new one)")
    add("--into", type=Path, help=argparse.SUPPRESS)


def _add_differences(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.description = (
        "Measure, on the arbiter, what each known difference between the frameworks does to one operation, one step "
        "and thirty steps. No framework is needed."
    )
    add("--only", action="append", metavar="NAME", help="this one alone; may be given again")
    add("--output", type=Path, metavar="FILE", help="write the page as Markdown")


def _presets(*path: str) -> str:
    """Return the value of a setting in each preset, for the help."""
    values = {name: reduce(getattr, path, preset) for name, preset in PRESETS.items()}
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _add_computing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--batch-size", type=int, metavar="N", help=f"images a step ({_presets('batch_size')})")
    add(
        "--precision",
        choices=PRECISIONS,
        help="fp32 (default) or bf16 for convolutions and products",
    )
    add("--compile", action="store_true", default=None, help="compile the network")


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--augment", metavar="LIST", help=f"none, or from {','.join(OPERATIONS)} (default: flip)")
    passes = f"passes over the training images ({_presets('num_epochs')})"
    add("--epochs", type=int, dest="num_epochs", metavar="N", help=passes)
    add("--lr", type=float, metavar="X", help=f"Adam's learning rate ({_presets('adam', 'lr')})")
    add("--betas", type=float, nargs=2, metavar="X", help="Adam's decay rates (default: 0.9 0.999)")
    add("--eps", type=float, metavar="X", help="Adam's epsilon (default: 1e-8)")
    add(
        "--compare-augmentation",
        action="store_true",
        dest="compare",
        help="train with and without augmentation, from the same weights and batches",
    )
    add(
        "--seeds",
        type=int,
        metavar="N",
        help="how many seeds --compare-augmentation takes (default: 3)",
    )
