"""The page docs/differences.md: made of docs/differences.json and of the notes in the source, and of nothing else."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.system.environment import measured_with
from common.system.files import write_text
from common.titles import TITLES, title_of
from docs.differences.effects import NAMES, Effect
from docs.differences.native import (
    ANOTHER,
    AS_ALIGNED,
    BATCHES,
    LAYOUTS,
    SHARE,
    THIS,
    WORKERS,
    Finding,
    Native,
    from_plain,
)
from docs.differences.notes import Note
from docs.differences.text import GROUPS, INTRODUCTION, OTHERS, SECTIONS, Section

IMAGE_AXES = {"N": "images", "C": "channels", "H": "height", "W": "width"}
# What a convolution's and a dense layer's weights are called by their sizes in `native_layouts` of probes.py.
KERNEL_AXES = {7: "outputs", 3: "inputs", 4: "height", 2: "width"}
DENSE_AXES = {10: "outputs", 9: "inputs"}


@dataclass(frozen=True)
class Measured:
    """What the page's numbers are: of the arbiter, of each framework, and what they were measured with."""

    versions: dict[str, str]
    hardware: dict[str, str]
    effects: tuple[Effect, ...]
    natives: tuple[Native, ...]


def save_measured(path: Path, measured: Measured) -> None:
    """Write what was measured as JSON."""
    write_text(path, json.dumps(asdict(measured), indent=1, ensure_ascii=False) + "\n")


def load_measured(path: Path) -> Measured:
    """Read what `save_measured` wrote. Raises UserError for any other file."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        effects = [
            Effect(**e | {"loss": tuple(e["loss"]), "held_out": tuple(e["held_out"])})
            for e in plain["effects"]
        ]
        natives = tuple(map(from_plain, plain["natives"]))
        return Measured(plain["versions"], plain["hardware"], tuple(effects), natives)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not hold what python run.py differences --output measures: {error}"
        ) from error


def page(measured: Measured, notes: Sequence[Note]) -> str:
    """Return the page as Markdown. Raises UserError where what was measured is not what the source knows of."""
    effects = {effect.name: effect for effect in measured.effects}
    if missing := [name for name in NAMES if name not in effects]:
        raise UserError(
            f"not measured yet: {', '.join(missing)}: measure again, without --measured"
        )
    parts = [
        INTRODUCTION,
        _measured_with(measured),
        _summary(effects),
        _yardstick(measured.effects),
    ]
    for group, words in GROUPS.items():
        parts.append(f"## {group}\n\n{words.strip()}")
        parts += [
            _section(section, effects[section.name], measured.natives, notes)
            for section in SECTIONS
            if section.group == group
        ]
    parts.append(_other_notes(notes, [native.backend for native in measured.natives]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def said_of(finding: Finding) -> str:
    """Return in words which way a framework's own operation was found to be."""
    words = {AS_ALIGNED: "as aligned", THIS: "this difference", ANOTHER: "another known difference"}
    return words[finding.way]


def _measured_with(measured: Measured) -> str:
    versions = dict(measured.versions)
    for native in measured.natives:
        versions |= native.versions
    return measured_with(versions, measured.hardware)


# --- The tables ------------------------------------------------------------------------------------------------------


def _summary(effects: Mapping[str, Effect]) -> str:
    rows = [
        (
            section.group.lower(),
            f"[{section.name}](#{slug(section.name)})",
            effects[section.name].native_to,
            effects[section.name].operation,
            two_digits(effects[section.name].step_parameters),
            _pair(effects[section.name].held_out),
        )
        for section in SECTIONS
    ]
    head = ("", "difference", "native to", "one operation", "first step", "held out")
    return "## In short\n\n" + table(head, rows)


def _yardstick(effects: Iterable[Effect]) -> str:
    rows = [
        (
            e.name,
            two_digits(e.step_parameters),
            two_digits(e.step_statistics),
            _pair(e.loss),
            _pair(e.held_out),
        )
        for e in effects
        if e.name not in NAMES
    ]
    head = ("", "first step: parameters", "first step: statistics", "training loss", "held out")
    return (
        "## The yardstick\n\nNo difference at all but float32, from weights perturbed by one rounding. After thirty "
        "steps, a difference that stays within these has been drowned by chaos; step by step it can still be proved, "
        "with [`python run.py parity`](parity.md).\n\n" + table(head, rows)
    )


