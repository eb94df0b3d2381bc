"""The command line: the table of commands and their parsers, built from `common.config`. Imports no framework."""

import argparse
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

from common.augmentation.operations import OPERATIONS
from common.config import (
    CHANGEABLE,
    GROUPS,
    KAGGLE_PRESETS,
    PRESETS,
    CheckSubmissionConfig,
    ConvertConfig,
    KaggleConfig,
    Option,
    Options,
    ParityConfig,
    PredictConfig,
    RunConfig,
    TrainConfig,
    flag_of,
)
from common.errors import UserError
from common.interface import Framework

DESCRIPTION = (
    "Two chapters of Dive into Deep Learning, image augmentation and Kaggle CIFAR-10, "
    "in the framework you choose."
)
METAVARS = {int: "N", float: "X"}
# Hints for options that only some commands have.
RENAMED = {"--data-dir": " (the folder for downloads and caches is --cache-dir)"}
WIDTH = 79  # columns of the help


@dataclass(frozen=True)
class Command:
    """A command: the class of its options, its help, and ``only`` the options it takes (empty: all)."""

    config: type[Options]
    summary: str
    description: str
    example: str
    required: tuple[str, ...] = ("backend",)
    only: tuple[str, ...] = ()
    presets: Mapping[str, RunConfig] | None = None
    starts_processes: bool = False  # the command itself starts one process per backend


# The options of train that augment and evaluate also take.
SHARED = (
    "backend",
    "preset",
    "name",
    "cache_dir",
    "image_size",
    "limit",
    "valid_ratio",
    "skip_broken",
    "seed",
    "pipeline",
    "device",
    "output",
)

COMMANDS = {
    "train": Command(
        TrainConfig,
        "draw the augmentations, train and evaluate",
        "Draw the augmentations, train the book's ResNet-18 with them, and evaluate it.",
        "python run.py --backend pytorch --augment flip,crop --epochs 3",
        presets=PRESETS,
    ),
    "augment": Command(
        TrainConfig,
        "draw the augmentations, without training",
        "Draw the result of each augmentation on an example image, and training images as --augment makes them.",
        "python run.py augment --backend mxnet --data photos --augment flip,crop",
        only=(*SHARED, "augment", "image"),
        presets=PRESETS,
    ),
    "evaluate": Command(
        TrainConfig,
        "compute the test accuracy of a weights file",
        "Compute the test accuracy of a weights file, from any run in any framework.",
        "python run.py evaluate --backend tensorflow --weights runs/NAME/weights.safetensors",
        required=("backend", "weights"),
        only=(*SHARED, "weights", "batch_size", "workers", "processes", "precision", "compile"),
        presets=PRESETS,
    ),
    "kaggle": Command(
        KaggleConfig,
        "the Kaggle chapter: from image files to a submission",
        "Sort the competition's files into class folders, train and validate, train again on all labelled images, "
        "predict the test set, and write submission.csv. The class folders hold links to the images; they are in "
        "train_valid_test/ of the competition's folder.",
        "python run.py kaggle --backend pytorch --data-dir cifar-10",
        presets=KAGGLE_PRESETS,
    ),
    "check-submission": Command(
        CheckSubmissionConfig,
        "check a submission against the competition's files",
        "Compare a submission (rows 'id,label' below a header) with the images in DIR/test and the classes in "
        "DIR/trainLabels.csv. If DIR has a testLabels.csv, compute the score too.",
        "python run.py check-submission submission.csv --data-dir cifar-10",
        required=("data_dir",),
    ),
    "predict": Command(
        PredictConfig,
        "classify image files with the weights of a run",
        "Print the predicted class of each image and its probability, or write them to a csv file. A folder stands for "
        "the images in it and below it. The weights may come from any run in any framework.",
        "python run.py predict --backend pytorch --weights runs/NAME/weights.safetensors photo.jpg",
        required=("backend", "weights"),
    ),
    "convert": Command(
        ConvertConfig,
        "convert weights between the frameworks' file formats",
        "Convert the weights of the book's ResNet-18, read the new file back, and compute the same images with both "
        "frameworks. The new file is kept only if the results agree. The suffix sets the format: .safetensors "
        "(canonical; also keeps the class names), or a framework's own: {suffixes}.",
        "python run.py convert old-0000.params weights.safetensors",
        required=(),
    ),
    "parity": Command(
        ParityConfig,
        "prove that the backends agree with the reference",
        "Compare every operation, layer, gradient and training step of the backends with the reference, which is "
        "written in NumPy and computes in float64. Exit code 1 means that a difference exceeds its tolerance. With "
        "--precision bf16 or --compile, the network and its training are checked in that mode.",
        "python run.py parity --backend mxnet,pytorch --quick",
        required=(),
        starts_processes=True,
    ),
}


