"""Read and write weights files of every format.

The suffix of a file sets its format. Safetensors is the canonical format and belongs to no framework; the other
suffixes come from the `Framework` records. Formats that NumPy or h5py can read need no framework.
"""

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.augmentation.operations import Normalize
from common.config import MAX_IMAGE_SIZE
from common.errors import UserError, counted, printable
from common.interface import Backend, Framework
from common.system.files import check_file
from common.weights.canonical import Weights, network_sizes
from common.weights.checks import check_values
from common.weights.digest import with_digest
from common.weights.gluon import load_params, save_params
from common.weights.keras import add_metadata, load_keras
from common.weights.safetensors import load_weights, save_weights

Metadata = dict[str, str]
BEST = "best.safetensors"  # in the folder of a run: the weights with the best accuracy
Backends = Mapping[str, Backend]
# Formats that are read and written without a framework, by suffix.
READERS: dict[str, Callable[[Path], tuple[Weights, Metadata]]] = {
    ".safetensors": load_weights,
    ".params": lambda path: (load_params(path), {}),
    ".weights.h5": load_keras,
}
WRITERS: dict[str, Callable[[Path, Weights, Metadata], None]] = {
    ".safetensors": save_weights,
    ".params": lambda path, weights, _: save_params(path, weights),
}


@dataclass(frozen=True)
class Stored:
    """The content of a weights file; ``reader`` is the framework that was needed to read it, '' if none."""

    path: Path
    weights: Weights
    metadata: Metadata
    reader: str = ""

    @property
    def num_classes(self) -> int:
        return network_sizes(self.weights)[0]

    @property
    def in_channels(self) -> int:
        return network_sizes(self.weights)[1]

    def check_rgb(self) -> None:
        """Raise UserError unless the network takes RGB images."""
        if self.in_channels != 3:
            raise UserError(
                f"{self.path} is for images with {counted(self.in_channels, 'channel')}; RGB images have 3"
            )

    def check_data(self, name: str, classes: Sequence[str]) -> None:
        """Raise UserError unless the weights are for RGB images of these classes."""
        self.check_rgb()
        if self.num_classes != len(classes):
            raise UserError(
                f"{self.path} has {self.num_classes} classes; {name} has {len(classes)}"
            )
        for i, (own, other) in enumerate(zip(self.classes or classes, classes, strict=True)):
            if own != other:
                raise UserError(
                    f"class {i} is {printable(own)} in {self.path}, but {printable(other)} in {name}"
                )

    def differs(self, classes: Sequence[str]) -> str:
        """Return how the classes of the weights differ from these, '' if they do not, as far as is known."""
        if self.num_classes != len(classes):
            return counted(self.num_classes, "class", "classes")
        for i, (own, other) in enumerate(zip(self.classes or classes, classes, strict=True)):
            if own != other:
                return f"class {i} is {printable(own)}, not {printable(other)}"
        return ""

    @property
    def classes(self) -> list[str] | None:
        """The class names, None if they are not in the metadata. Raises UserError if they are invalid."""
        classes = self._metadata("classes", "list of classes")
        if classes is None:
            return None
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise UserError(f"{self.path} has no valid list of classes in its metadata")
        if len(classes) != self.num_classes:
            raise UserError(
                f"{self.path} has {len(classes)} class names, but weights for {self.num_classes} classes"
            )
        return classes

    @property
    def image_size(self) -> int | None:
        """The side in pixels of the training images, None if it is not in the metadata."""
        size = self._metadata("image_size", "image size")
        if size is not None and (not isinstance(size, int) or not 8 <= size <= MAX_IMAGE_SIZE):
            raise UserError(f"{self.path} has no valid image size in its metadata")
        return size

    @property
    def normalize(self) -> Normalize | None:
        """The normalization of the images, None if it is not in the metadata."""
        numbers = self._metadata("normalize", "mean and standard deviation")
        if numbers is None:
            return None
        try:
            mean, std = numbers
            return Normalize(tuple(mean), tuple(std))
        except (TypeError, ValueError, OverflowError):
            problem = f"{self.path} has no valid mean and standard deviation in its metadata"
            raise UserError(problem) from None

    def _metadata(self, name: str, what: str) -> Any:
        """Return an entry of the metadata, or None. Raises UserError for invalid JSON, naming ``what``."""
        try:
            return json.loads(self.metadata.get(name, "null"))
        except (ValueError, RecursionError):
            raise UserError(f"{self.path} has no valid {what} in its metadata") from None


