"""The page docs/performance.md and its pictures, made from the results of `python -m benchmarks` and nothing else."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends import FRAMEWORKS
from benchmarks.results import Spread, ratio
from common.drawing.plots import save_figure
from common.system.files import write_text

Results = Mapping[str, Any]
RECIPES = {
    "flip": "flip",
    "kaggle": "Kaggle recipe",
    "jitter": "flip, full jitter, crop",
}
# Peers that do less, and in which recipes: what is drawn for a whole batch at once, and what is cut at one size only.
LESS_WORK = {
    "pytorch v2 batch": tuple(RECIPES),
    "tensorflow Keras layers": ("kaggle", "jitter"),
}


def write_report(results_file: Path, docs: Path) -> None:
    """Write ``docs``/performance.md, and the picture of the curves beside its other pictures."""
    results = json.loads(results_file.read_text(encoding="utf-8"))
    if "growth" in results:
        draw_growth(docs / "images" / "growth.png", results)
    write_text(docs / "performance.md", page(results))


def page(results: Results) -> str:
    """Return the page as Markdown: of the measures that were taken, of which training must be one."""
    sections: dict[str, Callable[[], str]] = {
        "training": lambda: TRAINING + _training(results),
        "options": lambda: OPTIONS + _options(results),
        "loaders": lambda: LOADERS + _loaders(results),
        "start": lambda: START + _start(results),
        "growth": lambda: GROWTH + _growth(results),
    }
    parts = [
        INTRODUCTION,
        _machine(results),
        "## Goals\n\n" + _goals(results),
        *(make() for name, make in sections.items() if name in results),
        _left_out(results),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


INTRODUCTION = """
# Performance: what is fast, and how fast

```sh
uv run --extra all --group bench python -m benchmarks --output docs/benchmarks.json
uv run --extra all --group bench python -m benchmarks report docs/benchmarks.json
```

The first command measures for about an hour on two cores, the second makes this page: every figure below is
from [benchmarks.json](benchmarks.json), which holds each repetition. A machine's speed changes from minute to minute,
so what is compared is measured in turns in one run, each framework in a process of its own that sleeps meanwhile, and
the figures to trust are ratios. They are medians, with the lowest and the highest in brackets.
"""

TRAINING = """
## Training

- **product**: the framework's own product of two square matrices, GFLOP/s.
- **step**: the training step of ResNet-18 on one batch of images of 32 x 32 that lies on the device, images/s. Its
  share is its arithmetic (3.33 GFLOP for a training image) over the fastest product of any framework in that
  precision.
- **train**: an epoch of `train_ch13` over the batched pipeline with flips by the wall clock, loader and all,
  images/s.
- **book**: the book's recipe by the wall clock: transforms one image at a time in 4 workers (that live on from epoch
  to epoch), eager blocks, loss and accuracy read after every batch, environment and allocator as they come; for
  TensorFlow, which the book does not have, a plain Keras `fit` on arrays, with Keras' own layers. Always fp32.

"""

OPTIONS = """
## What makes the step fast

The step in fp32 as it is, and with one thing changed. What is set before a framework is imported is all in
`common/system/environment.py`, only where the user has not set it, and each run prints what is in force.

"""

LOADERS = """
## Loaders

Images/s of a loader alone, images of 32 x 32, everything on the CPU. `batched` is what run.py uses, `native` is the
framework's own pipeline here, seeded by example, with 2 workers; `book` is the framework's own with the book's 4
workers, in TensorFlow tf.data with as many threads as it chooses. albumentations and NumPy run in one process. Marked
with * is what does less: torchvision's v2 on a whole batch draws once for all its images; Keras' crop has one size.
The book's jitter in MXNet is its four changes one after another: workers die of RandomColorJitter (README, MXNet
today). The batched jitter was measured before its colour changes became one operation each. Since then a jitter of all
four takes 2.0 to 2.6 times as long in PyTorch and 1.2 to 1.3 times in MXNet.

"""

START = """
## Start

