"""A user's own optimizer and the framework's own loss train a network with `train_ch13`.

The network is as `resnet18` returns it, without `prepare`. Each test makes its optimizer and its loss as a user of the
framework does. This project has a function for Adam, and none for RMSprop.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Recorder, bright_dataset, without_tracing

from common.interface import Backend
from common.metrics import Epoch
from common.weights.canonical import initial_weights

LR = 1e-3


def torch_adam(net):
    import torch

    return torch.optim.Adam(net.parameters(), lr=LR)


def torch_rmsprop(net):
    import torch

    return torch.optim.RMSprop(net.parameters(), lr=LR)


def torch_loss(**settings):
    from torch import nn

    return nn.CrossEntropyLoss(**settings)


def gluon_adam(net):
    from mxnet import gluon

    return gluon.Trainer(net.collect_params(), "adam", {"learning_rate": LR})


def gluon_rmsprop(net):
    from mxnet import gluon

    return gluon.Trainer(net.collect_params(), "rmsprop", {"learning_rate": LR})


def gluon_loss():
    from mxnet import gluon

    return gluon.loss.SoftmaxCrossEntropyLoss()


def keras_adam(net):
    import keras

    return keras.optimizers.Adam(LR)


def keras_rmsprop(net):
    import keras

    return keras.optimizers.RMSprop(LR)


def keras_loss(**settings):
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **settings)


def gluon_mean():
    """Return a loss of one value: Gluon's own losses have none by default."""
    loss = gluon_loss()
    return lambda y_hat, y: loss(y_hat, y).mean()


OPTIMIZERS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "pytorch": {"adam": torch_adam, "rmsprop": torch_rmsprop},
    "mxnet": {"adam": gluon_adam, "rmsprop": gluon_rmsprop},
    "tensorflow": {"adam": keras_adam, "rmsprop": keras_rmsprop},
}
LOSSES: dict[str, Callable[[], Any]] = {
    "pytorch": lambda: torch_loss(reduction="none"),
    "mxnet": gluon_loss,
    "tensorflow": lambda: keras_loss(reduction="none"),
}
# A loss with one value for a batch, the default of PyTorch and Keras. The argument that the error message recommends.
LOSSES_OF_A_BATCH: dict[str, tuple[Callable[[], Any], str]] = {
    "pytorch": (torch_loss, "reduction='none'"),
    "mxnet": (gluon_mean, "one value per example"),
    "tensorflow": (keras_loss, "reduction='none'"),
}


@pytest.fixture(autouse=True)
def eager(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trace TensorFlow's graphs only in the tests about them, because tracing takes seconds."""
    traced = any(word in request.node.name for word in ("one_after_the_other", "refused"))
    eagerly = "tensorflow" in request.node.name and not traced
    with without_tracing("tensorflow" if eagerly else ""):
        yield


def network(backend: Backend) -> Any:
    net = backend.resnet.resnet18(2)
    backend.weights.set_weights(net, initial_weights(2))
    return net


def train(backend: Backend, net: Any, loss: Any, trainer: Any, num_epochs: int) -> list[Epoch]:
    """Train on 88 images in batches of 16, the last with 8; return the report of each epoch."""
    load, recorder = backend.loaders.load_batched, Recorder()
    train_iter = load(bright_dataset(88, 0), (), 16, True)
    test_iter = load(bright_dataset(16, 1), (), 16, False)
    devices = [backend.devices.cpu()]
    backend.trainer.train_ch13(
        net, train_iter, test_iter, loss, trainer, num_epochs, devices, recorder
    )
    return recorder.epochs


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_user_s_own_optimizer_and_loss_learn(backend, optimizer):
    net = network(backend)
    trainer = OPTIMIZERS[backend.name][optimizer](net)
    epochs = train(backend, net, LOSSES[backend.name](), trainer, 3)
    # The best epoch: at this size the loss of a few batches may jump after everything has been learnt.
    assert min(epoch.train_loss for epoch in epochs) < 0.1
    assert max(epoch.train_acc for epoch in epochs) > 0.95


def test_two_optimizers_train_a_network_one_after_the_other(backend):
    """In TensorFlow both are traced: a graph may make an optimizer's variables in its first trace only."""
    net, loss = network(backend), LOSSES[backend.name]()
    for make in OPTIMIZERS[backend.name].values():
        before = backend.weights.get_weights(net)["fc.weight"]
        train(backend, net, loss, make(net), 1)
        assert (backend.weights.get_weights(net)["fc.weight"] != before).any()


def test_a_loss_of_one_value_for_the_batch_is_refused(backend):
    """The error is one line, which says what to pass."""
    make, says = LOSSES_OF_A_BATCH[backend.name]
    net = network(backend)
    trainer = OPTIMIZERS[backend.name]["adam"](net)
    with pytest.raises(ValueError, match="one value per example") as error:
        train(backend, net, make(), trainer, 1)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
