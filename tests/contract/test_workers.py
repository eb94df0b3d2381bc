"""Worker processes that end, and shared memory that is full, are one line within seconds, never a hang."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import load_or_skip, random_dataset

from common.augmentation.operations import parse_augmentations
from common.errors import UserError
from common.system import workers
from common.system.workers import WorkerBatches, check_shared_memory

ROOT = Path(__file__).resolve().parents[2]
WITH_PROCESSES = ["pytorch", "mxnet"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")

# Train with two workers for ever, and kill one after a moment; the parent prints what `run.py` prints, and ends as it.
KILLED = """
import multiprocessing, os, signal, sys, threading, time
import numpy as np
import backends
from common.datasets import Dataset
from common.system.processes import end_program, exit_code

def main():
    data = Dataset(np.zeros((256, 16, 16, 3), np.uint8), np.zeros(256, np.int64), ("a", "b"))
    batches = backends.load(sys.argv[1]).loaders.load_native(data, (), 16, True, 0, 2)
    list(batches)  # the workers have started

    def kill():
        time.sleep(float(sys.argv[2]))
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    while True:
        for _ in batches:
            time.sleep(0.01)

end_program(exit_code(main))
"""


# A loader loses its worker, and what ends with the program waits for it for ever: a finalizer and a thread.
WAITING = """
import multiprocessing, signal, threading
from common.system.processes import end_program, exit_code
from common.system.workers import WorkerBatches

class Loader:
    def __len__(self):
        return 1

    def __iter__(self):
        self.worker = multiprocessing.Process(target=signal.pause)
        self.worker.start()
        return self

    def __next__(self):
        threading.Thread(target=threading.Event().wait).start()
        self.worker.kill()
        raise RuntimeError("no batch")

    def __del__(self):
        threading.Event().wait()

end_program(exit_code(lambda: len(list(WorkerBatches(Loader())))))
"""


def run_killed(backend: str, delay: float) -> subprocess.CompletedProcess[str]:
    """Run `KILLED` in a new process."""
    return run_script(KILLED, backend, str(delay))


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a new process; a hang is a failure of the test."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def in_small_memory(size: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a /dev/shm of this size; skip the test on a machine that cannot mount one."""
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if "unshare" in result.stderr or "mount" in result.stderr:
        pytest.skip(f"this machine cannot mount: {result.stderr.strip()}")
    return result


def require_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert [line[:7] for line in lines] == ["error: "], result.stderr
    for word in (*words, "--workers", "--pipeline batched"):
        assert word in result.stderr


@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_a_killed_worker_ends_the_run_with_one_line(name):
    load_or_skip(name)
    require_one_line(run_killed(name, 0.2), "killed by SIGKILL", "memory")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 0.05, 0.3])
@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_a_worker_killed_at_any_moment_ends_the_run_with_one_line(name, delay):
    load_or_skip(name)
    require_one_line(run_killed(name, delay), "killed by SIGKILL")


def test_a_program_that_has_lost_a_worker_ends_without_finalizers():
    require_one_line(run_script(WAITING), "killed by SIGKILL")


def test_a_worker_of_pytorch_takes_no_lock_of_an_event(monkeypatch):
    """Killed while it holds the lock, it would keep the lock, for which the loader waits."""
    backend, is_set = load_or_skip("pytorch"), Event.is_set

    def end_in_worker(event: Event) -> bool:
        if multiprocessing.parent_process():
            os._exit(3)
        return is_set(event)

    monkeypatch.setattr(Event, "is_set", end_in_worker)
    batches = list(backend.loaders.load_native(random_dataset(40, size=8), (), 16, True, 0, 2))
    assert len(batches) == 3


@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_too_little_shared_memory_is_refused_before_a_worker_starts(name, monkeypatch):
    backend = load_or_skip(name)
    full = SimpleNamespace(f_bavail=20, f_frsize=2**20)
    monkeypatch.setattr(workers, "os", SimpleNamespace(statvfs=lambda path: full))
    augs = parse_augmentations("crop", (64, 64))  # larger batches than the images
    words = r"/dev/shm has 20 MiB free, and --workers 4 needs 121 MiB .* use --workers 0 or .*--shm-size"
    with pytest.raises(UserError, match=words):
        backend.loaders.load_native(random_dataset(2560), augs, 256, True, 0, 4)
    backend.loaders.load_native(random_dataset(2560), augs, 256, True)  # without workers