Seconds from the command to the end of the first training step of the main job (`run.py`, data, eight sheets of
pictures and all), beside a bare import of the framework, and beside the least script that trains: import, one layer,
one step of the framework's own Adam. When it is first made, PyTorch's Adam imports PyTorch's compiler.

"""

GROWTH = """
## Growth

![Seconds against images, images/s against batch size and workers, memory against images](images/growth.png)

Of the step by batch size, each size is measured in a fresh process, in turns with one and the same process that takes
the usual size and has been measuring for a while, which has made it slower here. With two repetitions these are the
least certain figures of the page.

"""

NO_GPU = """
- **A GPU.** None was at hand. The path is there: data and augmentation on the device, uploads through pinned memory,
  and with `--compile` torch.compile in the mode that captures CUDA graphs.
"""
NO_AMX = """
- **AMX.** This processor has none. What MXNet wins by it is in README, under MXNet today.
"""


def _machine(results: Results) -> str:
    machine, conditions = results["machine"], results["training"]["conditions"]
    versions: dict[str, str] = {}
    in_force = []
    for key, condition in conditions.items():
        versions |= condition["versions"]
        shown = {
            name: value
            for name, value in condition.items()
            if name not in ("versions", "device", "memory", "precision")
        }
        settings = ", ".join(f"{name} {value}" for name, value in shown.items())
        in_force.append(f"- {key}: {settings}")
    extent = results["extent"]
    measures = (found for found in results.values() if "load_before" in found)
    known = [found["load_before"] for found in measures if found["load_before"] is not None]
    busy = f"{min(known):.2f} to {max(known):.2f}" if known else "not known"
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory']}, "
        f"{machine['system']}; instructions {', '.join(machine['instructions']) or 'not known'}; "
        f"load of the machine before each measure: {busy}; {extent['repetitions']} repetitions, of the curves "
        f"{extent['growth_repetitions']}; training in batches of {extent['batch_size']}, "
        f"{extent['train_batches']} an epoch; products of {extent['product_size']:,} x {extent['product_size']:,}; "
        f"loaders with {extent['loader_images']:,} images in batches of {extent['loader_batch_size']}; versions: "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ". In force:\n\n"
        + "\n".join(in_force)
    )


def _left_out(results: Results) -> str:
    devices = [c.get("device", "") for c in results["training"]["conditions"].values()]
    parts = [] if any("cuda" in device for device in devices) else [NO_GPU.strip()]
    if "amx_bf16" not in results["machine"]["instructions"]:
        parts.append(NO_AMX.strip())
    parts.append("- Several devices: on CPUs they share the cores.")
    missing = [name for name in ("options", "loaders", "start", "growth") if name not in results]
    parts += [f"- {name}: not in these results." for name in missing]
    return "## Not measured\n\n" + "\n".join(parts)


# --- The goals -------------------------------------------------------------------------------------------------------


def _goals(results: Results) -> str:
    goals = {
        "training": _training_goals,
        "loaders": _loader_goals,
        "start": _start_goals,
        "growth": _growth_goals,
    }
    rows = [row for name, of in goals.items() if name in results for row in of(results)]
    lines = [
        (what, wanted, f"{measured}", "yes" if met else "**no**")
        for what, wanted, measured, met in rows
    ]
    return _table(("goal", "wanted", "measured", "met"), lines)


def _training_goals(results: Results) -> Iterable[tuple[str, str, str, bool]]:
    rates, backends = results["training"]["rates"], results["backends"]
    for precision, least in (("fp32", 0.60), ("bf16", 0.28)):
        names = [b for b in backends if f"step {b} {precision}" in rates]
        shares = {b: _share(results, b, precision).median for b in names}
        yield _each(f"step over product, {precision}", shares, least)
        kept = {b: _kept(rates, b, precision).median for b in names}
        yield _each(f"train over step, {precision}", kept, 0.97)
        medians = [Spread.of(rates[f"step {b} {precision}"]).median for b in names]
        slowest = min(medians) / max(medians)
        yield f"slowest over fastest, {precision}", ">= 0.80", f"{slowest:.2f}", slowest >= 0.8
    wanted = {
        "fp32": {"pytorch": 1.3, "mxnet": 2.0, "tensorflow": 1.15},
        "bf16": {"pytorch": 3.0, "mxnet": 4.5, "tensorflow": 1.5},
    }
    for precision, least_by_backend in wanted.items():
        for b in backends:
            if f"train {b} {precision}" in rates:
                over = _over_book(rates, b, precision).median
                least = least_by_backend[b]
                yield (
                    f"train over the book, {b} {precision}",
                    f">= {least}",
                    f"{over:.2f}",
                    over >= least,
                )


def _loader_goals(results: Results) -> Iterable[tuple[str, str, str, bool]]:
    rates, backends = results["loaders"]["rates"], results["backends"]
    for recipe, least in (("flip", 8), ("kaggle", 5), ("jitter", 3)):
        found = {b: _over_book_s_loader(rates, recipe, b) for b in backends}
        over = {b: spread.median if spread else math.nan for b, spread in found.items()}
        yield _each(f"batched over the book's loader, {RECIPES[recipe]}", over, least)
        against = {b: _over_peer(rates, recipe, b) for b in backends}
        yield _each(
            f"batched over the best peer that does the same, {RECIPES[recipe]}", against, 0.9
        )


def _start_goals(results: Results) -> Iterable[tuple[str, str, str, bool]]:
    seconds = results["start"]["seconds"]
    found = {
        b: ratio(seconds[f"{b} run.py"], seconds[f"{b} import"]).median for b in results["backends"]
    }
    yield _each("start over a bare import", found, 1.3, most=True)


def _growth_goals(results: Results) -> Iterable[tuple[str, str, str, bool]]:
    growth, backends = results["growth"], results["backends"]
    yield _each(
        "memory for an image over its uint8 data",
        {b: _memory_slope(growth["memory"][b]) for b in backends},
        1.2,
        most=True,
    )
    twice = {}
    for b in backends:
        seconds = list(growth["images"][b].values())
        twice[b] = ratio(seconds[-1], seconds[-2]).median
    yield _each("time for twice the images", twice, 2.05, most=True)
    sizes = {}
    for b in backends:
        relative = {
            int(n): ratio(found["this"], found["usual"]).median
            for n, found in growth["batch_size"][b].items()
        }
        large = [value for n, value in relative.items() if n >= 64]
        sizes[b] = min(large) / max(relative.values()) if large else float("nan")
    yield _each("batches of 64 and more over the best", sizes, 0.9)


def _each(
    what: str, values: Mapping[str, float], limit: float, most: bool = False
) -> tuple[str, str, str, bool]:
    """Return the row of a goal that each backend must meet."""
    met = all(value <= limit if most else value >= limit for value in values.values())
    shown = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    return what, f"{'<=' if most else '>='} {limit}", shown, met


def _share(results: Results, backend: str, precision: str) -> Spread:
    """Return the step's arithmetic over the fastest product of that precision in the same repetition."""
    training = results["training"]
    rates, gflop = training["rates"], training["gflop_per_image"]
    products = [
        values
        for name, values in rates.items()
        if name.startswith("product") and name.endswith(precision)
    ]
    fastest = [max(values) for values in zip(*products, strict=True)]
    return ratio([gflop * r for r in rates[f"step {backend} {precision}"]], fastest)


