"""Convert weights between the frameworks' file formats, and prove that both files hold the same network.

Each framework loads its own file with its own functions. The new file is kept only if both networks compute the same
logits for the same images.
"""

import warnings
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.config import ConvertConfig
from common.errors import UserError, UserNotice
from common.interface import Framework, Registry
from common.system.console import PlainConsole
from common.system.files import atomic_write, check_target
from common.weights.files import (
    Backends,
    Stored,
    backend_of,
    framework_of,
    read_stored,
    reader_of,
    suffix_of,
    weights_in,
    write_weights,
    writer_of,
)
from common.weights.gluon import layers_are_known

NUM_IMAGES = 16
# The largest difference between two frameworks' logits, relative to the largest logit. Measured on the images below
# with ten networks with random weights and buffers and a trained one, between any two of PyTorch 2.15, MXNet 1.9.1,
# TensorFlow 2.21 and NumPy in float64. The tolerance is ten times that.
MEASURED = 1e-6
TOLERANCE = 10 * MEASURED


def run(config: ConvertConfig, registry: Registry) -> int:
    """Convert a weights file with the frameworks that it needs, and return the exit code."""
    paths = weights_in(config.source), config.target
    needed, wanted = check_paths(*paths, config.force, registry.FRAMEWORKS.values())
    convert(*paths, registry.load_several(needed, wanted))
    return 0


def check_paths(
    source: Path, target: Path, force: bool, frameworks: Collection[Framework]
) -> tuple[list[str], list[str]]:
    """Return the names of the frameworks that a conversion needs, and of those that would only check it.

    Raises UserError if the files cannot be converted, before any framework is loaded.
    """
    needed = reader_of(source, frameworks), writer_of(target, frameworks)
    with suppress(OSError):  # `check_target` says why
        if target.exists() and source.samefile(target):
            raise UserError(f"{source} and {target} are the same file: choose another name")
    check_target(target, force)
    real = target.resolve()
    if suffix_of(real, frameworks) != suffix_of(target, frameworks):
        raise UserError(
            f"{target} is a link to {real}, a file of another format: choose another name"
        )
    own = framework_of(source, frameworks), framework_of(target, frameworks)
    return [f.name for f in needed if f], [f.name for f in own if f]


def convert(source: Path, target: Path, backends: Backends) -> None:
    """Convert a weights file to another format, check the result, and print what was done.

    ``backends`` has those from `check_paths` that could be loaded. Raises UserError for a file that `read_stored`
    rejects, or if the check fails; ``target`` is then unchanged.
    """
    stored = read_stored(source, backends)
    console = PlainConsole()
    console.print(
        f"{source}: {len(stored.weights)} arrays, {sum(w.size for w in stored.weights.values()):,} values, "
        f"{stored.num_classes} classes, {stored.in_channels} channels",
        soft_wrap=True,
    )
    # If the target is a link, replace the file that it points to, not the link.
    with atomic_write(target.resolve()) as temporary:
        kept = write_weights(temporary, stored.weights, stored.metadata, backends)
        lines = _prove(stored, temporary, kept, backends)
    for line in lines:
        console.print(line, soft_wrap=True)
    if lost := stored.metadata.keys() - kept.keys():
        why = "because its format cannot hold it"
        console.print(f"not in {target}, {why}: {', '.join(sorted(lost))}", soft_wrap=True)
    console.print(f"wrote {target}", soft_wrap=True)


def _prove(stored: Stored, path: Path, metadata: dict[str, str], backends: Backends) -> list[str]:
    """Return lines about the measurements. Raises UserError unless ``path`` holds the same network and ``metadata``."""
    written = read_stored(path, backends)
    # Compare bytes, because 0.0 == -0.0.
    changed = [n for n, w in stored.weights.items() if w.tobytes() != written.weights[n].tobytes()]
    if changed or written.metadata != metadata:
        raise UserError(
            f"not converted: changed when the file was read back: {changed or 'metadata'}"
        )
    lines = [f"read back: all {len(stored.weights)} arrays are the same to the bit"]
    if not any(backend_of(file.path, backends) for file in (stored, written)):
        # NumPy would compute twice with the same arrays.
        return [*lines, "not checked by a framework: none that loads these files is installed"]
    images, what = proof_images(stored.in_channels)
    first, first_by = logits(stored, images, backends)
    second, second_by = logits(written, images, backends)
    who = f"{first_by}, then {second_by}"
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise UserError(
            f"not converted: the logits ({who}) are not all finite and cannot be compared; the weights are too large "
            "for float32, or the networks differ"
        )
    largest, difference = float(np.abs(first).max()), float(np.abs(first - second).max())
    measured = (
        f"largest difference of the logits {difference:.2g}, largest logit {largest:.4g}, "
        f"tolerance {TOLERANCE * largest:.2g}"
    )
    if difference > TOLERANCE * largest:
        raise UserError(
            f"not converted: the logits of the networks ({who}) differ too much: {measured}"
        )
    lines += [f"compared on {len(images)} images of {what}: {who}", measured]
    own = backend_of(stored.path, backends)
    if own and stored.path.suffix == ".params" and not layers_are_known(stored.path):
        lines.append(
            f"not proven by {own.title}: which layer each name in {stored.path} belongs to. The graph would tell: "
            "`export` writes it as NAME-symbol.json next to NAME-0000.params"
        )
    if np.ptp(first, axis=0).max() <= TOLERANCE * largest:
        lines.append(
            "these weights give every image the same logits; the network may be untrained or have dead units. This "
            "proves that the arrays are equal, but not that the networks are"
        )
    return lines


def proof_images(in_channels: int) -> tuple[NDArray[np.float32], str]:
    """Return images, float32 (16, in_channels, 32, 32) in 0..1, and their description: noise if they are not RGB."""
    if in_channels != 3:
        rng = np.random.default_rng(0)
        return rng.random((NUM_IMAGES, in_channels, 32, 32), np.float32), "noise"
    from common.datasets.shapes import load_shapes

    images = load_shapes(num_train=1, num_test=NUM_IMAGES).test.images
    return np.moveaxis(np.asarray(images), -1, 1).astype(np.float32) / np.float32(
        255
    ), "the shapes test set"


def logits(
    stored: Stored, images: NDArray[np.float32], backends: Backends
) -> tuple[NDArray[np.float64], str]:
    """Return the logits (n, classes) of the network in a file, and the name of the backend that computed them.

    The framework that owns the file's format loads it with its own functions and computes on the CPU. If there is
    none, NumPy computes in float64 with the weights that were read.
    """
    backend = backend_of(stored.path, backends)
    if backend is None:
        from common import reference

        # One by one, because the reference keeps its activations for a backward pass.
        rows = [reference.logits(stored.weights, X[None].astype(np.float64)) for X in images]
        return np.concatenate(rows), "NumPy"
    device = backend.devices.cpu()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserNotice)  # already shown when the file was read
        net = backend.trainer.prepare(backend.weights.load_net(stored.path), [device])
    if backend.devices.image_layout == "NHWC":
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    y_hat = backend.trainer.predict(net, backend.devices.from_numpy(images, device))
    return backend.devices.to_numpy(y_hat).astype(np.float64), backend.name
