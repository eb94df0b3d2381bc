"""`run.py --processes`, and the engines' own commands: real processes, also lost and interrupted ones."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import bright_dataset, skip_unless_installed, write_competition, write_folder
from killed_runs import Runs
from test_run import ROOT, finish, metrics, start

import backends
from common.commands.launcher import free_port
from common.datasets import Data

NAMES = [name for name, framework in backends.FRAMEWORKS.items() if framework.engine]
# 36 images in batches of 8: two processes have four of each, and two of the last.
SMALL = ["--image-size", 8, "--batch-size", 8, "--epochs", 2, "--device", "cpu", "--lr", 1e-4]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="reads the processes in /proc"),
]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    skip_unless_installed(request.param)
    return request.param


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "bright"
    return write_folder(folder, Data("bright", bright_dataset(36, 0), bright_dataset(5, 1)))


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path, monkeypatch) -> Iterator[None]:
    """Check that a test leaves no process, no temporary folder and no shared memory."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))  # PyTorch keeps it
    yield
    assert not _processes_of(temporary)
    assert not list(temporary.iterdir())
    shutil.rmtree(tmp_path)  # runs of 150 MB each


def _processes_of(temporary: Path) -> list[str]:
    """Return the command lines of the processes that have this folder in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={temporary}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def run(*words: object, code: int = 0, cwd: Path = ROOT) -> tuple[str, str]:
    found, out, err = finish(start(*words, cwd=cwd), 300)
    assert found == code, err
    return out, err


def by_hand(name: str, *words: object, of_one: Sequence[object] = ()) -> dict[str, tuple]:
    """Start the processes of a backend with the variables of its engine; one gets other words.

    Return the exit code and both outputs of each.
    """
    engine = backends.FRAMEWORKS[name].engine
    assert engine is not None
    started = {}
    for role in engine.roles(2, free_port, ()):
        own = of_one if role.name in ("rank 1", "worker 1") else ()
        threads = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
        started[role.name] = start("--backend", name, *words, *own, **threads, **role.variables)
    return {role: finish(process, 300) for role, process in started.items()}


def test_two_processes_train_evaluate_and_go_on_alone(name, data, tmp_path):
    out_folder = tmp_path / "out"
    options = ["--data", data, "--cache-dir", tmp_path, *SMALL]
    out, err = run("--backend", name, *options, "--processes", 2, "--output", out_folder)
    assert f"  processes  2, {'each with'}" in out
    assert len(re.findall("epoch 2/2", out)) == 1
    assert out.splitlines()[-1] == f"results in {out_folder}"
    assert not err
    assert [line["epoch"] for line in metrics(out_folder)] == [1, 2]
    assert json.loads((out_folder / "config.json").read_text())["config"]["processes"] == 2
    folder, weights = tmp_path / "evaluated", out_folder / "weights.safetensors"
    words = [*options[:6], "--weights", weights, "--output", folder, "--device", "cpu"]
    run("evaluate", "--backend", name, *words, "--processes", 2)
    accuracy = json.loads((folder / "summary.json").read_text())["test_acc"]
    assert accuracy == metrics(out_folder)[-1]["test_acc"]
    out, _ = run("--resume", out_folder, "--epochs", 3, "--processes", 1)
    assert "not bit for bit: " in out
    assert "processes 1, before 2" in out
    assert "goes on after epoch 2 of 3\n" in out


def test_two_processes_share_the_validation_and_the_test_images_of_kaggle(name, tmp_path):
    competition = write_competition(tmp_path / "competition", 40, 7)
    words = ["--data-dir", competition, *SMALL[:-2], "--lr", 1e-4, "--epochs", 1]
    folder = tmp_path / "out"
    run("kaggle", "--backend", name, *words, "--processes", 2, "--output", folder)
    rows = (folder / "submission.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["id", *map(str, range(7, 50, 7))]
    # The same weights in one process.
    images = [competition / "test" / f"{number}.png" for number in range(7, 50, 7)]
    words = ["--device", "cpu", "--weights", folder / "weights.safetensors"]
    out, _ = run("predict", "--backend", name, *words, *images)
    found = re.findall(r"/([0-9]+)\.png\s+(bright|dark)", out)
    assert [",".join(pair) for pair in found] == rows[1:]


@pytest.mark.parametrize("name", ["mxnet", "tensorflow"], indirect=True)  # torchrun is PyTorch's
def test_the_engines_own_variables_start_the_same_training(name, data, tmp_path):
    folder = tmp_path / "out"
    options = ["--data", data, "--cache-dir", tmp_path, *SMALL, "--epochs", 1]
    ended = by_hand(name, *options, "--output", folder)
    assert {code for code, _, _ in ended.values()} == {0}
    printed = [out for _, out, _ in ended.values() if out]
    assert len(printed) == 1
    assert printed[0].splitlines()[-1] == f"results in {folder}"


def test_torchrun_starts_the_same_training(data, tmp_path):
    skip_unless_installed("pytorch")
    torchrun = Path(sys.executable).with_name("torchrun")
    folder = tmp_path / "out"
    options = ["--data", data, "--cache-dir", tmp_path, *SMALL, "--epochs", 1, "--output", folder]
    logs = ["--log-dir", tmp_path / "logs"]  # it leaves a folder of logs
    words = [*logs, "--nproc-per-node", "2", ROOT / "run.py", "--backend", "pytorch", *options]
    done = subprocess.run([torchrun, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results in") == 1
    assert json.loads((folder / "config.json").read_text())["config"]["processes"] == 2


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("pytorch", ["--batch-size", 4], "differ in --batch-size (here "),
        ("mxnet", ["--seed", 1], "differ in --seed (here "),
        ("pytorch", ["--data", "others"], "differ in the images: "),
        ("mxnet", ["--data", "missing"], "no data called 'missing'"),
    ],
)
def test_every_process_names_what_differs_or_fails_in_one(name, changes, words, data, tmp_path):
    skip_unless_installed(name)
    if "others" in changes:
        others = Data("bright", bright_dataset(36, 2), bright_dataset(5, 1))
        changes = ["--data", write_folder(tmp_path / "others", others)]
    options = ["--data", data, "--cache-dir", tmp_path, *SMALL, "--output", tmp_path / "out"]
    ended = by_hand(name, *options, of_one=changes)
    for role, (code, out, err) in ended.items():
        if role in ("scheduler", "server"):
            assert (code, out + err) == (0, "")
        else:
            assert code == 2
            assert words in err
            assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


class Together(Runs):
    """Runs of two processes. The second can be stopped in the middle of an epoch."""

    def stopped_in(self, epoch: int) -> tuple[subprocess.Popen[str], int]:
        """Start a run, and return it and the process that waits in this epoch."""
        process = self._start(
            [*self.options, "--output", self.folder / "out"], f"run flip-seed-0 {epoch}"
        )
        self._wait_for(self.stopped.exists, process)
        number = int(self.stopped.read_text())
        self.stopped.unlink()
        return process, number


@pytest.fixture
def together(name: str, data: Path, tmp_path: Path) -> Together:
    options = ["--data", data, "--cache-dir", tmp_path, *SMALL, "--processes", 2]
    return Together(tmp_path, "--backend", name, *options)


def _server_of(launcher: int) -> int:
    """Return the number of the process that serves."""
    for number in map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()):
        if b"DMLC_ROLE=server" in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
            return number
    raise AssertionError


def test_a_lost_process_ends_all_and_the_run_goes_on_from_its_checkpoint(together, tmp_path, name):
    process, rank_1 = together.stopped_in(2)
    lost = "server" if name == "mxnet" else "rank 1"
    os.kill(_server_of(process.pid) if name == "mxnet" else rank_1, signal.SIGKILL)
    _, err = together._end(process, 20)
    assert process.returncode == 128 + signal.SIGKILL
    how = f"go on with: python run.py --resume {tmp_path}/out"
    assert err.splitlines()[-1] == (
        f"error: {lost} was lost: it was killed by SIGKILL; the others have been ended; {how}"
    )
    assert not (tmp_path / "out" / "summary.json").exists()
    out, _ = together.resume(tmp_path / "out")
    assert f" resume  {tmp_path}/out, bit for bit\n" in out
    assert "goes on after epoch 1 of 2\n" in out
    assert [line["epoch"] for line in metrics(tmp_path / "out")] == [1, 2]


def test_a_lost_process_before_the_first_checkpoint_leaves_nothing_to_go_on_from(data, tmp_path):
    skip_unless_installed("pytorch")
    options = ["--data", data, "--cache-dir", tmp_path, *SMALL, "--processes", 2]
    process, rank_1 = Together(tmp_path, "--backend", "pytorch", *options).stopped_in(1)
    os.kill(rank_1, signal.SIGKILL)
    _, err = Runs._end(process, 20)
    assert err.splitlines()[-1].endswith("; the others have been ended")


@pytest.mark.parametrize(
    ("name", "number"),
    [("pytorch", signal.SIGINT), ("tensorflow", signal.SIGTERM)],
    indirect=["name"],
)
def test_an_interrupt_ends_all_and_says_how_to_go_on(together, tmp_path, number):
    process, _ = together.stopped_in(2)
    process.send_signal(number)
    _, err = together._end(process, 20)
    assert process.returncode == 128 + number
    assert err == (
        f"interrupted: 1 finished epoch, kept in {tmp_path}/out; "
        f"go on with: python run.py --resume {tmp_path}/out\n"
    )
    assert list((tmp_path / "out" / "checkpoints").iterdir())
