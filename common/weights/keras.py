"""The weights of ResNet-18 in Keras' `.weights.h5` files.

Keras stores convolutions as (height, width, inputs, outputs) and dense layers as (inputs, outputs); the canonical
layouts are (outputs, inputs, height, width) and (outputs, inputs). An HDF5 file can refer to other files, to missing
data and to itself. Keras never writes such a file, and this reader rejects it.
"""

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.weights.canonical import Weights, weight_shapes
from common.weights.checks import Entry, check_entries, check_weights, renamed
from common.weights.digest import without_digest

# The exceptions of h5py for files that are damaged or of another format.
UNREADABLE = (OSError, KeyError, ValueError, IndexError, RuntimeError, AttributeError, TypeError)
MAX_DEPTH = 12  # nested groups; Keras' files of this network have 7
METADATA = "metadata"  # the attribute of the root with the metadata, as JSON
MAX_METADATA = 60_000  # bytes; an HDF5 attribute holds at most 64 KiB


# {canonical layer: its group in Keras' file}. The layers of a block keep their names.
LAYERS = {
    "conv": "conv2d",
    "bn": "batch_norm",
    "resnet_block1.0": "sequential/layers/residual",
    "resnet_block1.1": "sequential/layers/residual_1",
    "resnet_block2.0": "sequential_1/layers/residual",
    "resnet_block2.1": "sequential_1/layers/residual_1",
    "resnet_block3.0": "sequential_2/layers/residual",
    "resnet_block3.1": "sequential_2/layers/residual_1",
    "resnet_block4.0": "sequential_3/layers/residual",
    "resnet_block4.1": "sequential_3/layers/residual_1",
    "fc": "dense",
}
VALUES = ("weight", "bias", "running_mean", "running_var")  # vars/0 to vars/3 in Keras' file


def _name(name: str) -> str:
    layer, value = name.rsplit(".", 1)
    block, *parts = layer.rsplit(".", 1) if layer not in LAYERS else [layer]
    return "/".join(["layers", LAYERS[block], *parts, "vars", str(VALUES.index(value))])


# {canonical name: path of the array in Keras' file}
NAMES = {name: _name(name) for name in weight_shapes(1)}


def to_keras(array: NDArray[Any]) -> NDArray[Any]:
    """Return a canonical weight in Keras' layout."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def from_keras(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of a weight in Keras' layout, in the canonical layout."""
    return np.array(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T, order="C")


def load_keras(path: Path) -> tuple[Weights, dict[str, str]]:
    """Read canonical weights from a `.weights.h5` file of this network, and the metadata of `add_metadata`.

    Raises UserError for any other file, and for a file that refers to anything outside itself.
    """
    if not path.is_file():
        raise UserError(f"there is no weights file {path}: check the path")
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            size = path.stat().st_size
            datasets = dict(_datasets(h5py, file, "", path, set()))
            for name, dataset in datasets.items():
                _check_dataset(dataset, name, path, size)
            # Arrays that share their storage fit one by one, but not together.
            if sum(dataset.id.get_storage_size() for dataset in datasets.values()) > size:
                raise UserError(f"{path} is damaged: it claims more values than the file has")
            names = renamed(datasets, {own: name for name, own in NAMES.items()}, str(path))
            check_entries({names[n]: _entry(dataset) for n, dataset in datasets.items()}, str(path))
            arrays = {names[n]: from_keras(dataset[()]) for n, dataset in datasets.items()}
            metadata = without_digest(arrays, _metadata(file), str(path))
    except UNREADABLE as error:
        raise UserError(
            f"{path} is not a .weights.h5 file of this network, or is damaged"
        ) from error
    return check_weights(arrays, str(path)), metadata


def _h5py(path: Path) -> Any:
    if not find_spec("h5py"):
        raise UserError(
            f"{path} needs h5py: pip install h5py, or install the extra 'tensorflow' of this project"
        )
    import h5py

    return h5py


def _datasets(
    h5py: Any, group: Any, prefix: str, path: Path, seen: set[int]
) -> Iterator[tuple[str, Any]]:
    """Yield every dataset below a group with its path, following only hard links."""
    if prefix.count("/") > MAX_DEPTH:
        raise UserError(f"{path}: {prefix} is nested deeper than in any file of this network")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UserError(
                f"{path}: {prefix}{name} is a link to another place; links are not followed"
            )
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            raise UserError(f"{path}: {prefix}{name} is there twice")
        seen.add(address)
        if isinstance(item, h5py.Group):
            yield from _datasets(h5py, item, f"{prefix}{name}/", path, seen)
        elif isinstance(item, h5py.Dataset):
            yield f"{prefix}{name}", item
        else:
            raise UserError(f"{path}: {prefix}{name} is neither a group nor an array")


def _check_dataset(dataset: Any, name: str, path: Path, size: int) -> None:
    """Raise UserError unless the values are numbers that are stored uncompressed in the file itself."""
    if dataset.external or dataset.is_virtual:
        raise UserError(f"{path}: the values of {name} are in another file, which is not read")
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise UserError(f"{path}: {name} has no numbers")
    stored = dataset.id.get_storage_size()
    if dataset.chunks is not None or dataset.nbytes != stored or stored > size:
        raise UserError(f"{path}: {name} is compressed, or claims more values than the file has")


def _entry(dataset: Any) -> Entry:
    shape = dataset.shape
    turned = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]
    return Entry(turned, dataset.dtype)


def add_metadata(path: Path, metadata: Mapping[str, str]) -> bool:
    """Add ``metadata`` to a `.weights.h5` file as an attribute of its root; return False if it is too long."""
    text = json.dumps(dict(metadata))
    if len(text) > MAX_METADATA:
        return False
    with _h5py(path).File(path, "r+") as file:
        file.attrs[METADATA] = np.bytes_(text)
    return True


def _metadata(file: Any) -> dict[str, str]:
    """Return the metadata that `add_metadata` has written."""
    if METADATA not in file.attrs:
        return {}
    attribute = file.attrs.get_id(METADATA)
    if attribute.shape != () or attribute.dtype.kind != "S":
        raise ValueError("metadata of another kind")
    return {str(name): str(text) for name, text in json.loads(file.attrs[METADATA]).items()}
