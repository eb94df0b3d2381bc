"""`--backend all`: each backend in its own process, then a comparison. Most tests use stand-in scripts as backends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import required
from PIL import Image
from test_run import ROOT, SMALL, finish, metrics, refused, start

import backends
import run
from common.commands import side_by_side
from common.drawing import plots

NAMES = list(backends.FRAMEWORKS)


# --- Which backends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "extras"),
    [("all", "uv run --extra all"), ("mxnet,pytorch", "uv run --extra mxnet --extra pytorch")],
)
def test_a_missing_framework_is_an_error_that_names_it(chosen, extras, monkeypatch, capsys):
    anywhere = replace(backends.FRAMEWORKS["mxnet"], wheels=(), newest_python=None)
    monkeypatch.setitem(backends.FRAMEWORKS, "mxnet", anywhere)
    there = backends.find_spec
    monkeypatch.setattr(
        backends, "find_spec", lambda name: None if name == "mxnet" else there(name) or True
    )
    code = run.main(["--backend", chosen])
    refused((code, "", capsys.readouterr().err), "backend mxnet needs mxnet", extras)


def test_predict_runs_several_backends_without_a_run_folder(stand_ins):
    code, out, err = finish(stand_ins.without_folder("predict", "--weights", "w", "cat.png"))
    assert code == 0, err
    assert [line for line in out.splitlines() if line] == [
        line for i, name in enumerate("abc", 1) for line in (f"{name}, {i} of 3", f"I am {name}")
    ]


def test_an_unreadable_image_does_not_stop_the_other_backends(stand_ins):
    failing = "sys.exit(2 if name == 'a' else 0)"
    process = stand_ins.without_folder("predict", "--weights", "w", "--", "--cat.png", end=failing)
    code, out, _ = finish(process)
    assert code == 2
    assert "c, 3 of 3" in out


def test_evaluate_compares_the_accuracies_of_one_weights_file(stand_ins):
    body = 'write("summary.json", {"test_acc": "abc".index(name) / 10})\n'
    code, out, err = finish(stand_ins(body, "evaluate", "--weights", "w"))
    assert code == 0, err
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "test accuracy 0.000 0.100 0.200" in rows
    record = json.loads((stand_ins.output / "comparison.json").read_text())
    assert record["backends"]["c"] == {"test_acc": 0.2}


# --- The main job, with the frameworks themselves --------------------------------------------------------------------


@pytest.fixture(scope="session")
def everything() -> None:
    """Skip unless every backend is installed."""
    if missing := [name for name in NAMES if not backends.installed(name)]:
        if required() & set(missing):
            pytest.fail(f"{', '.join(missing)} required, and missing")
        pytest.skip(f"{', '.join(missing)} not installed")


@pytest.fixture(scope="session")
def compared(everything, small_folder, tmp_path_factory) -> tuple[Path, str, float]:
    """One finished run of all backends on the small folder: its folder, its output, and its seconds."""
    folder = tmp_path_factory.mktemp("all") / "new"
    began = time.monotonic()
    code, out, err = finish(
        start(
            "--backend", "all", "--data", small_folder, *SMALL, "--output", folder,
            "--cache-dir", folder.parent / "data",
        ),
        timeout=300,
    )  # fmt: skip
    assert code == 0, err
    return folder, out, time.monotonic() - began


@pytest.mark.slow
def test_every_backend_runs_and_has_a_complete_run_folder(compared):
    folder, out, _ = compared
    heads = [line for line in out.splitlines() if line.endswith(f" of {len(NAMES)}")]
    assert heads == [f"{name}, {i} of {len(NAMES)}" for i, name in enumerate(NAMES, start=1)]
    assert {path.name for path in folder.iterdir()} == {
        *NAMES,
        "backends.png",
        "comparison.json",
        "config.json",
    }
    for name in NAMES:
        assert f"results in {folder / name}" in out
        assert (folder / name / "weights.safetensors").exists()
        pictures = sorted(path.name for path in (folder / name).glob("*.png"))
        assert [picture.partition("-")[0] for picture in pictures[:7]] == ["augment"] * 7
        assert pictures[7:] == [
            "augmented-images.png",
            "confusion.png",
            "curves.png",
            "mistakes.png",
            "training-images.png",
        ]


@pytest.mark.slow
def test_every_backend_is_given_the_same_options(compared):
    folder = compared[0]
    configs = [json.loads((folder / name / "config.json").read_text())["config"] for name in NAMES]
    assert [config.pop("backend") for config in configs] == NAMES
    assert [config.pop("output") for config in configs] == [str(folder / name) for name in NAMES]
    assert configs == [configs[0]] * len(NAMES)
    assert (configs[0]["batch_size"], configs[0]["data"]["image_size"]) == (8, 8)


@pytest.mark.slow
def test_the_table_and_the_json_file_have_the_results_of_each_backend(compared):
    folder, out, seconds = compared
    table = {}
    for line in out[out.index("after epoch 2") :].splitlines():
        words = line.split()
        table[" ".join(words[: -len(NAMES)])] = words[-len(NAMES) :]
    assert table["after epoch 2"] == NAMES
    record = json.loads((folder / "comparison.json").read_text())["backends"]
    for column, name in enumerate(NAMES):
        summary = json.loads((folder / name / "summary.json").read_text())
        shown = {row: cells[column] for row, cells in table.items() if len(cells) == len(NAMES)}
        assert shown["loss"] == f"{summary['loss']:.3f}"
        assert shown["train accuracy"] == f"{summary['train_acc']:.3f}"
        assert shown["test accuracy"] == f"{summary['test_acc']:.3f}"
        book = summary["examples"] / summary["step_seconds"]
        clock = summary["examples"] / summary["seconds"]
        assert shown["examples/s by the book's timer"] == f"{book:,.1f}"
        assert shown["examples/s by the wall clock"] == f"{clock:,.1f}"
        assert shown["start-up, s"] == f"{summary['startup_seconds']:.1f}"
        assert shown["peak memory, MiB"] == f"{summary['peak_memory_mib']:,.0f}"
        assert 0.1 < summary["startup_seconds"] < seconds
        assert 100 < summary["peak_memory_mib"] < 50_000
        assert record[name]["test_acc"] == summary["test_acc"]
        losses = [epoch["train_loss"] for epoch in record[name]["epochs"]]
        assert losses == [line["train_loss"] for line in metrics(folder / name)]
    assert "Same data, seed, initial weights and batches" in out


@pytest.mark.slow
def test_the_picture_has_a_line_for_each_backend(compared):
    picture = np.asarray(Image.open(compared[0] / "backends.png").convert("RGB")).astype(int)
    for style in (framework.style for framework in backends.FRAMEWORKS.values()):
        colour = [int(style["color"][i : i + 2], 16) for i in (1, 3, 5)]
        assert (abs(picture - colour).max(-1) < 8).sum() > 100, style


@pytest.mark.slow
def test_augment_and_compare_augmentation_also_run_all_backends(everything, small_folder, tmp_path):
    shared = ["--data", small_folder, "--image-size", "8", "--cache-dir", tmp_path / "data"]
    two = ["--backend", "mxnet,pytorch", *shared, "--output"]
    code, _, err = finish(start("augment", *two, tmp_path / "drawn"), timeout=250)
    assert code == 0, err
    joined = sorted(path.name for path in (tmp_path / "drawn").glob("*.png"))
    assert len(joined) == 8
    assert joined[-1] == "augmented-images.png"
    own = [tmp_path / "drawn" / name / joined[-1] for name in ("mxnet", "pytorch")]
    with Image.open(own[0]) as one, Image.open(own[1]) as other:
        same = np.abs(np.asarray(one).astype(int) - np.asarray(other))
    # The same pixels, but for roundings of values halfway between two integers.
    assert same.max() <= 1
    code, out, err = finish(
        start(
            *two, tmp_path / "compared", "--compare-augmentation", "--seeds", 1,
            "--batch-size", 8, "--epochs", 1,
        ),
        timeout=250,
    )  # fmt: skip
    assert code == 0, err
    table = out[out.index("1 seed ") :].splitlines()
    rows = [tuple(line.split()[:2]) for line in table if " to " in line]
    assert rows == [(b, a) for b in ("mxnet", "pytorch") for a in ("none", "flip")]


@pytest.mark.slow
def test_ctrl_c_stops_the_running_backend_and_keeps_its_epochs(everything, small_folder, tmp_path):
    folder = tmp_path / "out"
    process = start(
        "--backend", "all", "--data", small_folder, *SMALL[:-1], "100000", "--output", folder,
        "--cache-dir", tmp_path / "data",
    )  # fmt: skip
    wait_until(lambda: (folder / NAMES[0] / "metrics.jsonl").exists(), process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    first, last = err.splitlines()
    assert first.startswith("interrupted: ")
    assert str(folder / NAMES[0]) in first
    assert last.startswith("interrupted: no backend had finished")
    assert (folder / NAMES[0] / "curves.png").exists()
    assert not (folder / NAMES[1]).exists()


def test_invalid_options_fail_in_the_first_backend_and_nothing_is_written(small_folder, tmp_path):
    chosen = ",".join(name for name in NAMES if backends.installed(name))
    if "," not in chosen:
        pytest.skip("needs two backends")
    folder = tmp_path / "out"
    code, _, err = finish(
        start("--backend", chosen, "--data", small_folder, "--batch-size", 41, "--output", folder)
    )
    assert code == 2
    first, last = err.splitlines()
    assert first.startswith("error: --batch-size 41")
    assert last == f"error: {chosen.split(',')[0]} failed with exit code 2; no backend had finished"
    assert not folder.exists()


# --- Stand-ins: scripts in place of run.py for three backends --------------------------------------------------------

# Like run.py, but it starts the script given as the first argument.
DRIVER = """
import sys
import backends, run
from common.interface import Framework
run.__file__ = sys.argv[1]
packages = {"a": "one", "b": "two", "c": "three"}
backends.FRAMEWORKS = {name: Framework(name, name, (package,)) for name, package in packages.items()}
backends.missing_packages = lambda name: []
code = run.main(sys.argv[2:])
frameworks = {"torch", "mxnet", "tensorflow", "keras"} & set(sys.modules)
assert not frameworks, frameworks
sys.exit(code)
"""

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
assert sys.argv[-4::2] == ["--backend", "--output"], sys.argv
name, folder = sys.argv[-3], Path(sys.argv[-1])
folder.mkdir(parents=True)
def write(file, content):
    (folder / file).write_text(json.dumps(content))
"""

