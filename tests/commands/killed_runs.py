"""Start run.py as a real process that waits at a given place of its training, to be killed or interrupted there."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from test_run import ROOT, metrics

from common.weights.safetensors import read_arrays

# Like run.py, with a narrow network and a checkpoint after each epoch. Nothing is drawn before the training.
DRIVER = f"""
import os, sys, time
from functools import partial
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import run
from common.commands import checkpoints, kaggle, session, train
from common.drawing.progress import TrainingProgress
from common.system.processes import end_program
from common.weights.canonical import initial_weights

def wait_here(place):
    if os.environ["STOP_AT"] == place:
        stopped = Path(os.environ["STOPPED"])
        stopped.with_suffix(".new").write_text(str(os.getpid()))
        stopped.with_suffix(".new").rename(stopped)
        time.sleep(600)

class Checkpoints(checkpoints.Checkpoints):
    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        global now
        now = self

def on_batch(self, epoch, images, seconds, before=TrainingProgress.on_batch):
    before(self, epoch, images, seconds)
    if images > 8:  # not the first batch of this epoch
        now._wait()
        wait_here(f"{{now.run.name}} {{now.name}} {{epoch}}")

def waiting(place, function):
    def wait(*arguments):
        wait_here(place)
        return function(*arguments)
    return wait

checkpoints.SHARE = float("inf")
kaggle.initial_weights = session.initial_weights = partial(initial_weights, num_channels=8)
TrainingProgress.on_batch = on_batch
for command in (kaggle, train):
    command.Checkpoints = Checkpoints
    command.save_weights = waiting("weights", command.save_weights)
kaggle.write_submission = waiting("submission", kaggle.write_submission)
kaggle.save_augmented = train.show = lambda *arguments: None
run.__file__ = __file__  # also for the processes of several backends
if __name__ == "__main__":
    end_program(run.main(sys.argv[1:]))
"""


class Runs:
    """Runs of one command line, each in a folder below ``folder``."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.folder, self.options = folder, [str(option) for option in options]
        self.script, self.stopped = folder / "driver.py", folder / "stopped"
        self.script.write_text(DRIVER)

    def __call__(self, *words: object, code: int = 0) -> tuple[str, str]:
        """Run to the end, require the exit code, and return both outputs."""
        process = self._start(words)
        out, err = self._end(process, 600)
        assert process.returncode == code, err
        return out, err

    def new(self, name: str, *words: object) -> Path:
        """Run a new run to the end, and return its folder."""
        self(*self.options, *words, "--output", self.folder / name)
        return self.folder / name

    def resume(self, folder: Path, *words: object) -> tuple[str, str]:
        """Resume a run, and let it end."""
        return self(*self.options[: self.options[0] == "kaggle"], "--resume", folder, *words)

    def killed(self, place: str, number: int, folder: Path) -> str:
        """Start the run of this folder, or resume it, send a signal when it is at ``place``, and return its errors."""
        process = self._start_or_resume(folder, place)
        self._wait_for(self.stopped.exists, process)
        self.stopped.unlink()
        process.send_signal(number)
        _, err = self._end(process, 60)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.returncode == expected, err
        return err

    def killed_at_random(self, seconds: float, folder: Path) -> bool:
        """Start the run of this folder, or resume it; kill it some seconds after an epoch, unless it has ended.

        Return whether it was killed.
        """
        lines = folder / "metrics.jsonl"
        before = lines.stat().st_mtime_ns if lines.exists() else 0
        process = self._start_or_resume(folder)

        def has_trained() -> bool:
            return lines.exists() and lines.stat().st_mtime_ns != before

        self._wait_for(lambda: has_trained() or process.poll() == 0, process)
        time.sleep(seconds)
        process.kill()
        self._end(process, 60)
        return process.returncode == -signal.SIGKILL

    @staticmethod
    def _wait_for(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 600
        while not holds():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _start_or_resume(self, folder: Path, place: str = "") -> subprocess.Popen[str]:
        if not (folder / "config.json").exists():
            return self._start([*self.options, "--output", folder], place)
        kaggle = self.options[: self.options[0] == "kaggle"]
        return self._start([*kaggle, "--resume", folder], place)

    def _start(self, words: Any, place: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.script), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=os.environ | {"STOP_AT": place, "STOPPED": str(self.stopped)},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    @staticmethod
    def _end(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
        try:
            return process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def arrays(path: Path) -> dict[str, Any]:
    """Return what a file of weights or a checkpoint holds, without its times: digests of the arrays, and metadata."""
    weights, optimizer, metadata = read_arrays(path)
    found: dict[str, Any] = {
        name: hashlib.sha256(array.tobytes()).hexdigest()
        for name, array in (weights | optimizer).items()
    }
    epochs = without_times(json.loads(metadata.pop("epochs", "[]")))
    return found | metadata | {"epochs": epochs}


def without_times(value: Any) -> Any:
    """Return a JSON value without times and memory, which differ from run to run."""
    if isinstance(value, list):
        return list(map(without_times, value))
    if not isinstance(value, dict):
        return value
    return {
        name: without_times(inner)
        for name, inner in value.items()
        if "second" not in name and name != "peak_memory_mib"
    }


def results(folder: Path) -> dict[str, Any]:
    """Return everything that must not depend on interruptions: the names of the files, and the results in them."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    found: dict[str, Any] = {"files": names, "metrics": metrics(folder)}
    for name in names:
        if name.endswith(".safetensors"):
            found[name] = arrays(folder / name)
    for name in ("summary.json", "comparison.json"):
        if (folder / name).exists():
            found[name] = without_times(json.loads((folder / name).read_text()))
    if (folder / "submission.csv").exists():
        found["submission.csv"] = (folder / "submission.csv").read_text()
    return found
