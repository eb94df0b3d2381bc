"""Compare a framework's own operations with both ways of each known difference.

The operations are in pytorch.py, mxnet.py and tensorflow.py beside this file. The reference computes both ways on the
same input, so each difference is shown to be the framework's own.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.interface import Backend
from common.parity.comparison import Array, largest
from common.reference import ALIGNED, KNOWN_DIFFERENCES, SGD, Adam, Conventions, layers, transforms
from common.system import environment
from common.weights.canonical import Weights, initial_weights, is_buffer
from docs.differences.initialization import START_NAMES, gluon_start, pytorch_start
from docs.differences.workers import Draws, draws_here, own_draws

LAYOUTS = "images in the other layout", "kernels in the other layout"
WORKERS = "workers that draw the same"
SHARE, OF_255 = "of the largest value", "of 255 on average"
# Which known way is nearest to the framework's operation.
AS_ALIGNED, THIS, ANOTHER = "as aligned", "this difference", "another known difference"
Own = Any  # the module of a framework's own operations


@dataclass(frozen=True)
class Finding:
    """How a framework's own operation compares with one known difference.

    ``aligned`` and ``known`` are its distances from the aligned way and from the way of the difference. Everything else
    is as in the framework. ``way`` is the nearest of all known ways.
    """

    difference: str
    way: str
    aligned: float
    known: float
    unit: str


@dataclass(frozen=True)
class Native:
    """The findings in one framework; None for a part that was not requested.

    ``workers`` has the draws of two loaders: "own" is the framework's, "here" is this project's native loader.
    """

    backend: str
    versions: dict[str, str]
    findings: tuple[Finding, ...]
    layouts: dict[str, Any] | None = None
    workers: dict[str, Draws] | None = None


def measure(backend: Backend, own: Own, only: Collection[str] = ()) -> Native:
    """Compare a framework's ``own`` operations with the known differences, or with those named in ``only``."""
    findings = tuple(
        finding
        for names, trial in TRIALS.items()
        if not only or not set(names).isdisjoint(only)
        for finding in trial(own)
        if not only or finding.difference in only
    )
    layouts = None
    if not only or not set(LAYOUTS).isdisjoint(only):
        layouts = {"images": backend.devices.image_layout, **own.layouts()}
    workers = None
    if not only or WORKERS in only:
        workers = {"own": own_draws(own), "here": draws_here(backend)}
    versions = environment.versions(backend.packages)
    packages = {package: versions[package] for package in backend.packages}
    return Native(backend.name, packages, findings, layouts, workers)


# --- Trials ----------------------------------------------------------------------------------------------------------

Distance = Callable[[Array, Array], float]  # between the framework's result and the reference's


def of_largest(got: Array, wanted: Array) -> float:
    """Return the largest difference as a share of the largest wanted value."""
    return largest(got - wanted) / largest(wanted)


def of_255(got: Array, wanted: Array) -> float:
    """Return the mean difference."""
    return float(np.abs(got - wanted).mean())


def compared(
    got: Array,
    wanted: Callable[[Conventions], Array],
    fields: Iterable[str],
    beside: Iterable[str] = (),
    distance: Distance = of_largest,
) -> Iterator[Finding]:
    """Compare a framework's result with the reference for all values of these ``fields`` of `Conventions`.

    The nearest one is the framework's way. The fields ``beside`` also change the result, and are not reported.
    """
    fields = tuple(fields)
    values = {field: [getattr(ALIGNED, field), *_known(field)] for field in (*fields, *beside)}
    ways = [
        replace(ALIGNED, **dict(zip(values, chosen, strict=True)))
        for chosen in product(*values.values())
    ]
    nearest = min(ways, key=lambda way: distance(got, wanted(way)))
    unit = SHARE if distance is of_largest else OF_255
    for known in KNOWN_DIFFERENCES:
        if known.field not in fields or known.holds(ALIGNED):
            continue
        aligned = replace(nearest, **{known.field: getattr(ALIGNED, known.field)})
        yield Finding(
            known.name,
            THIS if known.holds(nearest) else AS_ALIGNED if nearest == aligned else ANOTHER,
            distance(got, wanted(aligned)),
            distance(got, wanted(known.conventions(nearest))),
            unit,
        )


