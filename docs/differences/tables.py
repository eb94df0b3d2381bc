"""The tables of docs/differences.md, made from docs/differences.json when the site is built. Needs no NumPy."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backends import FRAMEWORKS
from common.system.environment import measured_with

FILE = Path(__file__).resolve().parents[1] / "differences.json"
PAGE = FILE.with_suffix(".md")
Measured = Mapping[str, Any]
IMAGE_AXES = {"N": "images", "C": "channels", "H": "height", "W": "width"}
# Names for the sizes of weights in the `layouts` of each framework's file.
KERNEL_AXES = {7: "outputs", 3: "inputs", 4: "height", 2: "width"}
DENSE_AXES = {10: "outputs", 9: "inputs"}
UNITS = {
    "of the largest value": "as shares of the largest value",
    "of 255 on average": "of 255, on average",
}


def load() -> Measured:
    """Return the published measurements."""
    found: Measured = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def names(measured: Measured) -> list[str]:
    """Return the names of the differences, without the runs that only show rounding."""
    found = [effect["name"] for effect in measured["effects"]]
    return [name for name in found if not name.startswith("rounding alone")]


def figures(name: str) -> str:
    """Return the tables that the page's ``{figures}`` directive shows: of a difference, or of one of PARTS.

    Raises LookupError for another name.
    """
    measured = load()
    if name in PARTS:
        return PARTS[name](measured)
    if name not in names(measured):
        raise LookupError(f"no difference '{name}' in {FILE.name}")
    return difference(name, measured)


def difference(name: str, measured: Measured) -> str:
    """Return the tables of one difference: on the reference and in the frameworks."""
    parts = [_effect(effect) for effect in measured["effects"] if effect["name"] == name]
    natives = measured["natives"]
    parts += [*_findings(name, natives), *_layouts(name, natives)]
    if name == "workers that draw the same":
        parts += _workers(natives)
    return "\n\n".join(parts)


def _conditions(measured: Measured) -> str:
    versions = dict(measured["versions"])
    for native in measured["natives"]:
        versions |= native["versions"]
    return measured_with(versions, measured["hardware"])


def _summary(measured: Measured) -> str:
    effects = {effect["name"]: effect for effect in measured["effects"]}
    head = ("", "difference", "native to", "one operation", "first step", "held out")
    rows = []
    for group, name in places(PAGE.read_text(encoding="utf-8")):
        effect = effects[name]
        cells = effect["native_to"], effect["operation"], two_digits(effect["step_parameters"])
        rows.append((group, f"[{name}](#{slug(name)})", *cells, _pair(effect["held_out"])))
    return table(head, rows)


def places(page: str) -> Iterator[tuple[str, str]]:
    """Yield the heading of its group, in lower case, and the name of each difference on the page."""
    group = ""
    for heading, name in re.findall(r"^(?:## (.+)|```\{figures\} (.+))$", page, re.M):
        group = heading.lower() or group
        if name and name not in PARTS:
            yield group, name


def _rounding(measured: Measured) -> str:
    head = ("", "first step: parameters", "first step: statistics", "training loss", "held out")
    known = names(measured)
    rows = [
        (
            e["name"],
            two_digits(e["step_parameters"]),
            two_digits(e["step_statistics"]),
            _pair(e["loss"]),
            _pair(e["held_out"]),
        )
        for e in measured["effects"]
        if e["name"] not in known
    ]
    return table(head, rows)


PARTS = {"conditions": _conditions, "summary": _summary, "rounding": _rounding}


def _effect(effect: Measured) -> str:
    step = (
        f"relative distance {two_digits(effect['step_parameters'])} in the parameters, "
        f"{two_digits(effect['step_statistics'])} in the running statistics"
    )
    rows = [
        ("native to", effect["native_to"]),
        ("one operation", effect["operation"]),
        (f"first step of {effect['optimizer']}", step),
        ("30 steps: training loss, aligned and native", _pair(effect["loss"])),
        ("30 steps: held out, aligned and native", _pair(effect["held_out"])),
    ]
    return table(("on the reference", ""), rows)


def _findings(name: str, natives: Sequence[Measured]) -> Iterator[str]:
    """Yield the distances of the frameworks' own operations from both ways."""
    found = [(n, f) for n in natives for f in n["findings"] if f["difference"] == name]
    if found:
        unit = UNITS[found[0][1]["unit"]]
        yield f"The frameworks' own operations, and their distances from both ways, {unit}:"
        yield table(
            (
                "by default",
                "its behaviour",
                "distance from aligned",
                "distance from this difference",
            ),
            [
                (_title(n), f["way"], two_digits(f["aligned"]), two_digits(f["known"]))
                for n, f in found
            ],
        )


def _workers(natives: Sequence[Measured]) -> Iterator[str]:
    loaders = {"own": "the framework's own loader", "here": "this project's native loader"}
    rows = [
        (_title(native), words, *(f"{share:.0%}" for share in native["workers"][key].values()))
        for native in natives
        if native["workers"]
        for key, words in loaders.items()
    ]
    if rows:
        yield "Shares of equal flips; independent draws give about 50%:"
        head = (
            "",
            "loader, two workers",
            "the two most similar of 16 batches",
            "a second epoch, same seed",
            "without workers, same seed",
        )
        yield table(head, rows)


def _layouts(name: str, natives: Sequence[Measured]) -> Iterator[str]:
    found = [(_title(native), native["layouts"]) for native in natives if native["layouts"]]
    if found and name == "images in the other layout":
        yield "How a convolution reacts to images in the other layout, 5 pixels high and 6 wide:"
        head = ("", "a batch", "a convolution that knows its 3 inputs", "one that learns them")
        rows = [
            (
                title,
                axes_of(layouts["images"], IMAGE_AXES),
                f"rejects them: `{layouts['refusal']}`" if layouts["refusal"] else "accepts them",
                f"accepts them, with {_learned_inputs(layouts)} inputs",
            )
            for title, layouts in found
        ]
        yield table(head, rows)
    if found and name == "kernels in the other layout":
        yield table(
            ("", "a convolution's weights", "a dense layer's weights"),
            [
                (
                    title,
                    axes_of(layouts["kernel"], KERNEL_AXES),
                    axes_of(layouts["dense"], DENSE_AXES),
                )
                for title, layouts in found
            ],
        )


def axes_of(layout: Iterable[Any], names: Mapping[Any, str]) -> str:
    """Return the names of the axes of a layout."""
    return ", ".join(names[axis] for axis in layout)


def _learned_inputs(layouts: Mapping[str, Sequence[int]]) -> int:
    """Return the number of input channels that a convolution learned from the images."""
    return layouts["unsized"][[KERNEL_AXES[size] for size in layouts["kernel"]].index("inputs")]


def _title(native: Measured) -> str:
    package, version = next(iter(native["versions"].items()))
    title = FRAMEWORKS[native["backend"]].title
    return f"{title} {version}" if package in (native["backend"], "torch") else title


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines)


def two_digits(value: float) -> str:
    """Return a number with two significant digits."""
    small_or_large = value and not 1e-3 <= value < 1e3
    return f"{value:.1e}" if small_or_large else f"{float(f'{value:.2g}'):g}"


def _pair(values: Sequence[float]) -> str:
    return f"{values[0]:.3f}, {values[1]:.3f}"


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MyST make it."""
    kept = (c for c in heading.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")