def _kept(rates: Results, backend: str, precision: str) -> Spread:
    return ratio(rates[f"train {backend} {precision}"], rates[f"step {backend} {precision}"])


def _over_book(rates: Results, backend: str, precision: str) -> Spread:
    return ratio(rates[f"train {backend} {precision}"], rates[f"book {backend} fp32"])


def _over_book_s_loader(rates: Results, recipe: str, backend: str) -> Spread | None:
    """Return the batched loader's rate over that of the book's, None where one of them was left out."""
    names = (f"{recipe} {backend} batched", f"{recipe} {backend} book")
    if any(name not in rates for name in names):
        return None
    return ratio(*(rates[name] for name in names))


def _over_peer(rates: Results, recipe: str, backend: str) -> float:
    """Return the batched loader's rate over that of the best peer in this framework, or in none, that does the same."""
    peers = [
        values
        for name, values in rates.items()
        if name.startswith((f"{recipe} {backend} ", f"{recipe} numpy "))
        and not name.endswith(("batched", "native"))
        and not _does_less(name.split(" ", 1)[1], recipe)
    ]
    ours = rates[f"{recipe} {backend} batched"]
    return min((ratio(ours, values).median for values in peers), default=math.nan)


def _does_less(peer: str, recipe: str) -> bool:
    return recipe in LESS_WORK.get(peer, ())


