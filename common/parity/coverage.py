"""Record which functions of a backend the parity checks call, and with which values.

`CallRecorder` wraps a backend. Calls between a backend's own functions do not count, because no check compares their
results.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from inspect import Signature, signature
from types import FunctionType
from typing import Any

from common import interface
from common.interface import Backend, DataIter, Tensor

# The files of a backend, as `Backend` names them.
FILES: dict[str, type] = {
    "devices": interface.Devices,
    "transforms": interface.Transforms,
    "loaders": interface.Loaders,
    "resnet": interface.ResNet,
    "weights": interface.WeightFiles,
    "trainer": interface.Trainers,
    "kaggle": interface.Kaggle,
    "probes": interface.Probes,
}
NUMBER_TYPE = re.compile(r"(?:bfloat|float|uint|int)\d+")  # matches every framework's spelling
Covered = Mapping[str, list[str]]  # dimension: the values that were used, sorted


def contract() -> list[str]:
    """Return the names of the contract's functions, such as "trainer.predict"."""
    return [f"{file}.{name}" for file in FILES for name in _signatures(file)]


def _signatures(file: str) -> dict[str, Signature]:
    return {
        name: signature(function)
        for name, function in vars(FILES[file]).items()
        if isinstance(function, FunctionType) and not name.startswith("_")
    }


class CallRecorder:
    """Records the calls of the functions of ``backend``, a wrapper of the ``original`` backend."""

    def __init__(self, backend: Backend) -> None:
        self.original = backend
        self.called: set[str] = set()
        self._values: dict[str, set[str]] = {}
        self._channels_last = backend.devices.image_layout == "NHWC"
        watched = {file: _Watched(getattr(backend, file), file, self.note) for file in FILES}
        self.backend: Backend = replace(backend, **watched)  # type: ignore[arg-type]

    def note(self, file: str, name: str, arguments: Mapping[str, Any], result: Any) -> Any:
        """Record a call and its arguments by the contract's names; return its result, wrapped if it is a loader."""
        self.called.add(f"{file}.{name}")
        if file == "devices":  # computes nothing
            return result
        if name in BY_FUNCTION:
            self._add(*BY_FUNCTION[name])
        for argument, value in arguments.items():
            for dimension, read in BY_ARGUMENT.get(argument, ()):
                for found in read(value):
                    self._add(dimension, found)
        if "X" in arguments:
            self._add_images(file, arguments["X"])
        return _WatchedBatches(result, self._add) if name in LOADERS else result

    def _add_images(self, file: str, X: Tensor) -> None:
        shape = tuple(getattr(X, "shape", ()))
        if len(shape) != 4:
            return
        n, *axes = shape
        channels, height, width = (axes[2], *axes[:2]) if self._channels_last else axes
        where = "transforms" if file == "transforms" else "network"
        if file == "transforms":
            self._add("types of images, transforms", *NUMBER_TYPE.findall(str(X.dtype)))
        self._add(f"batch sizes, {where}", n)
        self._add(f"image sizes, {where}", f"{height} x {width}")
        self._add(f"channels of images, {where}", channels)

    def _add(self, dimension: str, value: Any) -> None:
        self._values.setdefault(dimension, set()).add(str(value))

    def covered(self) -> Covered:
        """Return the values of each dimension, sorted; numbers are sorted by value."""
        return {
            dimension: sorted(self._values[dimension], key=_natural)
            for dimension in sorted(self._values)
        }


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a sort key that orders numbers inside strings by value."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)
    ]


class _Watched:
    """A file of a backend. Calls of the contract's functions are recorded."""

    def __init__(self, module: Any, file: str, note: Callable[..., Any]) -> None:
        self._module, self._file, self._note = module, file, note
        self._known = _signatures(file)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name not in self._known:
            return found

        def watched(*given: Any, **named: Any) -> Any:
            # The contract's functions are methods, with `self`.
            arguments = self._known[name].bind(None, *given, **named)
            arguments.apply_defaults()
            del arguments.arguments["self"]
            result = found(*given, **named)
            return self._note(self._file, name, arguments.arguments, result)

        vars(self)[name] = watched  # the same object each time
        return watched


class _WatchedBatches:
    """The batches of a loader. Their sizes and the number of epochs are recorded."""

    def __init__(self, batches: DataIter, add: Callable[[str, Any], None]) -> None:
        self._batches, self._add, self._epochs = batches, add, 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._epochs += 1
        self._add("epochs of a loader", self._epochs)
        return self._noted(iter(self._batches))

    def _noted(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for X, y in batches:
            self._add("batch sizes, loaders", len(y))
            yield X, y

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def _itself(value: Any) -> Iterable[Any]:
    return [value]


def _kinds(values: Iterable[Any]) -> Iterable[str]:
    return [type(value).__name__ for value in values]


def _size(dataset: Any) -> Iterable[str]:
    return [f"{dataset.images.shape[1]} x {dataset.images.shape[2]}"]


def _device(device: Any) -> str:
    """Return a framework's device as --device names it: "cuda:1", "gpu(1)" and "/GPU:1" are "gpu:1"."""
    text = str(device)
    return "cpu" if "cpu" in text.lower() else f"gpu:{''.join(re.findall(r'[0-9]', text))}"


# Argument of a contract function: the dimension, and a function that reads its values from the argument.
BY_ARGUMENT: dict[str, tuple[tuple[str, Callable[[Any], Iterable[Any]]], ...]] = {
    "num_classes": (("classes", _itself),),
    "in_channels": (("channels of images, network", _itself),),
    "num_channels": (("channels of the first stage", _itself),),
    "num_workers": (("workers", _itself),),
    "num_epochs": (("epochs of a run", _itself),),
    "first_epoch": (("epochs before a run", _itself),),
    "lr_period": (("epochs per learning rate", _itself),),
    "valid_iter": (("validation", lambda found: ["no" if found is None else "yes"]),),
    "augs": (("augmentations", _kinds),),
    "decisions": (("operations on batches", _kinds),),
    "dataset": (
        ("image sizes, loaders", _size),
        ("images of a data set", lambda dataset: [len(dataset)]),
        ("classes of a data set", lambda dataset: [len(dataset.classes)]),
    ),
    "is_train": (("loaders", lambda train: ["training" if train else "test"]),),
    "training": (("modes", lambda training: ["training" if training else "evaluation"]),),
    "precision": (("precisions", _itself),),
    "compile": (("compiled", lambda compiled: ["yes" if compiled else "no"]),),
    "devices": (("devices", lambda devices: map(_device, devices)),),
    "device": (("devices", lambda device: [] if device is None else [_device(device)]),),
}
LOADERS = ("load_native", "load_batched")
# Function: the dimension and the value.
BY_FUNCTION = {
    "load_native": ("pipelines", "native"),
    "load_batched": ("pipelines", "batched"),
    "adam": ("optimizers", "Adam"),
    "sgd": ("optimizers", "SGD"),
    "in_float64": ("precisions", "fp64"),
}
