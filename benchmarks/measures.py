"""The nine measures, each a function. Rates that are compared are measured in turns."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, Worker, WorkerError
from common.commands.launcher import THREADS
from common.system import environment

Rates = dict[str, list[float]]
Say = Callable[[str], None]

# A training step takes 555.4 million multiply-adds forward and twice as many backward.
GFLOP_PER_IMAGE = 3.33
PRECISIONS = ("fp32", "bf16")
RECIPES = ("flip", "kaggle", "jitter")


@dataclass(frozen=True)
class Extent:
    """The sizes and repetitions of the measures. The documentation's results use the defaults."""

    repetitions: int = 5
    growth_repetitions: int = 2
    start_warmups: int = 1  # starts that are not measured; they fill the file caches
    batch_size: int = 128
    product_size: int = 2048
    product_seconds: float = 0.5
    steps: int = 2
    train_batches: int = 4
    loader_images: int = 5_000
    loader_batch_size: int = 256
    batch_sizes: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    train_images: tuple[int, ...] = (256, 512, 1024)
    memory_images: tuple[int, ...] = (50_000, 100_000, 200_000)
    checkpoint_images: tuple[int, int] = (700, 400)  # of the quick preset, as its batch size
    checkpoint_batch_size: int = 16
    checkpoint_epochs: int = 3
    process_images: int = 320
    workers: tuple[int, ...] = (0, 1, 2, 4)


# A trial run for tests, too small for meaningful results.
QUICK = Extent(
    repetitions=1,
    growth_repetitions=1,
    start_warmups=0,
    batch_size=2,
    product_size=16,
    product_seconds=0,
    steps=1,
    train_batches=1,
    loader_images=8,
    loader_batch_size=4,
    batch_sizes=(4,),
    train_images=(2, 4),
    memory_images=(1000, 2000),
    checkpoint_images=(4, 4),
    checkpoint_batch_size=2,
    checkpoint_epochs=1,
    process_images=15,
    workers=(0, 1),
)


@contextmanager
def workers_of(backends: Sequence[str], plain: bool = False) -> Iterator[dict[str, Worker]]:
    """Yield a worker process for each backend, and end them afterwards."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Worker(name, plain=plain)) for name in backends}


def rate(answer: dict[str, Any], what: str = "images") -> float:
    """Return the count per second."""
    return float(answer[what] / answer["seconds"])


def in_turns(repetitions: int, candidates: Mapping[str, Callable[[], float]], say: Say) -> Rates:
    """Measure every candidate once in each repetition, in rotating order.

    A candidate that fails, such as a precision that the processor lacks, is reported and left out.
    """
    rates: Rates = {name: [] for name in candidates}
    names = list(candidates)
    for i in range(repetitions):
        for name in names[i % max(len(names), 1) :] + names[: i % max(len(names), 1)]:
            if name not in rates:
                continue
            try:
                rates[name].append(candidates[name]())
            except WorkerError as error:
                say(f"left out: {name}: {error}")
                del rates[name]
    return rates


def training(backends: Sequence[str], extent: Extent, say: Say) -> dict[str, Any]:
    """Measure a product, a step, `train_ch13` and the book's recipe in turns (1 to 4), in GFLOP/s and images/s."""
    product = {"size": extent.product_size, "seconds": extent.product_seconds}
    batch = {"batch_size": extent.batch_size}
    candidates: dict[str, Callable[[], float]] = {}
    with workers_of(backends) as ours, workers_of(backends, plain=True) as books:
        for name in backends:
            for precision in PRECISIONS:
                key, ask = f"{name} {precision}", partial(_ask, ours[name], precision=precision)
                candidates |= {
                    f"product {key}": partial(ask, "product", **product),
                    f"step {key}": partial(ask, "step", steps=extent.steps, **batch),
                    f"train {key}": partial(ask, "train", batches=extent.train_batches, **batch),
                }
            candidates[f"book {name} fp32"] = partial(
                _ask, books[name], "book", batches=extent.train_batches, **batch
            )
        rates = in_turns(extent.repetitions, candidates, say)
        conditions = {
            f"{name} {precision}": ours[name].ask("conditions", precision=precision)
            for name in backends
            for precision in PRECISIONS
            if f"step {name} {precision}" in rates
        }
    return {"rates": rates, "conditions": conditions, "gflop_per_image": GFLOP_PER_IMAGE}


