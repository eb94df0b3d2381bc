"""docs/add-a-backend.md: its NumPy tab follows the contract and passes the tests that the page names."""

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from conftest import (
    Recorder,
    bright_dataset,
    load_or_skip,
    random_dataset,
    write_competition,
    write_folder,
)
from contract_sources import FILES, contract, departures, first_lines, functions, source
from mistakes import data, model, model_in_float32, steps
from numpy_backend import FRAMEWORK, PAGE, ROOT, TAB
from PIL import Image

import backends
from common.augmentation.decisions import decide
from common.augmentation.operations import gallery, kaggle_train_augs
from common.cli import COMMANDS
from common.commands.parity_backend import check_backend
from common.config import ParityConfig
from common.datasets import Data
from common.interface import Backend
from common.parity.results import load_results
from common.weights.canonical import initial_weights
from common.weights.safetensors import load_weights

with mock.patch.dict(backends.FRAMEWORKS, numpy=FRAMEWORK):
    from docs.examples import numpy_tab

BACKEND = numpy_tab.BACKEND
# The files that are the page's chapters, in the order in which they are written.
ORDER = re.findall(r"^## \d+\. `(\w+)\.py`", PAGE, re.M)


def text(file: str) -> str:
    return (TAB / f"{file}.py").read_text(encoding="utf-8")


# --- The contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_the_numpy_tab_has_the_names_arguments_and_defaults_of_the_contract(file):
    assert departures(text(file), FILES[file]) == []


@pytest.mark.parametrize("file", FILES)
def test_the_numpy_tab_has_the_docstrings_and_the_order_of_the_other_tabs(file):
    expected = contract(FILES[file])
    first, *_ = backends.FRAMEWORKS
    theirs, ours = first_lines(source(first, file)), first_lines(text(file))
    assert {name: ours[name] for name in expected} == {name: theirs[name] for name in expected}
    orders = [
        [name for name in functions(ast.parse(t).body) if name in expected]
        for t in (source(first, file), text(file))
    ]
    assert orders[0] == orders[1]


def test_the_record_has_the_eight_files_with_every_name_of_the_contract():
    files = [field.name for field in fields(Backend) if field.name != "framework"]
    assert files == list(FILES)
    for file in files:
        module = getattr(BACKEND, file)
        assert module.__name__ == f"docs.examples.numpy_tab.{file}"
        assert all(callable(getattr(module, name)) for name in contract(FILES[file]))
    assert BACKEND.devices.image_layout == "NCHW"
    assert BACKEND.resnet.Residual
    assert BACKEND.probes.CONVENTIONS


def test_the_tab_exports_the_names_that_the_others_export():
    theirs = ast.parse((ROOT / "backends/pytorch/__init__.py").read_text())
    (names,) = [n.value for n in theirs.body if ast.unparse(n).startswith("__all__")]
    expected = [e.value for e in names.elts if isinstance(e, ast.Constant)]
    assert len(expected) > 10
    assert set(expected) <= set(numpy_tab.__all__)
    assert all(hasattr(numpy_tab, name) for name in numpy_tab.__all__)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_function_is_named(file):
    whole = text(file)
    for name, function in functions(ast.parse(whole).body).items():
        if name not in contract(FILES[file]):
            continue
        lines = whole.splitlines()
        del lines[function.lineno - 1 : function.end_lineno]
        assert departures("\n".join(lines), FILES[file]) == [name]


def without(file: str, name: str) -> Backend:
    """Return the tab as if that function were not written yet."""
    module: ModuleType = getattr(BACKEND, file)
    rest = {k: v for k, v in vars(module).items() if k != name and not k.startswith("__")}
    return replace(BACKEND, **{file: SimpleNamespace(**rest)})


@pytest.mark.parametrize(("file", "name"), [("transforms", "augment"), ("devices", "from_numpy")])
def test_the_parity_command_names_the_missing_function_of_an_unfinished_backend(
    file, name, tmp_path, capsys
):
    check_backend(without(file, name), ParityConfig(quick=True), tmp_path / "numpy")
    results = load_results(tmp_path / "numpy")
    assert not results.passed
    assert f"no attribute '{name}'" in results.error
    assert "an exception stopped them" in capsys.readouterr().out


