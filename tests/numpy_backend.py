"""A fourth backend, in NumPy, on top of the arbiter: right unless it is told how to be wrong.

In bf16 it rounds what the frameworks round: the operands and results of convolutions and products, and the results of
the layers between them.

The parity checks are themselves checked with it: as it is it must pass all of them, and each deliberate mistake must be
rejected by the checks that are meant for it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from common.augmentation.decisions import Normalizes, decide, epoch_batches
from common.interface import Backend, Framework
from common.reference import ALIGNED, SGD, Adam, Conventions, layers, resnet, transforms
from common.reference.training import gradients
from common.weights.canonical import initial_weights


@dataclass
class Net:
    """A network: its weights, in the precision it computes in, or float32 where that is bfloat16: ``mixed``."""

    weights: dict[str, np.ndarray]
    mixed: bool = False

    @property
    def kind(self) -> np.dtype:
        return self.weights["conv.weight"].dtype


class Batches:
    def __init__(self, dataset, augs, batch_size, is_train, seed, augment):
        self.dataset, self.augs, self.batch_size = dataset, augs, batch_size
        self.is_train, self.seed, self.augment = is_train, seed, augment
        self.epoch = 0

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        size = self.dataset.images.shape[1:3]
        n = len(self.dataset)
        for indices in epoch_batches(n, self.batch_size, self.seed, epoch, self.is_train):
            X = np.moveaxis(self.dataset.images[indices] / np.float32(255), -1, 1)
            decisions = decide(self.augs, indices, self.seed, epoch, size)
            yield self.augment(X, decisions).astype(np.float32), self.dataset.labels[indices]


def to_bfloat16(X: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16, of two as near to the even one: that is its upper 16 bits."""
    bits = np.ascontiguousarray(X, np.float32).view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + 0x7FFF + odd) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def in_bfloat16(layer: Callable[..., Any], operands: int) -> Callable[..., Any]:
    """A layer whose first operands are rounded, its result, and its gradients on the way back."""

    def rounding(*arguments: Any) -> Any:
        rounded = [to_bfloat16(operand) for operand in arguments[:operands]]
        Y, backward = layer(*rounded, *arguments[operands:])
        return to_bfloat16(Y), lambda dY: tuple(map(to_bfloat16, backward(to_bfloat16(dY))))

    return rounding


@contextlib.contextmanager
def precision_of(net: Net) -> Iterator[None]:
    """Have the arbiter's layers compute as this network is prepared to."""
    operands = {"conv2d": 3, "dense": 3, "batch_norm": 1, "relu": 1, "global_avg_pool": 1}
    rounding = {name: in_bfloat16(getattr(layers, name), n) for name, n in operands.items()}
    with mock.patch.multiple(layers, **rounding) if net.mixed else contextlib.nullcontext():
        yield


