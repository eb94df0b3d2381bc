"""The Kaggle chapter in PyTorch: its training, and the test labels."""

import torch

from common.finite import labels_of
from common.metrics import KaggleSummary, TrainingLog

from ._wrappers import on_devices
from .processes import average_buffers, total
from .trainer import (
    cross_entropy,
    evaluate_accuracy_gpu,
    predict,
    set_learning_rate,
    sgd,
    train_batch_ch13,
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
    trainer=None,
    first_epoch=0,
):
    """Train with a learning rate that falls in steps (14.13.5).

    Uses SGD with momentum 0.9 and weight decay `wd` on the mean loss. Every
    `lr_period` epochs the learning rate is multiplied by `lr_decay`. Validates
    after each epoch unless `valid_iter` is None, as when training on all
    labelled images. Reports to `animator` as train_ch13 does. Prints the
    closing lines and returns their numbers as a KaggleSummary.

    `first_epoch` epochs were done before: `net` and `trainer` are those after
    them.
    """
    net = on_devices(net, devices)
    loss = cross_entropy()
    trainer = trainer or sgd(net, lr, momentum=0.9, weight_decay=wd)
    log = TrainingLog(num_epochs, devices, animator, KaggleSummary, total)
    for epoch in range(first_epoch, num_epochs):
        set_learning_rate(trainer, lr * lr_decay ** (epoch // lr_period))
        for X, y in log.batches(train_iter, epoch):
            l, acc = train_batch_ch13(net, X, y, loss, trainer, devices)
            log.add(l, acc, len(y))
        average_buffers(net)
        valid_acc = None
        if valid_iter is not None:
            valid_acc = evaluate_accuracy_gpu(net, valid_iter)
        log.end_epoch(valid_acc, trainer.param_groups[0]["lr"])
    return log.close()


def predict_labels(net, test_iter):
    """Return the predicted label of each image, an int64 NumPy array (n,).

    Runs in evaluation mode and without gradients; the book's tab does neither.
    """
    logits = [predict(net, X).cpu() for X, _ in test_iter]
    return labels_of(torch.cat(logits).numpy())