def _known(field: str) -> list[Any]:
    """Return the values that the known differences give a field, without the aligned value."""
    return [d.value for d in KNOWN_DIFFERENCES if d.field == field and not d.holds(ALIGNED)]


def _padding(own: Own) -> Iterator[Finding]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)

    def wanted(conventions: Conventions) -> Array:
        arrays = X.astype(np.float64), weight.astype(np.float64), np.zeros(4)
        return layers.conv2d(*arrays, 2, conventions.padding)[0]

    yield from compared(own.conv2d(X, weight), wanted, ["padding"])


def _batch_norm(own: Own) -> Iterator[Finding]:
    rng, axes = np.random.default_rng(0), (0, 2, 3)
    # A deviation of 0.1 shows epsilon. Few values that vary widely show n - 1.
    narrow = rng.normal(0.3, 0.1, (2, 4, 3, 3)).astype(np.float32)
    wide = rng.normal(2, 3, (2, 4, 3, 3)).astype(np.float32)

    def result(conventions: Conventions) -> Array:
        X, one, epsilon = narrow.astype(np.float64), np.ones(4), conventions.bn_epsilon
        return layers.batch_norm(X, one, 0 * one, X.mean(axes), X.var(axes), epsilon, True)[0]

    def statistics(conventions: Conventions) -> Array:
        X, keep = wide.astype(np.float64), conventions.bn_momentum
        variance = X.var(axes, ddof=conventions.bn_variance == "unbiased")
        return np.stack([(1 - keep) * X.mean(axes), keep + (1 - keep) * variance])

    Y, _, _ = own.batch_norm(narrow)
    yield from compared(Y, result, ["bn_epsilon"])
    _, mean, variance = own.batch_norm(wide)
    got = np.stack([mean, variance]).astype(np.float64)
    yield from compared(got, statistics, ["bn_momentum", "bn_variance"])


def _objective(own: Own) -> Iterator[Finding]:
    rng = np.random.default_rng(0)
    y_hat, y = rng.normal(size=(8, 10)).astype(np.float32), rng.integers(0, 10, 8)

    def wanted(conventions: Conventions) -> Array:
        scale = 1.0 if conventions.objective == "sum" else 1 / len(y)
        return layers.cross_entropy(y_hat.astype(np.float64), y)[1](np.full(len(y), scale))[0]

    yield from compared(own.loss_gradient(y_hat, y), wanted, ["objective"])


def _adam(own: Own) -> Iterator[Finding]:
    gradients, rates = [1e-7, 1e-7], [0.1, 0.1]  # small enough to show epsilon
    native = own.updates("adam", gradients, rates)

    def wanted(conventions: Conventions) -> Array:
        return moves(Adam(conventions=conventions), gradients, rates)

    yield from compared(1 - np.array(native), wanted, ["adam_epsilon", "adam_epsilon_place"])


def _momentum(own: Own) -> Iterator[Finding]:
    gradients, rates = [1.0] * 4, [0.1, 0.1, 0.01, 0.01]
    native = own.updates("sgd", gradients, rates, momentum=0.9)

    def wanted(conventions: Conventions) -> Array:
        return moves(SGD(0.1, 0.9, conventions=conventions), gradients, rates)

    yield from compared(1 - np.array(native), wanted, ["momentum_rate"])


def _decay(own: Own) -> Iterator[Finding]:
    gradients, rates = [1.0] * 4, [0.1] * 4
    native = own.updates("sgd", gradients, rates, 0.9, 0.5)

    def wanted(conventions: Conventions) -> Array:
        return moves(SGD(0.1, 0.9, 0.5, conventions), gradients, rates)

    yield from compared(1 - np.array(native), wanted, ["weight_decay"])


def moves(optimizer: SGD | Adam, gradients: Iterable[float], rates: Iterable[float]) -> Array:
    """Return the distance of a weight from 1 after each step of the reference's optimizer."""
    weights: dict[str, Array] = {"w": np.ones(1)}
    path = []
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.lr = rate
        weights = optimizer.step(weights, {"w": np.array([gradient])})
        path.append(float(weights["w"][0]))
    return 1 - np.array(path)


