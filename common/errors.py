"""UserError, UserNotice, and the functions that format their messages."""

from collections.abc import Iterable

# The error message of a training step for a loss or labels of the wrong shape.
ONE_VALUE_PER_EXAMPLE = (
    "loss must give one value per example: make it with reduction='none', "
    "and pass labels that are class numbers of shape (n,)"
)


class _Message(Exception):  # noqa: N818 - also of a warning
    """A message of one or more lines.

    Names of files, classes and options may hold line breaks and commands for the terminal. Both become escapes here, so
    no message has to do it.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*(printable(line, max_length=None) for line in lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class UserError(_Message):
    """An error that the user can correct: one line that names the problem and what to do.

    A weights file with several faults adds a line for each. ``run.py`` prints the message without a traceback and
    ends with exit code 2. Any other uncaught exception is a bug of this project and keeps its traceback.
    """


class UserNotice(_Message, UserWarning):
    """A warning that does not stop the run: ``run.py`` prints it as one line on standard error."""


def raise_problems(where: str, problems: list[str]) -> None:
    """Raise one UserError that lists every problem and its fix. Do nothing if the list is empty."""
    text = "; ".join(problems)
    if len(problems) > 1:
        text = f"{where} has {len(problems)} problems: {text}"
    if problems:
        raise UserError(text)


def counted(n: int, word: str, plural: str = "") -> str:
    """Return ``n`` with its word, in the plural unless ``n`` is 1."""
    return f"{n:,} {word if n == 1 else plural or word + 's'}"


def listed(names: Iterable[str]) -> str:
    """Return the first five names and the number of all, such as "a, b (2 in all)"."""
    names = list(names)
    more = ", ..." if len(names) > 5 else ""
    return f"{', '.join(printable(name, 300) for name in names[:5])}{more} ({len(names)} in all)"


def printable(text: str, max_length: int | None = 80) -> str:
    """Return ``text`` on one line: line breaks, control characters and undecodable bytes become escapes.

    Longer text is cut at ``max_length`` characters; None keeps it all.
    """
    if max_length is not None and len(text) > max_length:
        text = f"{text[: max_length - 3]}..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