def _ask(worker: Worker, task: str, **arguments: Any) -> float:
    """Return the rate of a task: images/s, or GFLOP/s for a product."""
    answer = worker.ask(task, **arguments)
    return rate(answer, "flop") / 1e9 if task == "product" else rate(answer)


# Settings of `environment.prepare`: the backends that have each, and the variables that undo it.
WITHOUT: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "keeping freed memory": (
        ("pytorch", "mxnet", "tensorflow"),
        # An empty value changes nothing in glibc, but because it is set, the project leaves the allocator alone.
        {"GLIBC_TUNABLES": ""},
    ),
    "all cores": (("mxnet",), {"OMP_NUM_THREADS": str(max(1, environment.cores() // 2))}),
    # libgomp's default if neither variable is set: some milliseconds.
    "sleeping threads": (("pytorch", "mxnet"), {"GOMP_SPINCOUNT": "300000"}),
}


def options(backends: Sequence[str], extent: Extent, say: Say) -> dict[str, Any]:
    """Measure the fp32 step as it is, compiled, and without each environment setting, in turns, in images/s."""
    same: dict[str, Any] = {"precision": "fp32", "batch_size": extent.batch_size}
    candidates: dict[str, Callable[[], float]] = {}
    with ExitStack() as stack:

        def step(name: str, variables: dict[str, str], **more: Any) -> Callable[[], float]:
            worker = stack.enter_context(Worker(name, variables))
            return partial(_ask, worker, "step", steps=extent.steps, **same, **more)

        for name in backends:
            candidates[f"{name}: as it is"] = step(name, {})
            if name != "mxnet":  # which always compiles
                candidates[f"{name}: with --compile"] = step(name, {}, compile=True)
            for what, (whose, variables) in WITHOUT.items():
                if name in whose:
                    candidates[f"{name}: without {what}"] = step(name, variables)
        return {"rates": in_turns(extent.repetitions, candidates, say)}


# The loaders that a user could take instead, by framework.
PEERS: dict[str, tuple[str, ...]] = {
    "pytorch": ("book", "v2", "v2 batch"),
    "mxnet": ("book",),
    "tensorflow": ("book", "Keras layers"),
    "numpy": ("NumPy", "albumentations"),
}


def loaders(backends: Sequence[str], extent: Extent, say: Say) -> dict[str, Any]:
    """Measure an epoch of batches from each loader, in turns for each recipe (5), in images/s."""
    same = {"num_images": extent.loader_images, "batch_size": extent.loader_batch_size}
    rates: Rates = {}
    with workers_of(backends) as ours, workers_of([*backends, "numpy"], plain=True) as others:
        for recipe in RECIPES:
            candidates: dict[str, Callable[[], float]] = {}
            for name in backends:
                ask = partial(_ask, ours[name], "loader", recipe=recipe, **same)
                candidates[f"{recipe} {name} batched"] = partial(ask, pipeline="batched")
                candidates[f"{recipe} {name} native"] = partial(ask, pipeline="native", workers=2)
            for name, worker in others.items():
                ask = partial(_ask, worker, "loader", recipe=recipe, **same)
                for pipeline in PEERS[name]:
                    if pipeline != "NumPy" or recipe == "flip":
                        candidates[f"{recipe} {name} {pipeline}"] = partial(ask, pipeline=pipeline)
            rates |= in_turns(extent.repetitions, candidates, say)
    return {"rates": rates}


BARE = {
    "pytorch": "import torch",
    "mxnet": "from benchmarks.peers import backend_file as f; f('mxnet', '_compat').import_mxnet()",
    "tensorflow": "import tensorflow",
}
# A bare import, a layer, and one step of the framework's own Adam. Some frameworks import more on first use.
LEAST = {
    "pytorch": "import torch as t; n = t.nn.Linear(2, 2); o = t.optim.Adam(n.parameters()); "
    "n(t.ones(1, 2)).sum().backward(); o.step()",
    "mxnet": f"{BARE['mxnet']}; import mxnet as m; n = m.gluon.nn.Dense(2, in_units=2); n.initialize(); "
    "o = m.gluon.Trainer(n.collect_params(), 'adam'); m.autograd.set_recording(True); "
    "l = n(m.np.ones((1, 2))); m.autograd.set_recording(False); l.backward(); o.step(1); m.npx.waitall()",
    "tensorflow": "import keras as k; n = k.Sequential([k.Input((2,)), k.layers.Dense(2)]); "
    "n.compile('adam', 'mse'); n.train_on_batch(k.ops.ones((1, 2)), k.ops.ones((1, 2)))",
}


def missing_entries(backend: str) -> list[str]:
    """Return the tables of this file that have no entry for a backend; it needs one in each."""
    tables: dict[str, Mapping[str, Any]] = {"PEERS": PEERS, "BARE": BARE, "LEAST": LEAST}
    return [name for name, table in tables.items() if backend not in table]


def start(backends: Sequence[str], extent: Extent, say: Say) -> dict[str, Any]:
    """Measure the start up to the first training step, and bare imports, in turns (6), in seconds and MiB."""
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in backends}

    def command(name: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            splits[name].append(_first_step(name, Path(folder) / "run"))
        return float(splits[name][-1]["seconds"])

    candidates: dict[str, Callable[[], float]] = {}
    for name in backends:
        candidates |= {
            f"{name} import": partial(_seconds, BARE[name]),
            f"{name} least": partial(_seconds, LEAST[name]),
            f"{name} run.py": partial(command, name),
        }
    in_turns(extent.start_warmups, candidates, lambda _: None)
    for split in splits.values():
        split.clear()
    seconds = in_turns(extent.repetitions, candidates, say)
    return {"seconds": seconds, "splits": splits}


def _seconds(code: str) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise WorkerError(done.stderr[-500:])
    return time.perf_counter() - began


def _first_step(name: str, output: Path) -> dict[str, Any]:
    """Return the seconds of each part of the main job's start, and of the whole as ``seconds``."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.first_step", name, str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise WorkerError(done.stderr[-500:])
    split: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    known = sum(value for part, value in split.items() if part != "memory")
    return split | {"rest": seconds - known, "seconds": seconds}


def checkpoints(backends: Sequence[str], extent: Extent, say: Say) -> dict[str, Any]:
    """Measure epochs of the quick preset with and without checkpoints, in turns, in images/s, and the memory (8)."""
    task: dict[str, Any] = {
        "images": extent.checkpoint_images,
        "batch_size": extent.checkpoint_batch_size,
        "epochs": extent.checkpoint_epochs,
    }
    rates: Rates = {}
    memory: dict[str, dict[str, float]] = {}
    for name in backends:
        with Worker(name) as worker:
            ask = partial(_ask, worker, "checkpoints", **task)
            candidates = {
                f"{name} without": partial(ask, saved=False),
                f"{name} with": partial(ask, saved=True),
            }
            rates |= in_turns(extent.repetitions, candidates, say)
        memory[name] = {}
        for what, saved in (("without", False), ("with", True)):
            with Worker(name) as fresh:  # peak memory is counted per process
                fresh.ask("checkpoints", saved=saved, **task)
                memory[name][what] = fresh.ask("conditions")["memory"]
    return {"rates": rates, "memory": memory}


def processes(backends: Sequence[str], extent: Extent, say: Say) -> dict[str, Any]:
    """Measure `run.py` in processes x threads, in turns, in images/s of the second epoch (9)."""
    candidates = {
        f"{name} {count} x {threads}": partial(_second_epoch, name, count, threads, extent)
        for name in backends
        for count, threads in ((1, 1), (2, 1), (1, 2))
    }
    return {"rates": in_turns(extent.repetitions, candidates, say)}


def _second_epoch(name: str, count: int, threads: int, extent: Extent) -> float:
    """Train for two epochs in ``count`` processes of ``threads`` threads; return the rate of the second one."""
    with tempfile.TemporaryDirectory() as folder:
        options = (
            f"--backend {name} --processes {count} --device cpu --epochs 2 --output {folder}/run"
        )
        images = f"--limit {extent.process_images} 8 --batch-size {extent.process_images // 5}"
        done = subprocess.run(
            [sys.executable, "run.py", *options.split(), *images.split()],
            cwd=ROOT,
            env={**os.environ, **dict.fromkeys(THREADS, str(threads))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WorkerError(done.stderr[-500:])
        lines = (Path(folder) / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return float(json.loads(lines[-1])["images_per_second"])


def growth(backends: Sequence[str], extent: Extent, say: Say) -> dict[str, Any]:
    """Measure time by images, batch size and workers, and memory by images and batch size (7)."""
    found: dict[str, Any] = {"images": {}, "batch_size": {}, "workers": {}, "memory": {}}
    with workers_of(backends) as ours:
        for name, worker in ours.items():
            found["images"][name] = _by_images(worker, extent, say)
            found["workers"][name] = _by_workers(worker, extent, say)
            found["batch_size"][name] = _by_batch_size(name, worker, extent, say)
    for name in backends:
        points = {}
        for n in extent.memory_images:
            with Worker(name) as fresh:  # peak memory is counted per process
                points[n] = fresh.ask("memory", num_images=n, batch_size=extent.batch_size)
        found["memory"][name] = points
    return found


def _by_images(worker: Worker, extent: Extent, say: Say) -> Rates:
    """Return the seconds of `train_ch13` by number of images."""

    def seconds(n: int) -> float:
        batches = max(n // extent.batch_size, 1)
        size = extent.batch_size
        answer = worker.ask("train", precision="fp32", batch_size=size, batches=batches)
        return float(answer["seconds"])

    candidates = {str(n): partial(seconds, n) for n in extent.train_images}
    return in_turns(extent.growth_repetitions, candidates, say)


def _by_batch_size(name: str, usual: Worker, extent: Extent, say: Say) -> dict[str, Any]:
    """Return a step's images/s by batch size, each in turns with the usual batch size, and the peak memory."""

    def images(worker: Worker, n: int) -> float:
        steps = max(1, extent.batch_size * extent.steps // n)
        return rate(worker.ask("step", precision="fp32", batch_size=n, steps=steps))

    found = {}
    for n in extent.batch_sizes:
        with Worker(name) as fresh:
            candidates = {
                "usual": partial(images, usual, extent.batch_size),
                "this": partial(images, fresh, n),
            }
            rates = in_turns(extent.growth_repetitions, candidates, say)
            if "this" in rates:
                found[str(n)] = rates | {"memory": fresh.ask("conditions")["memory"]}
    return found


def _by_workers(worker: Worker, extent: Extent, say: Say) -> Rates:
    """Return the images/s of the native pipeline's loader by number of workers."""
    same: dict[str, Any] = {
        "pipeline": "native",
        "recipe": "flip",
        "num_images": extent.loader_images,
        "batch_size": extent.loader_batch_size,
    }

    def images(n: int) -> float:
        return rate(worker.ask("loader", workers=n, **same))

    candidates = {str(n): partial(images, n) for n in extent.workers}
    return in_turns(extent.growth_repetitions, candidates, say)