def parse(arguments: Sequence[str], frameworks: Mapping[str, Framework]) -> tuple[str, Any]:
    """Read a command line; return the command's name and its options, an instance of the class in `COMMANDS`.

    The default command is ``train``. ``--help``, ``--version`` and an empty command line print and exit. Raises
    UserError for an invalid command line.
    """
    arguments = list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(frameworks))  # noqa: T201 - all its own words
        raise SystemExit
    if arguments[0] == "--version":
        print(f"three-tabs {_version()}")  # noqa: T201
        raise SystemExit
    name = "train" if arguments[0].startswith("-") else arguments.pop(0)
    if name not in COMMANDS:
        raise UserError(
            f"unknown command '{name}'{_nearest(name, COMMANDS)}; see python run.py --help"
        )
    command = COMMANDS[name]
    if any(word.partition("=")[0] == "--resume" for word in arguments):
        command = replace(command, required=())
    parser = _Parser(name, command, frameworks)
    values = parser.values(arguments)
    if "resume" not in values:
        return name, _configure(name, values)
    for field in values.keys() - {"resume", *CHANGEABLE}:
        raise UserError(
            f"--resume takes the options of {values['resume']}: leave out {parser.flag_by_name[field]}"
        )
    from common.commands.resume import resumed  # imports NumPy

    return name, resumed(name, values, frameworks)


def command_parser(name: str, frameworks: Mapping[str, Framework]) -> argparse.ArgumentParser:
    """Return the parser of the command `name`."""
    return _Parser(name, COMMANDS[name], frameworks)


def backend_names(chosen: str, backends: Sequence[str]) -> list[str]:
    """Return the backends named by ``--backend``: one, several separated by commas, or 'all' of ``backends``.

    Raises UserError for an unknown or repeated name.
    """
    if chosen == "all":
        return list(backends)
    names = chosen.split(",")
    if "all" in names:
        raise UserError(f"--backend {chosen}: 'all' already means every backend; use --backend all")
    for name in names:
        if name not in backends:
            raise UserError(
                f"unknown backend '{name}': choose from {', '.join(backends)} (comma-separated), or all"
            )
    if len(set(names)) < len(names):
        raise UserError(f"--backend {chosen} names a backend twice: name each backend once")
    return names


def _configure(name: str, values: dict[str, Any]) -> Options:
    """Return the preset's configuration, with ``values`` from the command line in place of its own."""
    command = COMMANDS[name]
    if command.presets is None:
        return command.config(**values)
    default = next(iter(command.presets))
    if name == "kaggle" and "data_dir" in values:
        default = "demo"
    preset = values.get("preset", default)
    if name == "kaggle" and preset != "quick" and "data_dir" not in values:
        raise UserError(
            f"--preset {preset} needs the competition's files: unpack trainLabels.csv, train/ and test/ from "
            "https://www.kaggle.com/c/cifar-10 into a folder and add --data-dir FOLDER"
        )
    return _replaced(command.presets[preset], values)


def _replaced(config: Any, values: Mapping[str, Any]) -> Any:
    """Return ``config`` with new ``values`` of its fields, including those of nested configurations."""
    own = {f.name: values[f.name] for f in fields(config) if f.name in values}
    inner = {
        f.name: _replaced(getattr(config, f.name), values)
        for f in fields(config)
        if is_dataclass(getattr(config, f.name))
    }
    return replace(config, **own, **inner)


