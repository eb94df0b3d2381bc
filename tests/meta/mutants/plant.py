"""A mutant in place of a module: whoever imports the backend from then on gets the mutant."""

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
    """Find one module, whose source is another."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return the spec of the one module, None for any other."""
        if fullname != self.name:
            return None
        return spec_from_loader(fullname, self, origin=str(self.path))

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, vars(module))


def load_planted(name: str, mutant: Mutant | None) -> Backend:
    """Return a backend imported anew, with a mutant, or right if there is none.

    The framework itself stays as it is. There is no way back: call it in a process of its own.
    """
    if mutant is not None:
        path = ROOT / "backends" / name / f"{mutant.file}.py"
        text = mutated(mutant)
        code = compile(text, str(path), "exec")
        # TensorFlow's AutoGraph compiles the source that it finds there. No time: it is not read again.
        linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
        sys.meta_path.insert(0, Planted(f"backends.{name}.{mutant.file}", path, code))
    for module in [m for m in sys.modules if m.startswith(f"backends.{name}")]:
        del sys.modules[module]
    if hasattr(backends, name):
        delattr(backends, name)
    return backends.load(name)
