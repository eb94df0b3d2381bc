"""Command lines: how they are parsed, the errors for invalid ones, and the help."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from backends import FRAMEWORKS
from common import cli
from common.config import GROUPS, KAGGLE_PRESETS, PRESETS, ConvertConfig, PredictConfig, plain
from common.errors import UserError

BACKENDS = list(FRAMEWORKS)


def parse(text: str):
    return cli.parse(text.split(), FRAMEWORKS)


def config_of(text: str):
    return parse(text)[1]


def printed(text: str, capsys) -> str:
    """Return the output of a command line that only prints, such as --help."""
    with pytest.raises(SystemExit) as end:
        parse(text)
    assert not end.value.code
    return capsys.readouterr().out


# --- Parsing ---------------------------------------------------------------------------------------------------------


def test_the_main_job_needs_only_a_backend():
    name, config = parse("--backend pytorch")
    assert (name, config) == parse("train --backend pytorch --preset quick")
    assert name == "train"
    assert config.backend == "pytorch"
    assert config.data.name == "shapes"


def test_the_book_preset_has_the_chapter_s_settings():
    config = config_of("--backend pytorch --preset book")
    assert (config.data.name, config.batch_size, config.num_epochs) == ("cifar10", 256, 10)
    assert (config.adam.lr, config.adam.betas, config.adam.eps) == (1e-3, (0.9, 0.999), 1e-8)
    assert config.adam.lr_end_factor == 1
    assert (config.augment, config.precision, config.pipeline) == ("flip", "fp32", "batched")


def test_every_option_of_a_training_overrides_the_preset():
    config = config_of(
        "--backend pytorch --preset book --batch-size 8 --epochs 3 --lr 0.5 --lr-end-factor 0.75 "
        "--augment flip,crop --precision bf16 --compile --pipeline native --workers 0 --seed 7 --device cpu "
        "--processes 2 --sync-batch-norm --data some/folder --cache-dir d --image-size 64 --limit 100 50 --output o "
        "--valid-ratio 0.3 --skip-broken --image i.png --weights w.params --compare-augmentation --seeds 2"
    )
    assert plain(config) == {
        "backend": "pytorch",
        "preset": "book",
        "data": {
            "name": "some/folder",
            "cache_dir": "d",
            "image_size": 64,
            "limit": [100, 50],
            "valid_ratio": 0.3,
            "skip_broken": True,
        },
        "augment": "flip,crop",
        "pipeline": "native",
        "batch_size": 8,
        "num_epochs": 3,
        "adam": {"lr": 0.5, "lr_end_factor": 0.75, "betas": [0.9, 0.999], "eps": 1e-8},
        "precision": "bf16",
        "compile": True,
        "device": "cpu",
        "workers": 0,
        "processes": 2,
        "sync_batch_norm": True,
        "seed": 7,
        "output": "o",
        "resume": None,
        "image": "i.png",
        "weights": "w.params",
        "freeze": False,
        "compare_augmentation": True,
        "seeds": 2,
    }


def test_one_limit_serves_both_splits():
    assert config_of("--backend pytorch --limit 30").data.limit == (30, 30)


def test_a_comparison_uses_three_seeds_by_default():
    assert config_of("--backend pytorch").all_seeds == [0]
    assert config_of("--backend pytorch --compare-augmentation").all_seeds == [0, 1, 2]
    options = "--backend pytorch --compare-augmentation --seed 4 --seeds 2"
    assert config_of(options).all_seeds == [4, 5]


def test_augment_accepts_only_the_options_of_drawing():
    assert config_of("augment --backend pytorch --image cat.jpg").image == Path("cat.jpg")
    for other in ("--epochs 2", "--weights w.pt", "--workers 2"):
        with pytest.raises(UserError, match="unknown option"):
            parse(f"augment --backend pytorch {other}")


def test_evaluate_requires_weights_and_accepts_only_its_options():
    config = config_of(
        "evaluate --backend pytorch --weights w.pt --data d --device cpu --precision bf16 --batch-size 4 --limit 9 "
        "--valid-ratio .1 --seed 3"
    )
    assert (config.data.valid_ratio, config.seed) == (0.1, 3)
    assert (config.weights, config.precision, config.batch_size) == (Path("w.pt"), "bf16", 4)
    for wrong in ("", "--weights w.pt --epochs 2", "--weights w.pt --lr 1"):
        with pytest.raises(UserError):
            parse(f"evaluate --backend pytorch {wrong}")


def test_predict_takes_weights_and_images():
    expected = PredictConfig(
        backend="mxnet", weights=Path("w.pt"), images=(Path("a.png"), Path("b.png"))
    )
    words = "predict --backend mxnet --weights w.pt a.png b.png"
    assert parse(words) == ("predict", expected)
    for wrong in ("predict --backend mxnet --weights w.pt", "predict --backend mxnet a.png"):
        with pytest.raises(UserError, match="required"):
            parse(wrong)


def test_arguments_after_two_dashes_are_file_names():
    assert config_of("predict --backend mxnet --weights w.pt -- --a.png").images == (
        Path("--a.png"),
    )


def test_convert_takes_two_files_and_no_backend():
    expected = ConvertConfig(source=Path("a.pt"), target=Path("b.params"), force=True)
    assert parse("convert a.pt b.params --force") == ("convert", expected)
    for wrong in ("", "a.pt", "a.pt b.pt c.pt", "a.pt b.pt --backend pytorch"):
        with pytest.raises(UserError, match=r"python run\.py convert --help"):
            parse(f"convert {wrong}")


def test_kaggle_defaults_to_demo_with_a_competition_and_to_quick_without():
    assert config_of("kaggle --backend pytorch") == config_of(
        "kaggle --backend pytorch --preset quick"
    )
    demo = config_of("kaggle --backend pytorch --data-dir d")
    assert (demo.preset, demo.batch_size, demo.num_epochs) == ("demo", 32, 20)
    with pytest.raises(UserError, match=r"--preset book needs the competition's files.*--data-dir"):
        parse("kaggle --backend pytorch --preset book")


@pytest.mark.parametrize(
    "command", [n for n, c in cli.COMMANDS.items() if hasattr(c.config, "backend")]
)
def test_every_command_takes_the_same_lists_of_backends(command):
    need = {"evaluate": "--weights w", "predict": "--weights w i.png"}.get(command, "")
    config = config_of(f"{command} --backend mxnet,pytorch {need}")
    assert cli.backend_names(config.backend, BACKENDS) == ["mxnet", "pytorch"]
    config = config_of(f"{command} --backend all {need}")
    assert cli.backend_names(config.backend, BACKENDS) == BACKENDS


def test_each_preset_has_its_own_name():
    for presets in (PRESETS, KAGGLE_PRESETS):
        assert all(name == preset.preset for name, preset in presets.items())


# --- Invalid command lines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--epochs 0", "--epochs 0: must be 1 or more"),
        ("--epochs two", "--epochs"),
        ("--lr -0.1", "--lr -0.1: must be a number above 0"),
        ("--lr 0", "--lr 0"),
        ("--lr nan", "--lr nan"),
        ("--lr inf", "--lr inf"),
        ("--batch-size 0", "--batch-size 0"),
        ("--workers -1", "--workers -1"),
        ("--seed -1", "--seed -1"),
        ("--limit 0", "--limit 0"),
        ("--valid-ratio 0", "--valid-ratio 0.0: must be above 0 and below 1"),
        ("--valid-ratio 1", "--valid-ratio 1.0: must be above 0 and below 1"),
        ("--limit 1 2 3", "--limit takes one or two numbers"),
        ("--image-size 4", "--image-size 4"),
        ("--precision fp8", "fp8"),
        ("--preset huge", "huge"),
        ("--seeds 2", "--compare-augmentation"),
        ("--compare-augmentation --seeds 0", "--seeds 0"),
        ("--no-such-option", "unknown option --no-such-option; see python run.py train --help"),
        ("--epoch 3", "unknown option --epoch (did you mean --epochs?)"),
        ("--batch_size=3", "unknown option --batch_size (did you mean --batch-size?)"),
        ("--compare-augmentation --augment none", "--augment"),
        ("--compare-augmentation --seed 4294967295 --seeds 2", "--seed 4294967295"),
        ("--data-dir d", "--cache-dir"),
        ("--compare-augmentation --seeds 99999999999999", "too large for 99999999999999 seeds"),
        ("more", "more"),
    ],
)
def test_an_invalid_option_raises_one_line_that_names_it(options, message):
    with pytest.raises(UserError) as error:
        parse(f"--backend pytorch {options}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_usage_error_points_to_the_help_of_its_command(command):
    with pytest.raises(UserError, match=rf"see python run\.py {command} --help"):
        parse(f"{command} --no-such-option")


def test_an_unknown_command_suggests_the_nearest():
    with pytest.raises(UserError, match=r"unknown command 'trian' \(did you mean train\?\)"):
        parse("trian --backend pytorch")


def test_a_backend_is_required_by_name():
    with pytest.raises(UserError, match="--backend"):
        parse("train")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("caffe", "unknown backend 'caffe': choose from pytorch, mxnet, tensorflow"),
        ("mxnet,caffe", "unknown backend 'caffe'"),
        ("mxnet,", "unknown backend ''"),
        ("mxnet,mxnet", "names a backend twice"),
        ("all,mxnet", "already means every backend"),
    ],
)
def test_invalid_lists_of_backends_are_rejected(chosen, message):
    with pytest.raises(UserError, match=message):
        cli.backend_names(chosen, BACKENDS)


# --- Help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["", "-h", "--help"])
def test_without_arguments_the_help_lists_the_commands_and_the_options_of_the_main_job(
    arguments, capsys
):
    text = printed(arguments, capsys)
    for name, command in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", text, re.M)
    assert "--compare-augmentation" in text


def test_version_is_the_project_s(capsys):
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"$', project, re.M)[1]
    assert printed("--version", capsys) == f"three-tabs {version}\n"


def options(config) -> dict[str, object]:
    """Return every field that is an option, including those of nested configurations."""
    found = {}
    for field in fields(config):
        kind = get_type_hints(config)[field.name]
        found |= options(kind) if is_dataclass(kind) else {}
        if "option" in field.metadata:
            found[field.name] = field.metadata["option"]
    return found


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_lists_every_option_in_its_group_and_an_example(name, capsys):
    command, text = cli.COMMANDS[name], printed(f"{name} --help", capsys)
    blocks = re.split(rf"^(options|{'|'.join(GROUPS)}|example):\n", text, flags=re.M)
    by_group = dict(zip(blocks[1::2], blocks[2::2], strict=True))
    assert by_group["example"].strip() == command.example
    for field, known in options(command.config).items():
        if not command.only or field in command.only:
            flag = known.metavar if known.positional else cli.flag_of(field, known)
            assert re.search(rf"^  {flag}\b", by_group[known.group or "options"], re.M), field


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_example_in_the_help_is_a_valid_command_line(name):
    words = cli.COMMANDS[name].example.removeprefix("python run.py ")
    assert parse(words)[0] == name


def test_help_shows_the_value_of_each_preset(capsys):
    text = " ".join(printed("kaggle --help", capsys).split())
    assert "images per training step (quick: 16, demo: 32, book: 128)" in text
    assert "weight decay (default: 0.0005)" in text
