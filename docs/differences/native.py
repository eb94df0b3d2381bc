"""What a framework does by itself: its own operations, held against both ways of each known difference.

The operations are behind the contract, in `probes.py` of each backend; both ways are computed by the arbiter, on the
same input. So a difference that the arbiter measures is seen to be that framework's own, on the machine at hand.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.augmentation.operations import RandomFlipLeftRight
from common.datasets import Dataset
from common.errors import UserError
from common.interface import Backend, Natives
from common.parity.adapter import Subject
from common.parity.comparison import Array, largest
from common.parity.initialization import START_NAMES, gluon_start, pytorch_start
from common.reference import ALIGNED, KNOWN_DIFFERENCES, SGD, Adam, Conventions, layers, transforms
from common.weights.canonical import Weights, initial_weights, is_buffer

LAYOUTS = "images in the other layout", "kernels in the other layout"
WORKERS = "workers that draw the same"
SHARE, LEVELS = "of the largest value", "levels on average"
# What a framework's own operation is nearest to: the aligned way, that of the difference, or another known one.
AS_ALIGNED, THIS, ANOTHER = "aligned", "this", "another"


@dataclass(frozen=True)
class Finding:
    """How a framework's own operation stands to one known difference, all else being as the framework has it.

    ``aligned`` and ``known`` are how far it is from the aligned way and from that of the difference; ``way`` is the
    nearest of all that are known.
    """

    difference: str
    way: str
    aligned: float
    known: float
    unit: str


@dataclass(frozen=True)
class Draws:
    """Which images a loader flips: shares of equal flips, where independent draws give about a half.

    ``any_two`` is the largest share between any two of its batches, with two workers; ``again`` between two epochs
    from one seed, with two workers; ``without`` between an epoch with two workers and one with none, from one seed.
    """

    any_two: float
    again: float
    without: float


@dataclass(frozen=True)
class Native:
    """What was found in one framework; None is what was not asked for.

    ``workers`` are the draws of two loaders: "own", the framework's left alone, and "here", this project's native one.
    """

    backend: str
    versions: dict[str, str]
    findings: tuple[Finding, ...]
    layouts: dict[str, Any] | None = None
    workers: dict[str, Draws] | None = None


def measure(backend: Backend, versions: dict[str, str], only: Collection[str] = ()) -> Native:
    """Hold a framework's own operations against the known differences, or against those of these names.

    Raises UserError for a backend that has nothing of its own to show.
    """
    findings = tuple(
        finding
        for names, trial in TRIALS.items()
        if not only or not set(names).isdisjoint(only)
        for finding in trial(backend)
        if not only or finding.difference in only
    )
    layouts = None
    if not only or not set(LAYOUTS).isdisjoint(only):
        layouts = {"images": backend.devices.image_layout, **_natives(backend).native_layouts()}
    workers = None
    if not only or WORKERS in only:
        workers = {"own": own_draws(backend), "here": draws_here(backend)}
    return Native(backend.name, versions, findings, layouts, workers)


def _natives(backend: Backend) -> Natives:
    if not isinstance(backend.probes, Natives):
        raise UserError(
            f"{backend.name} shows nothing of its own: its probes.py lacks what common.interface calls Natives"
        )
    return backend.probes


def from_plain(plain: Mapping[str, Any]) -> Native:
    """Return what `dataclasses.asdict` has made a mapping of, and JSON may have kept."""
    workers = plain["workers"]
    return Native(
        plain["backend"],
        plain["versions"],
        tuple(Finding(**finding) for finding in plain["findings"]),
        plain["layouts"],
        workers and {name: Draws(**draws) for name, draws in workers.items()},
    )


# --- Trials ----------------------------------------------------------------------------------------------------------

Distance = Callable[[Array, Array], float]  # of what the framework made from what a way makes


def of_largest(got: Array, wanted: Array) -> float:
    """Return the largest difference as a share of the largest value that is wanted."""
    return largest(got - wanted) / largest(wanted)


def in_levels(got: Array, wanted: Array) -> float:
    """Return the mean difference."""
    return float(np.abs(got - wanted).mean())


def held(
    got: Array,
    wanted: Callable[[Conventions], Array],
    fields: Iterable[str],
    beside: Iterable[str] = (),
    distance: Distance = of_largest,
) -> Iterator[Finding]:
    """Hold what a framework made against what the arbiter makes, every way that ``fields`` of `Conventions` allow.

    The nearest way is the framework's. ``beside`` are fields that show in it too, and are not reported.
    """
    fields = tuple(fields)
    values = {field: [getattr(ALIGNED, field), *_known(field)] for field in (*fields, *beside)}
    ways = [
        replace(ALIGNED, **dict(zip(values, chosen, strict=True)))
        for chosen in product(*values.values())
    ]
    nearest = min(ways, key=lambda way: distance(got, wanted(way)))
    unit = SHARE if distance is of_largest else LEVELS
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
    """Return what the known differences set a field to, other than the aligned value."""
    return [d.value for d in KNOWN_DIFFERENCES if d.field == field and not d.holds(ALIGNED)]


def _padding(backend: Backend) -> Iterator[Finding]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)

    def wanted(conventions: Conventions) -> Array:
        arrays = X.astype(np.float64), weight.astype(np.float64), np.zeros(4)
        return layers.conv2d(*arrays, 2, conventions.padding)[0]

    yield from held(_natives(backend).native_conv2d(X, weight), wanted, ["padding"])


def _batch_norm(backend: Backend) -> Iterator[Finding]:
    rng, axes = np.random.default_rng(0), (0, 2, 3)
    # A deviation of a tenth, so that epsilon counts; and few values that vary widely, so that n - 1 does.
    narrow = rng.normal(0.3, 0.1, (2, 4, 3, 3)).astype(np.float32)
    wide = rng.normal(2, 3, (2, 4, 3, 3)).astype(np.float32)

    def result(conventions: Conventions) -> Array:
        X, one, epsilon = narrow.astype(np.float64), np.ones(4), conventions.bn_epsilon
        return layers.batch_norm(X, one, 0 * one, X.mean(axes), X.var(axes), epsilon, True)[0]

    def statistics(conventions: Conventions) -> Array:
        X, keep = wide.astype(np.float64), conventions.bn_momentum
        variance = X.var(axes, ddof=conventions.bn_variance == "unbiased")
        return np.stack([(1 - keep) * X.mean(axes), keep + (1 - keep) * variance])

    Y, _, _ = _natives(backend).native_batch_norm(narrow)
    yield from held(Y, result, ["bn_epsilon"])
    _, mean, variance = _natives(backend).native_batch_norm(wide)
    got = np.stack([mean, variance]).astype(np.float64)
    yield from held(got, statistics, ["bn_momentum", "bn_variance"])


def _objective(backend: Backend) -> Iterator[Finding]:
    rng = np.random.default_rng(0)
    y_hat, y = rng.normal(size=(8, 10)).astype(np.float32), rng.integers(0, 10, 8)

    def wanted(conventions: Conventions) -> Array:
        scale = 1.0 if conventions.objective == "sum" else 1 / len(y)
        return layers.cross_entropy(y_hat.astype(np.float64), y)[1](np.full(len(y), scale))[0]

    yield from held(_natives(backend).native_loss_gradient(y_hat, y), wanted, ["objective"])


def _adam(backend: Backend) -> Iterator[Finding]:
    gradients, rates = [1e-7, 1e-7], [0.1, 0.1]  # so small that epsilon counts
    native = _natives(backend).native_updates("adam", gradients, rates)

    def wanted(conventions: Conventions) -> Array:
        return moves(Adam(conventions=conventions), gradients, rates)

    yield from held(1 - np.array(native), wanted, ["adam_epsilon", "adam_epsilon_place"])


def _momentum(backend: Backend) -> Iterator[Finding]:
    gradients, rates = [1.0] * 4, [0.1, 0.1, 0.01, 0.01]
    native = _natives(backend).native_updates("sgd", gradients, rates, momentum=0.9)

    def wanted(conventions: Conventions) -> Array:
        return moves(SGD(0.1, 0.9, conventions=conventions), gradients, rates)

    yield from held(1 - np.array(native), wanted, ["momentum_rate"])


def _decay(backend: Backend) -> Iterator[Finding]:
    gradients, rates = [1.0] * 4, [0.1] * 4
    native = _natives(backend).native_updates("sgd", gradients, rates, 0.9, 0.5)

    def wanted(conventions: Conventions) -> Array:
        return moves(SGD(0.1, 0.9, 0.5, conventions), gradients, rates)

    yield from held(1 - np.array(native), wanted, ["weight_decay"])


def moves(optimizer: SGD | Adam, gradients: Iterable[float], rates: Iterable[float]) -> Array:
    """Return how far a weight has come from 1 after each step of the arbiter's optimizer."""
    weights: dict[str, Array] = {"w": np.ones(1)}
    path = []
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.lr = rate
        weights = optimizer.step(weights, {"w": np.array([gradient])})
        path.append(float(weights["w"][0]))
    return 1 - np.array(path)