def _memory_slope(points: Mapping[str, Mapping[str, float]]) -> float:
    """Return by how much memory grows with the data, from the fewest to the most images."""
    first, *_, last = points.values()
    return (last["peak"] - first["peak"]) / (last["data"] - first["data"])


# --- The tables ------------------------------------------------------------------------------------------------------


def _training(results: Results) -> str:
    rates = results["training"]["rates"]
    lines = []
    for b in results["backends"]:
        for precision in ("fp32", "bf16"):
            if f"step {b} {precision}" not in rates:
                continue
            lines.append(
                (
                    f"{b} {precision}",
                    _shown(Spread.of(rates[f"product {b} {precision}"]), 0),
                    _shown(Spread.of(rates[f"step {b} {precision}"]), 1),
                    _shown(_share(results, b, precision)),
                    _shown(Spread.of(rates[f"train {b} {precision}"]), 1),
                    _shown(_kept(rates, b, precision)),
                    _shown(Spread.of(rates[f"book {b} fp32"]), 1) if precision == "fp32" else "",
                    _shown(_over_book(rates, b, precision)),
                )
            )
    head = ("", "product", "step", "share", "train", "train/step", "book", "train/book")
    return _table(head, lines)


def _options(results: Results) -> str:
    rates = results["options"]["rates"]
    lines = []
    for name, values in rates.items():
        backend, _, what = name.partition(": ")
        over = ratio(values, rates[f"{backend}: as it is"])
        lines.append((backend, what, _shown(Spread.of(values), 1), _shown(over)))
    return _table(("", "", "images/s", "over as it is"), lines)


def _loaders(results: Results) -> str:
    rates = results["loaders"]["rates"]
    names = dict.fromkeys(name.partition(" ")[2] for name in rates)
    lines = []
    for name in names:
        backend, _, pipeline = name.partition(" ")
        cells = [
            f"{Spread.of(rates[f'{recipe} {name}']).median:,.0f}"
            + (" *" if _does_less(name, recipe) else "")
            if f"{recipe} {name}" in rates
            else ""
            for recipe in RECIPES
        ]
        lines.append((pipeline if backend == "numpy" else name, *cells))
    over = []
    for b in results["backends"]:
        found = [_over_book_s_loader(rates, recipe, b) for recipe in RECIPES]
        over.append((f"{b}: batched over book", *(_shown(s, 1) if s else "" for s in found)))
    return _table(("", *RECIPES.values()), [*lines, *over])


def _start(results: Results) -> str:
    seconds, lines = results["start"]["seconds"], []
    for b in results["backends"]:
        splits = results["start"]["splits"][b]
        parts = ("import", "data", "pictures", "first step", "rest")
        split = ", ".join(
            f"{part} {Spread.of([s[part] for s in splits]).median:.1f}" for part in parts
        )
        whole = seconds[f"{b} run.py"]
        lines.append(
            (
                b,
                _shown(Spread.of(whole), 1),
                split,
                _shown(Spread.of(seconds[f"{b} import"]), 1),
                _shown(ratio(whole, seconds[f"{b} import"])),
                _shown(Spread.of(seconds[f"{b} least"]), 1),
                _shown(ratio(whole, seconds[f"{b} least"])),
                f"{Spread.of([s['memory'] for s in splits]).median:,.0f}",
            )
        )
    head = ("", "start, s", "of that", "import, s", "over import", "least, s", "over least", "MiB")
    return _table(head, lines)