def test_each_file_imports_only_files_from_earlier_chapters_of_the_page():
    assert sorted(ORDER) == sorted(FILES)
    for i, file in enumerate(ORDER):
        nodes = [n for n in ast.walk(ast.parse(text(file))) if isinstance(n, ast.ImportFrom)]
        own = {n.module for n in nodes if n.level and n.module}
        own |= {alias.name for n in nodes if n.level and not n.module for alias in n.names}
        assert own <= set(ORDER[:i]), file


def test_the_lines_of_the_tab_are_shorter_than_80_characters():
    lines = [line for path in TAB.glob("*.py") for line in path.read_text().splitlines()]
    assert max(map(len, lines)) < 80


def test_the_tab_uses_only_the_parts_of_the_reference_that_the_page_names():
    """It must not use the reference's network and training loop: parity would compare the reference with itself."""
    used = set()
    for path in TAB.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "common.reference":
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom | ast.Import):
                assert "common.reference" not in ast.unparse(node)
    assert used == {"ALIGNED", "SGD", "Adam", "layers", "transforms"}


# --- Parity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checks", [data, model, model_in_float32, steps])
def test_the_numpy_tab_passes_the_parity_checks(checks):
    results = list(checks(BACKEND))
    assert [result.sentence() for result in results if not result.passed] == []
    assert len(results) >= 6


@pytest.mark.parametrize("recipe", ["flip, jitter and crop", "Kaggle"])
def test_the_numpy_tab_augments_to_the_same_pixels_as_the_other_backends(backend, recipe):
    augs = kaggle_train_augs((32, 32)) if recipe == "Kaggle" else gallery((24, 20))[recipe]
    images = random_dataset(16).images
    decisions = decide(augs, np.arange(16), 0, 0, (32, 32))
    found = []
    for tab in (BACKEND, backend):
        uint8 = tab.transforms.from_images(images, tab.devices.cpu())
        X = tab.devices.to_numpy(tab.transforms.augment_to_float(uint8, decisions))
        found.append(np.moveaxis(X, -1, 1) if tab.devices.image_layout == "NHWC" else X)
    assert found[0].shape == found[1].shape
    # 4e-6 is about five times the largest difference of a backend from the reference: docs/parity.md, transforms.
    np.testing.assert_allclose(found[0], found[1], atol=4e-6)
    assert np.ptp(found[0]) > 0.5


def test_the_numpy_tab_trains_and_its_loss_falls():
    net = BACKEND.resnet.resnet18(2)
    BACKEND.weights.set_weights(net, initial_weights(2))
    load, recorder = BACKEND.loaders.load_batched, Recorder()
    summary = BACKEND.trainer.train_ch13(
        net,
        load(bright_dataset(24, 0), gallery((8, 8))["left-right flip"], 8, True),
        load(bright_dataset(8, 1), (), 8, False),
        BACKEND.trainer.cross_entropy(),
        BACKEND.trainer.adam(net, 3e-4),
        4,
        [BACKEND.devices.cpu()],
        recorder,
    )
    assert summary.examples == 4 * 24
    losses = [report.loss for report in recorder.reports]
    assert len(losses) == 4 * 3
    assert summary.loss < losses[0] / 2


def test_a_loss_without_a_written_gradient_is_an_error():
    net, trainer = BACKEND.resnet.resnet18(2), BACKEND.trainer
    X, y = next(iter(BACKEND.loaders.load_batched(bright_dataset(4), (), 4, False)))
    for wrong in (
        lambda y_hat, y: 2 * trainer.cross_entropy()(y_hat, y),
        lambda y_hat, y: y_hat[:, 0],
    ):
        with pytest.raises(ValueError, match="cross-entropy only"):
            trainer.train_batch_ch13(net, X, y, wrong, trainer.adam(net), ["cpu"])