def test_the_number_of_workers_that_is_advised_fits(monkeypatch):
    def with_free(mib: int):
        system = SimpleNamespace(statvfs=lambda path: SimpleNamespace(f_bavail=mib, f_frsize=2**20))
        monkeypatch.setattr(workers, "os", system)

    with_free(64)  # as in a container of Docker
    with pytest.raises(UserError, match=r"--workers 4 needs 114 MiB .* use --workers 1 or"):
        check_shared_memory(10_000, (64, 64), 240, 4)
    check_shared_memory(10_000, (64, 64), 240, 1)
    check_shared_memory(240, (64, 64), 240, 4)  # one batch only


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_a_small_shared_memory_ends_a_run_with_one_line(name, tmp_path):
    load_or_skip(name)
    command = [
        *("run.py", "--backend", name, "--pipeline", "native", "--workers", "4"),
        *("--batch-size", "128", "--limit", "1280", "64", "--output", str(tmp_path / "out")),
    ]
    result = in_small_memory("8m", *command)
    require_one_line(result, "/dev/shm has 8 MiB free", "--shm-size")


def test_an_error_that_no_worker_caused_is_not_explained_away():
    class Broken:
        def __len__(self) -> int:
            return 1

        def __iter__(self):
            raise ValueError("the transform is wrong")
            yield

    with pytest.raises(ValueError, match="the transform is wrong"):
        list(WorkerBatches(Broken()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("No space left on device", "/dev/shm is full: use fewer --workers"),
        ("OSError: Too many open files in worker 0", "more open files than allowed"),
    ],
)
def test_what_a_worker_lacks_is_named(text, words, monkeypatch):
    skipped: list[bool] = []
    monkeypatch.setattr(workers, "skip_finalizers", lambda: skipped.append(True))

    class Failing:
        def __len__(self) -> int:
            return 1

        def __iter__(self):
            raise RuntimeError(text)
            yield

    with pytest.raises(UserError, match=words):
        list(WorkerBatches(Failing()))
    assert skipped == [True]


@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_batches_of_workers_are_those_without_workers_in_every_epoch(name):
    backend, data = load_or_skip(name), random_dataset(40, size=8)
    augs = parse_augmentations("flip,crop", (8, 8))
    with_workers = backend.loaders.load_native(data, augs, 16, True, 3, 2)
    without = backend.loaders.load_native(data, augs, 16, True, 3, 0)
    for _ in range(2):
        pairs = list(zip(with_workers, without, strict=True))
        assert len(pairs) == len(with_workers) == 3
        for (X, y), (X_one, y_one) in pairs:
            for one, other in ((X, X_one), (y, y_one)):
                to_numpy = backend.devices.to_numpy
                np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def test_a_worker_ends_with_its_parent():
    """Also if the parent is killed: a worker that stays would hold its memory for ever."""
    load_or_skip("mxnet")
    script = KILLED.replace("multiprocessing.active_children()[0].pid", "os.getpid()").replace(
        "list(batches)",
        "list(batches); print(*[c.pid for c in multiprocessing.active_children()], flush=True)",
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "mxnet", "0.2"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in result.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and "Z" not in status(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def status(pid: int) -> str:
    """Return the state of a process, such as Z for one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_a_shared_memory_that_fills_during_a_run_ends_it_with_one_line(name):
    load_or_skip(name)
    # Again and again, because each batch that is used up gives its memory back.
    fill = """file = open("/dev/shm/full", "ab", buffering=0)
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                time.sleep(0.0001)"""
    script = KILLED.replace(
        "os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)", fill
    )
    result = in_small_memory("64m", "-c", script, name, "0.2")
    require_one_line(result, "--shm-size")
