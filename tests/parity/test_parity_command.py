"""`python run.py parity`: real processes, exit codes, files, and the messages about errors."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip
from numpy_backend import changed, numpy_backend

import backends
from common.commands import parity_backend
from common.commands.parity_backend import check_backend
from common.config import MAX_SEED, ParityConfig
from common.errors import UserError
from common.parity.adapter import Adapter
from common.parity.checks.free_running import Envelope, envelope, free_running
from common.parity.checks.network import model_checks
from common.parity.comparison import CheckResult, Difference, Tolerance
from common.parity.report import write_report
from common.parity.results import (
    BackendResults,
    add_check,
    begin_seed,
    load_results,
    load_so_far,
    save_results,
)
from common.reference import Conventions

ROOT = Path(__file__).parents[2]
NUM_CHANNELS = 16  # of the network; the chapter's has 64

# A run.py for the tests. Its backends:
# - "right" and "wrong": the NumPy backend, with and without the reference's epsilon
# - "broken": fails on import
# - "copied": copies the results of "right"
# - "few": runs only the first checks
# - "leaves", "stops", "killed": the process ends when it loads the first batches; "late": after the last check
# - "unlucky": wrong with one seed
SCRIPT = f"""
import os, signal, sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from numpy_backend import changed, numpy_backend
from common import cli
from common.commands import parity, parity_backend
from common.commands.parity_backend import check_backend
from common.interface import Framework
from common.parity.results import load_results, save_results
from common.parity.suite import QUICK, run_checks
from common.reference import Conventions

ENDS = {{
    "leaves": lambda *arguments: sys.exit(0),
    "stops": lambda *arguments: os._exit(0),
    "killed": lambda *arguments: os.kill(os.getpid(), signal.SIGKILL),
}}
NAMES = ("right", "wrong", "broken", "copied", "few", "late", "unlucky", *ENDS)
FRAMEWORKS = {{name: Framework(name, name, ("numpy",), suffixes=(".npz",)) for name in NAMES}}

def first_checks(backend, extent, seed, *arguments):
    # These take a second. With seed 8, "unlucky" drops the last batches.
    if backend.name == "unlucky" and seed == 8:
        load = backend.loaders.load_batched
        loaders = replace_batches(lambda *arguments, **named: list(load(*arguments, **named))[:-1])
        backend = replace(numpy_backend(), framework=backend.framework, loaders=loaders)
    return islice(run_checks(backend, extent, seed, *arguments), 20)

def replace_batches(load):
    return changed(numpy_backend(), "loaders", load_batched=load).loaders

def check(name, config, folder):
    if name == "broken":
        sys.exit("the framework does not import")
    elif name == "copied":
        folder.mkdir()
        right = load_results(folder.parent.parent / "mixed" / "right")
        save_results(folder, replace(right, backend=name))
    else:
        conventions = Conventions(bn_epsilon=1e-3) if name == "wrong" else Conventions()
        backend = replace(numpy_backend(conventions), framework=FRAMEWORKS[name])
        if name in ENDS:
            backend = changed(backend, "loaders", load_batched=ENDS[name])
        narrow = replace(QUICK, num_channels={NUM_CHANNELS})
        if name not in ("right", "wrong"):
            parity_backend.run_checks = first_checks
        check_backend(backend, config, folder, narrow)
        if name == "late":
            os.kill(os.getpid(), signal.SIGUSR1)
    return 0

