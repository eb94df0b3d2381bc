"""What this project is measured against: each framework by itself, the book's recipes, and what else a user would pick.

These modules import no backend: that would set what must be left alone here. The book's network is this project's, read
from its file, with what makes it fast taken out again.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def backend_file(name: str, file: str) -> ModuleType:
    """Return a backend's file as a module of a package of its own, without the backend's import."""
    package = f"book_{name}"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(ROOT / "backends" / name)]
    return import_module(f"{package}.{file}")


def plain_tasks(name: str) -> dict[str, Callable[..., Any]]:
    """Return what a process measures of a framework as it comes: the book's training, and the loaders of others."""
    module = import_module(f"benchmarks.peers.{name}")
    tasks: dict[str, Callable[..., Any]] = {"loader": module.loader}
    if hasattr(module, "book"):
        tasks["book"] = module.book
    return tasks
