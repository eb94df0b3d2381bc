"""The page of the command line: each command's options, read from its parser, and an example with its kept output.

`python -m docs figures command-line` runs the examples one after another in an empty folder, and keeps what they print
in docs/results/command-line.json.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path

from backends import FRAMEWORKS
from common.cli import COMMANDS, command_parser

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "results" / "command-line.json"
LONGEST = 26  # lines of an output that is kept whole; of a longer one, the beginning and the end
HEAD, TAIL = 14, 8

# Each uses the files that those before it have written.
EXAMPLES = {
    "train": "--backend pytorch --output runs/first",
    "augment": "augment --backend pytorch --output runs/augmentations",
    "evaluate": "evaluate --backend mxnet --weights runs/first/weights.safetensors --output runs/evaluated",
    "kaggle": "kaggle --backend pytorch --output runs/kaggle",
    "check-submission": "check-submission runs/kaggle/submission.csv --data-dir data/kaggle-shapes",
    "predict": "predict --backend tensorflow --weights runs/kaggle/weights.safetensors "
    "data/kaggle-shapes/test/1.png data/kaggle-shapes/test/2.png",
    "convert": "convert runs/first/weights.safetensors first.params",
    "parity": "parity --backend pytorch --quick --output runs/parity",
}


def shown(name: str) -> str:
    """Return a command as Markdown: what it does, an example with its output, and a table of its options.

    Raises LookupError for a command that does not exist.
    """
    if name not in COMMANDS:
        raise LookupError(f"there is no command '{name}': choose from {', '.join(COMMANDS)}")
    parser = command_parser(name, FRAMEWORKS)
    description = " ".join((parser.description or "").split()).replace("<", r"\<")
    example = f"```sh\npython run.py {EXAMPLES[name]}\n```"
    output = f"```{{code-block}} text\n:class: output\n\n{_kept()['printed'][name]}\n```"
    return "\n\n".join([description, example, output, _options(parser)])


def measured() -> str:
    """Return with which versions and on which machine the examples ran."""
    return str(_kept()["measured"])


def _kept() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def _options(parser: argparse.ArgumentParser) -> str:
    """Return a table of a parser's options, under the names of their groups."""
    rows = ["| option | meaning |", "|---|---|"]
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help and a.dest != "help"]
        if actions and group.title not in ("positional arguments", "options"):
            rows.append(f"| **{group.title}** | |")
        rows += [
            f"| `{_written(action)}` | {_escaped(str(action.help))}{_needed(action)} |"
            for action in actions
        ]
    return "\n".join(rows)


def _written(action: argparse.Action) -> str:
    """Return how an option is typed."""
    value = r"\|".join(map(str, action.choices)) if action.choices else str(action.metavar or "")
    if action.nargs == "+":
        value += " ..."
    return " ".join([*action.option_strings, value] if action.nargs != 0 else action.option_strings)


def _needed(action: argparse.Action) -> str:
    return " (required)" if action.required and action.option_strings else ""


def _escaped(text: str) -> str:
    return text.replace("%%", "%").replace("|", r"\|").replace("<", r"\<")


def make() -> None:
    """Run the examples, and keep what they print."""
    from common.system.environment import hardware, measured_with, versions
    from common.system.files import write_text

    packages = tuple(chain.from_iterable(found.packages for found in FRAMEWORKS.values()))
    printed = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in EXAMPLES.items():
            print(f"python run.py {arguments}", flush=True)
            done = subprocess.run(
                [sys.executable, ROOT / "run.py", *shlex.split(arguments)],
                cwd=folder,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            printed[name] = shortened(done.stdout)
    kept = {"measured": measured_with(versions(packages), hardware()), "printed": printed}
    write_text(KEPT, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def shortened(text: str) -> str:
    """Return an output without the middle of its lines, if they are many."""
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    if len(lines) > LONGEST:
        lines = [*lines[:HEAD], "...", *lines[-TAIL:]]
    return "\n".join(lines)