# --- Registered, as the page says ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project in which the page's commands have registered the tab as the backend numpy."""
    root = tmp_path_factory.mktemp("registered")
    for name in ("backends", "common", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(TAB, root / "docs" / "examples" / "numpy_tab")
    shutil.copy(ROOT / "docs" / "add-a-backend.md", root / "docs")
    (script,) = re.findall(r"^## Register it\n.*?```sh\n(.*?)```", PAGE, re.M | re.S)
    subprocess.run(["bash", "-euc", script], cwd=root, check=True)
    return root


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, capture_output=True, text=True, check=False
    )


# The commands of the page's table, without the tests of the other backends.
PROOFS = re.findall(r"`pytest -k \"(numpy.*?)\" (tests/.*?)`", PAGE)


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "files"), PROOFS, ids=[files for _, files in PROOFS])
def test_the_tests_named_on_the_page_pass_after_registration(checkout, chosen, files):
    alone = " and ".join([chosen, *(f"not {name}" for name in backends.FRAMEWORKS)])
    done = run(checkout, "-m", "pytest", "-n", "0", "-q", "-k", alone, *files.split())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 1


def test_the_page_names_a_test_for_every_file():
    named = {file for _, files in PROOFS for file in files.split()}
    without = {"probes", "processes"}  # used by all tests; NumPy has no engine
    files = {*FILES, "interface"} - without
    assert named == {f"tests/contract/test_{file}.py" for file in files} | {
        "tests/contract/test_resume.py",
        "tests/parity/test_every_backend.py",
    }
    assert all((ROOT / file).is_file() for file in named)


def test_registering_changes_only_the_folder_backends(checkout):
    """Only the new folder and the table of frameworks change."""
    new = [
        path.relative_to(checkout)
        for path in checkout.rglob("*.py")
        if not (there := ROOT / path.relative_to(checkout)).is_file()
        or there.read_bytes() != path.read_bytes()
    ]
    others = {path for path in new if path.parts[:2] != ("backends", "numpy")}
    assert others == {Path("backends/__init__.py")}
    assert {path.stem for path in new} >= set(FILES)


# Runs all commands in one process, which imports NumPy once and no other framework.
DRIVER = """
import json, sys
import run
for arguments in json.loads(sys.argv[1]):
    print("$", *arguments, flush=True)
    if code := run.main(arguments):
        sys.exit(f"{arguments}: {code}")
frameworks = {"torch", "mxnet", "tensorflow", "keras"} & set(sys.modules)
assert not frameworks, frameworks
"""


