"""Run a chapter: `python run.py --backend pytorch`. Everything is in common/ and backends/."""

import io
import sys

import backends
from common import cli
from common.errors import UserError


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code: 0 well, 2 for what the user can put right, 130 for Ctrl-C."""
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
