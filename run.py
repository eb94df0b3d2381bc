"""Run a chapter: `python run.py --backend pytorch`. Everything is in common/ and backends/."""

import sys

import backends
from common import cli
from common.errors import UserError


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code: 0 well, 2 for what the user can put right, 130 for Ctrl-C."""
    try:
        command = cli.parse(arguments, list(backends.FRAMEWORKS))
        from common import chapters  # NumPy comes with it, and --help should not wait for that

        chapters.run(command, backends.load(command.config.backend))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(interrupt or "interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
