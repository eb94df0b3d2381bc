"""The parity report: one HTML file with embedded pictures. It loads nothing from another host."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from common.drawing.style import in_default_style
from common.parity import figures
from common.parity.checks.free_running import Envelope
from common.parity.checks.steps import recipes
from common.parity.checks.transforms import reference_pictures
from common.parity.comparison import CheckResult
from common.parity.figures import Styles
from common.parity.results import BackendResults, by_check, by_dimension, number
from common.system import environment
from common.system.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid #ddd; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.failed { background: #b00020; color: #fff; font-weight: bold; }
img { max-width: 100%; height: auto; }
.verdict { padding: .6rem 1rem; border-left: 6px solid #1b7f3b; background: #eef7f0; }
.verdict.failed { border-color: #b00020; background: #fbecee; }
small { color: #555; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e6e6; background: #161616; } th, td { border-color: #444; } small { color: #aaa; }
  .verdict { background: #14301c; } .verdict.failed { background: #3a1217; } img { background: #fff; }
}
"""


@in_default_style
def write_report(
    path: Path,
    results: Sequence[BackendResults],
    styles: Styles,
    envelope: Envelope | None,
    seed: int,
    checked: str,
) -> None:
    """Write the report of these backends and of the configuration that was ``checked``.

    ``styles`` are the styles of the backends' curves. ``envelope`` is None if free-running training was not checked.
    """
    parts = [
        f"<h1>Parity of {escape(checked)}: each backend compared with the reference</h1>",
        _verdict(results),
        _conditions(results, seed),
        "<h2>Checks</h2>",
        _table(results),
        "<h2>Coverage</h2>",
        _covered(results),
        "<h2>By layer</h2>",
        *_by_layer(results, styles),
        "<h2>By step</h2>",
        *_by_step(results, styles, envelope),
        *_transforms(results),
        "<h2>Tolerances</h2>",
        "<p>Each tolerance is the largest difference measured between correct backends and the reference, times a "
        "margin. Differences are relative to the largest value of their tensor, unless the reason gives a unit.</p>",
        _tolerances([first for first, _ in by_check(results)]),
    ]
    body = "\n".join(parts)
    write_text(
        path,
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Parity report</title><style>{STYLE}</style></head>\n<body>{body}</body></html>\n",
    )


def _verdict(results: Sequence[BackendResults]) -> str:
    if all(result.passed for result in results):
        count = sum(len(result.checks) for result in results)
        return f"<div class='verdict'>All {count} checks passed.</div>"
    causes = [line for result in results for line in result.diagnosis()]
    each = [f"{r.backend}: {check.sentence()}" for r in results for check in r.failures]
    return (
        f"<div class='verdict failed'>{len(each)} checks failed.{_list(causes)}"
        f"<details><summary>All failures</summary>{_list(each)}</details></div>"
    )


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _conditions(results: Sequence[BackendResults], seed: int) -> str:
    lines = []
    for result in results:
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        configuration = ", ".join(f"{k} {v}" for k, v in result.configuration.items())
        declared = "; ".join(result.declared) or "none, it follows the reference's defaults"
        lines.append(
            f"<li><b>{escape(result.backend)}</b>: {escape(versions)}. "
            f"Checked: {escape(configuration) or 'nothing'}. Declared differences: {escape(declared)}.</li>"
        )
    machine = ", ".join(f"{k} {v}" for k, v in environment.hardware().items())
    return f"<ul>{''.join(lines)}</ul><p><small>Seed {seed}; {escape(machine)}.</small></p>"


def _table(results: Sequence[BackendResults]) -> str:
    heads = "".join(f"<th class='number'>{escape(r.backend)}</th>" for r in results)
    rows = []
    for first, checks in by_check(results):
        cells = "".join(_cell(check) for check in checks)
        rows.append(
            f"<tr><td>{escape(first.check)}</td><td>{first.kind}</td>"
            f"<td class='number'>{number(first.tolerance.limit)}</td>{cells}</tr>"
        )
    return (
        "<div class='scroll'><table><thead><tr><th>check</th><th>precision</th><th class='number'>tolerance</th>"
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "<p><small>The largest difference of each backend. Hover over a number to see its place.</small></p>"
    )


