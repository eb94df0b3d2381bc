"""The check of labels where they enter: in a `Dataset`, and in a training step."""

import numpy as np
from numpy.typing import NDArray


def check_labels(labels: NDArray[np.generic], num_classes: int) -> None:
    """Raise ValueError for a label that is no class, that is, no whole number from 0 to ``num_classes`` - 1.

    The frameworks do not agree about such labels: MXNet takes the nearest class, PyTorch skips -100, and TensorFlow
    computes NaN on a GPU.
    """
    if labels.dtype.kind in "iu" and (
        not labels.size or (labels.min() >= 0 and labels.max() < num_classes)
    ):
        return
    classes = np.arange(num_classes)
    if wrong := labels[~np.isin(labels, classes)].tolist():
        raise ValueError(
            f"label {wrong[0]} is no class: the labels of {num_classes} classes are whole numbers from 0 to "
            f"{num_classes - 1}"
        )
