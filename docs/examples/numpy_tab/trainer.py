"""The chapter-13 trainer in NumPy: one batch, all epochs, evaluation."""

import numpy as np

from common.errors import ONE_VALUE_PER_EXAMPLE
from common.labels import check_labels
from common.metrics import Accumulator, TrainingLog
from common.reference import SGD, Adam, layers

from .devices import describe
from .resnet import layers_by_name
from .weights import arrays_by_name


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example."""
    return _cross_entropy


def _cross_entropy(y_hat, y):
    return layers.cross_entropy(y_hat, y)[0]


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):  # noqa: ARG001
    """Return an Adam optimizer for a network's weights.

    It adds eps outside the bias correction, as PyTorch does.
    """
    return Adam(lr, betas, eps)


def sgd(net, lr, momentum=0.0, weight_decay=0.0):  # noqa: ARG001
    """Return an SGD optimizer with momentum and L2 decay of all weights.

    The momentum does not include the learning rate. The decay is added to the
    gradient.
    """
    return SGD(lr, momentum, weight_decay)


def set_learning_rate(trainer, lr):
    """Set the learning rate of an optimizer, from the next step on."""
    trainer.lr = lr


def get_state(net, trainer):  # noqa: ARG001
    """Return the state of this network's optimizer, in NumPy."""
    return trainer.state


def set_state(net, trainer, state):  # noqa: ARG001
    """Copy a state into this network's optimizer."""
    trainer.state = state


def freeze(net):
    """Train only the last layer of a network; all other weights stay.

    BatchNorm uses its running statistics, also in training, and does not
    update them. Call this before `prepare` and before you make the optimizer.
    """
    for name, layer in layers_by_name(net).items():
        layer.frozen = name != "fc"


def prepare(
    net, devices, precision="fp32", compile=False, sync_batch_norm=False
):
    """Prepare a network for devices, a precision and a compiler.

    Raises UserError for those that NumPy does not support.
    """
    describe(devices, precision, compile, sync_batch_norm)
    return net


def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without gradients.

    With `training`, BatchNorm uses the statistics of the batch and updates the
    running statistics, as in PyTorch.
    """
    return net(X, training)


def accuracy(y_hat, y):
    """Return the number of correct predictions, as a tensor on the device."""
    return (y_hat.argmax(axis=1) == y).sum()


def evaluate_accuracy_gpu(net, data_iter, device=None):  # noqa: ARG001
    """Compute the accuracy for a model on a dataset, in evaluation mode."""
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        metric.add(accuracy(predict(net, X), y), len(y))
    return metric[0] / metric[1]


def train_batch_ch13(net, X, y, loss, trainer, devices):  # noqa: ARG001
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` returns one value per example, and the step minimises their mean.
    Returns the sum of the losses and the number of correct predictions. Raises
    ValueError for a label that is no class. Differs: NumPy has no autograd;
    only the gradient of the cross-entropy is implemented.
    """
    pred, l = backpropagate(net, X, y, loss)
    weights = arrays_by_name(net, "weights")
    new = trainer.step(weights, arrays_by_name(net, "gradients"))
    for name, weight in new.items():
        weights[name][:] = weight
    return l.sum(), accuracy(pred, y)


def backpropagate(net, X, y, loss):
    """Compute the gradient of the mean loss; the layers keep it.

    Returns the logits and the losses.
    """
    pred = net(X, training=True)
    check_labels(y, pred.shape[1])
    l = loss(pred, y)
    if l.shape != y.shape:
        raise ValueError(ONE_VALUE_PER_EXAMPLE)
    losses, backward = layers.cross_entropy(pred, y)
    if not np.array_equal(l, losses, equal_nan=True):
        raise ValueError("NumPy trains with the cross-entropy only")
    (dY,) = backward(np.full(len(y), 1 / len(y), pred.dtype))
    net.backward(dY)
    return pred, l


def train_ch13(
    net,
    train_iter,
    test_iter,
    loss,
    trainer,
    num_epochs,
    devices,
    animator=None,
    first_epoch=0,
):
    """Train a model with multiple GPUs (defined in Chapter 13).

    Reports each epoch to `animator`, by default the book's plot; see
    common.metrics.TrainingLog. Prints the chapter's closing lines and returns
    their numbers as a TrainingSummary. `first_epoch` epochs were done before:
    `net` and `trainer` are those after them.
    """
    log = TrainingLog(num_epochs, devices, animator)
    for epoch in range(first_epoch, num_epochs):
        for X, y in log.batches(train_iter, epoch):
            l, acc = train_batch_ch13(net, X, y, loss, trainer, devices)
            log.add(l, acc, len(y))
        log.end_epoch(evaluate_accuracy_gpu(net, test_iter))
    return log.close()
