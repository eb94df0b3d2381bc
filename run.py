"""Run a command: `python run.py --backend pytorch`. Commands are in common/commands, frameworks in backends/."""

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import backends
from common import cli
from common.errors import UserError
from common.system import environment
from common.system.memory import memory_errors
from common.system.processes import end_program, exit_code


def main(arguments: list[str]) -> int:
    """Run one command and return the exit code: 0 for success, and those of `common.system.processes.exit_code`."""
    return exit_code(_run, arguments)


def _run(arguments: list[str]) -> int:
    name, config = cli.parse(arguments, backends.FRAMEWORKS)
    chosen = getattr(config, "backend", "")
    every = list(backends.FRAMEWORKS)
    names = cli.backend_names(chosen, every) if chosen else []
    if chosen == "all" and (names := backends.without_obstacle(every)) != every:
        config = replace(config, backend=",".join(names))
    if getattr(config, "sync_batch_norm", False):
        backends.require_sync_batch_norm(names)
    backends.require(names)
    environment.draw_to_files()
    if getattr(config, "device", "cpu") == "cpu":
        environment.hide_gpus()
    # Imported only here: commands import packages that `require` has found installed.
    found = [environment.joined_engine(backends.FRAMEWORKS[name]) for name in names]
    joined = [engine for engine in found if engine]
    if len(names) > 1 and joined and hasattr(config, "processes"):
        raise UserError(
            f"--backend {chosen}: {joined[0].variable} joins processes of one backend: name it, or unset the variable"
        )
    if len(names) > 1 and not cli.COMMANDS[name].starts_processes:
        from common.commands import side_by_side

        script = Path(__file__).resolve()
        return side_by_side.run(name, config, names, backends, script, arguments)
    if getattr(config, "processes", 1) > 1 and not joined:
        from common.commands import launcher

        framework = backends.FRAMEWORKS[names[0]]
        return launcher.run(framework, config, Path(__file__).resolve(), arguments)
    command = import_module(f"common.commands.{name.replace('-', '_')}")
    with memory_errors():
        return int(command.run(config, backends))


if __name__ == "__main__":
    end_program(main(sys.argv[1:]))