def numpy_backend(
    conventions: Conventions = ALIGNED,
    declared: Conventions = ALIGNED,
    augment_floats: Callable[..., Any] = transforms.augment,
    seen: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda weights: weights,
) -> Backend:
    """Return a backend that computes by ``conventions`` and says that it computes by ``declared``.

    ``augment_floats`` stands in for the arbiter's `transforms.augment`; ``seen`` returns the weights that the network
    computes with, given those that it has.
    """

    def forward(net, X, training):
        with precision_of(net):
            return resnet.forward(seen(net.weights), X, training, conventions)

    def backward(net, X, y):
        with precision_of(net):
            return gradients(seen(net.weights), X, y, conventions)

    def augmented(X, decisions):
        return augment_floats(X, decisions, conventions)

    def augment(X, decisions):
        Y = augmented(X / 255 if X.dtype == np.uint8 else X, decisions)
        if X.dtype != np.uint8:
            return Y.astype(X.dtype)
        if any(isinstance(decision, Normalizes) for decision in decisions):
            return Y.astype(np.float32)
        return transforms.to_levels(Y, conventions)

    def load_batched(dataset, augs, batch_size, is_train, seed=0, device=None):
        return Batches(dataset, augs, batch_size, is_train, seed, augmented)

    def load_native(dataset, augs, batch_size, is_train, seed=0, num_workers=0):
        return Batches(dataset, augs, batch_size, is_train, seed, augmented)

    def resnet18(num_classes, in_channels=3, num_channels=64):
        return Net(initial_weights(num_classes, in_channels, num_channels))

    def in_float64(net):
        return Net({name: weight.astype(np.float64) for name, weight in net.weights.items()})

    def set_weights(net, weights):
        net.weights = {name: weights[name].astype(net.kind) for name in net.weights}

    def predict(net, X, training=False):
        return forward(net, X, training).logits

    def evaluate_accuracy_gpu(net, data_iter, device=None):
        right = [(resnet.correct(predict(net, X), y), len(y)) for X, y in data_iter]
        return sum(r for r, _ in right) / sum(n for _, n in right)

    def train_batch_ch13(net, X, y, loss, trainer, devices):
        found, _, passed = backward(net, X, y)
        losses = loss(passed.logits, y)
        buffers = resnet.updated_buffers(net.weights, passed, conventions)
        after = trainer.step(net.weights, found) | buffers
        net.weights = {name: after[name] for name in net.weights}
        return losses.sum(), np.array(resnet.correct(passed.logits, y))

    def prepare(net, devices, precision="fp32", compile=False):
        return Net(net.weights, mixed=precision == "bf16")

    def set_learning_rate(trainer, lr):
        trainer.lr = lr

    def set_state(net, trainer, state):
        trainer.state = state

    def array(X, device: Any = None):
        return X

    # What each file of a backend offers to the checks.
    return Backend(
        Framework("numpy", "NumPy", ("numpy",)),
        devices=SimpleNamespace(
            image_layout="NCHW",
            cpu=lambda: "cpu",
            describe=lambda devices, precision="fp32", compile=False: {"precision": precision},
            from_numpy=array,
            to_numpy=array,
        ),
        transforms=SimpleNamespace(
            augment=augment, to_float=lambda X: (X / 255).astype(np.float32)
        ),
        loaders=SimpleNamespace(load_batched=load_batched, load_native=load_native),
        resnet=SimpleNamespace(resnet18=resnet18),
        weights=SimpleNamespace(
            get_weights=lambda net: {n: w.copy() for n, w in net.weights.items()},
            set_weights=set_weights,
        ),
        trainer=SimpleNamespace(
            cross_entropy=lambda: lambda y_hat, y: layers.cross_entropy(y_hat, y)[0],
            adam=lambda net, lr=1e-3, betas=(0.9, 0.999): Adam(lr, betas, conventions=conventions),
            sgd=lambda net, lr, momentum=0.0, weight_decay=0.0: SGD(
                lr, momentum, weight_decay, conventions
            ),
            set_learning_rate=set_learning_rate,
            prepare=prepare,
            predict=predict,
            evaluate_accuracy_gpu=evaluate_accuracy_gpu,
            train_batch_ch13=train_batch_ch13,
        ),
        kaggle=SimpleNamespace(),
        probes=SimpleNamespace(
            CONVENTIONS=declared,
            labels_first=False,
            in_float64=in_float64,
            activations=lambda net, X, training=False: forward(net, X, training).activations,
            gradients=lambda net, X, y, loss: backward(net, X, y)[0],
            get_state=lambda net, trainer: trainer.state,
            set_state=set_state,
        ),
    )


def changed(backend: Backend, file: str, **functions: Any) -> Backend:
    """Return the backend with some functions of one file replaced."""
    module = getattr(backend, file)
    names = {name: getattr(module, name) for name in dir(module) if not name.startswith("__")}
    return replace(backend, **{file: SimpleNamespace(**(names | functions))})
