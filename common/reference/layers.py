"""The layers of ResNet-18 in NumPy, with hand-written backward passes.

Each function returns its result and a function ``backward``. ``backward`` maps the gradient with respect to the result
to the gradients with respect to the arguments. Images are (n, channels, height, width). The arithmetic uses the dtype
of the arguments: float64 as the reference, float32 to measure rounding errors.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Backward = Callable[[Array], tuple[Array, ...]]


def conv2d(
    X: Array, weight: Array, bias: Array, stride: int = 1, padding: str = "both"
) -> tuple[Array, Backward]:
    """Convolve (n, inputs, height, width) with ``weight`` (outputs, inputs, k, k), as patches times a matrix.

    Both sides of the image are padded with k // 2 zeros. With ``padding`` "end" and stride 2, an axis of even size is
    padded only at its end, like TensorFlow's 'same'. ``backward`` returns the gradients of X, weight and bias.
    """
    outputs, inputs, k, _ = weight.shape
    pads = [_pads(size, k, stride, padding) for size in X.shape[2:]]
    padded = np.pad(X, [(0, 0), (0, 0), *pads])
    windows: Array = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (2, 3))  # type: ignore[call-overload]
    patches = windows[:, :, ::stride, ::stride]  # (n, inputs, out_h, out_w, k, k)
    n, _, out_h, out_w, _, _ = patches.shape
    columns = patches.transpose(0, 2, 3, 1, 4, 5).reshape(n * out_h * out_w, inputs * k * k)
    matrix = weight.reshape(outputs, inputs * k * k)
    Y = (columns @ matrix.T + bias).reshape(n, out_h, out_w, outputs).transpose(0, 3, 1, 2)

    def backward(dY: Array) -> tuple[Array, ...]:
        dY = dY.transpose(0, 2, 3, 1).reshape(n * out_h * out_w, outputs)
        dweight = (dY.T @ columns).reshape(weight.shape)
        dpatches = (dY @ matrix).reshape(n, out_h, out_w, inputs, k, k)
        dpadded = np.zeros_like(padded)
        for i in range(k):  # each pixel sums the gradients of all patches that contain it
            for j in range(k):
                rows, columns_ = (
                    slice(i, i + stride * out_h, stride),
                    slice(j, j + stride * out_w, stride),
                )
                dpadded[:, :, rows, columns_] += dpatches[..., i, j].transpose(0, 3, 1, 2)
        (top, _), (left, _) = pads
        dX = dpadded[:, :, top : top + X.shape[2], left : left + X.shape[3]]
        return dX, dweight, dY.sum(axis=0)

    return Y, backward


def _pads(size: int, k: int, stride: int, padding: str) -> tuple[int, int]:
    """Return the number of zeros before and after an axis."""
    if padding == "end" and stride == 2 and k == 3 and size % 2 == 0:
        return 0, 1
    return k // 2, k // 2


def batch_norm(
    X: Array,
    weight: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    epsilon: float,
    training: bool,
) -> tuple[Array, Backward]:
    """Normalize each channel of (n, channels, height, width), then scale and shift it (Ioffe and Szegedy 2015).

    If ``training``, ``mean`` and ``variance`` (channels,) are those of this batch, and the gradient flows through them.
    Otherwise they are constants. ``backward`` returns the gradients of X, weight and bias.
    """
    deviation = np.sqrt(_per_channel(variance) + X.dtype.type(epsilon))
    normalised = (X - _per_channel(mean)) / deviation
    Y = _per_channel(weight) * normalised + _per_channel(bias)

    def backward(dY: Array) -> tuple[Array, ...]:
        dbias = dY.sum(axis=(0, 2, 3))
        dweight = (dY * normalised).sum(axis=(0, 2, 3))
        scale = _per_channel(weight) / deviation
        if not training:
            return scale * dY, dweight, dbias
        count = X.dtype.type(X[:, 0].size)
        pull = (_per_channel(dbias) + normalised * _per_channel(dweight)) / count
        return scale * (dY - pull), dweight, dbias

    return Y, backward


def _per_channel(values: Array) -> Array:
    return values[:, None, None]


def relu(X: Array) -> tuple[Array, Backward]:
    """Return max(X, 0); the gradient at 0 is 0, as in all three frameworks."""
    positive = X > 0

    def backward(dY: Array) -> tuple[Array, ...]:
        return (dY * positive,)

    return X * positive, backward


def global_avg_pool(X: Array) -> tuple[Array, Backward]:
    """Return the mean of each channel: (n, channels, height, width) to (n, channels)."""
    area = X.shape[2] * X.shape[3]

    def backward(dY: Array) -> tuple[Array, ...]:
        return (np.broadcast_to((dY / X.dtype.type(area))[:, :, None, None], X.shape),)

    return X.mean(axis=(2, 3)), backward


def dense(X: Array, weight: Array, bias: Array) -> tuple[Array, Backward]:
    """Return X @ weight.T + bias: (n, inputs) to (n, outputs)."""

    def backward(dY: Array) -> tuple[Array, ...]:
        return dY @ weight, dY.T @ X, dY.sum(axis=0)

    return X @ weight.T + bias, backward


def cross_entropy(logits: Array, y: NDArray[np.int64]) -> tuple[Array, Backward]:
    """Return the softmax cross-entropy of each example, (n,), for logits (n, classes) and labels (n,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)  # keeps the exponentials finite
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    examples = np.arange(len(y))

    def backward(dl: Array) -> tuple[Array, ...]:
        probabilities = np.exp(shifted - log_sum[:, None])
        probabilities[examples, y] -= 1
        return (dl[:, None] * probabilities,)

    return log_sum - shifted[examples, y], backward