def _colours(name: str, factors: tuple[float, ...]) -> Callable[[Backend], Iterator[Finding]]:
    """Return the trial of a colour operation, by these factors; brightness also tells how levels are rounded."""
    adjust = getattr(transforms, f"adjust_{name}")

    def trial(backend: Backend) -> Iterator[Finding]:
        images = tinted_images()
        X = np.moveaxis(images, -1, 1) / 255
        native = [_natives(backend).native_adjust(name, images, factor) for factor in factors]
        whole = all(array.dtype == np.uint8 for array in native)

        def wanted(conventions: Conventions) -> Array:
            made = [255 * adjust(X, np.full(len(X), f), conventions) for f in factors]
            return _rounded(np.stack(made), whole, conventions)

        got = np.moveaxis(np.stack(native).astype(np.float64), -1, 2)
        rounding = ["rounding"] if whole else []
        if name == "brightness":
            yield from held(got, wanted, [name, *rounding], distance=in_levels)
        else:
            yield from held(got, wanted, [name], rounding, in_levels)

    return trial


def _resizing(backend: Backend) -> Iterator[Finding]:
    images, size = tinted_images(), (5, 6)
    native = _natives(backend).native_resize(images, size)
    whole = native.dtype == np.uint8
    boxes = np.tile([0, 0, *images.shape[1:3]], (len(images), 1))

    def wanted(conventions: Conventions) -> Array:
        X = np.moveaxis(images, -1, 1).astype(np.float64)
        made = transforms.crop_resize(X, boxes, size, conventions)
        return _rounded(made, whole, conventions)

    got = np.moveaxis(native.astype(np.float64), -1, 1)
    yield from held(got, wanted, ["antialias"], ["rounding"] if whole else [], in_levels)