if __name__ == "__main__":
    _, config = cli.parse(sys.argv[1:], FRAMEWORKS)
    frameworks = {{name: FRAMEWORKS[name] for name in config.backend.split(",")}}
    sys.exit(parity.check_each(config, frameworks, check, ["absent"]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


def run(folder: Path, names: str, output: str, *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "run.py").write_text(SCRIPT)
    words = ["parity", "--quick", "--backend", names, "--output", str(folder / output), *more]
    return subprocess.run(
        [sys.executable, str(folder / "run.py"), *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def mixed(folder: Path) -> subprocess.CompletedProcess[str]:
    """The output of the command for a backend that breaks, one that is right and one that is wrong."""
    return run(folder, "broken,right,wrong", "mixed")


def test_the_exit_code_is_0_if_all_backends_agree(folder, mixed):
    process = run(folder, "copied", "agreed")
    assert process.returncode == 0, process.stderr
    assert "All checks passed: copied agrees with the reference." in process.stdout
    assert "absent: not installed, skipped" in process.stdout
    checks = len(load_results(folder / "mixed" / "right").checks)
    assert f"All {checks} checks passed." in (folder / "agreed" / "report.html").read_text()


def test_the_run_folder_records_options_versions_and_hardware(folder, mixed):
    record = json.loads((folder / "mixed" / "config.json").read_text())
    assert record["backends"] == ["broken", "right", "wrong"]
    assert record["config"] == {
        "seed": 0,
        "seeds": 1,
        "quick": True,
        "precision": "fp32",
        "compile": False,
        "device": "cpu",
    }
    assert record["versions"]["numpy"] == np.__version__
    assert record["hardware"]["cores"]


def test_bf16_and_compile_are_checked_and_named_in_the_output(folder):
    process = run(folder, "right", "fast", "--precision", "bf16", "--compile")
    assert process.returncode == 0, process.stderr
    assert "Parity of bf16, compiled, quick" in process.stdout
    assert "checked: bf16, compiled" in process.stdout
    assert re.search(r"logits, training +bfloat16 ", process.stdout)
    content = json.loads((folder / "fast" / "right" / "outcomes.json").read_text())
    assert content["configuration"]["precision"] == "bf16"
    assert {result["kind"] for result in content["outcomes"]} == {"bfloat16"}
    report = (folder / "fast" / "report.html").read_text()
    assert "Parity of bf16, compiled: each backend compared with the reference" in report
    assert "Checked: precision bf16, device cpu: " in report


def test_the_exit_code_is_1_for_a_wrong_backend_and_layer_and_cause_are_named(folder, mixed):
    assert mixed.returncode == 1
    assert "FAILED" in mixed.stdout
    (line,) = [line for line in mixed.stdout.splitlines() if "explained by" in line]
    assert re.fullmatch(
        r"wrong: \d+ of \d+ checks failed, explained by BatchNorm's epsilon \(.*\)\. First: "
        r"activations, evaluation, float64: first differs at bn, by .* \(tolerance .*\)",
        line,
    )
    report = (folder / "mixed" / "report.html").read_text()
    assert "checks failed." in report
    assert "explained by BatchNorm&#x27;s epsilon" in report


def test_a_backend_that_fails_to_import_is_a_failure_and_the_others_are_reported(mixed):
    assert mixed.returncode == 1
    assert "the framework does not import" in mixed.stderr
    assert "broken: stopped after 0 checks: its process ended with exit code 1" in mixed.stdout
    assert re.search(r"logits, evaluation +float64 +[0-9.e-]+ +- +0 ", mixed.stdout)


@pytest.fixture(scope="module")
def ended(folder: Path) -> subprocess.CompletedProcess[str]:
    """The output of the command for backends whose process ends early, and for one that runs to its end."""
    return run(folder, "few,leaves,stops,killed,late", "ended")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("leaves", "ended with exit code 0"),
        ("stops", "ended with exit code 0"),
        ("killed", "was killed by SIGKILL"),
        ("late", "was killed by SIGUSR1 after its last check"),
    ],
)
def test_one_line_tells_how_a_process_ended_early_and_after_how_many_checks(
    folder, ended, name, how
):
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith(f"{name}: stopped")]
    made = len(load_results(folder / "ended" / name).checks)
    assert made > 1
    assert line == f"{name}: stopped after {made} checks: its process {how}"
    assert line in (folder / "ended" / "report.html").read_text()


def test_the_checks_before_a_process_ended_are_kept(folder, ended):
    assert not any(line.startswith("few: stopped") for line in ended.stdout.splitlines())
    right, killed, late = (
        load_results(folder / "ended" / name) for name in ("few", "killed", "late")
    )
    assert right.passed
    assert late.checks == right.checks
    assert killed.checks == right.checks[: len(killed.checks)]


def test_an_incomplete_last_line_is_ignored(tmp_path):
    check = CheckResult(
        "logits", "float64", (Difference("", 0.5),), Tolerance(1.0, 1.0, ""), seed=3
    )
    assert load_so_far(tmp_path / "none") == ((), 0)
    begin_seed(tmp_path, 3)
    add_check(tmp_path, check)
    whole = (tmp_path / "so-far.jsonl").read_text()
    (tmp_path / "so-far.jsonl").write_text(whole + whole.splitlines()[1][:30])
    assert load_so_far(tmp_path) == ((check,), 3)


def test_the_failing_seed_and_the_command_to_repeat_it_are_printed(folder):
    process = run(folder, "unlucky", "search", "--seed", "7", "--seeds", "2")
    assert process.returncode == 1
    lines = process.stdout.splitlines()
    assert "quick, seeds 7 to 8:" in lines[0]
    assert any(re.match(r"unlucky, seed 7: \d+ checks, all passed", line) for line in lines)
    assert any(re.match(r"unlucky, seed 8: \d+ checks, \d+ failed", line) for line in lines)
    (repeat,) = [line for line in lines if "fails with seed" in line]
    assert repeat == (
        "unlucky fails with seed 8: python run.py parity --backend unlucky --quick --seed 8"
    )
    assert "checked: fp32, the worst of seeds 7 to 8" in [line.rstrip() for line in lines]
    results = load_results(folder / "search" / "unlucky")
    assert results.failing_seeds == [8]
    assert len(results.checks) == 2 * len(results.worst)
    batches, logits = (
        results.worst[key]
        for key in (("batches, not augmented", "float32"), ("transforms", "float32"))
    )
    assert (batches.seed, batches.passed) == (8, False)
    each = [
        c.largest.value for c in results.checks if (c.check, c.kind) == ("transforms", "float32")
    ]
    assert logits.largest.value == max(each)
    assert len(set(each)) == 2  # each seed draws different inputs


def test_seeds_above_the_largest_are_an_error():
    assert ParityConfig(seed=MAX_SEED - 1, seeds=2).all_seeds == [MAX_SEED - 1, MAX_SEED]
    with pytest.raises(UserError, match="is too large for 2 seeds"):
        ParityConfig(seed=MAX_SEED, seeds=2)


def test_the_report_is_one_file_without_external_links(folder, mixed):
    report = (folder / "mixed" / "report.html").read_text()
    assert "broken: stopped" in report
    assert report.count("<img ") >= 7
    assert not re.search(r"(src|href)=['\"](?!data:)", report)


def test_saved_results_are_loaded_unchanged(folder, mixed):
    content = json.loads((folder / "mixed" / "right" / "outcomes.json").read_text())
    assert all(result["passed"] for result in content["outcomes"])
    results = load_results(folder / "mixed" / "right")
    assert results.backend == "right"
    assert len(results.checks) >= 57
    assert results.failures == []
    assert results.pictures["hue"].shape == (3, 100, 100)
    save_results(folder / "again", results)
    assert json.loads((folder / "again" / "outcomes.json").read_text()) == content


def test_an_exception_is_a_failure_and_the_checks_before_it_are_kept(tmp_path):
    """A network without one bias: the check of names reports it, and the checks that would set weights do not run."""
    backend = numpy_backend()
    get = backend.weights.get_weights
    wrong = changed(
        changed(backend, "weights", get_weights=lambda net: without_bias(get(net))),
        "transforms",
        augment=None,
    )
    right_transforms = changed(backend, "weights", get_weights=lambda net: without_bias(get(net)))
    check_backend(wrong, ParityConfig(quick=True), tmp_path / "raises")
    results = load_results(tmp_path / "raises")
    assert results.error.startswith("TypeError: ")
    assert not results.passed
    (names,) = model_checks(Adapter(right_transforms, "float64"), 8)
    assert names.check == "names and shapes"
    assert names.first is not None
    assert names.first.place == "fc.bias"


def without_bias(weights):
    return {name: weight for name, weight in weights.items() if name != "fc.bias"}


def test_coverage_is_printed_and_saved(folder, mixed):
    assert re.search(r"pipelines +batched, native", mixed.stdout)
    content = json.loads((folder / "mixed" / "right" / "outcomes.json").read_text())
    assert content["covered"]["precisions"] == ["fp32", "fp64"]
    assert "trainer.predict" not in content["not_called"]
    report = (folder / "mixed" / "report.html").read_text()
    assert "<td>pipelines</td><td>batched, native</td>" in report


def test_nan_and_inf_survive_saving_as_json(tmp_path):
    found = tuple(Difference(f"layer {v}", v) for v in (np.nan, np.inf, 0.5))
    check = CheckResult("logits", "float64", found, Tolerance(1.0, 1.0, "for a test"))
    save_results(tmp_path, BackendResults("numpy", {}, {}, (), (check,)))
    json.loads((tmp_path / "outcomes.json").read_text(), parse_constant=pytest.fail)
    (back,) = load_results(tmp_path).checks
    assert np.isnan(back.differences[0].value)
    assert [d.value for d in back.differences[1:]] == [np.inf, 0.5]


def test_the_report_accepts_pictures_of_another_shape_or_with_nan(folder, mixed, tmp_path):
    right = load_results(folder / "mixed" / "right")
    bad = dict(right.pictures) | {
        "hue": right.pictures["hue"][:, :50],
        "contrast": np.full((3, 100, 100), np.nan),
    }
    wrong = replace(right, backend="wrong", pictures=bad)
    write_report(
        tmp_path / "report.html", [right, wrong], {"right": {}, "wrong": {}}, None, 0, "fp32"
    )
    assert "<img " in (tmp_path / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_installed_backend_passes_the_command(tmp_path):
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


# --- Free-running training -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def around() -> Envelope:
    return envelope(4, num_channels=NUM_CHANNELS)


def trained(backend, around: Envelope):
    return free_running(Adapter(backend, "float32", num_channels=NUM_CHANNELS), around)


def test_each_seed_has_its_own_envelope(tmp_path, monkeypatch):
    for name, narrow in (("Adapter", Adapter), ("envelope", envelope)):
        monkeypatch.setattr(parity_backend, name, partial(narrow, num_channels=NUM_CHANNELS))
    monkeypatch.setattr(parity_backend, "FREE_STEPS", 2)
    monkeypatch.setattr(parity_backend, "run_checks", lambda *arguments: iter(()))
    config = ParityConfig(seed=5, seeds=2, compile=True)  # compiled checks draw no pictures
    parity_backend.write_envelopes(tmp_path, config)
    losses = [parity_backend.read_envelope(tmp_path, seed).losses for seed in (5, 6)]
    assert losses[0] != losses[1]
    check_backend(numpy_backend(), config, tmp_path / "numpy")
    results = load_results(tmp_path / "numpy")
    assert [(check.seed, check.passed) for check in results.checks] == [(5, True), (6, True)]
    np.testing.assert_allclose(results.losses, losses[0], rtol=1e-3)


def test_a_correct_backend_stays_within_the_envelope(around):
    result, losses = trained(numpy_backend(), around)
    assert result.passed, result.sentence()
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
def test_a_wrong_backend_leaves_the_envelope(around, conventions):
    result, _ = trained(numpy_backend(conventions), around)
    assert not result.passed
    assert result.cause is None


def test_an_optimizer_that_does_not_move_leaves_the_envelope(around):
    backend = numpy_backend()
    adam = backend.trainer.adam
    wrong = changed(backend, "trainer", adam=lambda net, lr=1e-3: adam(net, 1e-12))
    assert not trained(wrong, around)[0].passed