@pytest.mark.slow
def test_every_command_works_with_a_registered_backend(checkout, tmp_path):
    small = Data("bright", bright_dataset(40, 0), bright_dataset(20, 1))
    data = ["--data", str(write_folder(tmp_path / "data", small)), "--image-size", "8"]
    competition = str(write_competition(tmp_path / "competition"))
    image = str(next((tmp_path / "data" / "test").rglob("*.png")))
    few = ["--batch-size", "8", "--epochs", "1", "--image-size", "8"]
    out = {name: str(tmp_path / name) for name in ("train", "augment", "evaluate", "kaggle")}
    weights, own = str(tmp_path / "train" / "weights.safetensors"), str(tmp_path / "net.npz")
    with_numpy, submission = ["--backend", "numpy"], str(tmp_path / "kaggle" / "submission.csv")
    again = str(tmp_path / "again.safetensors")
    commands = [
        ["train", *with_numpy, *data, *few[:4], "--output", out["train"]],
        ["train", "--resume", out["train"], "--epochs", "2"],
        ["augment", *with_numpy, *data, "--output", out["augment"]],
        ["evaluate", *with_numpy, *data, "--weights", weights, "--output", out["evaluate"]],
        ["kaggle", *with_numpy, "--data-dir", competition, *few, "--output", out["kaggle"]],
        ["check-submission", submission, "--data-dir", competition],
        ["predict", *with_numpy, "--weights", weights, image],
        ["convert", weights, own],
        ["convert", own, again],
        ["evaluate", *with_numpy, *data, "--weights", own, "--output", f"{out['evaluate']}-own"],
    ]
    assert {name for name, *_ in commands} | {"parity"} == set(COMMANDS)  # parity: the next test
    done = run(checkout, "-c", DRIVER, json.dumps(commands))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "examples/sec on ['cpu']" in done.stdout
    assert done.stdout.count("numpy (numpy") >= 5
    assert f"{submission} would be accepted" in done.stdout
    assert f"{image} " in done.stdout
    first, last = (load_weights(Path(path))[0] for path in (weights, again))
    assert all(first[name].tobytes() == last[name].tobytes() for name in first)
    accuracies = [
        json.loads((Path(folder) / "summary.json").read_text())["test_acc"]
        for folder in (out["train"], out["evaluate"], f"{out['evaluate']}-own")
    ]
    assert len(set(accuracies)) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_registered_backend_agrees_with_the_reference(checkout, tmp_path):
    (options,) = re.findall(r"^python run\.py (parity --backend numpy --quick)$", PAGE, re.M)
    done = run(checkout, "run.py", *options.split(), "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All checks passed: numpy agrees with the reference." in done.stdout


@pytest.mark.slow
def test_a_registered_backend_runs_with_another_and_has_its_own_colour(checkout, tmp_path):
    load_or_skip("pytorch")
    small = Data("bright", bright_dataset(40, 0), bright_dataset(20, 1))
    data = ["--data", str(write_folder(tmp_path / "data", small)), "--image-size", "8"]
    few = ["--batch-size", "8", "--epochs", "1", "--output", str(tmp_path / "out")]
    done = run(checkout, "run.py", "--backend", "numpy,pytorch", *data, *few)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())["backends"]
    assert list(record) == ["numpy", "pytorch"]
    picture = np.asarray(Image.open(tmp_path / "out" / "backends.png").convert("RGB")).astype(int)
    colour = [int(FRAMEWORK.style["color"][i : i + 2], 16) for i in (1, 3, 5)]
    assert (abs(picture - colour).max(-1) < 8).sum() > 20
    weights = ["--weights", str(tmp_path / "out" / "numpy" / "weights.safetensors")]
    both = ["--backend", "numpy,pytorch", "--output", str(tmp_path / "evaluated")]
    done = run(checkout, "run.py", "evaluate", *both, *data, *weights)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "evaluated" / "comparison.json").read_text())["backends"]
    assert list(found) == ["numpy", "pytorch"]
    assert found["numpy"]["test_acc"] == record["numpy"]["test_acc"]


def test_a_registered_backend_is_a_choice_of_the_command_line(checkout):
    done = run(checkout, "run.py", "--backend", "no-such")
    assert done.returncode == 2
    assert "pytorch, mxnet, tensorflow, numpy" in done.stderr


def test_a_registered_backend_has_a_style_of_its_own():
    for part in ("color", "linestyle", "marker"):
        looks = [f.style[part] for f in (*backends.FRAMEWORKS.values(), FRAMEWORK)]
        assert len(set(looks)) == len(looks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "words"), [("--precision=bf16", "no bfloat16"), ("--compile", "no compiler")]
)
def test_an_unsupported_option_is_a_one_line_error(checkout, option, words):
    done = run(checkout, "run.py", "--backend", "numpy", option)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_mypy_names_the_missing_function_of_an_unfinished_backend(checkout):
    """`__init__.py` builds the record, so mypy compares each module with its Protocol there."""
    pytest.importorskip("mypy")
    path = checkout / "backends" / "numpy" / "probes.py"
    whole = path.read_text()
    found = []
    try:
        for content in (whole, whole.replace("def gradients(", "def _gradients(")):
            path.write_text(content)
            found.append(run(checkout, "-m", "mypy", "backends/numpy/__init__.py").stdout)
    finally:
        path.write_text(whole)
    assert "backends/numpy" not in found[0], found[0]
    assert re.search(r"backends/numpy/__init__\.py.*gradients", found[1], re.S), found[1]
