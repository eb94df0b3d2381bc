"""Planted mistakes, and the checks that must reject each of them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy_backend import (
    Edit,
    by,
    changed,
    compute_with,
    layers_of,
    numpy_backend,
    to_bfloat16,
)

from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.checks import steps as training
from common.parity.checks.case_checks import case_checks
from common.parity.checks.devices import device_checks
from common.parity.checks.initial_weights import initial_checks
from common.parity.checks.loaders import batched_loader_checks
from common.parity.checks.network import model_checks
from common.parity.checks.operations import operation_checks
from common.parity.checks.transforms import transform_checks, uint8_checks
from common.parity.comparison import CheckResult
from common.parity.suite import LEAST_SIZE
from common.reference import ALIGNED, Conventions, resnet
from common.weights.canonical import network_sizes

SIZE = 8  # height and width of images: one position in the last stage
# Channels of the network's first stage; the chapter has 64. In bfloat16 norms are compared, which vary more over fewer
# values: with 16 channels, rounding errors come close to the tolerances.
NUM_CHANNELS = {"float64": 16, "float32": 16, "bfloat16": 32}

Checks = Callable[[Backend], Iterator[CheckResult]]


def adapter(backend: Backend, kind: str) -> Adapter:
    return Adapter(backend, kind, num_channels=NUM_CHANNELS[kind])


def data(backend: Backend) -> Iterator[CheckResult]:
    yield from transform_checks(adapter(backend, "float32"))
    yield from uint8_checks(Adapter(backend, "uint8"))
    yield from operation_checks(adapter(backend, "float32"), Adapter(backend, "uint8"), quick=True)
    yield from batched_loader_checks(adapter(backend, "float32"), quick=True)


def devices(backend: Backend) -> Iterator[CheckResult]:
    yield from device_checks(backend)


def cases(backend: Backend) -> Iterator[CheckResult]:
    yield from case_checks(backend, quick=True)


def initial(backend: Backend) -> Iterator[CheckResult]:
    yield from initial_checks(backend, quick=True)


def model(backend: Backend) -> Iterator[CheckResult]:
    yield from model_checks(adapter(backend, "float64"), SIZE)


def model_in_float32(backend: Backend) -> Iterator[CheckResult]:
    yield from model_checks(adapter(backend, "float32"), SIZE)


def model_in_bfloat16(backend: Backend) -> Iterator[CheckResult]:
    yield from model_checks(adapter(backend, "bfloat16"), LEAST_SIZE)


def steps(backend: Backend) -> Iterator[CheckResult]:
    yield from _steps(adapter(backend, "float64"), SIZE)


def frozen(backend: Backend) -> Iterator[CheckResult]:
    yield from training.frozen_steps(adapter(backend, "float64"), SIZE)


def steps_in_float32(backend: Backend) -> Iterator[CheckResult]:
    yield from _steps(adapter(backend, "float32"), SIZE)


def steps_in_bfloat16(backend: Backend) -> Iterator[CheckResult]:
    yield from _steps(adapter(backend, "bfloat16"), LEAST_SIZE)


def _steps(own: Adapter, size: int) -> Iterator[CheckResult]:
    for recipe in (training.sgd(1), training.adam(1)):
        yield from training.locked_steps(own, recipe, size, 2)


FORWARD = {
    f"{what}, {mode}" for what in ("logits", "activations") for mode in ("evaluation", "training")
}
UINT8_TRANSFORMS = {"transforms of uint8 images, largest", "transforms of uint8 images, mean"}
UINT8_OPERATIONS = {"operations on uint8 images, largest", "operations on uint8 images, mean"}
TRANSFORMS = {
    "transforms",
    *UINT8_TRANSFORMS,
    "operations",
    *UINT8_OPERATIONS,
    "batches, augmented",
}
KAGGLE_CROPS = {"transforms", "Kaggle batches, training"}
NORMALIZED = {*KAGGLE_CROPS, "Kaggle batches, test"}

# Known difference: the checks that reject a backend that has it but does not declare it.
KNOWN: dict[str, tuple[Checks, set[str]]] = {
    "padding": (model, FORWARD | {"gradients", "evaluation accuracy"}),
    "BatchNorm's epsilon": (model, FORWARD | {"gradients", "evaluation accuracy"}),
    "BatchNorm's momentum": (steps, {"locked SGD: buffers", "locked Adam: buffers"}),
    "BatchNorm's momentum swapped": (steps, {"locked SGD: buffers", "locked Adam: buffers"}),
    "biased running variance": (steps, {"locked SGD: buffers", "locked Adam: buffers"}),
    "sum of losses": (
        steps,
        {"locked SGD: weights", "locked SGD: state", "locked Adam: weights", "locked Adam: state"},
    ),
    "Adam's epsilon": (steps, {"locked Adam: weights", "locked Adam: update"}),
    "Adam's epsilon inside": (steps, {"locked Adam: weights", "locked Adam: update"}),
    "learning rate inside the momentum": (steps, {"locked SGD: weights", "locked SGD: state"}),
    "decoupled weight decay": (steps, {"locked SGD: state", "locked SGD: update"}),
    "brightness added": (data, TRANSFORMS),
    "contrast by channel": (data, TRANSFORMS),
    "saturation of HSV": (data, TRANSFORMS),
    "saturation with wrong grey": (data, TRANSFORMS),
    "hue in 8 bits": (data, TRANSFORMS),
    "no antialiasing": (
        data,
        {"transforms", *UINT8_TRANSFORMS, "batches, augmented", *KAGGLE_CROPS},
    ),
    "uint8 values rounded down": (
        data,
        {"transforms of uint8 images, mean", "operations on uint8 images, mean", "conversions"},
    ),
}


def scaled(function: Callable[..., Any], factor: float = 1.001) -> Callable[..., Any]:
    return lambda *arguments, **options: function(*arguments, **options) * factor


def scaled_in(function: Callable[..., Any], place: str) -> Callable[..., Any]:
    """Return the function with one array of its result 0.1% too large."""

    def wrong(*arguments: Any, **options: Any) -> Any:
        found = dict(function(*arguments, **options))
        return found | {place: found[place] * 1.001}

    return wrong


def without_statistics(backend: Backend) -> Backend:
    """Return a backend whose steps do not update BatchNorm's running statistics."""
    train_batch_ch13 = backend.trainer.train_batch_ch13

    def step(net, X, y, loss, trainer, devices, *more):
        before = backend.weights.get_weights(net)
        result = train_batch_ch13(net, X, y, loss, trainer, devices, *more)
        after = backend.weights.get_weights(net)
        buffers = {name: before[name] for name in before if "running" in name}
        backend.weights.set_weights(net, after | buffers)
        return result

    return changed(backend, "trainer", train_batch_ch13=step)