def _growth(results: Results) -> str:
    growth, lines = results["growth"], []
    for b in results["backends"]:
        for n, found in growth["batch_size"][b].items():
            lines.append(
                (
                    b,
                    n,
                    _shown(Spread.of(found["this"]), 1),
                    _shown(ratio(found["this"], found["usual"])),
                    f"{found['memory']:,.0f}",
                )
            )
    batch = results["extent"]["batch_size"]
    head = ("", "batch size", "step, images/s", f"over a process of {batch}", "most memory, MiB")
    memory = [
        (
            b,
            *(f"{point['peak']:,.0f}" for point in growth["memory"][b].values()),
            f"{_memory_slope(growth['memory'][b]):.2f}",
        )
        for b in results["backends"]
    ]
    points = next(iter(growth["memory"].values()))
    columns = [f"{int(n):,} images, {point['data']:,.0f} MiB" for n, point in points.items()]
    return (
        _table(head, lines)
        + "\n\nThe most memory that a process held, MiB, with so many images of 32 x 32 as data, after an epoch of\n"
        + "batches and a step; and by how much it grows for a MiB of data:\n\n"
        + _table(("", *columns, "growth"), memory)
    )


def _shown(spread: Spread, digits: int = 2) -> str:
    low, high = f"{spread.lowest:,.{digits}f}", f"{spread.highest:,.{digits}f}"
    return f"{spread.median:,.{digits}f} ({low} to {high})"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# --- The picture -----------------------------------------------------------------------------------------------------


def draw_growth(path: Path, results: Results) -> None:
    """Draw the curves: a panel for each, a line for each backend."""
    from matplotlib.figure import Figure

    growth = results["growth"]
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = dict(
        zip(("images", "batch", "workers", "memory"), figure.subplots(2, 2).flat, strict=True)
    )
    for b in results["backends"]:
        style = FRAMEWORKS[b].style
        _line(axes["images"], b, style, growth["images"][b])
        batches = {n: found["this"] for n, found in growth["batch_size"][b].items()}
        _line(axes["batch"], b, style, batches)
        _line(axes["workers"], b, style, growth["workers"][b])
        memory = {point["data"]: [point["peak"]] for point in growth["memory"][b].values()}
        _line(axes["memory"], b, style, memory)
    batch = results["extent"]["batch_size"]
    axes["images"].set(xlabel="images", ylabel="seconds", title=f"an epoch, batches of {batch}")
    axes["batch"].set(xlabel="batch size", ylabel="images/s", title="a step", xscale="log")
    ticks = [int(n) for n in next(iter(growth["batch_size"].values()))]
    axes["batch"].set_xticks(ticks, [str(n) for n in ticks])
    axes["batch"].minorticks_off()
    axes["workers"].set(xlabel="workers", ylabel="images/s", title="native loader, flip")
    axes["memory"].set(xlabel="data, MiB", ylabel="most memory, MiB", title="memory")
    axes["workers"].set_xticks([int(n) for n in next(iter(growth["workers"].values()))])
    for axis in axes.values():
        axis.margins(y=0.1)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.4)
    handles, labels = axes["images"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    save_figure(path, figure)


def _line(
    axis: Any, name: str, style: Mapping[str, Any], values: Mapping[Any, Sequence[float]]
) -> None:
    """Draw medians, with the lowest and the highest as a bar."""
    x = [float(n) for n in values]
    spreads = [Spread.of(found) for found in values.values()]
    y = [s.median for s in spreads]
    below = [s.median - s.lowest for s in spreads]
    above = [s.highest - s.median for s in spreads]
    axis.errorbar(x, y, yerr=[below, above], label=name, capsize=3, **style)
