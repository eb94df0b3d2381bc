"""A user's own optimizer and the framework's own loss train a network with `train_ch13`.

The network is as `resnet18` returns it, without `prepare`. Optimizers and losses are made here as a user of the framework
makes them. RMSprop is one that this project has no function for.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Recorder, bright_dataset, without_tracing

from common.interface import Backend
from common.weights import initial_weights

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
# One value for a batch: the default of PyTorch and of Keras. What the error says to pass instead.
LOSSES_OF_A_BATCH: dict[str, tuple[Callable[[], Any], str]] = {
    "pytorch": (torch_loss, "reduction='none'"),
    "mxnet": (gluon_mean, "one value per example"),
    "tensorflow": (keras_loss, "reduction='none'"),
}


@pytest.fixture(autouse=True)
def eager(request: pytest.FixtureRequest) -> Iterator[None]:
    """TensorFlow traces a graph for Adam, where its variables are made, and for the second optimizer of a network."""
    traced = any(word in request.node.name for word in ("adam", "second"))
    with without_tracing("" if traced or "tensorflow" not in request.node.name else "tensorflow"):
        yield


def network(backend: Backend) -> Any:
    net = backend.resnet.resnet18(2)
    backend.weights.set_weights(net, initial_weights(2))
    return net


def train(backend: Backend, net: Any, loss: Any, trainer: Any, num_epochs: int = 8) -> Any:
    """Train on 88 images in batches of 16; the last batch of an epoch is half as large."""
    load = backend.loaders.load_batched
    train_iter = load(bright_dataset(88, 0), (), 16, True)
    test_iter = load(bright_dataset(20, 1), (), 16, False)
    devices = [backend.devices.cpu()]
    return backend.trainer.train_ch13(
        net, train_iter, test_iter, loss, trainer, num_epochs, devices, Recorder()
    )


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_user_s_own_optimizer_and_loss_learn(backend, optimizer):
    net = network(backend)
    trainer = OPTIMIZERS[backend.name][optimizer](net)
    summary = train(backend, net, LOSSES[backend.name](), trainer)
    assert summary.train_acc > 0.95
    assert summary.test_acc > 0.95
    assert summary.loss < 0.2


def test_the_own_adam_takes_the_steps_of_ours(backend):
    """At its own defaults but for Keras' epsilon, which is 1e-7."""
    weights = []
    for make in (backend.trainer.adam, OPTIMIZERS[backend.name]["adam"]):
        net = network(backend)
        train(backend, net, LOSSES[backend.name](), make(net), 1)
        weights.append(backend.weights.get_weights(net)["fc.bias"])
    np.testing.assert_allclose(*weights, rtol=1e-2)


def test_a_second_optimizer_of_the_same_network_learns_on(backend):
    net, loss = network(backend), LOSSES[backend.name]()
    makers = OPTIMIZERS[backend.name]
    first = train(backend, net, loss, makers["adam"](net), 1)
    second = train(backend, net, loss, makers["rmsprop"](net), 4)
    assert second.loss < first.loss


def test_a_loss_of_one_value_for_the_batch_is_refused(backend):
    """In one line, which says what to pass."""
    make, says = LOSSES_OF_A_BATCH[backend.name]
    net = network(backend)
    trainer = OPTIMIZERS[backend.name]["adam"](net)
    with pytest.raises(ValueError, match="one value per example") as error:
        train(backend, net, make(), trainer, 1)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