class _Parser(argparse.ArgumentParser):
    """The parser of one command. Raises UserError for a wrong option."""

    def __init__(self, name: str, command: Command, frameworks: Mapping[str, Framework]) -> None:
        suffixes = [suffix for framework in frameworks.values() for suffix in framework.suffixes]
        words = {
            "backends": ", ".join(frameworks),
            "suffixes": ", ".join(suffixes),
            "augmentations": ",".join(OPERATIONS),
        }
        super().__init__(
            prog=f"python run.py {name}",
            description=textwrap.fill(command.description.format_map(words), WIDTH),
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        self.flags = ["--help"]
        self.flag_by_name: dict[str, str] = {}
        self.groups = {"": self} | {group: self.add_argument_group(group) for group in GROUPS}
        self.words = words
        self.command = command
        self._add_options(command.config)

    def _add_options(self, config: type[Options]) -> None:
        types = get_type_hints(config)
        for f in fields(config):
            if is_dataclass(types[f.name]):
                self._add_options(types[f.name])
            elif "option" in f.metadata and (not self.command.only or f.name in self.command.only):
                self._add_option(
                    f.name, f.metadata["option"], _plain_type(types[f.name]), f.default
                )

    def _add_option(self, name: str, known: Option, kind: type, default: Any) -> None:
        group = self.groups[known.group]
        flag = flag_of(name, known)
        shown = f"{known.help.format_map(self.words)}{self._default(name, known, default)}"
        if kind is bool:
            group.add_argument(flag, dest=name, action="store_true", help=shown)
        else:
            more: dict[str, Any] = {"nargs": known.nargs} if known.nargs else {}
            if known.choices:
                more["choices"] = known.choices
            else:
                more["metavar"] = known.metavar or METAVARS[kind]
            if not known.positional:
                more |= {"dest": name, "required": name in self.command.required}
            group.add_argument(name if known.positional else flag, type=kind, help=shown, **more)
        self.flags.append(flag)
        self.flag_by_name[name] = flag

    def _default(self, name: str, known: Option, default: Any) -> str:
        """Return a field's default in brackets, or '': as words, as one value per preset, or as a value."""
        if known.positional or name in self.command.required or default is False:
            return ""
        if known.default_words:
            return f" (default: {known.default_words})"
        values = {
            preset: _value(config, name) for preset, config in (self.command.presets or {}).items()
        }
        if name == "preset" or len(set(values.values())) < 2:
            return f" (default: {next(iter(values.values()), default)})"
        return f" ({', '.join(f'{preset}: {value}' for preset, value in values.items())})"

    def values(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the values given on the command line, by field name."""
        for word in takewhile(lambda word: word != "--", arguments):
            flag = word.partition("=")[0]
            if word.startswith("--") and flag not in self.flags:
                self.error(
                    f"unknown option {flag}{RENAMED.get(flag) or _nearest(flag, self.flags)}"
                )
        found = vars(self.parse_args(arguments))
        if "limit" in found:
            limit = found["limit"]
            if len(limit) > 2:
                self.error(f"--limit takes one or two numbers, not {len(limit)}")
            found["limit"] = (limit[0], limit[-1])
        return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def _plain_type(hint: Any) -> type:
    """Return the type of a single value of a field, also for an optional value and for a tuple."""
    kinds = [kind for kind in get_args(hint) if kind not in (NoneType, Ellipsis)]
    return _plain_type(kinds[0]) if kinds else hint


def _value(config: Any, name: str) -> Any:
    """Return the value of a field of ``config`` or of a nested configuration."""
    if hasattr(config, name):
        return getattr(config, name)
    inner = (getattr(config, f.name) for f in fields(config))
    return next(_value(c, name) for c in inner if is_dataclass(c) and hasattr(c, name))


def _nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = get_close_matches(word, known, 1, cutoff=0.75)
    return f" (did you mean {near[0]}?)" if near else ""


def _help(frameworks: Mapping[str, Framework]) -> str:
    """Return the commands and the options of the default command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    train = _Parser("train", COMMANDS["train"], frameworks)
    return "\n".join(
        [
            "usage: python run.py [COMMAND] [OPTIONS]\n",
            f"{textwrap.fill(DESCRIPTION, WIDTH)}\n",
            "commands (default: train):",
            *lines,
            "\npython run.py COMMAND --help shows the options of a command.\n",
            f"The options of train:\n\n{train.format_help()}",
        ]
    )


def _version() -> str:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["project"]["version"])
