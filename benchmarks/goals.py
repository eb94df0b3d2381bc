"""Compute the goals for speed and memory, and their ratios, from the results of `python -m benchmarks`."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.results import Spread, ratio

Results = Mapping[str, Any]
Goal = tuple[str, str, str, bool]
RECIPES = {
    "flip": "flip",
    "kaggle": "Kaggle recipe",
    "jitter": "flip, full jitter, crop",
}
# Peers that do less in some recipes: one draws once per batch, one crops at a single size.
LESS_WORK = {
    "pytorch v2 batch": tuple(RECIPES),
    "tensorflow Keras layers": ("kaggle", "jitter"),
}


def goals(results: Results) -> list[Goal]:
    """Return each goal: the quantity, the wanted value, the measured value, and whether it is met."""
    measures = {
        "training": _training_goals,
        "loaders": _loader_goals,
        "start": _start_goals,
        "checkpoints": _checkpoint_goals,
        "growth": _growth_goals,
    }
    return [goal for name, of in measures.items() if name in results for goal in of(results)]


def _training_goals(results: Results) -> Iterable[Goal]:
    rates, backends = results["training"]["rates"], results["backends"]
    for precision, least in (("fp32", 0.60), ("bf16", 0.28)):
        names = [b for b in backends if f"step {b} {precision}" in rates]
        shares = {b: share(results, b, precision).median for b in names}
        yield _each(f"step over product, {precision}", shares, least)
        kept = {b: train_over_step(rates, b, precision).median for b in names}
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
            if b in least_by_backend and f"train {b} {precision}" in rates:
                over = over_book(rates, b, precision).median
                least = least_by_backend[b]
                yield (
                    f"train over the book, {b} {precision}",
                    f">= {least}",
                    f"{over:.2f}",
                    over >= least,
                )


def _loader_goals(results: Results) -> Iterable[Goal]:
    rates, backends = results["loaders"]["rates"], results["backends"]
    for recipe, least in (("flip", 8), ("kaggle", 5), ("jitter", 3)):
        found = {b: over_the_book_s_loader(rates, recipe, b) for b in backends}
        over = {b: spread.median if spread else math.nan for b, spread in found.items()}
        yield _each(f"batched over the book's loader, {RECIPES[recipe]}", over, least)
        against = {b: over_peer(rates, recipe, b) for b in backends}
        yield _each(
            f"batched over the best peer that does the same, {RECIPES[recipe]}", against, 0.9
        )


def _start_goals(results: Results) -> Iterable[Goal]:
    seconds = results["start"]["seconds"]
    found = {
        b: ratio(seconds[f"{b} run.py"], seconds[f"{b} import"]).median for b in results["backends"]
    }
    yield _each("start over a bare import", found, 1.3, most=True)


def _checkpoint_goals(results: Results) -> Iterable[Goal]:
    kept = {b: with_checkpoints(results, b).median for b in results["backends"]}
    yield _each("epochs with checkpoints over epochs without", kept, 0.98)


def _growth_goals(results: Results) -> Iterable[Goal]:
    growth, backends = results["growth"], results["backends"]
    yield _each(
        "memory for an image over its uint8 data",
        {b: memory_slope(growth["memory"][b]) for b in backends},
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


def _each(what: str, values: Mapping[str, float], limit: float, most: bool = False) -> Goal:
    """Return a goal that each backend must meet."""
    met = all(value <= limit if most else value >= limit for value in values.values())
    shown = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    return what, f"{'<=' if most else '>='} {limit}", shown, met


def with_checkpoints(results: Results, backend: str) -> Spread:
    """Return the rate of epochs with checkpoints divided by the rate of epochs without."""
    rates = results["checkpoints"]["rates"]
    return ratio(rates[f"{backend} with"], rates[f"{backend} without"])


def share(results: Results, backend: str, precision: str) -> Spread:
    """Return a step's GFLOP/s divided by those of the fastest product in that precision and repetition."""
    training = results["training"]
    rates, gflop = training["rates"], training["gflop_per_image"]
    products = [
        values
        for name, values in rates.items()
        if name.startswith("product") and name.endswith(precision)
    ]
    fastest = [max(values) for values in zip(*products, strict=True)]
    return ratio([gflop * r for r in rates[f"step {backend} {precision}"]], fastest)


def train_over_step(rates: Results, backend: str, precision: str) -> Spread:
    """Return the rate of an epoch of `train_ch13` divided by the rate of the step."""
    return ratio(rates[f"train {backend} {precision}"], rates[f"step {backend} {precision}"])


def over_book(rates: Results, backend: str, precision: str) -> Spread:
    """Return the rate of an epoch of `train_ch13` divided by the rate of the book's recipe."""
    return ratio(rates[f"train {backend} {precision}"], rates[f"book {backend} fp32"])


def over_the_book_s_loader(rates: Results, recipe: str, backend: str) -> Spread | None:
    """Return the batched loader's rate divided by the book's loader's, or None if one was left out."""
    names = (f"{recipe} {backend} batched", f"{recipe} {backend} book")
    if any(name not in rates for name in names):
        return None
    return ratio(*(rates[name] for name in names))


def over_peer(rates: Results, recipe: str, backend: str) -> float:
    """Return the batched loader's rate divided by the best equivalent peer's, in this framework or NumPy."""
    peers = [
        values
        for name, values in rates.items()
        if name.startswith((f"{recipe} {backend} ", f"{recipe} numpy "))
        and not name.endswith(("batched", "native"))
        and not does_less(name.split(" ", 1)[1], recipe)
    ]
    ours = rates[f"{recipe} {backend} batched"]
    return min((ratio(ours, values).median for values in peers), default=math.nan)


def does_less(peer: str, recipe: str) -> bool:
    """Return whether a peer does less work than the recipe asks for."""
    return recipe in LESS_WORK.get(peer, ())


def memory_slope(points: Mapping[str, Mapping[str, float]]) -> float:
    """Return the growth of memory divided by the growth of the data, from the fewest to the most images."""
    first, *_, last = points.values()
    return (last["peak"] - first["peak"]) / (last["data"] - first["data"])
