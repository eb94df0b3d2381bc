"""The console that prints the lines and tables of a command."""

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from common.errors import printable


class PlainConsole(Console):
    """A console that prints a string, also in a table, as plain text on one line.

    Without markup, emoji and colours by content. Control characters and line breaks become escapes.
    """

    def __init__(self, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        super().__init__(
            stderr=stderr,
            highlight=False,
            markup=False,
            emoji=False,
            force_terminal=stream.isatty(),
        )

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as Rich's text; Rich calls this for each string that it prints."""
        return super().render_str(printable(text, max_length=None), **options)
