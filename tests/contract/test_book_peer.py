"""Compare our network and our step with the book's own library: they give the same bits.

PyPI's d2l 1.0.3 has the book's code for PyTorch and MXNet, and these tests import it unchanged. Both sides start from
the same weights and train ten steps of SGD on the same batches, in float64. The losses, the number of correct
predictions, the weights and BatchNorm's running statistics are equal to the bit.

Two things must be right for that:

* The book's PyTorch step minimises the sum of the losses, ours the mean. So the book's learning rate is divided by the
size of the batch. Sizes and rates are powers of two, where dividing is exact. The book's MXNet step minimises the mean,
as `gluon.Trainer.step` divides by the size of the batch. * d2l.mxnet imports MXNet 1.9.1, which uses `np.bool` and
other names that NumPy 1.24 removed. By itself, its import fails with an AttributeError. After `from backends import
mxnet` it imports and runs.

d2l.tensorflow is not compared: the book has no chapter 13 for TensorFlow, so there is no `train_batch_ch13` in it.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import filled_weights, load_or_skip, random_dataset, required

# The sizes of ten batches: all the same, or some smaller.
EVEN = (8,) * 10
UNEVEN = (8, 8, 8, 4, 8, 8, 8, 4, 8, 2)
LR, MOMENTUM = 2**-7, 7 / 8  # exact in float32, to which MXNet's optimizers round
# d2l imports these packages only to draw. They come with the docs group; IPython needs 40 MB of others.
DRAWING = {"IPython": "display", "matplotlib_inline": "backend_inline"}


def import_book(framework: str) -> ModuleType:
    """Import the book's library, with an empty module for each drawing package that is not installed."""
    if find_spec("d2l") is None:
        absent = pytest.fail if required() else pytest.skip
        absent("d2l is not installed: pip install --no-deps d2l==1.0.3")
    with pytest.MonkeyPatch.context() as patch:
        for package, name in DRAWING.items():
            if find_spec(package) is None:
                stand_in = ModuleType(package)
                setattr(stand_in, name, None)
                patch.setitem(sys.modules, package, stand_in)
        return import_module(f"d2l.{framework}")


