"""The style of a run's figures: matplotlib's own, whatever the user's matplotlibrc says."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def in_default_style(draw: Callable[P, R]) -> Callable[P, R]:
    """Make a function draw with matplotlib's default settings.

    With those of the user, such as ``text.usetex`` without LaTeX, a figure could end a finished training.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        from matplotlib import style

        with style.context("default"):
            return draw(*args, **kwargs)

    return drawn