def weights_in(path: Path) -> Path:
    """Return the weights file in the folder of a run, preferably the best; return any other path as it is.

    Raises UserError for a folder without weights.
    """
    if not os.path.isdir(path):  # noqa: PTH112, Path.is_dir() raises an error for a name that is too long
        return path
    checkpoints = sorted(path.glob("checkpoints/*.safetensors"), key=lambda p: p.stat().st_mtime)
    for file in (path / BEST, path / "weights.safetensors", *reversed(checkpoints)):
        if file.is_file():
            return file
    raise UserError(
        f"{path} is a folder without weights: give a weights file, or the folder of a run"
    )


def suffix_of(path: Path, frameworks: Collection[Framework]) -> str:
    """Return the suffix that sets the format of a file. Raises UserError if it is unknown."""
    suffixes = dict.fromkeys([*READERS, *(s for f in frameworks for s in f.suffixes)])
    for suffix in suffixes:
        if path.name.endswith(suffix):
            return suffix
    raise UserError(f"{path} has no known suffix: weights files end in {', '.join(suffixes)}")


def framework_of(path: Path, frameworks: Collection[Framework]) -> Framework | None:
    """Return the framework that owns the format of a file, None if it is none of these."""
    return next((f for f in frameworks if path.name.endswith(f.suffixes)), None)


def backend_of(path: Path, backends: Backends) -> Backend | None:
    """Return the backend whose framework owns the format of a file, None if it is none of these."""
    framework = framework_of(path, [backend.framework for backend in backends.values()])
    return backends[framework.name] if framework else None


def reader_of(path: Path, frameworks: Collection[Framework]) -> Framework | None:
    """Return the framework that is needed to read a file, None if none is.

    Raises UserError if the suffix is unknown or the file cannot be opened.
    """
    suffix = suffix_of(path, frameworks)
    check_file(path, "weights")
    return None if suffix in READERS else framework_of(path, frameworks)


def writer_of(path: Path, frameworks: Collection[Framework]) -> Framework | None:
    """Return the framework that is needed to write a file, None if none is. Raises UserError for an unknown suffix."""
    return None if suffix_of(path, frameworks) in WRITERS else framework_of(path, frameworks)


def read_stored(path: Path, backends: Backends) -> Stored:
    """Read a weights file of any format.

    ``backends`` must have the one from `reader_of`. Raises UserError for a file that is damaged or of another format,
    that is not for ResNet-18, or that has invalid values.
    """
    reader = ""
    try:
        if suffix := _suffix_in(READERS, path):
            weights, metadata = READERS[suffix](path)
        else:
            backend = _own(path, backends)
            weights, metadata, reader = backend.weights.load_file(path), {}, backend.name
    except MemoryError:
        raise UserError(f"{path} does not fit into memory") from None
    check_values(weights, str(path))
    return Stored(path, weights, metadata, reader)


def write_weights(path: Path, weights: Weights, metadata: Metadata, backends: Backends) -> Metadata:
    """Write a file in the format of its suffix, and return the metadata that it holds: all or none.

    ``backends`` must have the one from `writer_of`.
    """
    if suffix := _suffix_in(WRITERS, path):
        WRITERS[suffix](path, weights, metadata)
        return metadata if suffix == ".safetensors" else {}
    _own(path, backends).weights.save_file(path, weights)
    if not path.name.endswith(".weights.h5"):
        return {}
    return metadata if add_metadata(path, with_digest(weights, metadata)) else {}


def _suffix_in(table: Mapping[str, Any], path: Path) -> str | None:
    return next((suffix for suffix in table if path.name.endswith(suffix)), None)


def _own(path: Path, backends: Backends) -> Backend:
    backend = backend_of(path, backends)
    assert backend is not None, f"the backend of {path} is not loaded"
    return backend
