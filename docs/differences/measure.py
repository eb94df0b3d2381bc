"""`python -m docs differences`: measure each known difference on the reference and in the frameworks.

A framework is imported before anything that needs NumPy, and in a process of its own.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import backends
from common.system import environment
from common.system.files import write_text
from common.system.processes import use_default_start_method
from docs.differences import tables


def run(only: Sequence[str], frameworks: Sequence[str]) -> None:
    """Measure everything and write docs/differences.json, or measure a part and print its tables.

    With ``only`` these differences are measured on the reference. With ``frameworks``, all or these differences are
    measured in these frameworks. Raises UserError if a framework is not installed.
    """
    everything = not only and not frameworks
    names = list(backends.FRAMEWORKS) if everything else frameworks
    backends.require(names)
    natives = [_in_a_process(name, only) for name in names]
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
        return
    for name in only or tables.names(tables.load()):
        print(f"## {name}\n\n{tables.difference(name, measured)}\n")


def _effects(only: Sequence[str]) -> list[dict[str, Any]]:
    from docs.differences.effects import effects

    found = []
    for effect in effects(only):
        print(f"measured on the reference: {effect.name}", flush=True)
        found.append(asdict(effect))
    return found


def _in_a_process(name: str, only: Sequence[str]) -> dict[str, Any]:
    print(f"measuring in {name} ...", flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure_framework, name, only).result()


def measure_framework(name: str, only: Sequence[str]) -> dict[str, Any]:
    """Return what is measured in one framework, in this process."""
    use_default_start_method()
    backend = backends.load(name)
    from docs.differences import native

    own = import_module(f"docs.differences.{name}")
    return asdict(native.measure(backend, own, only))