def always_training(backend: Backend) -> Backend:
    """Return a backend that never switches to evaluation mode."""
    predict, activations = backend.trainer.predict, backend.probes.activations
    wrong = changed(
        backend, "trainer", predict=lambda net, X, training=False: predict(net, X, True)
    )
    return changed(
        wrong, "probes", activations=lambda net, X, training=False: activations(net, X, True)
    )


def with_decoupled_decay(backend: Backend) -> Backend:
    """Return a backend whose SGD subtracts the decay from the weights after a step without decay."""
    train_batch_ch13, sgd = backend.trainer.train_batch_ch13, backend.trainer.sgd
    adam = backend.trainer.adam
    share = {}

    def sgd_without(net, lr, momentum=0.0, weight_decay=0.0):
        share["decay"] = lr * weight_decay
        return sgd(net, lr, momentum)

    def adam_without(net, *numbers):
        share["decay"] = 0.0
        return adam(net, *numbers)

    def step(net, X, y, loss, trainer, devices):
        before = backend.weights.get_weights(net)
        result = train_batch_ch13(net, X, y, loss, trainer, devices)
        after = backend.weights.get_weights(net)
        decayed = {
            name: weight - share["decay"] * before[name] * ("running" not in name)
            for name, weight in after.items()
        }
        backend.weights.set_weights(net, decayed)
        return result

    return changed(backend, "trainer", sgd=sgd_without, adam=adam_without, train_batch_ch13=step)


