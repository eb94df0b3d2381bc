"""`python -m docs differences`: measure each known difference on the reference and in the frameworks.

Each framework is measured in a process of its own.
"""

import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import backends
from common.errors import UserError, UserNotice, printable
from common.system import environment
from common.system.files import write_text
from common.system.processes import call_in_process
from docs.differences import tables


def run(only: Sequence[str], frameworks: Sequence[str]) -> int:
    """Measure everything and write docs/differences.json, or measure a part and print its tables.

    With ``only`` these differences are measured on the reference. With ``frameworks``, all or these differences are
    measured in these frameworks. Return the exit code: 0, or that of the first framework whose process failed. Raises
    UserError for an unknown difference, and for a framework that is not installed or has no file in docs/differences.
    """
    from docs.differences.effects import (
        NAMES,
    )  # imports NumPy, which the other commands do not wait for

    for name in only:
        if name not in NAMES:
            raise UserError(
                f"unknown difference '{printable(name)}': choose from {', '.join(NAMES)}"
            )
    everything = not only and not frameworks
    names = _with_own_file() if everything else frameworks
    for name in names:
        if not own_file(name).is_file():
            raise UserError(
                f"backend {name} cannot be measured: write docs/differences/{name}.py with the same functions as the "
                "files of the other frameworks"
            )
    backends.require(names)
    natives = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(f"measuring in {name} ...", flush=True)
            output = Path(folder, f"{name}.json")
            if code := call_in_process(measure_framework, name, only, output):
                print(f"error: {name}: its process ended with exit code {code}", file=sys.stderr)
                return code if code > 0 else 128 - code
            natives.append(json.loads(output.read_text(encoding="utf-8")))
    found = [] if frameworks else _effects(only)
    measured: dict[str, Any] = {
        "versions": environment.versions(()),
        "hardware": environment.hardware(),
        "effects": found,
        "natives": natives,
    }
    if everything:
        write_text(tables.FILE, json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
        print(f"written to {tables.FILE}")
        return 0
    for name in only or NAMES:
        print(f"## {name}\n\n{tables.difference(name, measured)}\n")
    return 0


def own_file(name: str) -> Path:
    """Return the path of the file with a framework's own operations."""
    return Path(__file__).with_name(f"{name}.py")


def _with_own_file() -> list[str]:
    """Return the backends that have such a file; a notice names each of the others."""
    names = []
    for name in backends.FRAMEWORKS:
        if own_file(name).is_file():
            names.append(name)
        else:
            notice = f"backend {name} is left out: docs/differences/{name}.py does not exist"
            warnings.warn(UserNotice(notice), stacklevel=2)
    return names


def _effects(only: Sequence[str]) -> list[dict[str, Any]]:
    from docs.differences.effects import effects

    found = []
    for effect in effects(only):
        print(f"measured on the reference: {effect.name}", flush=True)
        found.append(asdict(effect))
    return found


def measure_framework(name: str, only: Sequence[str], output: Path) -> int:
    """Measure one framework in this process, write the findings to ``output``, and return the exit code."""
    backend = backends.load(name)
    from docs.differences import native

    own = import_module(f"docs.differences.{name}")
    write_text(output, json.dumps(asdict(native.measure(backend, own, only))))
    return 0
