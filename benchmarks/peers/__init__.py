"""The peers that this project is compared with: each framework as it comes, the book's recipes, other libraries.

These modules import no backend, because that would change the framework's settings. The book's network is this
project's, read from its file and without its optimizations.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def backend_file(name: str, file: str) -> ModuleType:
    """Import a backend's file in a package of its own, without importing the backend."""
    package = f"book_{name}"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(ROOT / "backends" / name)]
    return import_module(f"{package}.{file}")


def plain_tasks(name: str) -> dict[str, Callable[..., Any]]:
    """Return the tasks for a framework as it comes: the book's training, and the peers' loaders."""
    module = import_module(f"benchmarks.peers.{name}")
    tasks: dict[str, Callable[..., Any]] = {"loader": module.loader}
    if hasattr(module, "book"):
        tasks["book"] = module.book
    return tasks