def with_adam_epsilon(backend: Backend) -> Backend:
    """Return a backend whose Adam uses Keras' epsilon."""
    adam = backend.trainer.adam
    return changed(
        backend,
        "trainer",
        adam=lambda net, lr=1e-3, betas=(0.9, 0.999), eps=1e-7: adam(net, lr, betas, eps),
    )


def with_wrong_order(backend: Backend) -> Backend:
    """Return a backend whose loader shuffles with another seed."""
    load = backend.loaders.load_batched

    def load_batched(dataset, augs, batch_size, is_train, seed=0, device=None):
        return load(dataset, augs, batch_size, is_train, seed + 1, device)

    return changed(backend, "loaders", load_batched=load_batched)


def without_last_batch(backend: Backend) -> Backend:
    """Return a backend whose loader drops the last batch if it is smaller."""
    load = backend.loaders.load_batched

    class Whole:
        def __init__(self, *arguments, **options):
            self.batches, self.size = load(*arguments, **options), arguments[2]

        def __len__(self):
            return len(self.batches)

        def __iter__(self):
            return (batch for batch in self.batches if len(batch[1]) == self.size)

    return changed(backend, "loaders", load_batched=Whole)


def with_swapped_statistics(backend: Backend) -> Backend:
    """Return a backend that swaps running mean and running variance, when they are set and when they are returned."""
    get, put = backend.weights.get_weights, backend.weights.set_weights

    def swapped(weights):
        pairs = {"running_mean": "running_var", "running_var": "running_mean"}
        return {
            name: weights[name.replace(kind, pairs[kind])]
            if (kind := name.rpartition(".")[2]) in pairs
            else weight
            for name, weight in weights.items()
        }

    return changed(
        backend,
        "weights",
        get_weights=lambda net: swapped(get(net)),
        set_weights=lambda net, weights: put(net, swapped(weights)),
    )


def edited(*edits: Edit) -> Callable[[Backend], Backend]:
    """Return a function that makes the NumPy tab with these edits."""
    return lambda _: numpy_backend(ALIGNED, *edits)


def with_frozen_biases(backend: Backend) -> Backend:
    """Return a backend that does not update biases before a BatchNorm, not even by weight decay."""
    train_batch_ch13 = backend.trainer.train_batch_ch13

    def step(net, *arguments):
        before = backend.weights.get_weights(net)
        result = train_batch_ch13(net, *arguments)
        frozen = {name: w for name, w in before.items() if resnet.before_batch_norm(name)}
        backend.weights.set_weights(net, backend.weights.get_weights(net) | frozen)
        return result

    return changed(backend, "trainer", train_batch_ch13=step)


def with_moving_evaluation(backend: Backend) -> Backend:
    """Return a backend whose evaluation changes BatchNorm's statistics."""
    right = backend.trainer.evaluate_accuracy_gpu

    def evaluate_accuracy_gpu(net, data_iter, device=None):
        accuracy = right(net, data_iter)
        weights = backend.weights.get_weights(net)
        weights["bn.running_mean"] *= 1.1
        backend.weights.set_weights(net, weights)
        return accuracy

    return changed(backend, "trainer", evaluate_accuracy_gpu=evaluate_accuracy_gpu)


# The tab accepts only its own loss. This edit switches that check off, so that parity must reject a wrong loss.
ANY_LOSS = ("trainer", "if not np.array_equal(l, losses, equal_nan=True):", "if False:")


def with_overflowing_loss(_: Backend) -> Backend:
    """Return a backend whose cross-entropy does not subtract the largest logit first."""

    def loss(y_hat, y):
        with np.errstate(over="ignore"):
            return np.log(np.exp(y_hat).sum(axis=1)) - y_hat[np.arange(len(y)), y]

    return changed(numpy_backend(ALIGNED, ANY_LOSS), "trainer", cross_entropy=lambda: loss)


def evaluating(accuracy: Callable[[Any, Any], float]) -> Callable[[Backend], Backend]:
    """Return a function that makes a backend count correct predictions by ``accuracy``, batch by batch."""

    def make(backend: Backend) -> Backend:
        def evaluate_accuracy_gpu(net, data_iter, device=None):
            batches = [(backend.trainer.predict(net, X), y) for X, y in data_iter]
            return float(np.sum([accuracy(y_hat, y) for y_hat, y in batches])) / 21

        return changed(backend, "trainer", evaluate_accuracy_gpu=evaluate_accuracy_gpu)

    return make