def _rounded(levels: Array, whole: bool, conventions: Conventions) -> Array:
    """Return levels as whole ones, where the framework returns such."""
    if not whole:
        return levels
    # The little that is added keeps whole levels whole, which rounding may have put just below.
    return np.rint(levels) if conventions.rounding == "nearest" else np.floor(levels + 1e-4)


def tinted_images() -> NDArray[np.uint8]:
    """Return uint8 images (4, 16, 16, 3) of noise, the first red and the last blue: no two channels have one mean."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3))
    tints = np.linspace([1, 0.6, 0.3], [0.2, 0.7, 0.9], 4)[:, None, None]
    return (noise * tints).astype(np.uint8)


def _starts(backend: Backend) -> Iterator[Finding]:
    ways = {
        AS_ALIGNED: initial_weights(10),
        START_NAMES[0]: pytorch_start(),
        START_NAMES[1]: gluon_start(),
    }
    native = _spreads(_natives(backend).native_weights())
    apart = {name: of_largest(native, _spreads(weights)) for name, weights in ways.items()}
    nearest = min(apart, key=lambda name: apart[name])
    for name in START_NAMES:
        way = THIS if nearest == name else AS_ALIGNED if nearest == AS_ALIGNED else ANOTHER
        yield Finding(name, way, apart[AS_ALIGNED], apart[name], SHARE)


def _spreads(weights: Weights) -> Array:
    """Return the standard deviations of weights, and of the convolutions' biases: they hardly depend on the draw."""
    drawn = [w for n, w in weights.items() if w.ndim > 1 or ("conv" in n and not is_buffer(n))]
    return np.array([w.std() for w in drawn])


Trial = Callable[[Backend], Iterator[Finding]]


def _names(*fields: str) -> tuple[str, ...]:
    """Return the names of the known differences that set these fields."""
    return tuple(d.name for d in KNOWN_DIFFERENCES if d.field in fields and not d.holds(ALIGNED))


# The differences that a trial tells of, and the trial.
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


# --- Workers ---------------------------------------------------------------------------------------------------------

BATCHES, BATCH_SIZE, NUM_WORKERS = 16, 64, 2


def own_draws(backend: Backend) -> Draws:
    """Tell which images the framework's own loader flips when it is left alone."""
    images = _asymmetric_images()

    def flips(num_workers: int) -> Array:
        loaded = _natives(backend).native_flips(images, BATCH_SIZE, num_workers, 0)
        return flipped(loaded, images)

    return draws(flips)


def draws_here(backend: Backend) -> Draws:
    """Tell which images this project's native loader flips."""
    images = _asymmetric_images()
    dataset = Dataset(images, np.zeros(len(images), np.int64), ("a", "b"))
    subject = Subject(backend, "float32")

    def flips(num_workers: int) -> Array:
        augs = [RandomFlipLeftRight()]
        batches = backend.loaders.load_native(dataset, augs, BATCH_SIZE, False, 0, num_workers)
        X = np.concatenate([subject.array(X) for X, _ in batches])
        return flipped(np.rint(255 * np.moveaxis(X, 1, -1)).astype(np.uint8), images)

    return draws(flips)


def draws(flips: Callable[[int], Array]) -> Draws:
    """Compare an epoch's flips, bool (n,), that ``flips`` gives for a number of workers, from one seed each time."""
    first, second, alone = flips(NUM_WORKERS), flips(NUM_WORKERS), flips(0)
    batches = first.reshape(BATCHES, BATCH_SIZE)
    return Draws(
        max(float((a == b).mean()) for a, b in combinations(batches, 2)),
        float((first == second).mean()),
        float((first == alone).mean()),
    )


def flipped(loaded: Array, images: Array) -> Array:
    """Tell which of the images (n, height, width, 3) came mirrored. Raises ValueError where one is another image."""
    same = (loaded == images).all(axis=(1, 2, 3))
    mirrored = (loaded == images[:, :, ::-1]).all(axis=(1, 2, 3))
    if not (same ^ mirrored).all():
        raise ValueError("the loader gave other images, or in another order")
    return mirrored


def _asymmetric_images() -> NDArray[np.uint8]:
    """Return uint8 images (n, 4, 4, 3) of noise."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (BATCHES * BATCH_SIZE, 4, 4, 3), dtype=np.uint8)
