"""Weights between the files of the frameworks, and the proof that a file holds the same network.

A kind of file is told by its suffix. `convert` reads one, writes another, and lets the framework of each load it by its
own means: what both networks then say of the same images decides whether the file stays.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.augmentation.operations import Normalize
from common.config import MAX_IMAGE_SIZE, ConvertConfig
from common.errors import UserError, UserNotice, printable
from common.interface import Backend, Framework, Registry
from common.system.files import check_folder, written_whole
from common.weights.canonical import Weights, network_sizes
from common.weights.checks import check_values, few
from common.weights.gluon import load_params, save_params, tells_layers
from common.weights.keras import add_metadata, load_keras
from common.weights.safetensors import load_weights, save_weights

Backends = Mapping[str, Backend]
Frameworks = Mapping[str, Framework]

NUM_IMAGES = 16
# The largest difference of two frameworks' logits, as a share of the largest logit. Measured on the images below, with
# ten networks drawn at random (buffers too) and a trained one, between any two of PyTorch 2.15, MXNet 1.9.1,
# TensorFlow 2.21 and NumPy in float64; ten times that is allowed.
MEASURED = 1e-6
TOLERANCE = 10 * MEASURED


@dataclass(frozen=True)
class Stored:
    """What a file of weights holds."""

    path: Path
    weights: Weights
    metadata: dict[str, str]
    reader: str = ""  # the backend whose framework had to read the file, '' where NumPy could

    @property
    def num_classes(self) -> int:
        return network_sizes(self.weights)[0]

    @property
    def in_channels(self) -> int:
        return network_sizes(self.weights)[1]

    def check_data(self, name: str, classes: Sequence[str]) -> None:
        """Raise UserError, saying what each has, unless the weights are for RGB images of these classes."""
        if self.in_channels != 3:
            raise UserError(
                f"{self.path} takes images of {self.in_channels} channels; those of {name} have 3"
            )
        if self.num_classes != len(classes):
            raise UserError(
                f"{self.path} tells {self.num_classes} classes apart; {name} has {len(classes)}"
            )
        own = self.classes
        if own is not None and own != list(classes):
            raise UserError(
                f"{self.path} knows the classes {few(own, 10)}; {name} has {few(classes, 10)}"
            )

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes where the metadata have them. Raises UserError where they are none."""
        classes = self._metadata("classes", "list of classes")
        if classes is None:
            return None
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise UserError(f"{self.path}: its metadata hold no list of classes")
        return classes

    @property
    def image_size(self) -> int | None:
        """The side in pixels of the images that the network has learnt from, where the metadata have it."""
        size = self._metadata("image_size", "size of images")
        if size is not None and (not isinstance(size, int) or not 8 <= size <= MAX_IMAGE_SIZE):
            raise UserError(f"{self.path}: its metadata hold no size of images")
        return size

    @property
    def normalize(self) -> Normalize | None:
        """What was done to the images before the network, None where it is nothing, as the metadata say."""
        numbers = self._metadata("normalize", "mean and standard deviation")
        if numbers is None:
            return None
        try:
            array = np.array(numbers, np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.shape != (2, 3) or not np.isfinite(array).all() or array[1].min() <= 0:
            raise UserError(f"{self.path}: its metadata hold no mean and standard deviation")
        mean, std = array.tolist()
        return Normalize(tuple(mean), tuple(std))

    def _metadata(self, name: str, what: str) -> Any:
        """Return an entry of the metadata, None without one. Raises UserError, of ``what``, if it is no JSON."""
        try:
            return json.loads(self.metadata.get(name, "null"))
        except (ValueError, RecursionError):
            raise UserError(f"{self.path}: its metadata hold no {what}") from None


@dataclass(frozen=True)
class Kind:
    """A kind of file: its suffix, the backend whose own it is, and what that framework is needed for."""

    suffix: str
    backend: str  # '' for the canonical kind, which is no framework's
    to_read: bool
    to_write: bool


CANONICAL = ".safetensors"
# Suffixes of what `common.weights` reads and writes itself; any other file takes its framework.
READ_HERE = (".params", ".weights.h5")
WRITTEN_HERE = (".params",)


def kinds_of(frameworks: Frameworks) -> list[Kind]:
    """Return the kinds of files: the canonical one, and each framework's own."""
    return [Kind(CANONICAL, "", False, False)] + [
        Kind(suffix, name, suffix not in READ_HERE, suffix not in WRITTEN_HERE)
        for name, framework in frameworks.items()
        for suffix in framework.suffixes
    ]


def kind_of(frameworks: Frameworks, path: Path) -> Kind:
    """Return the kind of a file by its suffix. Raises UserError for an unknown one."""
    kinds = kinds_of(frameworks)
    for kind in kinds:
        if path.name.endswith(kind.suffix):
            return kind
    suffixes = ", ".join(kind.suffix for kind in kinds)
    raise UserError(f"{path} is of no kind that is known here: weights end in {suffixes}")


def check_source(frameworks: Frameworks, path: Path) -> Kind:
    """Return the kind of a file of weights. Raises UserError where it cannot be one or cannot be opened."""
    kind = kind_of(frameworks, path)
    with _lawful(path):
        if path.is_dir():
            raise UserError(f"{path} is a folder: give a file of weights")
        if not path.is_file():
            raise UserError(f"no weights at {path}")
        if not os.access(path, os.R_OK):
            raise UserError(f"cannot read {path}: no permission")
    return kind


@contextmanager
def _lawful(path: Path) -> Iterator[None]:
    """Turn what the file system says of the name itself, as of one too long or a circle of links, into a UserError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: of a circle
        why = error.strerror if isinstance(error, OSError) else "it is a circle of links"
        raise UserError(
            f"{printable(path.name)} cannot be used: {why}; choose another name"
        ) from error


def check_paths(
    frameworks: Frameworks, source: Path, target: Path, force: bool
) -> tuple[Kind, Kind]:
    """Return the kinds of both files. Raises UserError where they cannot be converted, before anything is loaded."""
    kinds = check_source(frameworks, source), kind_of(frameworks, target)
    with _lawful(target):
        if target.is_dir():
            raise UserError(f"{target} is a folder: give the name of a file")
        if os.path.lexists(target):
            if target.exists() and source.samefile(target):
                raise UserError(f"{source} and {target} are the same file: choose another name")
            if not force:
                raise UserError(f"{target} is there already: choose another name, or add --force")
        folder = target.resolve().parent
        check_folder(folder, f"cannot write {target}", "choose another folder")
    return kinds


def loaders(source: Kind, target: Kind) -> tuple[list[str], list[str]]:
    """Return the backends that a conversion needs, and those that only its proof would like to have."""
    needed = [
        k.backend for k, needs in ((source, source.to_read), (target, target.to_write)) if needs
    ]
    wanted = [kind.backend for kind in (source, target) if kind.backend]
    return needed, wanted


def read_weights(path: Path, kind: Kind, backends: Backends) -> tuple[Weights, dict[str, str]]:
    """Read canonical weights and metadata from a file of any kind; only safetensors and Keras' files hold metadata.

    ``backends`` has the one that `Kind.to_read` asks for. Raises UserError for a file that is not of its kind, not of
    ResNet-18, or of values that no network can compute with.
    """
    try:
        weights, metadata = _read(path, kind, backends)
    except MemoryError:
        raise UserError(f"{path} holds more than fits into memory") from None
    check_values(weights, str(path))
    return weights, metadata


def _read(path: Path, kind: Kind, backends: Backends) -> tuple[Weights, dict[str, str]]:
    if kind.suffix == ".safetensors":
        return load_weights(path)
    if kind.suffix == ".weights.h5":
        return load_keras(path)
    if kind.suffix == ".params":
        return load_params(path), {}
    return backends[kind.backend].weights.load_file(path), {}


def read_stored(frameworks: Frameworks, path: Path, backends: Backends) -> Stored:
    """Read a file of weights of any kind, as `read_weights` does."""
    kind = check_source(frameworks, path)
    reader = kind.backend if kind.to_read else ""
    return Stored(path, *read_weights(path, kind, backends), reader)


def _write(
    path: Path, kind: Kind, weights: Weights, metadata: dict[str, str], backends: Backends
) -> bool:
    """Write a file of any kind, and tell whether it holds the metadata."""
    if kind.suffix == ".safetensors":
        save_weights(path, weights, metadata)
        return True
    if kind.suffix == ".params":
        save_params(path, weights)
        return not metadata
    backends[kind.backend].weights.save_file(path, weights)
    if kind.suffix == ".weights.h5" and metadata:
        return add_metadata(path, metadata)
    return not metadata


def run(config: ConvertConfig, registry: Registry) -> int:
    """Convert a file of weights, and return the exit code."""
    frameworks, paths = registry.FRAMEWORKS, (config.source, config.target)
    kinds = check_paths(frameworks, *paths, config.force)
    loaded = registry.load_several(*loaders(*kinds))
    convert(frameworks, *paths, loaded, config.force)
    return 0


def convert(
    frameworks: Frameworks, source: Path, target: Path, backends: Backends, force: bool = False
) -> None:
    """Convert a file of weights into another kind, print what was done, and prove it.

    ``backends`` has those of `loaders` that could be loaded. Raises UserError for files that `check_paths` or
    `read_weights` refuses, and where the proof fails; ``target`` is then as it was before.
    """
    kinds = check_paths(frameworks, source, target, force)
    weights, metadata = read_weights(source, kinds[0], backends)
    classes, channels = network_sizes(weights)
    print(
        f"{source}: {len(weights)} arrays, {sum(w.size for w in weights.values()):,} values, "
        f"{classes} classes, {channels} channels"
    )
    # A link stays one: what it leads to is replaced.
    with written_whole(target.resolve()) as temporary:
        kept = _write(temporary, kinds[1], weights, metadata, backends)
        lines = _prove((source, temporary), kinds, weights, metadata if kept else {}, backends)
    for line in lines:
        print(line)
    if not kept:
        print(
            f"not in {target}, as its kind has no place for it: {', '.join(map(printable, sorted(metadata)))}"
        )
    print(f"wrote {target}")


def _prove(
    paths: tuple[Path, Path],
    kinds: tuple[Kind, Kind],
    weights: Weights,
    metadata: dict[str, str],
    backends: Backends,
) -> list[str]:
    """Return what was measured, in lines. Raises UserError unless both files hold the same network."""
    read, read_metadata = read_weights(paths[1], kinds[1], backends)
    # Bytes, as 0.0 and -0.0 are equal.
    changed = [name for name in weights if weights[name].tobytes() != read[name].tobytes()]
    if changed or read_metadata != metadata:
        raise UserError(
            f"not converted: these did not come back as they were: {changed or 'metadata'}"
        )
    lines = [f"read back: all {len(weights)} arrays are the same to the bit"]
    if not any(kind.backend in backends for kind in kinds):
        # NumPy would compute the same arrays twice.
        return [*lines, "not proven by a framework: none that could load either file is here"]
    images, what = proof_images(network_sizes(weights)[1])
    runs = [
        logits(path, kind, weights, images, backends)
        for path, kind in zip(paths, kinds, strict=True)
    ]
    (first, first_by), (second, second_by) = runs
    largest, difference = float(np.abs(first).max()), float(np.abs(first - second).max())
    measured = (
        f"largest difference of the logits {difference:.2g}, largest logit {largest:.4g}, "
        f"tolerance {TOLERANCE * largest:.2g}"
    )
    who = f"{first_by}, then {second_by}"
    overflown = [by for y_hat, by in runs if not np.isfinite(y_hat).all()]
    if overflown:
        raise UserError(
            f"not converted: the logits are not all finite in {' and '.join(overflown)}, so that nothing can be "
            "proven: the weights are too large for float32, or the networks are not the same"
        )
    if difference > TOLERANCE * largest:
        raise UserError(
            f"not converted: the networks ({who}) do not agree closely enough: {measured}"
        )
    lines += [
        f"computed {NUM_IMAGES} images of {what}: {who}",
        measured,
    ]
    if kinds[0].suffix == ".params" and "mxnet" in backends and not tells_layers(paths[0]):
        lines.append(
            f"not proven by MXNet: which layer each name of {paths[0]} belongs to; `export` writes the graph that "
            "would tell, NAME-symbol.json beside NAME-0000.params"
        )
    if np.ptp(first, axis=0).max() <= TOLERANCE * largest:
        lines.append(
            "these weights give every image the same logits, as a network does that has not been trained or whose "
            "units are dead: what is proven is that the arrays are the same, not that the networks are"
        )
    return lines


def proof_images(in_channels: int) -> tuple[NDArray[np.float32], str]:
    """Return images (16, in_channels, 32, 32), floats in 0..1, and what they show: noise where shapes do not fit."""
    if in_channels != 3:
        rng = np.random.default_rng(0)
        return rng.random((NUM_IMAGES, in_channels, 32, 32), np.float32), "noise"
    from common.datasets.shapes import load_shapes

    images = load_shapes(num_train=1, num_test=NUM_IMAGES).test.images
    return np.moveaxis(images, -1, 1).astype(np.float32) / np.float32(255), "the test set shapes"


def logits(
    path: Path, kind: Kind, weights: Weights, images: NDArray[np.float32], backends: Backends
) -> tuple[NDArray[np.float64], str]:
    """Return the logits (n, classes) of the network in a file, and who computed them.

    The framework whose kind the file is loads it by its own means and computes on the CPU. Where there is none, NumPy
    computes in float64 with ``weights``, which were read from the file.
    """
    backend = backends.get(kind.backend)
    if backend is None:
        from common import reference

        # One by one: its activations are kept for a backward pass.
        rows = [reference.logits(weights, image[None].astype(np.float64)) for image in images]
        return np.concatenate(rows), "NumPy"
    device = backend.devices.cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)  # it was said when the file was read
        net = backend.trainer.prepare(backend.weights.load_net(path), [device])
    if backend.devices.image_layout == "NHWC":
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    y_hat = backend.trainer.predict(net, backend.devices.from_numpy(images, device))
    return backend.devices.to_numpy(y_hat).astype(np.float64), backend.name