def normalizing(wrong: str) -> Callable[[Backend], Backend]:
    """Return a function that makes the NumPy tab with another normalization.

    ``wrong`` is an expression of images X, ``mean`` and ``std``, both (3, 1, 1).
    """
    arguments = "to_float(X), mean[:, None, None], std[:, None, None]"
    return edited(
        (
            "transforms",
            "reference.normalize(to_float(X), mean, std)",
            f"(lambda X, mean, std: {wrong})({arguments})",
        )
    )


def with_aliased_kaggle_crops(_: Backend) -> Backend:
    """Return a backend without antialiasing in the Kaggle recipe, whose crops shrink by at most a fifth."""
    aliased, unmerged = by(Conventions(antialias=False))
    file, right, wrong = aliased
    kaggle = "any(isinstance(decision, Normalizes) for decision in decisions)"
    return numpy_backend(
        ALIGNED,
        (file, right, wrong.replace("antialias=False", f"antialias=not {kaggle}")),
        unmerged,
    )


def with_normalized_uint8(backend: Backend) -> Backend:
    """Return a backend that returns uint8 for uint8 input, even after normalization."""
    right = backend.transforms.augment
    return changed(
        backend, "transforms", augment=lambda X, decisions: right(X, decisions).astype(X.dtype)
    )


def with_longer_steps(backend: Backend, factor: float = 1.01) -> Backend:
    """Return a backend whose optimizers multiply the learning rate by ``factor``."""
    sgd, adam = backend.trainer.sgd, backend.trainer.adam
    return changed(
        backend,
        "trainer",
        sgd=lambda net, lr, *more: sgd(net, lr * factor, *more),
        adam=lambda net, lr, *more: adam(net, lr * factor, *more),
    )


# A mistake in the NumPy backend: a function that plants it, its group of checks, and the checks that reject it.
OTHER_MISTAKES: dict[str, tuple[Callable[[Backend], Backend], Checks, set[str]]] = {
    "losses divided by 8, also in batches of 4": (
        edited(("trainer", "1 / len(y)", "1 / 8")),
        steps,
        {"locked SGD: weights", "locked SGD: state", "locked Adam: weights", "locked Adam: state"},
    ),
    "biases before a BatchNorm are not updated": (
        with_frozen_biases,
        steps,
        {"locked SGD: update"},
    ),
    "get_weights returns the network's own arrays": (
        edited(("weights", "arrays[name].copy()", "arrays[name]")),
        model,
        {"weights round trip"},
    ),
    "BatchNorm is not frozen": (
        edited(("trainer", 'name != "fc"', 'name != "fc" and "bn" not in name')),
        frozen,
        {
            f"frozen {name}: {part}"
            for name in ("SGD", "Adam")
            for part in ("last layer", "other weights")
        },
    ),
    "a frozen BatchNorm uses the statistics of the batch": (
        edited(("resnet", "if self.training:", "if True:")),
        frozen,
        {
            f"frozen {name}: {part}"
            for name in ("SGD", "Adam")
            for part in ("last layer", "other weights")
        },
    ),
    "the last layer is frozen too, but for its bias": (
        edited(
            (
                "resnet",
                "        if self.frozen:\n",
                '        if "weight" in self.weights and self.weights["weight"].ndim == 2:\n'
                "            names, gradients = names[1:], gradients[1:]\n"
                "        if self.frozen:\n",
            )
        ),
        frozen,
        {f"frozen {name}: last layer" for name in ("SGD", "Adam")},
    ),
    "evaluation changes the running statistics": (
        with_moving_evaluation,
        model,
        {"evaluation accuracy"},
    ),
    "the loss of large logits overflows": (with_overflowing_loss, model, {"loss"}),
    "accuracy counts the smallest logit": (
        evaluating(lambda y_hat, y: (y_hat.argmin(axis=1) == y).sum()),
        model,
        {"evaluation accuracy"},
    ),
    "accuracy considers only the first two classes": (
        evaluating(lambda y_hat, y: (y_hat[:, :2].argmax(axis=1) == y).sum()),
        model,
        {"evaluation accuracy"},
    ),
    "the mean is not subtracted": (normalizing("X / std"), data, NORMALIZED | {"operations"}),
    "mean and standard deviation swapped": (
        normalizing("(X - std) / mean"),
        data,
        NORMALIZED | {"operations"},
    ),
    "means and standard deviations in BGR order": (
        normalizing("(X - mean[::-1]) / std[::-1]"),
        data,
        NORMALIZED | {"operations"},
    ),
    "divided by the variance instead of the standard deviation": (
        normalizing("(X - mean) / std**2"),
        data,
        NORMALIZED | {"operations"},
    ),
    "normalized without scaling to 0..1": (
        normalizing("(255 * X - mean) / std"),
        data,
        NORMALIZED | {"operations"},
    ),
    "normalized images converted back to uint8": (
        with_normalized_uint8,
        data,
        {"transforms", "operations", "conversions"},
    ),
    "no antialiasing in the Kaggle recipe only": (with_aliased_kaggle_crops, data, KAGGLE_CROPS),
    "steps in float32 1% too long": (
        with_longer_steps,
        steps_in_float32,
        {"locked SGD: update", "locked Adam: update"},
    ),
    "try_gpu returns a GPU that does not exist": (
        lambda backend: changed(backend, "devices", try_gpu=backend.devices.gpu),
        devices,
        {"devices"},
    ),
    "--device gpu falls back to the CPU": (
        lambda backend: changed(
            backend, "devices", get_devices=lambda name: backend.devices.try_all_gpus()
        ),
        devices,
        {"devices"},
    ),
}


