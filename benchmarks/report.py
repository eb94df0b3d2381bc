"""Make the tables of docs/performance.md from docs/benchmarks.json, when the site is built. Needs no NumPy."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.goals import (
    RECIPES,
    Results,
    does_less,
    goals,
    memory_slope,
    over_book,
    over_the_book_s_loader,
    share,
    train_over_step,
)
from benchmarks.results import Spread, ratio

FILE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.json"


def figures(name: str, file: Path = FILE) -> str:
    """Return one of TABLES as Markdown, from a file of results. Raises LookupError for an unknown name."""
    return TABLES[name](json.loads(file.read_text(encoding="utf-8")))


def _conditions(results: Results) -> str:
    machine, conditions = results["machine"], results["training"]["conditions"]
    versions: dict[str, str] = {}
    used = []
    for key, condition in conditions.items():
        versions |= condition["versions"]
        shown = {
            name: value
            for name, value in condition.items()
            if name not in ("versions", "device", "memory", "precision")
        }
        settings = ", ".join(f"{name} {value}" for name, value in shown.items())
        used.append(f"- Settings of {key}: {settings}.")
    extent = results["extent"]
    measures = (found for found in results.values() if "load_before" in found)
    known = [found["load_before"] for found in measures if found["load_before"] is not None]
    busy = f"{min(known):.2f} to {max(known):.2f}" if known else "not known"
    return (
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['memory']}, "
        f"{machine['system']}.\n\n"
        f"- Instructions: {', '.join(machine['instructions']) or 'not known'}.\n"
        f"- Load of the machine before each measure: {busy}.\n"
        f"- Repetitions: {extent['repetitions']}; {extent['growth_repetitions']} for the curves.\n"
        f"- Training: {extent['train_batches']} batches of {extent['batch_size']} per epoch.\n"
        f"- Products: {extent['product_size']:,} x {extent['product_size']:,}.\n"
        f"- Loaders: {extent['loader_images']:,} images in batches of {extent['loader_batch_size']}.\n"
        f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.\n"
        + "\n".join(used)
    )


def _goals(results: Results) -> str:
    lines = [(*texts, "yes" if met else "**no**") for *texts, met in goals(results)]
    return _table(("target", "wanted", "measured", "met"), lines)


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
                    _shown(share(results, b, precision)),
                    _shown(Spread.of(rates[f"train {b} {precision}"]), 1),
                    _shown(train_over_step(rates, b, precision)),
                    _shown(Spread.of(rates[f"book {b} fp32"]), 1) if precision == "fp32" else "",
                    _shown(over_book(rates, b, precision)),
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
        shown = "this project's settings" if what == "as it is" else what
        lines.append((backend, shown, _shown(Spread.of(values), 1), _shown(over)))
    return _table(("", "", "images/s", "relative"), lines)


def _loaders(results: Results) -> str:
    rates = results["loaders"]["rates"]
    names = dict.fromkeys(name.partition(" ")[2] for name in rates)
    lines = []
    for name in names:
        backend, _, pipeline = name.partition(" ")
        cells = [
            f"{Spread.of(rates[f'{recipe} {name}']).median:,.0f}"
            + (" *" if does_less(name, recipe) else "")
            if f"{recipe} {name}" in rates
            else ""
            for recipe in RECIPES
        ]
        lines.append((pipeline if backend == "numpy" else name, *cells))
    over = []
    for b in results["backends"]:
        found = [over_the_book_s_loader(rates, recipe, b) for recipe in RECIPES]
        over.append((f"{b}: batched/book", *(_shown(s, 1) if s else "" for s in found)))
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
    head = (
        "",
        "start, s",
        "breakdown",
        "import, s",
        "start/import",
        "least, s",
        "start/least",
        "MiB",
    )
    return _table(head, lines)


def _batch_size(results: Results) -> str:
    lines = [
        (
            b,
            n,
            _shown(Spread.of(found["this"]), 1),
            _shown(ratio(found["this"], found["usual"])),
            f"{found['memory']:,.0f}",
        )
        for b in results["backends"]
        for n, found in results["growth"]["batch_size"][b].items()
    ]
    batch = results["extent"]["batch_size"]
    head = ("", "batch size", "step, images/s", f"relative to {batch}", "peak memory, MiB")
    return _table(head, lines)


def _memory(results: Results) -> str:
    memory = results["growth"]["memory"]
    lines = [
        (
            b,
            *(f"{point['peak']:,.0f}" for point in memory[b].values()),
            f"{memory_slope(memory[b]):.2f}",
        )
        for b in results["backends"]
    ]
    points = next(iter(memory.values()))
    columns = [f"{int(n):,} images, {point['data']:,.0f} MiB" for n, point in points.items()]
    return _table(("", *columns, "growth"), lines)


def _shown(spread: Spread, digits: int = 2) -> str:
    low, high = f"{spread.lowest:,.{digits}f}", f"{spread.highest:,.{digits}f}"
    return f"{spread.median:,.{digits}f} ({low} to {high})"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# The names that the page's ``{figures}`` directive takes.
TABLES = {
    "training": _training,
    "options": _options,
    "loaders": _loaders,
    "start": _start,
    "batch size": _batch_size,
    "memory": _memory,
    "goals": _goals,
    "conditions": _conditions,
}
