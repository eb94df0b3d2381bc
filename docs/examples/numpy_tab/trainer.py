"""The chapter-13 trainer in NumPy: one batch, all epochs, evaluation."""

from dataclasses import replace

import numpy as np

from common.metrics import (
    Accumulator,
    Timer,
    TrainingSummary,
    reporting_points,
)
from common.plotting import Animator
from common.reference import ALIGNED, SGD, Adam, layers

from .devices import describe
from .weights import arrays_by_name


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example."""
    return _cross_entropy


def _cross_entropy(y_hat, y):
    return layers.cross_entropy(y_hat, y)[0]


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):  # noqa: ARG001
    """Return the Adam optimizer of a network's weights.

    With eps outside the bias correction, as in PyTorch.
    """
    return Adam(lr, betas, replace(ALIGNED, adam_epsilon=eps))


def sgd(net, lr, momentum=0.0, weight_decay=0.0):  # noqa: ARG001
    """Return gradient descent with momentum and L2 decay of all weights.

    The learning rate stays out of the momentum; the decay is added to the
    gradient.
    """
    return SGD(lr, momentum, weight_decay)


def set_learning_rate(trainer, lr):
    """Change the learning rate of an optimizer, from the next step on."""
    trainer.lr = lr


def prepare(net, devices, precision="fp32", compile=False):
    """Return the network ready for the devices, a precision and a compiler.

    Raises UserError for those that NumPy does not have.
    """
    describe(devices, precision, compile)
    return net


def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without a graph.

    With `training` BatchNorm uses the statistics of the batch, and moves the
    running ones, as in PyTorch.
    """
    return net(X, training)


def accuracy(y_hat, y):
    """Return the number of correct predictions, still on the device."""
    return (y_hat.argmax(axis=1) == y).sum()


def evaluate_accuracy_gpu(net, data_iter, device=None):  # noqa: ARG001
    """Compute the accuracy for a model on a dataset, in evaluation mode."""
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        metric.add(accuracy(predict(net, X), y), len(y))
    return metric[0] / metric[1]


def split_batch(X, y, devices):
    """Split X and y into a part for each device, as even as can be."""
    return np.array_split(X, len(devices)), np.array_split(y, len(devices))


def train_batch_ch13(net, X, y, loss, trainer, devices):  # noqa: ARG001
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` gives one value per example, and their mean is minimised. Returns
    the sum of the losses and the number of correct predictions, still on
    the device. Differs: NumPy finds no gradient by itself, and the one that
    is written down is the cross-entropy's.
    """
    pred, l = backpropagate(net, X, y, loss)
    weights = arrays_by_name(net, "weights")
    new = trainer.step(weights, arrays_by_name(net, "gradients"))
    for name, weight in new.items():
        weights[name][:] = weight
    return l.sum(), accuracy(pred, y)


def backpropagate(net, X, y, loss):
    """Leave the gradient of the mean loss in the network's layers.

    Returns the logits and the losses.
    """
    pred = net(X, training=True)
    l = loss(pred, y)
    if l.shape != y.shape:
        raise ValueError("loss must give one value per example")
    losses, backward = layers.cross_entropy(pred, y)
    if not np.array_equal(l, losses, equal_nan=True):
        raise ValueError("NumPy trains with the cross-entropy alone")
    (dY,) = backward(np.full(len(y), 1 / len(y), pred.dtype))
    net.backward(dY)
    return pred, l


def train_epoch(
    net, train_iter, loss, trainer, devices, epoch, timer, animator
):
    """Train for one epoch; return the mean loss, the accuracy, the examples.

    About five times it reports loss and accuracy so far to `animator`.
    """
    num_batches = len(train_iter)
    reports = reporting_points(num_batches)
    # Sum of losses, number of correct predictions, number of examples
    metric = Accumulator(3)
    for i, (features, labels) in enumerate(train_iter, start=1):
        timer.start()
        l, acc = train_batch_ch13(
            net, features, labels, loss, trainer, devices
        )
        metric.add(l, acc, len(labels))
        if i in reports:
            train_loss = metric[0] / metric[2]
            train_acc = metric[1] / metric[2]
        timer.stop()
        if i in reports:
            x = epoch + i / num_batches
            animator.add(x, (train_loss, train_acc, None))
    return train_loss, train_acc, int(metric[2])


def train_ch13(
    net,
    train_iter,
    test_iter,
    loss,
    trainer,
    num_epochs,
    devices,
    animator=None,
):
    """Train a model with multiple GPUs (defined in Chapter 13).

    Reports about five times an epoch to `animator`, by default the book's
    plot. Prints the chapter's closing lines and returns them as a
    TrainingSummary.
    """
    timer, total = Timer(), Timer()
    if animator is None:
        animator = Animator(
            xlabel="epoch",
            xlim=[1, num_epochs],
            ylim=[0, 1],
            legend=["train loss", "train acc", "test acc"],
        )
    examples = 0
    for epoch in range(num_epochs):
        train_loss, train_acc, count = train_epoch(
            net, train_iter, loss, trainer, devices, epoch, timer, animator
        )
        test_acc = evaluate_accuracy_gpu(net, test_iter)
        animator.add(epoch + 1, (None, None, test_acc))
        examples += count
    summary = TrainingSummary(
        train_loss,
        train_acc,
        test_acc,
        examples,
        step_seconds=timer.sum(),
        seconds=total.stop(),
        devices=str(devices),
    )
    print(summary)
    return summary
