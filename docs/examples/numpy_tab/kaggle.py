"""The Kaggle chapter in NumPy: its training, and the test labels."""

import numpy as np

from common.metrics import KaggleSummary, Timer
from common.plotting import Animator

from .trainer import (
    cross_entropy,
    evaluate_accuracy_gpu,
    predict,
    set_learning_rate,
    sgd,
    train_epoch,
)


def train(
    net,
    train_iter,
    valid_iter,
    num_epochs,
    lr,
    wd,
    devices,
    lr_period,
    lr_decay,
    animator=None,
):
    """Train with a learning rate that falls in steps (14.13.5).

    Gradient descent with momentum 0.9 and weight decay `wd` on the mean of
    the losses; after each `lr_period` epochs the learning rate is multiplied
    by `lr_decay`. Validates after each epoch, unless `valid_iter` is None: as
    where the network learns from all labelled images. Reports to `animator`
    as train_ch13 does; prints the closing lines and returns them as a
    KaggleSummary.
    """
    loss = cross_entropy()
    trainer = sgd(net, lr, momentum=0.9, weight_decay=wd)
    timer, total = Timer(), Timer()
    if animator is None:
        legend = ["train loss", "train acc", "valid acc"]
        animator = Animator(
            xlabel="epoch",
            xlim=[1, num_epochs],
            legend=legend if valid_iter is not None else legend[:2],
        )
    examples, valid_acc = 0, None
    for epoch in range(num_epochs):
        if epoch > 0 and epoch % lr_period == 0:
            set_learning_rate(trainer, trainer.lr * lr_decay)
        train_loss, train_acc, count = train_epoch(
            net, train_iter, loss, trainer, devices, epoch, timer, animator
        )
        if valid_iter is not None:
            valid_acc = evaluate_accuracy_gpu(net, valid_iter)
            animator.add(epoch + 1, (None, None, valid_acc))
        examples += count
    summary = KaggleSummary(
        train_loss,
        train_acc,
        valid_acc,
        examples,
        step_seconds=timer.sum(),
        seconds=total.stop(),
        devices=str(devices),
    )
    print(summary)
    return summary


def predict_labels(net, test_iter):
    """Return the label of each image of the batches, int64 (n,), in NumPy.

    In evaluation mode.
    """
    labels = [predict(net, X).argmax(axis=1) for X, _ in test_iter]
    return np.concatenate(labels)
