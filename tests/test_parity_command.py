"""`python run.py parity`: real processes, exit codes, files, and what a user reads when something is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip
from numpy_backend import changed, numpy_backend

import backends
from common import cli
from common.cli import Parity
from common.errors import UserError
from common.parity import command, free_running
from common.parity.command import check_backend
from common.parity.free_running import Envelope, envelope
from common.parity.report import write_report
from common.parity.results import Results, load_results
from common.parity.subject import Subject
from common.reference import Conventions

ROOT = Path(__file__).parent.parent

# A stand-in for run.py: the process of one backend, which is the NumPy one, right or wrong.
SCRIPT = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from numpy_backend import numpy_backend
from common import cli
from common.parity.command import check_backend
from common.reference import Conventions

arguments = sys.argv[1:]
name = arguments[arguments.index("--backend") + 1]
if name == "broken":
    sys.exit("the framework does not import")
wrong = Conventions(bn_epsilon=1e-3) if name == "wrong" else Conventions()
parsed = cli.parse_parity(arguments, ["numpy", "wrong", "broken"])
check_backend(numpy_backend(wrong), parsed, parsed.into)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "stand_in.py"
    path.write_text(SCRIPT)
    return path


def run(names: list[str], script: Path, output: Path) -> int:
    packages = dict.fromkeys(names, ("numpy",))
    return command.run(Parity(tuple(names), quick=True, output=output), packages, script, [])


def test_backends_that_agree_leave_a_table_json_and_a_report_of_one_file(script, tmp_path, capfd):
    output = tmp_path / "out"
    assert run(["numpy"], script, output) == 0
    printed = capfd.readouterr().out
    assert "All checks passed: numpy agree with the arbiter." in printed
    assert re.search(r"logits, evaluation +float64 +[0-9.e-]+ +0", printed)
    content = json.loads((output / "numpy" / "outcomes.json").read_text())
    assert all(outcome["passed"] for outcome in content["outcomes"])
    report = (output / "report.html").read_text()
    assert report.count("<img ") >= 7
    assert not re.search(r"(src|href)=['\"](?!data:)", report)
    assert "All 48 checks passed." in report


def test_a_wrong_backend_ends_with_1_and_its_layer_and_cause_are_named(script, tmp_path, capfd):
    output = tmp_path / "out"
    assert run(["numpy", "wrong"], script, output) == 1
    printed = capfd.readouterr().out
    assert "FAILED" in printed
    assert re.search(
        r"activations, evaluation \(float64\): first apart at bn, by .* where .* is allowed; "
        r"explained by BatchNorm's epsilon",
        printed.replace("\n", " "),
    )
    report = (output / "report.html").read_text()
    assert "checks failed." in report
    assert "explained by BatchNorm&#x27;s epsilon" in report


def test_a_backend_whose_process_breaks_is_a_failure_and_the_others_are_reported(
    script, tmp_path, capfd
):
    output = tmp_path / "out"
    assert run(["broken", "numpy"], script, output) == 1
    captured = capfd.readouterr()
    assert "the framework does not import" in captured.err
    assert "broken: the checks broke off with exit code 1" in captured.out
    assert (output / "report.html").is_file()


def test_results_come_back_from_their_files_as_they_were(tmp_path):
    check_backend(numpy_backend(), Parity((), quick=True), tmp_path)
    results = load_results(tmp_path)
    assert results.backend == "numpy"
    assert len(results.outcomes) == 48
    assert results.failures == []
    assert results.pictures["hue"].shape == (3, 100, 100)


def test_pictures_of_another_shape_or_without_numbers_do_not_break_the_report(tmp_path):
    check_backend(numpy_backend(), Parity((), quick=True), tmp_path)
    right = load_results(tmp_path)
    bad = dict(right.pictures) | {
        "hue": right.pictures["hue"][:, :50],
        "contrast": np.full((3, 100, 100), np.nan),
    }
    wrong = Results("wrong", right.versions, (), right.outcomes, (), bad)
    write_report(tmp_path / "report.html", [right, wrong], None, 0)
    assert "<img " in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_proves_every_installed_backend(tmp_path):
    for name in backends.FRAMEWORKS:
        load_or_skip(name)
    process = subprocess.run(
        [sys.executable, "run.py", "parity", "--quick", "--output", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "All checks passed: pytorch, mxnet, tensorflow agree" in process.stdout


# --- The command line ------------------------------------------------------------------------------------------------


def test_backends_may_be_repeated_joined_or_left_out():
    names = list(backends.FRAMEWORKS)
    parsed = cli.parse_parity(["parity", "--backend", "mxnet", "--backend", "pytorch"], names)
    assert parsed == Parity(("mxnet", "pytorch"))
    parsed = cli.parse_parity(["parity", "--backend", "mxnet,pytorch", "--seed", "3"], names)
    assert parsed == Parity(("mxnet", "pytorch"), seed=3)
    assert cli.parse_parity(["parity"], names) == Parity(())
    assert cli.parse_parity(["train", "--backend", "mxnet"], names) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "jax"], "unknown backend 'jax'"),
        (["--backend", "mxnet", "--backend", "mxnet"], "names a backend twice"),
        (["--seed", "-1"], "--seed -1: must be from 0"),
        (["--steps", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message):
        cli.parse_parity(["parity", *arguments], list(backends.FRAMEWORKS))


# --- Free-running training -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def around() -> Envelope:
    return envelope(4)


def outcome_of(backend, around: Envelope):
    return free_running.free_running(Subject(backend, "float32"), around)


def test_a_right_backend_stays_within_the_envelope(around):
    outcome, losses = outcome_of(numpy_backend(), around)
    assert outcome.passed, outcome.sentence()
    assert len(losses) == 4


@pytest.mark.parametrize(
    "conventions",
    [
        Conventions(padding="end"),
        Conventions(bn_epsilon=1e-3),
        Conventions(brightness="add"),
        Conventions(saturation="blue"),
        Conventions(antialias=False),
    ],
)
def test_a_real_difference_leaves_the_envelope(around, conventions):
    outcome, _ = outcome_of(numpy_backend(conventions), around)
    assert not outcome.passed
    assert outcome.cause is None


def test_an_optimiser_that_stands_still_leaves_the_envelope(around):
    backend = numpy_backend()
    adam = backend.trainer.adam
    wrong = changed(backend, "trainer", adam=lambda net, lr=1e-3: adam(net, 1e-12))
    assert not outcome_of(wrong, around)[0].passed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_backend_trains_freely_within_the_envelope(backend):
    outcome, _ = outcome_of(backend, envelope(command.FREE_STEPS))
    assert outcome.passed, outcome.sentence()
