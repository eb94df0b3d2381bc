"""A backend under check, spoken to in NumPy: images (n, 3, height, width), canonical weights."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.interface import Backend, Net, Tensor, Trainer
from common.parity.comparison import Arrays, Distance, Outcome, compare, relative
from common.parity.tolerances import tolerance
from common.reference import KNOWN_DIFFERENCES, Conventions, State
from common.weights.canonical import Weights, initial_weights, is_buffer

Array = NDArray[Any]
BATCH_NORM_BIAS = ("bn.bias", "bn1.bias", "bn2.bias")


@dataclass(frozen=True)
class Batch:
    """Images (n, channels, height, width), floats in 0..1, and labels (n,)."""

    X: Array
    y: NDArray[np.int64]


class Subject:
    """A backend that computes in ``kind``, "float32", "float64" or "bfloat16", on one device, compiled or not.

    Weights and images are float32 where it computes in bfloat16. ``logits_types`` are those of the logits that its
    steps have given to ``loss``.
    """

    def __init__(self, backend: Backend, kind: str, compile: bool = False) -> None:
        self.backend, self.kind, self.compile = backend, kind, compile
        self.mixed = kind == "bfloat16"
        self.dtype = "float32" if self.mixed else kind
        self.conventions: Conventions = backend.probes.CONVENTIONS
        self.devices = [backend.devices.cpu()]
        self.logits_types: set[str] = set()
        self._cross_entropy = backend.trainer.cross_entropy()
        self._net: Net | None = None
        self._suspects = [d for d in KNOWN_DIFFERENCES if not d.holds(self.conventions)]

    def loss(self, *arguments: Tensor) -> Tensor:
        """Return the backend's cross-entropy of each example, and note the type of the logits.

        The arguments are logits and labels, in the order in which the framework's losses take them.
        """
        logits = arguments[1 if self.backend.probes.labels_first else 0]
        self.logits_types.add(str(logits.dtype))
        return self._cross_entropy(*arguments)

    def tensor(self, images: Array, dtype: str | None = None) -> Tensor:
        """Return images as the backend's loader gives them; ``dtype`` is that of the subject's images unless given."""
        # In memory the channels of a pixel lie side by side, whatever the order of the axes: PyTorch computes on that.
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1), dtype or self.dtype)
        if self.backend.devices.image_layout == "NCHW":
            images = np.moveaxis(images, -1, 1)
        return self.backend.devices.from_numpy(images, self.devices[0])

    def array(self, X: Tensor) -> Array:
        """Return what the backend computed; images and feature maps as (n, channels, height, width)."""
        array = self.backend.devices.to_numpy(X)
        if array.ndim == 4 and self.backend.devices.image_layout == "NHWC":
            return np.moveaxis(array, -1, 1)
        return array

    def labels(self, y: NDArray[np.int64]) -> Tensor:
        """Return labels as the backend has them."""
        return self.backend.devices.from_numpy(y, self.devices[0])

    def network(self, weights: Weights) -> Net:
        """Return the backend's network for 10 classes with these weights, prepared as a run prepares it.

        It is always the same one: making a network, and compiling it, takes longer than most checks.
        """
        if self._net is None:
            net = self.backend.resnet.resnet18(10)
            if self.kind == "float64":
                net = self.backend.probes.in_float64(net)
            precision = "bf16" if self.mixed else "fp32"
            self._net = self.backend.trainer.prepare(net, self.devices, precision, self.compile)
        self.backend.weights.set_weights(self._net, self.cast(weights))
        return self._net

    def weights(self, seed: int) -> Weights:
        """Return the weights that checks start from, drawn from that seed; none may write to them."""
        return weights_at_work(seed, clear=self.mixed)

    def hold(
        self,
        check: str,
        got: Arrays,
        wanted: Callable[[Conventions], Arrays],
        distance: Distance = relative,
        parts: Collection[str] = ("network",),
    ) -> Outcome:
        """Hold what the backend computed against what the arbiter does, within the tolerance of that check.

        The cause of a failure is sought among the known differences of these ``parts``, those that explained a failure
        before first.
        """
        limit = tolerance(check, self.kind)
        suspects = [d for d in self._suspects if d.part in parts]
        outcome = compare(
            check, self.kind, got, wanted, self.conventions, limit, distance, suspects
        )
        if outcome.cause:
            cause = outcome.cause
            self._suspects.sort(key=lambda d: not cause.startswith(f"{d.name} ("))
        return outcome

    def cast(self, weights: Mapping[str, Array]) -> Weights:
        """Return weights in the type in which the subject keeps them."""
        return {name: weight.astype(self.dtype) for name, weight in weights.items()}  # copies

    def step(self, net: Net, trainer: Trainer, batch: Batch) -> tuple[float, int]:
        """Take one step of the chapter's trainer; return the sum of the losses and the number right."""
        l, correct = self.backend.trainer.train_batch_ch13(
            net, self.tensor(batch.X), self.labels(batch.y), self.loss, trainer, self.devices
        )
        to_numpy = self.backend.devices.to_numpy
        return float(to_numpy(l)), int(to_numpy(correct))

    def put(self, net: Net, trainer: Trainer, weights: Mapping[str, Array], state: State) -> None:
        """Make a network and its optimiser go on from these weights, buffers and state."""
        self.backend.weights.set_weights(net, self.cast(weights))
        if state.steps:
            slots = {slot: self.cast(arrays) for slot, arrays in state.slots.items()}
            self.backend.probes.set_state(net, trainer, replace(state, slots=slots))


def in_float32(types: Collection[str]) -> bool:
    """Tell whether these are all float32, as a framework writes the types of its tensors; and there are any."""
    return bool(types) and all("float32" in name for name in types)


@lru_cache(maxsize=2)
def weights_at_work(seed: int = 0, clear: bool = False) -> Weights:
    """Return weights of which none is 0 or 1, with variances so small that BatchNorm's epsilon counts.

    With ``clear``, each BatchNorm shifts four channels of five above 0 and the fifth below, by twice their deviation,
    so that the inputs of most ReLUs are clear of it. Rounded to bfloat16, a gradient is off by a third where they are
    not: one in some hundred ReLUs then passes on what it should not, or the other way round.
    They are drawn once for many checks, none of which may write to them.
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for name, weight in initial_weights(10, seed=seed).items():
        if name.endswith("running_var"):
            drawn = rng.uniform(0.02, 0.1, weight.shape)
        elif is_buffer(name) or name.endswith("bias"):
            drawn = rng.uniform(-0.1, 0.1, weight.shape)
        elif weight.ndim == 1:
            drawn = rng.uniform(0.5, 1.5, weight.shape)
        else:
            drawn = weight.astype(np.float64)
        if clear and name.endswith(BATCH_NORM_BIAS):
            scale = weights[name.replace("bias", "weight")]
            drawn = 2 * scale * rng.choice([1, 1, 1, 1, -1], drawn.shape)
        # Numbers that float32 holds exactly, so that both precisions start from the same ones.
        weights[name] = drawn.astype(np.float32).astype(np.float64)
        weights[name].flags.writeable = False
    return weights


def random_batch(n: int, size: int, seed: int = 0) -> Batch:
    """Return n images of noise and their labels, exact in float32."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 256, (n, 3, size, size)).astype(np.float32) / np.float32(255)
    return Batch(X.astype(np.float64), rng.integers(0, 10, n))
