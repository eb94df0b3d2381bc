"""Refuse results that are not finite. Losses and predictions pass through these functions.

If logits are nan or inf, `argmax` still returns a label, so accuracies and submissions would look like results.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, counted

WAYS_OUT = "training diverged, or the weights are damaged; try a smaller --lr, or other weights"


def check_finite(value: float, what: str) -> float:
    """Return ``value``. Raises UserError, naming ``what``, if it is not finite."""
    if not math.isfinite(value):
        raise UserError(f"the {what} is {value}: {WAYS_OUT}")
    return value


def check_logits(logits: NDArray[np.floating[Any]], what: str = "") -> NDArray[np.floating[Any]]:
    """Return the logits, (n, classes), of n images. Raises UserError, naming ``what``, unless all are finite."""
    if wrong := np.count_nonzero(~np.isfinite(logits).all(axis=1)):
        what = what or f"{wrong:,} of {counted(len(logits), 'image')}"
        raise UserError(f"the logits of {what} are not finite: {WAYS_OUT}")
    return logits


def labels_of(logits: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the most probable label of each image, int64 (n,). Raises UserError for logits that are not finite."""
    return check_logits(logits).argmax(axis=1).astype(np.int64)