def in_full_precision(backend: Backend) -> Backend:
    """Return a backend that always computes in float32."""
    right = backend.trainer.prepare
    return changed(
        backend,
        "trainer",
        prepare=lambda net, devices, precision, *rest: right(net, devices, "fp32", *rest),
    )


STEPS_WITH_BUFFERS = {"locked SGD: buffers", "locked Adam: buffers"}
# A mistake in every backend: a function that plants it, its group of checks, and the checks that reject it.
MISTAKES: dict[str, tuple[Callable[[Backend], Backend], Checks, set[str]]] = {
    "running statistics are not updated": (without_statistics, steps, STEPS_WITH_BUFFERS),
    "evaluation runs in training mode": (
        always_training,
        model,
        {"logits, evaluation", "activations, evaluation"},
    ),
    "decoupled weight decay of SGD": (
        with_decoupled_decay,
        steps,
        {"locked SGD: state", "locked SGD: update"},
    ),
    "Adam's epsilon of Keras": (
        with_adam_epsilon,
        steps,
        {"locked Adam: weights", "locked Adam: update"},
    ),
    "examples in another order": (
        with_wrong_order,
        data,
        {"batches, augmented", "Kaggle batches, training"},
    ),
    "the last batch is dropped": (
        without_last_batch,
        data,
        {
            "batches, not augmented",
            "batches, augmented",
            "Kaggle batches, training",
            "Kaggle batches, test",
        },
    ),
    "float32 instead of the requested bf16": (
        in_full_precision,
        model_in_bfloat16,
        {"precision in use"},
    ),
    "mean and variance swapped": (
        with_swapped_statistics,
        model,
        {"logits, evaluation", "activations, evaluation", "evaluation accuracy"},
    ),
}


# --- Mistakes in bfloat16 --------------------------------------------------------------------------------------------


def differing(**conventions: Any) -> Callable[[], Backend]:
    """Return a function that makes a backend with other conventions that it does not declare."""
    return lambda: numpy_backend(Conventions(**conventions))


def without(name: str) -> Callable[[], Backend]:
    """Return a function that makes a backend without the bias ``name``."""
    place, _, kind = name.rpartition(".")

    def make() -> Backend:
        backend = numpy_backend()
        right = backend.trainer.prepare

        def prepare(net, *arguments):
            compute_with(layers_of(net)[place], lambda weights: weights | {kind: 0 * weights[kind]})
            return right(net, *arguments)

        return changed(backend, "trainer", prepare=prepare)

    return make