FINISHED = """
write("summary.json", {
    "loss": 0.25, "train_acc": 0.75, "test_acc": 0.5, "examples": 100, "step_seconds": 2.0,
    "seconds": 4.0, "startup_seconds": 1.5, "peak_memory_mib": None,
})
packages = {"a": "one", "b": "two", "c": "three"}
write("config.json", {
    "versions": {packages[name]: "1.2"},
    "description": {"device": "cuda:0" if name == "c" else "cpu: slow", "threads": "2"},
})
write("metrics.jsonl", {"train_loss": 0.25, "train_acc": 0.75, "test_acc": 0.5})
"""


@pytest.fixture
def stand_ins(tmp_path) -> Iterator["StandIns"]:
    started = StandIns(tmp_path)
    yield started
    for process in started.processes:  # where a test has failed
        process.kill()


class StandIns:
    """Start ``--backend all`` in a new session, with a script in place of each backend."""

    def __init__(self, folder: Path) -> None:
        self.script, self.output = folder / "stand_in.py", folder / "out"
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, body: str, *arguments: str) -> subprocess.Popen[str]:
        self.script.write_text(STAND_IN + body)
        words = [*arguments, "--backend", "all", "--output", str(self.output)]
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.script), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.processes.append(process)
        return process

    def without_folder(self, *arguments: str, end: str = "") -> subprocess.Popen[str]:
        """Start a command that has no run folder."""
        self.script.write_text(
            "import sys\nbackends = zip(sys.argv, sys.argv[1:])\n"
            "name = [name for option, name in backends if option == '--backend'][-1]\n"
            f"print('I am', name)\n{end}\n"
        )
        words = [arguments[0], "--backend", "all", *arguments[1:]]
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.script), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def pid(self, process: subprocess.Popen[str], name: str = "a") -> int:
        """Wait until a stand-in has written its process id, and return it."""
        wait_until(lambda: (self.output / name / "pid").exists(), process)
        return int((self.output / name / "pid").read_text())