def _section(
    section: Section, effect: Effect, natives: Sequence[Native], notes: Sequence[Note]
) -> str:
    heading = section.name[0].upper() + section.name[1:]
    parts = [
        f"### {heading}",
        f"*Native to {effect.native_to}*: {effect.meaning}.",
        section.text,
        _effect_table(effect),
        *_native_tables(section.name, natives),
        f'```sh\npython run.py differences --only "{section.name}"\n'
        f'uv run --extra all python run.py differences --only "{section.name}" --backend all\n```',
        _note_list("In the source:", [note for note in notes if note.place in section.notes]),
        _set_right(section),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _effect_table(effect: Effect) -> str:
    rows = [
        ("one operation", effect.operation),
        (
            f"first step of {effect.optimizer}",
            f"{two_digits(effect.step_parameters)} of its length apart in the parameters, "
            f"{two_digits(effect.step_statistics)} in the running statistics",
        ),
        ("thirty steps: training loss, aligned and native", _pair(effect.loss)),
        ("thirty steps: held out, aligned and native", _pair(effect.held_out)),
    ]
    return table(("on the arbiter", ""), rows)


def _native_tables(name: str, natives: Sequence[Native]) -> Iterator[str]:
    """Yield what was found in the frameworks themselves, as tables."""
    found = [(n, f) for n in natives for f in n.findings if f.difference == name]
    if found:
        unit = found[0][1].unit
        words = "as shares of the largest value" if unit == SHARE else "in levels, on average"
        head = ("left alone", "its operation", "from the aligned way", "from this difference")
        yield f"The frameworks' own operation, and how far it is from both ways, {words}:"
        yield table(
            head,
            [(_title(n), said_of(f), two_digits(f.aligned), two_digits(f.known)) for n, f in found],
        )
    if name == WORKERS:
        yield from _worker_tables(natives)
    if name in LAYOUTS:
        yield from _layout_tables(name, natives)


def _worker_tables(natives: Sequence[Native]) -> Iterator[str]:
    loaders = {"own": "the framework's own loader", "here": "this project's native loader"}
    rows = [
        (
            _title(native),
            words,
            f"{native.workers[key].any_two:.0%}",
            f"{native.workers[key].again:.0%}",
            f"{native.workers[key].without:.0%}",
        )
        for native in natives
        if native.workers
        for key, words in loaders.items()
    ]
    if rows:
        yield "Equal flips, where independent draws give about a half:"
        head = (
            "",
            "loader, two workers",
            f"the two most alike of {BATCHES} batches",
            "a second epoch, same seed",
            "without workers, same seed",
        )
        yield table(head, rows)


def _layout_tables(name: str, natives: Sequence[Native]) -> Iterator[str]:
    laid = [(native, native.layouts) for native in natives if native.layouts]
    if not laid:
        return
    if name == LAYOUTS[0]:
        head = ("", "a batch", "a convolution that knows its 3 inputs", "one that learns them")
        yield "What a convolution says of images in the other layout, 5 pixels high and 6 wide:"
        yield table(
            head,
            [
                (
                    _title(native),
                    axes_of(layouts["images"], IMAGE_AXES),
                    f"refuses: `{layouts['refusal']}`" if layouts["refusal"] else "takes them",
                    f"takes them, for {learnt_inputs(layouts)} inputs",
                )
                for native, layouts in laid
            ],
        )
    else:
        yield table(
            ("", "a convolution's weights", "a dense layer's weights"),
            [
                (
                    _title(native),
                    axes_of(layouts["kernel"], KERNEL_AXES),
                    axes_of(layouts["dense"], DENSE_AXES),
                )
                for native, layouts in laid
            ],
        )


def axes_of(layout: Iterable[Any], names: Mapping[Any, str]) -> str:
    """Return the names of the axes of a layout."""
    return ", ".join(names[axis] for axis in layout)


def learnt_inputs(layouts: Mapping[str, Sequence[int]]) -> int:
    """Return how many input channels a convolution took that had been left to learn them."""
    return layouts["unsized"][[KERNEL_AXES[size] for size in layouts["kernel"]].index("inputs")]


def _title(native: Native) -> str:
    package, version = next(iter(native.versions.items()))
    title = title_of(native.backend)
    return f"{title} {version}" if package in (native.backend, "torch") else title


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell or " " for cell in line) + " |" for line in lines)


def two_digits(value: float) -> str:
    """Return a number as a reader takes it in."""
    small_or_large = value and not 1e-3 <= value < 1e3
    return f"{value:.1e}" if small_or_large else f"{float(f'{value:.2g}'):g}"


def _pair(values: tuple[float, float]) -> str:
    return f"{values[0]:.3f}, {values[1]:.3f}"


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MyST make it."""
    kept = (c for c in heading.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


# --- The source ------------------------------------------------------------------------------------------------------


def _set_right(section: Section) -> str:
    blocks = "\n\n".join(f"```{{source}} {source}\n```" for source in section.sources)
    return f":::{{dropdown}} Where it is set\n{blocks}\n:::"


def _note_list(title: str, notes: Sequence[Note]) -> str:
    if not notes:
        return ""
    lines = [f"- `{note.place}`: {note.text}" for note in notes]
    return "\n".join([title, "", *lines])


def _other_notes(notes: Sequence[Note], measured: Sequence[str]) -> str:
    """Return the notes that belong to none of the differences above, by backend."""
    shown = {place for section in SECTIONS for place in section.notes}
    parts = [OTHERS.strip()]
    names = list(dict.fromkeys([*TITLES, *measured]))
    for backend in names:
        mine = [n for n in notes if n.file.startswith(f"backends/{backend}/")]
        parts.append(_note_list(f"{title_of(backend)}:", [n for n in mine if n.place not in shown]))
    rest = [n for n in notes if not n.file.startswith(tuple(f"backends/{b}/" for b in names))]
    parts.append(_note_list("All of them:", [n for n in rest if n.place not in shown]))
    return "\n\n".join(part for part in parts if part)
