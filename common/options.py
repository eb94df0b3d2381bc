"""The options of every command, as argparse has them. Imports no framework."""

import argparse
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import NoReturn

from common.augmentation.operations import OPERATIONS
from common.config import KAGGLE_PRESETS, PIPELINES, PRECISIONS, PRESETS, RunConfig
from common.errors import UserError


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option as one line, like every other user error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python run.py --help")


def make_parser(backends: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of every command; it raises UserError for a wrong option."""
    parser = _Parser(
        prog="run.py",
        description="Two chapters of Dive into Deep Learning, image augmentation and Kaggle CIFAR-10, "
        "on the framework you choose.",
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
    kaggle = commands.add_parser(
        "kaggle", help="the Kaggle chapter: from image files to a submission", allow_abbrev=False
    )
    _add_kaggle(kaggle, backends)
    check = commands.add_parser(
        "check-submission", help="check any submission against its competition", allow_abbrev=False
    )
    _add_check_submission(check)
    predict = commands.add_parser(
        "predict", help="classify image files with the weights of a run", allow_abbrev=False
    )
    _add_predict(predict, backends)
    convert = commands.add_parser(
        "convert", help="convert weights between the frameworks' files", allow_abbrev=False
    )
    for command in (train, augment, evaluate):
        _add_shared(command, backends)
    for command in (train, augment):
        _add_drawing(command)
    _add_training(train)
    for command in (train, evaluate):
        _add_computing(command, PRESETS)
    _add_weights(train, "start from these weights", required=False)
    _add_weights(evaluate, "the weights", required=True)
    _add_convert(convert)
    parity = commands.add_parser(
        "parity", help="prove that backends compute what the arbiter does", allow_abbrev=False
    )
    _add_parity(parity, backends)
    # Whoever asks for help wants the options of the main job too.
    parser.epilog = f"Without a COMMAND, train:\n\n{train.format_help()}"
    return parser


def _add_shared(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    add = parser.add_argument
    _add_backend(parser, backends)
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
    _add_running(parser)


def _add_backend(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    parser.add_argument(
        "--backend",
        required=True,
        metavar="NAME",
        help=f"the framework: {', '.join(backends)}; several joined by commas, or all, "
        "run one after another and are laid side by side",
    )


def _add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--pipeline",
        choices=PIPELINES,
        help="batched (default): same pixels in every backend; "
        "native: the framework's own transforms and loader",
    )
    _add_device(parser)
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes of the native loader (default: 4, at most one a core), and threads that decode a folder",
    )
    add(
        "--output", type=Path, metavar="DIR", help="the run folder (default: a new one under runs/)"
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", metavar="NAME", help="auto (default), cpu, gpu, or numbers as gpu:0,1"
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of weights, order and augmentation (default: 0)"
    )


def _add_kaggle(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    add = parser.add_argument
    parser.description = (
        "Sort the competition's files into classes, train and validate, train again on all labelled images, predict "
        "the test set, and write submission.csv. Without --data-dir, the chapter runs on embedded pictures."
    )
    _add_backend(parser, backends)
    add(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="the competition's folder: trainLabels.csv, train/ and test/; sorted copies (links) of "
        "the images go into its train_valid_test/",
    )
    add(
        "--preset",
        choices=KAGGLE_PRESETS,
        help="quick (default without --data-dir): minutes on a CPU; demo (default with it): the book's, for "
        "1,000 images; book: all 50,000 and 100 epochs",
    )
    presets = KAGGLE_PRESETS

    def number(flag: str, kind: type, name: str, what: str) -> None:
        values = _presets(presets, name)
        add(flag, type=kind, dest=name, metavar="N", help=f"{what} ({values})")

    number("--valid-ratio", float, "valid_ratio", "share of the rarest class to validate on")
    number("--image-size", int, "image_size", "side in pixels that images are brought to")
    number("--epochs", int, "num_epochs", "passes over the images, in each of the two trainings")
    number("--lr", float, "lr", "learning rate, for the mean of the losses")
    number("--lr-period", int, "lr_period", "epochs after which the learning rate falls, each time")
    number("--lr-decay", float, "lr_decay", "what it is multiplied by then")
    number("--wd", float, "wd", "weight decay")
    _add_computing(parser, presets)
    _add_running(parser)
    _add_seed(parser)


def _add_check_submission(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Hold a submission, rows 'id,label' after a header, against the images of DIR/test and the classes of "
        "DIR/trainLabels.csv. Where DIR has a testLabels.csv, the score is computed too."
    )
    parser.add_argument("submission", type=Path, metavar="FILE", help="the submission to check")
    parser.add_argument(
        "--data-dir", type=Path, required=True, metavar="DIR", help="the competition's folder"
    )


def _add_predict(parser: argparse.ArgumentParser, backends: Sequence[str]) -> None:
    add = parser.add_argument
    parser.description = (
        "Print the class of each image, its probability and the milliseconds that the network took, with the weights "
        "of any run in any framework."
    )
    add("--backend", required=True, metavar="NAME", help=f"the framework: {', '.join(backends)}")
    _add_weights(parser, "the weights", required=True)
    add("images", type=Path, nargs="+", metavar="IMAGE", help="the files to classify")
    _add_device(parser)
    add(
        "--image-size",
        type=int,
        metavar="N",
        help="side in pixels that images are brought to (default: as in training)",
    )


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--image", type=Path, metavar="FILE", help="the example image to augment (default: a cat)")
    _add_seed(parser)


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
        "NumPy and computes in float64. Ends with exit code 1 where one is further off than correct backends are. With "
        "--precision bf16 or --compile, the network and its training are checked as they compute then."
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
    _add_fast(parser)
    add("--seed", type=int, default=0, metavar="N", help="of weights and images (default: 0)")
    add("--output", type=Path, metavar="DIR", help="the folder of the report (default: a new one)")


def _presets(presets: Mapping[str, RunConfig], *path: str) -> str:
    """Return the value of a setting in each preset, for the help."""
    values = {name: reduce(getattr, path, preset) for name, preset in presets.items()}
    if len(set(values.values())) == 1:
        return f"default: {next(iter(values.values()))}"
    return ", ".join(f"{name}: {value}" for name, value in values.items())


def _add_computing(parser: argparse.ArgumentParser, presets: Mapping[str, RunConfig]) -> None:
    add = parser.add_argument
    batch_size = f"images a step ({_presets(presets, 'batch_size')})"
    add("--batch-size", type=int, metavar="N", help=batch_size)
    _add_fast(parser)


def _add_fast(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--precision",
        choices=PRECISIONS,
        help="fp32 (default) or bf16 for convolutions and products",
    )
    add("--compile", action="store_true", default=None, help="compile the network")


def _add_training(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--augment", metavar="LIST", help=f"none, or from {','.join(OPERATIONS)} (default: flip)")
    passes = f"passes over the training images ({_presets(PRESETS, 'num_epochs')})"
    add("--epochs", type=int, dest="num_epochs", metavar="N", help=passes)
    add(
        "--lr",
        type=float,
        metavar="X",
        help=f"Adam's learning rate ({_presets(PRESETS, 'adam', 'lr')})",
    )
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