def _colours(name: str, factors: tuple[float, ...]) -> Callable[[Own], Iterator[Finding]]:
    """Return the trial of a colour operation with these factors; brightness also shows how uint8 is rounded."""
    adjust = getattr(transforms, f"adjust_{name}")

    def trial(own: Own) -> Iterator[Finding]:
        images = tinted_images()
        X = np.moveaxis(images, -1, 1) / 255
        native = [own.adjust(name, images, factor) for factor in factors]
        whole = all(array.dtype == np.uint8 for array in native)

        def wanted(conventions: Conventions) -> Array:
            made = [255 * adjust(X, np.full(len(X), f), conventions) for f in factors]
            return _rounded(np.stack(made), whole, conventions)

        got = np.moveaxis(np.stack(native).astype(np.float64), -1, 2)
        rounding = ["rounding"] if whole else []
        if name == "brightness":
            yield from compared(got, wanted, [name, *rounding], distance=of_255)
        else:
            yield from compared(got, wanted, [name], rounding, of_255)

    return trial


def _resizing(own: Own) -> Iterator[Finding]:
    images, size = tinted_images(), (5, 6)
    native = own.resize(images, size)
    whole = native.dtype == np.uint8
    boxes = np.tile([0, 0, *images.shape[1:3]], (len(images), 1))

    def wanted(conventions: Conventions) -> Array:
        X = np.moveaxis(images, -1, 1).astype(np.float64)
        made = transforms.crop_resize(X, boxes, size, conventions)
        return _rounded(made, whole, conventions)

    got = np.moveaxis(native.astype(np.float64), -1, 1)
    yield from compared(got, wanted, ["antialias"], ["rounding"] if whole else [], of_255)


def _rounded(values: Array, whole: bool, conventions: Conventions) -> Array:
    """Return values 0..255, rounded if the framework returns whole numbers."""
    if not whole:
        return values
    # A whole number may have been computed as slightly less: 1e-4 keeps it from being rounded down.
    return np.rint(values) if conventions.rounding == "nearest" else np.floor(values + 1e-4)


def tinted_images() -> NDArray[np.uint8]:
    """Return uint8 images (4, 16, 16, 3) of noise, from red to blue: all channels have different means."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3))
    tints = np.linspace([1, 0.6, 0.3], [0.2, 0.7, 0.9], 4)[:, None, None]
    return (noise * tints).astype(np.uint8)


def _starts(own: Own) -> Iterator[Finding]:
    ways = {
        AS_ALIGNED: initial_weights(10),
        START_NAMES[0]: pytorch_start(),
        START_NAMES[1]: gluon_start(),
    }
    native = _spreads(own.initial_weights())
    apart = {name: of_largest(native, _spreads(weights)) for name, weights in ways.items()}
    nearest = min(apart, key=lambda name: apart[name])
    for name in START_NAMES:
        way = THIS if nearest == name else AS_ALIGNED if nearest == AS_ALIGNED else ANOTHER
        yield Finding(name, way, apart[AS_ALIGNED], apart[name], SHARE)


def _spreads(weights: Weights) -> Array:
    """Return standard deviations of the weights and the convolutions' biases; they hardly depend on the seed."""
    drawn = [w for n, w in weights.items() if w.ndim > 1 or ("conv" in n and not is_buffer(n))]
    return np.array([w.std() for w in drawn])


Trial = Callable[[Own], Iterator[Finding]]


def _names(*fields: str) -> tuple[str, ...]:
    """Return the names of the known differences in these fields."""
    return tuple(d.name for d in KNOWN_DIFFERENCES if d.field in fields and not d.holds(ALIGNED))


# The differences that a trial shows, and the trial.
TRIALS: dict[tuple[str, ...], Trial] = {
    _names("padding"): _padding,
    _names("bn_epsilon", "bn_momentum", "bn_variance"): _batch_norm,
    _names("objective"): _objective,
    _names("adam_epsilon", "adam_epsilon_place"): _adam,
    _names("momentum_rate"): _momentum,
    _names("weight_decay"): _decay,
    _names("brightness", "rounding"): _colours("brightness", (0.77, 1.3)),
    _names("contrast"): _colours("contrast", (0.5, 1.4)),
    _names("saturation"): _colours("saturation", (0.4, 1.4)),
    _names("hue"): _colours("hue", (-0.3, 0.2)),
    _names("antialias"): _resizing,
    START_NAMES: _starts,
}