def wait_until(holds, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


WAITING = 'write("pid", os.getpid())\ntime.sleep(100)\n'


def test_different_devices_are_shown_and_missing_numbers_are_omitted(stand_ins):
    code, out, err = finish(stand_ins(FINISHED))
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "version 1.2 1.2 1.2" in lines
    assert "device cpu: slow cpu: slow cuda:0" in lines
    assert not [line for line in lines if line.startswith("threads")]
    assert "peak memory, MiB - - -" in lines
    assert "examples/s by the book's timer 50.0 50.0 50.0" in lines
    assert "examples/s by the wall clock 25.0 25.0 25.0" in lines
    assert side_by_side.OTHER_DEVICES in lines


def test_the_note_for_the_native_pipeline_does_not_claim_equal_augmentation(stand_ins):
    code, out, err = finish(stand_ins(FINISHED, "--pipeline", "native"))
    assert code == 0, err
    notes = " ".join(out.split())
    assert side_by_side.WHY_RESULTS_DIFFER["native"] in notes
    assert side_by_side.WHY_RESULTS_DIFFER["batched"] not in notes


def test_a_backend_s_lines_arrive_while_it_runs(stand_ins):
    process = stand_ins(
        'print("I am", name, flush=True)\n'
        'while not (folder / "go").exists(): time.sleep(0.05)\n' + FINISHED
    )
    for i, name in enumerate("abc"):
        expected = [f"{name}, {i + 1} of 3\n", f"I am {name}\n"]
        assert [process.stdout.readline() for _ in expected] == expected
        assert process.poll() is None
        (stand_ins.output / name / "go").touch()
        process.stdout.readline()  # the blank line
    assert finish(process)[0] == 0


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        ("sys.exit(7)", 7, "b failed with exit code 7"),
        ("raise ValueError", 1, "b failed with exit code 1"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            137,
            "b was killed, perhaps because memory ran out",
        ),
        ("os.kill(os.getpid(), signal.SIGABRT)", 134, "b was ended by signal 6"),
    ],
)
def test_the_first_failure_stops_everything_and_names_the_folder_of_the_results(
    stand_ins, end, code, words
):
    ended, out, err = finish(stand_ins(f'if name == "b": {end}\n{FINISHED}'))
    assert ended == code
    assert err.splitlines()[-1] == f"error: {words}; finished before: a, kept in {stand_ins.output}"
    assert (stand_ins.output / "a" / "summary.json").exists()
    assert not (stand_ins.output / "c").exists()
    assert "after epoch" not in out


