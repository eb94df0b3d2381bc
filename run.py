"""Run a chapter: `python run.py --backend pytorch`. Everything is in common/ and backends/."""

import io
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backends
from common import cli
from common.errors import UserError, UserNotice
from common.system.interrupts import no_ctrl_c_is_lost

if TYPE_CHECKING:  # NumPy comes with them, and --help should not wait for that
    from common.commands.convert import Stored
    from common.interface import Backend

_began = time.perf_counter()
_format_warning = warnings.formatwarning


def _format(message, category, *arguments):  # type: ignore[no-untyped-def]
    """Show a notice as one line, and any other warning as Python does."""
    if category is UserNotice:
        return f"note: {message}\n"
    return _format_warning(message, category, *arguments)


def _convert(command: cli.Convert) -> int:
    """Convert a file of weights, and return the exit code."""
    from common.commands import convert

    paths = command.source, command.target
    kinds = convert.check_paths(backends.FRAMEWORKS, *paths, command.force)
    loaded = backends.load_several(*convert.loaders(*kinds))
    convert.convert(backends.FRAMEWORKS, *paths, loaded, command.force)
    return 0


def _load_with_weights(
    name: str, weights: Path, precision: str = "fp32"
) -> tuple["Backend", "Stored"]:
    """Load a backend, and read a file of weights with the one that can."""
    from common.commands import convert

    kind = convert.check_source(backends.FRAMEWORKS, weights)
    readers = [kind.backend] if kind.to_read else []
    if kind.to_read and not backends.installed(kind.backend):
        raise UserError(
            f"{weights} can only be read by {kind.backend}, which is not installed here: where it is, "
            f"python run.py convert {weights} weights.safetensors makes a file that every backend reads"
        )
    loaded = backends.load_several([name, *readers], precision=precision)
    return loaded[name], convert.read_stored(backends.FRAMEWORKS, weights, loaded)


def _run_each(command: cli.Command | cli.Kaggle, names: list[str], arguments: list[str]) -> int:
    """Run the command on several backends, and return the exit code."""
    backends.require(names)
    from common.commands import side_by_side

    frameworks = {name: backends.FRAMEWORKS[name] for name in names}
    return side_by_side.run(command, frameworks, Path(__file__).resolve(), arguments)


def _parity(command: cli.Parity) -> int:
    """Check each backend in a process of its own; return the exit code."""
    installed = [name for name in backends.FRAMEWORKS if backends.installed(name)]
    names = list(command.backends) or installed
    if not names:
        raise UserError("no backend is installed: uv run --extra all brings all three")
    backends.require(names)
    from common.commands import parity

    frameworks = {name: backends.FRAMEWORKS[name] for name in names}
    left_out = [n for n in backends.FRAMEWORKS if not command.backends and n not in installed]
    return parity.run(command, frameworks, check_parity, left_out)


def check_parity(name: str, command: cli.Parity, folder: Path) -> int:
    """Check one backend in this process, which `_parity` started for it; return the exit code."""
    return _exit_code(_check_parity, name, command, folder)


def _check_parity(name: str, command: cli.Parity, folder: Path) -> int:
    backend = backends.load(name, command.precision)
    from common.commands import parity  # only now: PyTorch's import comes first of all

    parity.check_backend(backend, command, folder)
    return 0


def _chapter(command: cli.Command | cli.Kaggle, arguments: list[str]) -> int:
    """Run a command of a chapter, on one backend or on several in turn; return the exit code."""
    names = cli.backend_names(command.config.backend, list(backends.FRAMEWORKS))
    if len(names) > 1:
        return _run_each(command, names, arguments)
    weights = None
    if isinstance(command, cli.Command) and command.config.weights is not None:
        backend, weights = _load_with_weights(
            names[0], command.config.weights, command.config.precision
        )
    else:
        backend = backends.load(names[0], command.config.precision)
    startup_seconds = time.perf_counter() - _began
    # Only now: they need what load has found to be there.
    if isinstance(command, cli.Kaggle):
        from common.commands import kaggle

        kaggle.run(command, backend, startup_seconds)
    else:
        from common.commands import train

        train.run(command, backend, startup_seconds, weights)
    return 0


def _check_submission(command: cli.CheckSubmission) -> int:
    from common.datasets import submission

    report = submission.check_submission(command.submission, command.data_dir)
    print(f"{command.submission} would be accepted: {report}")
    return 0


def _predict(command: cli.Predict) -> int:
    """Classify image files, and return the exit code."""
    backend, weights = _load_with_weights(command.backend, command.weights)
    from common.commands import predict

    return predict.run(command, backend, weights)


def _run(arguments: list[str]) -> int:
    """Run the command that the arguments ask for, and return the exit code."""
    match command := cli.parse(arguments, list(backends.FRAMEWORKS)):
        case cli.Convert():
            return _convert(command)
        case cli.Parity():
            return _parity(command)
        case cli.CheckSubmission():
            return _check_submission(command)
        case cli.Predict():
            return _predict(command)
        case cli.Command() | cli.Kaggle():
            return _chapter(command, arguments)


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code."""
    return _exit_code(_run, arguments)


def _exit_code(run: Callable[..., int], *arguments: Any) -> int:
    """Return the exit code of ``run``, 2 if the user can correct what went wrong, 130 after Ctrl-C."""
    warnings.formatwarning = _format
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be anything
    try:
        with no_ctrl_c_is_lost():
            return run(*arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
