"""Go on with a run: read its options from its folder, and compare what must be the same."""

import hashlib
import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.augmentation.decisions import decide, epoch_order
from common.augmentation.operations import Augmentation
from common.commands.run_folder import RunFolder, check_output
from common.config import KaggleConfig, RunConfig, TrainConfig, plain, restored
from common.datasets import Dataset
from common.errors import UserError, counted, printable
from common.interface import Framework
from common.system import environment
from common.system.files import writing
from common.system.temporary import PREFIX

# Lines of the opening block that say how a network is computed.
DESCRIBED = ("device", "threads", "instructions", "precision", "compile", "pipeline")
CONFIGS: dict[str, type[RunConfig]] = {
    "train": TrainConfig,
    "compare": TrainConfig,
    "kaggle": KaggleConfig,
}
# The entries of a ``config.json`` that are needed here, and their types.
SINGLE = {"config": dict, "description": dict, "versions": dict, "digests": dict}
SEVERAL = {"config": dict, "backends": str, "arguments": list}
DIGESTS = {"data": "the images", "decisions": "the random decisions"}
RESULTS = ("summary.json", "comparison.json")  # of a finished run


def resumed(name: str, values: Mapping[str, Any], frameworks: Mapping[str, Framework]) -> RunConfig:
    """Return the options of the run in the folder ``values["resume"]``, changed by the other ``values``.

    Raises UserError if the folder is not that of a run of the command ``name``.
    """
    folder: Path = values["resume"]
    content = read_config(folder)
    command = content["command"]
    if (command == "kaggle") != (name == "kaggle"):
        word = "kaggle " if command == "kaggle" else ""
        raise UserError(f"{folder} is a run of {command}: python run.py {word}--resume {folder}")
    try:
        config = restored(CONFIGS[command], content["config"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = printable(str(error))
        raise UserError(f"{folder / 'config.json'} is not from this version: {why}") from error
    several = "backends" in content
    if several and "backend" in values:
        raise UserError(
            f"{folder} is a run of several backends: leave out --backend, or resume {folder}/BACKEND"
        )
    if (not several and values.get("backend", "") in ("all",)) or "," in values.get("backend", ""):
        raise UserError(f"--backend {values['backend']}: a run goes on in one framework; name one")
    if command == "compare" and "num_epochs" in values:
        raise UserError(
            "--epochs: a comparison of augmentations cannot be prolonged; start a new run"
        )
    if values.get("num_epochs", config.num_epochs) < config.num_epochs:
        raise UserError(
            f"--epochs {values['num_epochs']} is less than the {config.num_epochs} of {folder}: give more, or none"
        )
    framework = frameworks.get(values.get("backend", config.backend))
    if framework and environment.joined_engine(framework):
        config = replace(config, processes=1)  # the engine's variables say how many there are now
    return replace(
        config, output=values.get("output"), **{k: v for k, v in values.items() if k != "output"}
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a run's ``config.json``. Raises UserError if the folder has none of a training."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["command"] not in CONFIGS:
            problem = f"a run of {printable(str(content['command']))} cannot be resumed"
        elif all(
            isinstance(content[name], kind)
            for name, kind in (SEVERAL if "backends" in content else SINGLE).items()
        ):
            return dict(content)
        else:
            problem = f"{path} is damaged"
    except OSError as error:
        problem = f"cannot read {path} ({error.strerror})"
    except (KeyError, TypeError, ValueError, RecursionError):
        problem = f"{path} is damaged, or not that of a run of this version"
    raise UserError(
        f"--resume {folder}: {problem}; give the folder of a training, such as runs/NAME"
    )


def digests(datasets: Sequence[Dataset], augs: Sequence[Augmentation], seed: int) -> dict[str, str]:
    """Return digests of the images and of some decisions about them, which a resumed run must find unchanged."""
    data, decisions = hashlib.sha256(), hashlib.sha256()
    for dataset in datasets:
        data.update(repr((dataset.images.shape, dataset.classes)).encode())
        if isinstance(dataset.images, np.ndarray):
            # Without a copy, since the images may be a mapped file that is larger than the memory.
            data.update(np.ascontiguousarray(dataset.images).data)
        else:
            data.update(dataset.images.digest())
        data.update(np.ascontiguousarray(dataset.labels).data)
    height, width = datasets[0].images.shape[1:3]
    for epoch in range(2):
        order = epoch_order(64, seed, epoch)
        decisions.update(order.tobytes())
        for decision in decide(augs, order[:16], seed, epoch, (height, width)):
            for array in asdict(decision).values():
                decisions.update(array.tobytes())
    return {"data": data.hexdigest(), "decisions": decisions.hexdigest()}


def named(found: Mapping[str, str]) -> dict[str, str]:
    """Return `digests` by the words for the user."""
    return {DIGESTS[name]: digest for name, digest in found.items()}


def open_folder(
    config: RunConfig, name: str, found: Mapping[str, str], keeps: bool = True
) -> RunFolder:
    """Return a new folder for a run, or that of the run to go on with; ``found`` are the `digests`.

    With ``--output`` the folder is copied first, unless this process ``keeps`` nothing. Raises UserError if images or
    decisions have changed.
    """
    if config.resume is None:
        return RunFolder(config.output, name)
    before = read_config(config.resume).get("digests", {})
    for key, what in DIGESTS.items():
        if before.get(key) != found[key]:
            raise UserError(
                f"--resume {config.resume}: {what} of that run were others than now: restore them, or start a new run"
            )
    if keeps:
        return copy_or_reopen(config)
    folder = RunFolder(config.output, name)
    folder.metrics = RunFolder.reopen(config.resume).metrics
    return folder


def copy_or_reopen(config: RunConfig) -> RunFolder:
    """Return the folder of the run to go on with, or its copy in ``--output``, without the results of the end."""
    assert config.resume is not None
    check_output(config.output)
    if config.output is not None:
        _copy(config.resume, config.output)
    folder = RunFolder.reopen(config.output or config.resume)
    with writing(folder.path):
        for name in RESULTS:  # or a run with more epochs would look finished if it is interrupted
            (folder.path / name).unlink(missing_ok=True)
    return folder


def _copy(source: Path, target: Path) -> None:
    """Copy the folder of a run. Raises UserError, and leaves nothing, if the copy is not complete."""
    if target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"--output {target} is in the folder to copy: choose another --output")

    def copy(file: str, new: str) -> None:
        with writing(Path(new)):
            shutil.copy2(file, new)

    ignored = shutil.ignore_patterns(f"{PREFIX}*")  # what killed writers left
    try:
        with writing(target):
            shutil.copytree(source, target, ignore=ignored, copy_function=copy, dirs_exist_ok=True)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def describe_resume(config: RunConfig, record: Mapping[str, Any]) -> dict[str, str]:
    """Return the line of the opening block about the run to go on with; ``record`` is the new ``config.json``."""
    if config.resume is None:
        return {}
    changes = ", ".join(_changes(read_config(config.resume), record))
    return {
        "resume": f"{config.resume}, "
        + (f"not bit for bit: {changes}" if changes else "bit for bit")
    }


def where_it_goes_on(finished: int, num_epochs: int) -> str:
    """Return the line about the epochs that are not trained again."""
    if not finished:
        return "no epoch was saved: starts again"
    if finished < num_epochs:
        return f"goes on after epoch {finished} of {num_epochs}"
    return f"finished before: {counted(num_epochs, 'epoch')}"


def how_to_resume(command: str, folder: Path) -> str:
    """Return the end of the message after an interruption, '' for a command that cannot be resumed."""
    if command not in CONFIGS:
        return ""
    word = "kaggle " if command == "kaggle" else ""
    return f"; go on with: python run.py {word}--resume {shlex.quote(str(folder))}"


def what_was_kept(command: str, folder: RunFolder) -> str:
    """Return the message after an interruption."""
    epochs = counted(len(folder.metrics), "finished epoch")
    return f"interrupted: {epochs}, kept in {folder.path}{how_to_resume(command, folder.path)}"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what changes the rounding of a training: what differs between two records, and sums in no fixed order."""
    for name in ("backend", *DESCRIBED):
        old, new = (r["description"].get(name, "-") for r in (before, now))
        if old != new:
            yield f"{name} {new}, before {old}"
    numbers = [r["config"].get("processes", 1) for r in (before, now)]
    if numbers[0] != numbers[1]:
        yield f"processes {numbers[1]}, before {numbers[0]}"
    numpy = [r["versions"].get("numpy") for r in (before, now)]
    if numpy[0] != numpy[1]:
        yield f"numpy {numpy[1]}, before {numpy[0]}"
    if now["config"]["num_epochs"] != before["config"].get(
        "num_epochs"
    ) and _rates_depend_on_epochs(now):
        yield "the learning rate falls over more epochs"
    if (
        numbers[1] > 2
    ):  # measured on the CPU: two straight runs of MXNet differ, and a resumed one of PyTorch
        yield "more than two processes add in another order"
    if not now["description"].get("device", "cpu").startswith("cpu"):
        yield "a GPU may add in another order"


def _rates_depend_on_epochs(record: Mapping[str, Any]) -> bool:
    return bool(record["config"].get("adam", {}).get("lr_end_factor", 1) != 1)


# --- Several backends ------------------------------------------------------------------------------------------------


def record_of_several(command: str, config: RunConfig, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the content of ``config.json`` in the folder above those of the backends."""
    if (
        config.resume is not None
    ):  # the arguments of the first start, since those of a resumed run are few
        arguments = read_config(config.resume)["arguments"]
    return {
        "command": command,
        "config": plain(config),
        "backends": config.backend,
        "arguments": list(arguments),
    }


def is_finished(folder: Path, config: RunConfig) -> bool:
    """Return whether one backend's run has all its results, for as many epochs."""
    try:
        before = read_config(folder)
        done = {"compare": "comparison.json"}.get(before["command"], "summary.json")
        results = dict(json.loads((folder / done).read_text(encoding="utf-8")))
    except (UserError, OSError, TypeError, ValueError):
        return False
    complete = before["command"] != "kaggle" or "test" in results
    return complete and before["config"].get("num_epochs") == getattr(config, "num_epochs", None)


def arguments_for(folder: Path, command: str, config: Any, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of one backend's process, which starts or goes on with the run in ``folder``."""
    own = ["--backend", folder.name, "--output", str(folder)]
    if getattr(config, "resume", None) is None:
        return with_options(arguments, own)
    started = (folder / "config.json").exists()
    before = read_config(folder)["config"] if started else {}
    changed: list[str] = []
    for flag, name in {
        "--epochs": "num_epochs",
        "--device": "device",
        "--workers": "workers",
        "--processes": "processes",
    }.items():
        value = getattr(config, name)
        if value is not None and value != before.get(name):
            changed += [flag, str(value)]
    if not started:
        return with_options(read_config(config.resume)["arguments"], [*own, *changed])
    return [*(["kaggle"] if command == "kaggle" else []), "--resume", str(folder), *changed]


def with_options(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return ``arguments`` with ``options`` inserted after the other options, but before ``--``, so that they win."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:end], *options, *arguments[end:]]