def test_ctrl_c_on_a_terminal_reaches_the_backend_once_and_ends_with_130(stand_ins):
    process = stand_ins(
        "if name == 'b':\n"
        "    signals = []\n"
        "    signal.signal(signal.SIGINT, lambda *_: signals.append(1))\n"
        "    write('pid', os.getpid())\n"
        "    time.sleep(0.1)\n"
        "    while not signals: time.sleep(0.01)\n"
        "    time.sleep(1)\n"  # as if it saved its results
        "    write('signals', signals)\n"
        "    sys.exit(130)\n" + FINISHED
    )
    child = stand_ins.pid(process, "b")
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    again = f"go on with: python run.py --resume {stand_ins.output}"
    assert err == f"interrupted: finished before: a, kept in {stand_ins.output}; {again}\n"
    assert (stand_ins.output / "b" / "signals").read_text() == "[1]"
    assert not alive(child)


def test_an_interrupt_of_only_the_parent_is_passed_on_to_the_child(stand_ins):
    process = stand_ins(
        "signal.signal(signal.SIGINT, lambda *_: (write('kept', name), sys.exit(130)))\n" + WAITING
    )
    child = stand_ins.pid(process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.startswith("interrupted: no backend had finished")
    assert (stand_ins.output / "a" / "kept").exists()
    assert not alive(child)


def test_an_interrupt_of_only_the_child_stops_everything(stand_ins):
    process = stand_ins("signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n" + WAITING)
    os.kill(stand_ins.pid(process), signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err.partition(":")[0]) == (130, "interrupted")


def test_a_second_ctrl_c_kills_a_backend_that_does_not_end(stand_ins):
    process = stand_ins("signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + WAITING)
    child = stand_ins.pid(process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)
    assert finish(process, timeout=20)[0] == 130
    assert not alive(child)


def test_a_terminated_parent_leaves_no_backend_behind(stand_ins):
    process = stand_ins(WAITING)
    child = stand_ins.pid(process)
    process.terminate()
    assert finish(process)[0] == 128 + signal.SIGTERM
    assert not alive(child)


def test_a_folder_that_is_not_empty_is_refused_before_anything_runs(stand_ins):
    stand_ins.output.mkdir()
    (stand_ins.output / "mine").touch()
    refused(finish(stand_ins(FINISHED)), "is not empty")
    assert [path.name for path in stand_ins.output.iterdir()] == ["mine"]


def test_one_table_lists_the_gain_of_augmentation_in_each_backend(stand_ins):
    comparison = """
gain = "abc".index(name) / 10
write("comparison.json", {
    "none": {"train_acc": [1.0, 1.0], "test_acc": [0.5, 0.5 + gain]},
    "flip": {"train_acc": [0.9, 0.9], "test_acc": [0.7, 0.7 + gain]},
})
"""
    code, out, err = finish(stand_ins(comparison, "--compare-augmentation", "--seeds", "2"))
    assert code == 0, err
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "2 seeds augment train accuracy test accuracy" in rows
    assert "c none 1.000 (1.000 to 1.000) 0.600 (0.500 to 0.700)" in rows
    assert "b flip 0.900 (0.900 to 0.900) 0.750 (0.700 to 0.800)" in rows
    record = json.loads((stand_ins.output / "comparison.json").read_text())
    assert record["backends"]["b"]["flip"]["test_acc"] == [0.7, pytest.approx(0.8)]


def test_augment_saves_each_backend_s_pictures_and_prints_no_table(stand_ins):
    code, out, err = finish(stand_ins("", "augment"))
    assert code == 0, err
    assert sorted(path.name for path in stand_ins.output.iterdir()) == ["a", "b", "c"]
    assert out.splitlines()[-1] == f"results in {stand_ins.output}"


def test_augment_joins_the_pictures_that_all_backends_drew(stand_ins):
    """Each below its framework's name. The training images are the same in all."""
    body = """
from PIL import Image
drawn = {"augment-1.png", "training-images.png", *(["of-a.png"] if name == "a" else [])}
for file in drawn:
    colour = {"a": "red", "b": "lime", "c": "blue"}[name]
    Image.new("RGB", (60 if name == "b" else 40, 20), colour).save(folder / file)
"""
    code, out, err = finish(stand_ins(body, "augment"))
    assert code == 0, err
    assert [path.name for path in stand_ins.output.glob("*.png")] == ["augment-1.png"]
    assert f"joined 1 picture of a, b, c in {stand_ins.output}" in out.splitlines()
    with Image.open(stand_ins.output / "augment-1.png") as joined:
        pixels = np.asarray(joined.convert("RGB"))
    assert pixels.shape[1] == 60
    rows = [np.flatnonzero((pixels == c).all(-1).any(1)) for c in np.eye(3, dtype=int) * 255]
    assert [len(r) for r in rows] == [20, 20, 20]
    assert rows[0][-1] < rows[1][0] < rows[1][-1] < rows[2][0]


# --- The picture -----------------------------------------------------------------------------------------------------


def styles(lines: Sequence) -> set[tuple]:
    return {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}


def test_each_curve_has_a_panel_and_each_backend_a_colour_a_dash_and_a_marker(
    tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda path, figure: drawn.append(figure))
    curves = {
        name: {"train loss": [1.0, 0.5 + i], "test accuracy": [0.1 * i, 0.2]}
        for i, name in enumerate("abc")
    }
    frameworks = backends.FRAMEWORKS.values()
    looks = {name: framework.style for name, framework in zip("abc", frameworks, strict=True)}
    plots.save_backends(tmp_path / "x.png", curves, looks, "title")
    panels = drawn[0].axes
    assert [axis.get_title() for axis in panels] == ["train loss", "test accuracy"]
    for axis in panels:
        found = {line.get_label(): list(line.get_ydata()) for line in axis.lines}
        assert found == {name: values[axis.get_title()] for name, values in curves.items()}
        assert [list(line.get_xdata()) for line in axis.lines] == [[1, 2]] * 3
        for looks in zip(*styles(axis.lines), strict=True):
            assert len(set(looks)) == 3
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
