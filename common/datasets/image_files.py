"""The images of a split that stay in their files; each is decoded when it is used."""

import hashlib
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from common.datasets.decoding import decode_into, read_images
from common.errors import UserError

FIX = "replace or remove it, or leave it out with --skip-broken"


class ImageFiles:
    """The files called ``names`` in ``folder``, in place of the array of their images.

    ``shape``, ``len`` and the indices are those of the array: uint8 (n, image_size, image_size, 3), RGB, as `to_square`
    gives. An int decodes one image, an array of indices several, and ``np.asarray`` all. A slice decodes nothing: it
    gives the files of a part. An index raises UserError for an image that cannot be read. ``sizes`` are in bytes.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], sizes: Sequence[int], image_size: int
    ) -> None:
        self.folder, self.names, self.sizes = folder, names, sizes
        self.shape = len(names), image_size, image_size, 3

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: slice) -> "ImageFiles": ...
    @overload
    def __getitem__(self, index: SupportsIndex | NDArray[np.int64]) -> NDArray[np.uint8]: ...

    def __getitem__(
        self, index: slice | SupportsIndex | NDArray[np.int64]
    ) -> "ImageFiles | NDArray[np.uint8]":
        if isinstance(index, slice):
            names, sizes = self.names[index], self.sizes[index]
            return ImageFiles(self.folder, names, sizes, self.shape[1])
        if isinstance(index, np.ndarray) and index.ndim:
            chosen = np.arange(len(self))[index]
            paths = [self.folder / self.names[i] for i in chosen.tolist()]
            return read_images(paths, self.shape[1], progress=False, fix=FIX)
        image = np.empty(self.shape[1:], np.uint8)
        if problem := decode_into(image, self.folder / self.names[operator.index(index)]):
            raise UserError(f"cannot read the image {problem}: {FIX}")
        return image

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        images = self[np.arange(len(self))]
        return images if dtype is None else images.astype(dtype)

    def digest(self) -> bytes:
        """Return a digest of the names and sizes of the files, which is fast to compute.

        It does not depend on times, which many programs change when they copy files to another computer.
        """
        content = [self.shape, list(self.names), list(self.sizes)]
        return hashlib.sha256(json.dumps(content).encode()).digest()