def with_half_logits() -> Backend:
    """Return a backend whose logits stay in 16 bits: float16, because NumPy has no bfloat16."""
    logits = "pred = net(X, training=True)"
    edit = ("trainer", f"{logits}\n", f"{logits}.astype(np.float16)\n")
    backend = numpy_backend(ALIGNED, edit)
    predict = backend.trainer.predict
    return changed(
        backend,
        "trainer",
        predict=lambda *arguments: predict(*arguments).clip(-6e4, 6e4).astype(np.float16),
    )


def with_rounded_weights() -> Backend:
    """Return a backend that stores its weights in bfloat16, so that most updates are lost."""
    backend = numpy_backend()
    right = backend.trainer.train_batch_ch13

    def train_batch_ch13(net, *arguments):
        result = right(net, *arguments)
        weights = backend.weights.get_weights(net)
        rounded = {n: to_bfloat16(w) for n, w in weights.items() if "running" not in n}
        backend.weights.set_weights(net, weights | rounded)
        return result

    return changed(backend, "trainer", train_batch_ch13=train_batch_ch13)


def with_rounded_set_weights() -> Backend:
    """Return a backend that rounds the weights that are set."""
    backend = numpy_backend()
    right = backend.weights.set_weights

    def set_weights(net, weights):
        right(net, {name: to_bfloat16(weight) for name, weight in weights.items()})

    return changed(backend, "weights", set_weights=set_weights)


def training_in_full_precision() -> Backend:
    """Return a backend that predicts in bfloat16, but computes its gradients in float32."""
    backend = numpy_backend()
    right = backend.probes.gradients

    def gradients(net, *batch):
        weights = backend.weights.get_weights(net)
        plain = backend.resnet.resnet18(*network_sizes(weights))
        backend.weights.set_weights(plain, weights)
        return right(plain, *batch)

    return changed(backend, "probes", gradients=gradients)


# A mistake in the NumPy backend's bfloat16, and checks that reject it. Other checks may reject it too.
IN_BFLOAT16: dict[str, tuple[Callable[[], Backend], Checks, set[str]]] = {
    "bfloat16: BatchNorm's epsilon": (
        differing(bn_epsilon=1e-3),
        model_in_bfloat16,
        {"activations, evaluation", "logits, evaluation", "activations, training"},
    ),
    "bfloat16: BatchNorm's momentum": (
        differing(bn_momentum=0.99),
        steps_in_bfloat16,
        {"locked SGD: buffers", "locked Adam: buffers"},
    ),
    "bfloat16: biased running variance": (
        differing(bn_variance="biased"),
        steps_in_bfloat16,
        {"locked SGD: buffers", "locked Adam: buffers"},
    ),
    "bfloat16: padding": (
        differing(padding="end"),
        model_in_bfloat16,
        {*FORWARD, "gradients", "gradients, overall"},
    ),
    "bfloat16: sum of losses": (
        differing(objective="sum"),
        model_in_bfloat16,
        {"gradients", "gradients, overall"},
    ),
    "bfloat16: sum of losses in a step": (
        differing(objective="sum"),
        steps_in_bfloat16,
        {"locked SGD: weights", "locked SGD: state", "locked Adam: state"},
    ),
    "bfloat16: decoupled weight decay": (
        differing(weight_decay="decoupled"),
        steps_in_bfloat16,
        {"locked SGD: update"},
    ),
    "bfloat16: Adam's epsilon": (
        differing(adam_epsilon=1e-7),
        steps_in_bfloat16,
        {"locked Adam: update"},
    ),
    "bfloat16: a convolution without its bias": (
        without("resnet_block1.0.conv1.bias"),
        model_in_bfloat16,
        {"activations, evaluation", "activations, training"},
    ),
    "bfloat16: the last layer without its bias": (
        without("fc.bias"),
        model_in_bfloat16,
        {"evaluation accuracy"},
    ),
    "bfloat16: the last BatchNorm without its bias": (
        without("resnet_block4.1.bn2.bias"),
        model_in_bfloat16,
        {"activations, training", "logits, training", "gradients"},
    ),
    "bfloat16: logits not converted to float32": (
        with_half_logits,
        model_in_bfloat16,
        {"logits dtype"},
    ),
    "bfloat16: logits of a training step not converted to float32": (
        with_half_logits,
        steps_in_bfloat16,
        {"locked SGD: logits dtype", "locked Adam: logits dtype"},
    ),
    "bfloat16: set_weights rounds the weights": (
        with_rounded_set_weights,
        model_in_bfloat16,
        {"weights round trip"},
    ),
    "bfloat16: weights are stored in bfloat16": (
        with_rounded_weights,
        steps_in_bfloat16,
        {
            "locked SGD: update",
            "locked SGD: weights",
            "locked Adam: update",
            "locked Adam: weights",
        },
    ),
    "bfloat16: steps 5% too long": (
        lambda: with_longer_steps(numpy_backend(), 1.05),
        steps_in_bfloat16,
        {"locked SGD: update", "locked Adam: update"},
    ),
    "bfloat16: the network computes in float32": (
        lambda: in_full_precision(numpy_backend()),
        model_in_bfloat16,
        {"precision in use"},
    ),
    "bfloat16: gradients are computed in float32": (
        training_in_full_precision,
        model_in_bfloat16,
        {"precision in use"},
    ),
}


