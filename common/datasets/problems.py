"""Everything that is wrong said at once: what is counted, the first five named, all in one error."""

from collections.abc import Iterable

from common.datasets.ids import natural
from common.errors import UserError

SHOWN = 5


def counted(names: Iterable[str]) -> str:
    """Name the first five in the order of ids, and say how many there are; each counts once."""
    return listed(sorted(set(names), key=natural))


def listed(items: list[str]) -> str:
    """Name the first five as they come, and say how many there are."""
    more = ", ..." if len(items) > SHOWN else ""
    return f"{', '.join(map(one_line, items[:SHOWN]))}{more} ({len(items)} in all)"


def one_line(text: str, most: int = 300) -> str:
    """Return ``text`` with its line breaks and the like spelled out, cut where it is too long."""
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]


def raise_problems(where: str, problems: list[str]) -> None:
    """Raise one UserError that says all ``problems``, each with its way out; none is none."""
    text = "; ".join(problems)
    if len(problems) > 1:
        text = f"{where} has {len(problems)} problems: {text}"
    if problems:
        raise UserError(one_line(text, most=len(text)))  # a path may have line breaks
