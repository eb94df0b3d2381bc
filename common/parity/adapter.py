"""Adapter of a backend for the checks: NumPy images (n, channels, height, width) and canonical weights."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.interface import Backend, Loss, Net, Tensor, Trainer
from common.parity.comparison import Arrays, CheckResult, Distance, largest_relative
from common.parity.tolerances import tolerance
from common.reference import KNOWN_DIFFERENCES, Conventions, State
from common.weights.canonical import Weights, initial_weights, is_buffer

Array = NDArray[Any]
BATCH_NORM_BIAS = ("bn.bias", "bn1.bias", "bn2.bias")
NUM_CHANNELS = 64  # in the network's first stage, in both chapters
NUM_CLASSES, IN_CHANNELS = 10, 3  # in the chapters' data sets
KINDS = {"fp32": "float32", "bf16": "bfloat16", "tf32": "tf32"}  # by --precision
# Mixed precision: matrix products round their operands; weights, images and logits stay float32.
MIXED = ("bfloat16", "tf32")


@dataclass(frozen=True)
class Batch:
    """Images (n, channels, height, width), floats in 0..1, and labels (n,)."""

    X: Array
    y: NDArray[np.int64]


class Adapter:
    """A backend that computes in ``kind`` on one device, compiled or not.

    ``kind`` is "float32", "float64" or one of `MIXED`, which store weights and images in float32. An adapter of kind
    "uint8" only runs transforms. ``num_channels`` are the channels of the network's first stage, ``in_channels``
    those of the images. ``device`` takes the values of --device; if it selects several devices, the first one
    computes. ``sync_batch_norm`` is about several processes. ``loss`` is the backend's cross-entropy.
    ``logits_types`` collects the dtypes of the logits that training steps pass to it. Raises UserError if the device
    does not exist.
    """

    def __init__(
        self,
        backend: Backend,
        kind: str,
        compile: bool = False,
        num_channels: int = NUM_CHANNELS,
        device: str = "cpu",
        num_classes: int = NUM_CLASSES,
        in_channels: int = IN_CHANNELS,
        sync_batch_norm: bool = False,
    ) -> None:
        self.backend, self.kind, self.compile = backend, kind, compile
        self.sync_batch_norm = sync_batch_norm
        self.num_channels = num_channels
        self.sizes = num_classes, in_channels, num_channels  # the arguments of resnet18
        self.mixed = kind in MIXED
        self.dtype = "float32" if self.mixed else kind
        self.conventions: Conventions = backend.probes.CONVENTIONS
        self.devices = backend.devices.get_devices(device)[:1]
        self.logits_types: set[str] = set()
        self._cross_entropy = backend.trainer.cross_entropy()
        # Bind the method once: each access creates a new object, for which TensorFlow would trace the step again.
        self.loss: Loss = self._loss
        self._net: Net | None = None
        self._suspects = [d for d in KNOWN_DIFFERENCES if not d.holds(self.conventions)]

    def _loss(self, *arguments: Tensor) -> Tensor:
        """Return the backend's cross-entropy of each example, and record the dtype of the logits.

        The arguments are logits and labels, in the order that the framework's losses take.
        """
        logits = arguments[1 if self.backend.probes.labels_first else 0]
        self.logits_types.add(str(logits.dtype))
        return self._cross_entropy(*arguments)

    def tensor(self, images: Array, dtype: str | None = None) -> Tensor:
        """Return images as the backend's loader returns them, in ``dtype`` (default: the adapter's dtype)."""
        # Loaders return images with channels last in memory, even if the axes are NCHW.
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1), dtype or self.dtype)
        if self.backend.devices.image_layout == "NCHW":
            images = np.moveaxis(images, -1, 1)
        return self.backend.devices.from_numpy(images, self.devices[0])

    def array(self, X: Tensor) -> Array:
        """Return a tensor as a NumPy array; images and feature maps as (n, channels, height, width)."""
        array = self.backend.devices.to_numpy(X)
        if array.ndim == 4 and self.backend.devices.image_layout == "NHWC":
            return np.moveaxis(array, -1, 1)
        return array

    def labels(self, y: NDArray[np.int64]) -> Tensor:
        """Return labels as a tensor of the backend."""
        return self.backend.devices.from_numpy(y, self.devices[0])

    def new_network(self) -> Net:
        """Return a new network of the backend."""
        return self.backend.resnet.resnet18(*self.sizes)

    def network(self, weights: Weights) -> Net:
        """Return the backend's network with these weights, prepared as for a training run.

        Every call returns the same network, because building and compiling one takes longer than most checks. The
        network is in evaluation mode, as after ``net.eval()``: training must switch the mode itself.
        """
        if self._net is None:
            self._net = self._prepared(freeze=False)
        self.backend.probes.set_mode(self._net, training=False)
        self.backend.weights.set_weights(self._net, self.cast(weights))
        return self._net

    def frozen_network(self, weights: Mapping[str, Array]) -> Net:
        """Return another network with these weights. Only its last layer is trained."""
        net = self._prepared(freeze=True)
        self.backend.weights.set_weights(net, self.cast(weights))
        return net

    def _prepared(self, freeze: bool) -> Net:
        net = self.new_network()
        if self.kind == "float64":
            net = self.backend.probes.in_float64(net)
        if freeze:
            self.backend.trainer.freeze(net)
        precision = "bf16" if self.kind == "bfloat16" else "fp32"
        return self.backend.trainer.prepare(
            net, self.devices, precision, self.compile, self.sync_batch_norm
        )

    def weights(self, seed: int) -> Weights:
        """Return the weights that the checks start from, drawn from ``seed``. The arrays are read-only."""
        return drawn_weights(seed, self.mixed, *self.sizes)

    def compare(
        self,
        check: str,
        got: Arrays,
        expected: Callable[[Conventions], Arrays],
        distance: Distance = largest_relative,
        parts: Collection[str] = ("network",),
    ) -> CheckResult:
        """Compare the backend's result with the reference, within the tolerance of that check.

        ``expected`` returns the reference's result under the given conventions. If the check fails, ``expected`` is
        called again with each known difference of these ``parts``. The cause is the first difference that brings the
        backend within the tolerance.
        """
        found = tuple(distance(got, expected(self.conventions)))
        result = CheckResult(check, self.kind, found, tolerance(check, self.kind))
        if result.passed:
            return result
        suspects = [known for known in self._suspects if known.part in parts]
        for known in suspects:
            found = tuple(distance(got, expected(known.conventions(self.conventions))))
            if replace(result, differences=found).passed:
                self._suspects.remove(known)
                self._suspects.insert(0, known)  # try it first on the next failure
                return replace(result, cause=f"{known.name} ({known.meaning})")
        return replace(result, cause="" if suspects else None)

    def cast(self, weights: Mapping[str, Array]) -> Weights:
        """Return copies of the weights in the adapter's dtype."""
        return {name: weight.astype(self.dtype) for name, weight in weights.items()}

    def step(self, net: Net, trainer: Trainer, batch: Batch) -> tuple[float, int]:
        """Take one step of the chapter's trainer; return the sum of the losses and the number of correct labels."""
        l, correct = self.backend.trainer.train_batch_ch13(
            net, self.tensor(batch.X), self.labels(batch.y), self.loss, trainer, self.devices
        )
        to_numpy = self.backend.devices.to_numpy
        return float(to_numpy(l)), int(to_numpy(correct))

    def restore(
        self, net: Net, trainer: Trainer, weights: Mapping[str, Array], state: State
    ) -> None:
        """Set a network's weights and buffers, and its optimizer's state."""
        self.backend.weights.set_weights(net, self.cast(weights))
        if state.slots:
            slots = {slot: self.cast(arrays) for slot, arrays in state.slots.items()}
            self.backend.trainer.set_state(net, trainer, replace(state, slots=slots))


