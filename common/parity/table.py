"""The tables that the parity command prints: the checks, and what they covered."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from common.parity.results import BackendResults, by_check, by_dimension, number


def table(console: Console, results: Sequence[BackendResults], checked: str) -> Table:
    """Return the table of the checks: one row each, with its tolerance and each backend's largest difference.

    The title names the configuration that was ``checked``.
    """
    shown = _table(console, f"checked: {checked}")
    for title in ("check", "precision"):
        shown.add_column(title, overflow="fold")
    shown.add_column("tolerance", justify="right")
    for result in results:
        shown.add_column(result.backend, justify="right", overflow="fold")
    for first, checks in by_check(results):
        numbers = [
            "-" if c is None else number(c.largest.value) + ("" if c.passed else " FAILED")
            for c in checks
        ]
        shown.add_row(first.check, first.kind, number(first.tolerance.limit), *numbers)
    return shown


def coverage_table(console: Console, results: Sequence[BackendResults]) -> Table:
    """Return the table of what the checks covered: each dimension and the values that were used."""
    shown = _table(console, "covered by these checks")
    for title in ("dimension", "values"):
        shown.add_column(title, overflow="fold")
    for row in by_dimension(results):
        shown.add_row(*row)
    return shown


def _table(console: Console, title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
    )
