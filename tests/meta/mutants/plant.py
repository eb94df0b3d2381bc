"""Replace a module by a mutant: later imports of the backend get the mutant."""

import linecache
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

import backends
from common.interface import Backend
from tests.meta.mutants.mutant import ROOT, Mutant, mutated


class Planted(MetaPathFinder, Loader):
    """A finder and loader of one module with another source."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the spec of that module, None for any other."""
        if fullname != self.name:
            return None
        return spec_from_loader(fullname, self, origin=str(self.path))

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, vars(module))


def load_planted(name: str, mutant: Mutant | None) -> Backend:
    """Import a backend again, with a mutant if given.

    The framework itself is not imported again. The import cannot be undone, so call this in a process of its own.
    """
    if mutant is not None:
        path = ROOT / "backends" / name / f"{mutant.file}.py"
        text = mutated(mutant)
        code = compile(text, str(path), "exec")
        # TensorFlow's AutoGraph compiles the source in this cache. Without a time, the file is not read again.
        linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
        sys.meta_path.insert(0, Planted(f"backends.{name}.{mutant.file}", path, code))
    for module in [m for m in sys.modules if m.startswith(f"backends.{name}")]:
        del sys.modules[module]
    if hasattr(backends, name):
        delattr(backends, name)
    return backends.load(name)