class PyTorch:
    """This project's PyTorch code and the book's."""

    sums_the_losses = True

    def __init__(self):
        load_or_skip("pytorch")
        self.ours, self.book = import_module("backends.pytorch"), import_book("torch")

    def networks(self) -> tuple[Any, Any]:
        """Return our network and the book's, with the same weights, in float64."""
        import torch

        net, book_net = self.ours.resnet18(10), self.book.resnet18(10, 3)
        self.ours.BACKEND.weights.set_weights(net, filled_weights(10))
        book_net(torch.zeros(2, 3, 8, 8))  # its layers are lazy
        weights = net.state_dict()
        book_net.load_state_dict({self.book_name(name): weights[name] for name in weights})
        return net.double(), book_net.double()

    def book_name(self, name: str) -> str:
        """Return the book's name of a weight, which differs outside the residual blocks."""
        layer, _, rest = name.partition(".")
        return ".".join([{"conv": "0", "bn": "1", "fc": "fc.1"}.get(layer, layer), rest])

    def weights(self, net: Any) -> list[np.ndarray]:
        return [value.numpy().copy() for value in net.state_dict().values()]

    def tensors(self, images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        import torch

        return torch.as_tensor(images), torch.as_tensor(labels)

    def loss(self) -> Any:
        from torch import nn

        return nn.CrossEntropyLoss(reduction="none")

    def sgd(self, net: Any, momentum: float) -> Any:
        import torch

        return torch.optim.SGD(net.parameters(), lr=LR, momentum=momentum)

    def set_learning_rate(self, trainer: Any, lr: float) -> None:
        trainer.param_groups[0]["lr"] = lr

    def logits(self, net: Any, X: Any, training: bool) -> np.ndarray:
        import torch

        net.train(training)
        with torch.no_grad():
            return net(X).numpy()


class MXNet:
    """This project's MXNet code and the book's."""

    sums_the_losses = False

    def __init__(self):
        load_or_skip("mxnet")  # d2l.mxnet needs what this import repairs
        self.ours, self.book = import_module("backends.mxnet"), import_book("mxnet")

    def networks(self) -> tuple[Any, Any]:
        """Return our network and the book's, with the same weights, in float64."""
        net, book_net = self.ours.resnet18(10), self.book.resnet18(10)
        self.ours.BACKEND.weights.set_weights(net, filled_weights(10))
        with TemporaryDirectory() as folder:
            net.save_parameters(f"{folder}/net.params")
            book_net.load_parameters(f"{folder}/net.params")  # all names and shapes are the same
        for each in (net, book_net):
            each.cast("float64")
        return net, book_net

    def weights(self, net: Any) -> list[np.ndarray]:
        return list(self.ours.BACKEND.weights.get_weights(net).values())

    def tensors(self, images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
        from mxnet import np as mx_np

        return mx_np.array(images, dtype="float64"), mx_np.array(labels, dtype="int64")

    def loss(self) -> Any:
        from mxnet import gluon

        return gluon.loss.SoftmaxCrossEntropyLoss()

    def sgd(self, net: Any, momentum: float) -> Any:
        from mxnet import gluon

        settings = {"learning_rate": LR, "momentum": momentum}
        return gluon.Trainer(net.collect_params(), "sgd", settings)

    def set_learning_rate(self, trainer: Any, lr: float) -> None:
        trainer.set_learning_rate(lr)

    def logits(self, net: Any, X: Any, training: bool) -> np.ndarray:
        from mxnet import autograd

        with autograd.pause(train_mode=training):
            return net(X).asnumpy()


Peer = PyTorch | MXNet


@pytest.fixture(params=[PyTorch, MXNet], ids=["pytorch", "mxnet"], scope="module")
def peer(request: pytest.FixtureRequest) -> Peer:
    """This project's and the book's library in one framework."""
    return request.param()


def batches(peer: Peer, sizes: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """Return noise images in [0, 1) and labels of ten classes, in batches of these sizes."""
    data, edges = random_dataset(sum(sizes), size=8), np.cumsum(sizes)[:-1]
    images = np.split(data.images.transpose(0, 3, 1, 2) / 256, edges)
    labels = np.split(data.labels, edges)
    return [peer.tensors(X, y) for X, y in zip(images, labels, strict=True)]


def number(value: Any) -> float:
    return value.item() if hasattr(value, "item") else value


class Training:
    """This project's network and the book's side by side, with the same weights."""

    def __init__(self, peer: Peer, momentum: float):
        self.peer = peer
        self.nets = dict(zip(("ours", "book"), peer.networks(), strict=True))
        self.trainers = {who: peer.sgd(net, momentum) for who, net in self.nets.items()}
        self.losses = dict.fromkeys(self.nets, peer.loss())

    def step(self, who: str, X: Any, y: Any, lr: float = LR) -> tuple[float, float]:
        """Train for one batch, and return the sum of the losses and the number of correct predictions."""
        net, trainer = self.nets[who], self.trainers[who]
        devices = [self.peer.ours.cpu()]
        self.peer.set_learning_rate(trainer, lr)
        train_batch = getattr(self.peer, who).train_batch_ch13
        l, correct = train_batch(net, X, y, self.losses[who], trainer, devices)
        return number(l), number(correct)

    def weights(self, who: str) -> list[np.ndarray]:
        return self.peer.weights(self.nets[who])

    def assert_same_weights(self) -> None:
        for ours, book in zip(self.weights("ours"), self.weights("book"), strict=True):
            np.testing.assert_array_equal(ours, book)


@pytest.mark.parametrize(
    ("sizes", "momentum"),
    [(UNEVEN, 0), (EVEN, MOMENTUM)],
    ids=["plain, uneven batches", "momentum"],
)
def test_ten_steps_of_sgd_are_the_book_s_to_the_bit(peer, sizes, momentum):
    training = Training(peer, momentum)
    before = training.weights("ours")
    for X, y in batches(peer, sizes):
        lr = LR / len(y) if peer.sums_the_losses else LR
        assert training.step("ours", X, y) == training.step("book", X, y, lr)
    training.assert_same_weights()
    # Every weight and every running statistic has changed.
    after = training.weights("ours")
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("wrong", ["the rate of the other objective", "one size for all batches"])
def test_another_learning_rate_is_rejected(peer, wrong):
    """The comparison can fail: the second step's loss shows the effect of the first step."""
    training = Training(peer, 0)
    sizes = (4, 8)
    for i, (X, y) in enumerate(batches(peer, sizes)):
        if wrong == "one size for all batches":
            lr = LR / max(sizes) if peer.sums_the_losses else LR * len(y) / max(sizes)
        else:
            lr = LR if peer.sums_the_losses else LR / len(y)
        same = training.step("ours", X, y) == training.step("book", X, y, lr)
        assert same == (i == 0)
    with pytest.raises(AssertionError, match="not equal"):
        training.assert_same_weights()


def test_momentum_over_uneven_batches_needs_the_loss_divided(peer):
    """Momentum sums gradients of several batches. No learning rate turns a sum of sums into a sum of means."""
    training, loss = Training(peer, MOMENTUM), peer.loss()
    if peer.sums_the_losses:
        training.losses["book"] = lambda y_hat, y: loss(y_hat, y) / len(y)
    for X, y in batches(peer, UNEVEN):
        ours, (l, correct) = training.step("ours", X, y), training.step("book", X, y)
        assert ours == (l * len(y) if peer.sums_the_losses else l, correct)
    training.assert_same_weights()


@pytest.mark.parametrize("training", [False, True], ids=["evaluation mode", "training mode"])
def test_the_network_s_logits_are_the_book_s_to_the_bit(peer, training):
    ((X, _),) = batches(peer, (8,))
    ours, book = (peer.logits(net, X, training) for net in peer.networks())
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(ours, book)


def test_accuracy_is_the_book_s(peer):
    net, book_net = peer.networks()
    data_iter = []
    for X, y in batches(peer, (8, 8, 4)):
        y_hat = peer.logits(net, X, training=False)
        labels = y_hat.argmax(1)
        labels[1::2] += 1  # half of them correct
        X, y = peer.tensors(X, labels % 10)
        y_hat, _ = peer.tensors(y_hat, labels)
        assert number(peer.ours.accuracy(y_hat, y)) == peer.book.accuracy(y_hat, y) == len(y) / 2
        data_iter.append((X, y))
    names = ["evaluate_accuracy_gpu"]
    names += ["evaluate_accuracy_gpus"] if isinstance(peer, MXNet) else []
    for name in names:
        ours, book = getattr(peer.ours, name), getattr(peer.book, name)
        assert ours(net, data_iter) == book(book_net, data_iter) == 0.5