def all_float32(types: Collection[str]) -> bool:
    """Return whether ``types`` is not empty and contains only float32, in any framework's spelling."""
    return bool(types) and all("float32" in name for name in types)


@lru_cache(maxsize=2)
def drawn_weights(
    seed: int = 0,
    away_from_zero: bool = False,
    num_classes: int = NUM_CLASSES,
    in_channels: int = IN_CHANNELS,
    num_channels: int = NUM_CHANNELS,
) -> Weights:
    """Return random weights, none of them 0 or 1, with variances so small that BatchNorm's epsilon has an effect.

    With ``away_from_zero``, each BatchNorm shifts four of five channels above 0 and the fifth below 0, by two standard
    deviations. Most ReLU inputs are then far from 0. Otherwise about one ReLU in a hundred would open or close when
    bfloat16 rounds its input, and gradients would change by a third.

    The arrays are read-only because many checks share them.
    """
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    drawn: Array
    for name, weight in initial_weights(num_classes, in_channels, num_channels, seed).items():
        if name.endswith("running_var"):
            drawn = rng.uniform(0.02, 0.1, weight.shape)
        elif is_buffer(name) or name.endswith("bias"):
            drawn = rng.uniform(-0.1, 0.1, weight.shape)
        elif weight.ndim == 1:
            drawn = rng.uniform(0.5, 1.5, weight.shape)
        else:
            drawn = weight.astype(np.float64)
        if away_from_zero and name.endswith(BATCH_NORM_BIAS):
            scale = weights[name.replace("bias", "weight")]
            drawn = 2 * scale * rng.choice([1, 1, 1, 1, -1], drawn.shape)
        # Round to float32, so that both precisions start from the same numbers.
        weights[name] = drawn.astype(np.float32).astype(np.float64)
        weights[name].flags.writeable = False
    return weights


def random_batch(
    n: int,
    size: int | tuple[int, int],
    seed: int = 0,
    num_classes: int = NUM_CLASSES,
    in_channels: int = IN_CHANNELS,
) -> Batch:
    """Return n noise images and their labels, exact in float32; ``size`` is (height, width) or the side of a square."""
    rng = np.random.default_rng(seed)
    height, width = (size, size) if isinstance(size, int) else size
    X = rng.integers(0, 256, (n, in_channels, height, width)).astype(np.float32) / np.float32(255)
    return Batch(X.astype(np.float64), rng.integers(0, num_classes, n))