def _covered(results: Sequence[BackendResults]) -> str:
    rows = "".join(
        f"<tr><td>{escape(dimension)}</td><td>{escape(values)}</td></tr>"
        for dimension, values in by_dimension(results)
    )
    left = "".join(
        f"<p>{escape(r.backend)}: no check called {escape(', '.join(r.not_called))}.</p>"
        for r in results
        if r.not_called
    )
    return (
        "<div class='scroll'><table><thead><tr><th>dimension</th><th>values that the checks used</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{left}"
    )


def _cell(check: CheckResult | None) -> str:
    if check is None:
        return "<td class='number'>-</td>"
    return (
        f"<td class='number{'' if check.passed else ' failed'}' title='{escape(check.largest.place)}'>"
        f"{number(check.largest.value)}</td>"
    )


def _growth(
    results: Sequence[BackendResults],
    styles: Styles,
    check: str,
    kind: str,
    xlabel: str,
    names: bool,
) -> str:
    """Draw the differences of a check place by place, for the backends that ran it."""
    found = {
        result.backend: result.worst[check, kind]
        for result in results
        if (check, kind) in result.worst
    }
    if not found:
        return ""
    limit = next(iter(found.values())).tolerance.limit
    series = {backend: each.differences for backend, each in found.items()}
    figure = figures.growth(series, styles, limit, xlabel, names)
    return f"<h3>{check}, {kind}</h3>" + _picture(figure, f"{check}, {kind}, by {xlabel}")


def _by_layer(results: Sequence[BackendResults], styles: Styles) -> list[str]:
    """Draw how the difference grows through the network, in every precision that was checked."""
    check, kinds = "activations, training", ("float64", "float32", "bfloat16", "tf32")
    return [_growth(results, styles, check, kind, "layer", True) for kind in kinds]


def _by_step(
    results: Sequence[BackendResults], styles: Styles, envelope: Envelope | None
) -> list[str]:
    """Draw the losses, and the differences by step: they grow in whole runs but not in locked steps."""
    parts = []
    if envelope is not None:
        parts += [
            f"<p>Free-running training in {envelope.kind} with flips, colour jitter and crops. It is chaotic: the grey "
            "band shows how far rounding errors move the reference's losses.</p>",
            _picture(figures.losses(envelope, results, styles), "losses of free-running training"),
        ]
    names = [recipe.name for recipe in recipes(2)]
    checks = [f"train_ch13, {name}: losses" for name in names] + [
        f"locked {name}: weights" for name in names
    ]
    for check in checks:
        parts += [
            _growth(results, styles, check, kind, "step", False)
            for kind in ("float64", "bfloat16", "tf32")
        ]
    return parts


def _transforms(results: Sequence[BackendResults]) -> list[str]:
    """Draw the results of the operations on one image, if they were checked."""
    if not any(result.pictures for result in results):
        return []
    maps = figures.difference_maps(reference_pictures(), results)
    return [
        "<h2>Transforms</h2>",
        "<p>Each operation on one image in float32: the reference's result, and the largest difference of the three "
        "channels at each pixel.</p>",
        _picture(maps, "difference maps of the transforms"),
    ]


def _tolerances(checks: Sequence[CheckResult]) -> str:
    rows = "".join(
        f"<tr><td>{escape(c.check)}</td><td>{c.kind}</td><td class='number'>{number(c.tolerance.measured)}</td>"
        f"<td class='number'>{c.tolerance.margin:g}</td><td>{escape(c.tolerance.reason)}</td></tr>"
        for c in checks
    )
    return (
        "<div class='scroll'><table><thead><tr><th>check</th><th>precision</th><th class='number'>measured</th>"
        f"<th class='number'>margin</th><th>reason</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _picture(figure: "Figure", alt: str) -> str:
    content = base64.b64encode(figures.as_png(figure)).decode("ascii")
    return f"<p><img alt='{escape(alt, quote=True)}' src='data:image/png;base64,{content}'></p>"
