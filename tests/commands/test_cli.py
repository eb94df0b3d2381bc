"""What command lines mean, and how wrong ones are refused."""

from pathlib import Path

import pytest

from common import cli
from common.config import PRESETS, plain
from common.errors import UserError


def parse(text: str) -> cli.Command:
    return cli.parse(text.split(), ["pytorch"])


def test_the_main_job_needs_only_a_backend():
    command = parse("--backend pytorch")
    assert command == parse("train --backend pytorch --preset quick")
    assert command.name == "train"
    assert command.config.backend == "pytorch"
    assert command.config.data.name == "shapes"


def test_the_book_preset_has_the_chapter_s_numbers():
    config = parse("--backend pytorch --preset book").config
    assert (config.data.name, config.batch_size, config.num_epochs) == ("cifar10", 256, 10)
    assert (config.adam.lr, config.adam.betas, config.adam.eps) == (1e-3, (0.9, 0.999), 1e-8)
    assert (config.augment, config.precision, config.pipeline) == ("flip", "fp32", "batched")


def test_every_hyperparameter_is_an_option_that_overrides_the_preset():
    config = parse(
        "--backend pytorch --preset book --batch-size 8 --epochs 3 --lr 0.5 --betas 0.8 0.9 --eps 1e-3 "
        "--augment flip,crop --precision bf16 --compile --pipeline native --workers 0 --seed 7 --device cpu "
        "--data some/folder --data-dir d --image-size 64 --limit 100 50 --output o --image i.png "
        "--weights w.params"
    ).config
    assert plain(config) == {
        "backend": "pytorch",
        "preset": "book",
        "data": {"name": "some/folder", "data_dir": "d", "image_size": 64, "limit": [100, 50]},
        "augment": "flip,crop",
        "pipeline": "native",
        "batch_size": 8,
        "num_epochs": 3,
        "adam": {"lr": 0.5, "betas": [0.8, 0.9], "eps": 1e-3},
        "precision": "bf16",
        "compile": True,
        "device": "cpu",
        "workers": 0,
        "seed": 7,
        "output": "o",
        "image": "i.png",
        "weights": "w.params",
    }


def test_one_limit_serves_both_splits():
    assert parse("--backend pytorch --limit 30").config.data.limit == (30, 30)


def test_commands_and_comparison():
    assert parse("augment --backend pytorch --image cat.jpg").config.image == Path("cat.jpg")
    assert parse("augment --backend pytorch").name == "augment"
    compare = parse("--backend pytorch --compare-augmentation")
    assert (compare.name, compare.seeds) == ("compare", 3)
    assert parse("--backend pytorch --compare-augmentation --seeds 5").seeds == 5


def test_evaluate_needs_weights_and_takes_what_an_evaluation_can_use():
    command = parse(
        "evaluate --backend pytorch --weights w.pt --data d --device cpu --precision bf16 --batch-size 4 --limit 9"
    )
    assert (command.name, command.config.weights) == ("evaluate", Path("w.pt"))
    assert (command.config.precision, command.config.batch_size) == ("bf16", 4)
    for wrong in ("", "--weights w.pt --epochs 2", "--weights w.pt --seed 1"):
        with pytest.raises(UserError):
            parse(f"evaluate --backend pytorch {wrong}")


def test_convert_takes_two_files_and_no_backend():
    words = ["convert", "a.pt", "b.params", "--force"]
    assert cli.parse(words, ["pytorch"]) == cli.Convert(Path("a.pt"), Path("b.params"), True)
    for wrong in ([], ["a.pt"], ["a.pt", "b.pt", "c.pt"], ["a.pt", "b.pt", "--backend", "pytorch"]):
        with pytest.raises(UserError, match="--help"):
            cli.parse(["convert", *wrong], ["pytorch"])


def test_presets_are_whole():
    assert set(PRESETS) == {"quick", "book"}
    assert all(name == preset.preset for name, preset in PRESETS.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--epochs 0", "--epochs 0: must be 1 or more"),
        ("--epochs two", "--epochs"),
        ("--lr -0.1", "--lr -0.1: must be a number above 0"),
        ("--lr 0", "--lr 0"),
        ("--lr nan", "--lr nan"),
        ("--lr inf", "--lr inf"),
        ("--eps 0", "--eps"),
        ("--betas 0.9 1", "--betas 1"),
        ("--batch-size 0", "--batch-size 0"),
        ("--workers -1", "--workers -1"),
        ("--seed -1", "--seed -1"),
        ("--limit 0", "--limit 0"),
        ("--limit 1 2 3", "--limit takes one or two numbers"),
        ("--image-size 4", "--image-size 4"),
        ("--precision fp8", "fp8"),
        ("--preset huge", "huge"),
        ("--seeds 2", "--compare-augmentation"),
        ("--compare-augmentation --seeds 0", "--seeds 0"),
        ("--no-such-option", "--no-such-option"),
        ("--epoch 3", "--epoch"),
        ("--compare-augmentation --augment none", "--augment"),
        ("--compare-augmentation --seed 4294967295 --seeds 2", "--seed 4294967295"),
    ],
)
def test_wrong_options_are_refused_in_one_line_that_names_them(options, message):
    with pytest.raises(UserError) as error:
        parse(f"--backend pytorch {options}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_command_is_refused_by_name():
    with pytest.raises(
        UserError,
        match="unknown command 'trian': choose train, augment, evaluate, kaggle, check-submission, predict, "
        "convert or parity",
    ):
        parse("trian --backend pytorch")


def test_a_backend_is_required_by_name():
    with pytest.raises(UserError, match="--backend"):
        parse("train")
