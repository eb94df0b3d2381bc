"""Run a chapter: `python run.py --backend pytorch`. Everything is in common/ and backends/."""

import io
import sys
import warnings

import backends
from common import cli
from common.errors import UserError, UserNotice

_format_warning = warnings.formatwarning


def _format(message, category, *arguments):  # type: ignore[no-untyped-def]
    """Show a notice as one line, and any other warning as Python does."""
    if category is UserNotice:
        return f"note: {message}\n"
    return _format_warning(message, category, *arguments)


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code: 0 well, 2 for what the user can put right, 130 for Ctrl-C."""
    warnings.formatwarning = _format
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be anything
    try:
        command = cli.parse(arguments, list(backends.FRAMEWORKS))
        backend = backends.load(command.config.backend)
        from common import chapters  # only now: it needs what load has found to be there

        chapters.run(command, backend)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