def thousandth(file: str, function: str, place: str | None = None) -> Callable[[], Backend]:
    """Return a function that makes a backend with one function's result, or one array of it, 0.1% too large."""

    def make() -> Backend:
        backend = numpy_backend()
        right = getattr(getattr(backend, file), function)
        wrong = scaled_in(right, place) if place else scaled(right)
        return changed(backend, file, **{function: wrong})

    return make


def with_steps_too_long(name: str) -> Callable[[], Backend]:
    """Return a function that makes a backend with an optimizer's learning rate 0.1% too large."""

    def make() -> Backend:
        backend = numpy_backend()
        right = getattr(backend.trainer, name)
        wrong = lambda net, lr, *more: right(net, lr * 1.001, *more)  # noqa: E731
        return changed(backend, "trainer", **{name: wrong})

    return make


def with_loss_too_large() -> Backend:
    backend = numpy_backend()
    right = backend.trainer.train_batch_ch13

    def step(*arguments):
        l, correct = right(*arguments)
        return l * 1.001, correct

    return changed(backend, "trainer", train_batch_ch13=step)


def with_cross_entropy_too_large() -> Backend:
    backend = numpy_backend(ALIGNED, ANY_LOSS)
    loss = backend.trainer.cross_entropy()
    return changed(backend, "trainer", cross_entropy=lambda: scaled(loss))


LOCKED_LOSS = {"locked SGD: loss", "locked Adam: loss"}
# A result that is 0.1% too large: a function that plants it, its group of checks, and the checks that reject it.
THOUSANDTHS: dict[str, tuple[Callable[[], Backend], Checks, set[str]]] = {
    "logits": (
        thousandth("trainer", "predict"),
        model,
        {"logits, evaluation", "logits, training"},
    ),
    "logits in float32": (
        thousandth("trainer", "predict"),
        model_in_float32,
        {"logits, evaluation", "logits, training"},
    ),
    "one activation": (
        thousandth("probes", "activations", "resnet_block3.1.bn1"),
        model,
        {"activations, evaluation", "activations, training"},
    ),
    "one activation in float32": (
        thousandth("probes", "activations", "resnet_block3.1.bn1"),
        model_in_float32,
        {"activations, evaluation", "activations, training"},
    ),
    "one gradient": (thousandth("probes", "gradients", "bn.weight"), model, {"gradients"}),
    "the accuracy": (
        thousandth("trainer", "evaluate_accuracy_gpu"),
        model,
        {"evaluation accuracy"},
    ),
    "the loss of an example": (with_cross_entropy_too_large, model, {"loss"}),
    "the loss of a batch": (with_loss_too_large, steps, LOCKED_LOSS),
    "SGD's steps": (
        with_steps_too_long("sgd"),
        steps,
        {"locked SGD: weights", "locked SGD: update"},
    ),
    "Adam's steps": (
        with_steps_too_long("adam"),
        steps,
        {"locked Adam: weights", "locked Adam: update"},
    ),
    "to_float": (
        thousandth("transforms", "to_float"),
        data,
        {"transforms", "conversions"},
    ),
}
