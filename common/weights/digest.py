"""A checksum of weights and metadata, which is stored in the metadata of a file.

Neither safetensors nor Keras' HDF5 files have a checksum: a flipped bit in a value would just be another value.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from common.errors import UserError
from common.weights.canonical import Weights

DIGEST = "weights_sha256"  # its name in the metadata


def digest(weights: Weights, metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, shapes, types and values, and of the metadata, in hexadecimal."""
    found = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(weights):
        weight = np.ascontiguousarray(weights[name])
        found.update(f"{name} {weight.dtype.str} {weight.shape}".encode())
        found.update(weight.data.cast("B"))
    return found.hexdigest()


def with_digest(weights: Weights, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata with the checksum added."""
    return {**metadata, DIGEST: digest(weights, metadata)}


def without_digest(weights: Weights, metadata: Mapping[str, str], source: str) -> dict[str, str]:
    """Return the metadata of a file without the checksum. Raises UserError, naming ``source``, if it does not match.

    Files of other programs have no checksum, and are not checked.
    """
    rest = {name: text for name, text in metadata.items() if name != DIGEST}
    if DIGEST in metadata and metadata[DIGEST] != digest(weights, rest):
        raise UserError(
            f"{source} is damaged, or was changed by another program: its content does not match its checksum; "
            f"use another copy, or, if you changed it yourself, remove {DIGEST} from the metadata"
        )
    return rest
