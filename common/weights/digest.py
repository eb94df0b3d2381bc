"""A checksum of weights and metadata, which is stored in the metadata of a file.

Neither safetensors nor Keras' HDF5 files have a checksum: a flipped bit in a value would just be another value.
"""

import hashlib
import json
import re
from collections.abc import Mapping

import numpy as np

from common.errors import UserError
from common.weights.canonical import Weights

DIGEST = "weights_sha256"  # its name in the metadata
SHA256 = re.compile("[0-9a-f]{64}")


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

    Files of other programs have no checksum, and are not checked. A right checksum with another name is this project's,
    with a damaged name.
    """
    for name, text in metadata.items():
        if name != DIGEST and not SHA256.fullmatch(text):
            continue
        rest = {other: value for other, value in metadata.items() if other != name}
        if (text == digest(weights, rest)) != (name == DIGEST):
            raise UserError(
                f"{source} is damaged, or was changed by another program: its content does not match its checksum; "
                f"use another copy, or, if you changed it yourself, remove {DIGEST} from the metadata"
            )
        if name == DIGEST:
            return rest
    return dict(metadata)
