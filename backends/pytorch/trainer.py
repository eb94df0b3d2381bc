"""The chapter-13 trainer in PyTorch: one batch, all epochs, evaluation."""

import torch
from torch import nn

from common.metrics import (
    Accumulator,
    Timer,
    TrainingSummary,
    reporting_points,
)
from common.plotting import Animator

from ._cuda_graph import OneGraph


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example."""
    return nn.CrossEntropyLoss(reduction="none")


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Return the Adam optimizer of a network's weights.

    Differs: PyTorch adds eps outside the bias correction, MXNet and Keras
    inside.
    """
    return torch.optim.Adam(
        net.parameters(),
        lr=lr,
        betas=betas,
        eps=eps,
        fused=True,
        capturable=isinstance(net, OneGraph),
    )


def sgd(net, lr, momentum=0.0, weight_decay=0.0):
    """Return gradient descent with momentum and L2 decay of all weights.

    The learning rate stays out of the momentum, as in Sutskever et al. 2013
    without their Nesterov form; the decay is added to the gradient.
    """
    return torch.optim.SGD(
        net.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
    )


def set_learning_rate(trainer, lr):
    """Change the learning rate of an optimizer, from the next step on."""
    for group in trainer.param_groups:
        group["lr"] = lr


def prepare(net, devices, precision="fp32", compile=False):
    """Return the network ready for the devices, a precision and a compiler.

    The weights stay those of `net`, in float32; with 'bf16', convolutions
    and products are computed in bfloat16 and the logits return as float32.
    `compile` is inductor on the CPU; on a GPU it puts the whole training
    step into one CUDA graph, for an optimizer that is made after this.
    """
    # Convolutions run faster on images whose channels lie side by side.
    net = net.to(devices[0], memory_format=torch.channels_last)
    if precision == "bf16":
        net = _MixedPrecision(net)
    if not compile:
        return net
    return torch.compile(net) if devices[0].type == "cpu" else OneGraph(net)


class _MixedPrecision(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, X):
        # Each weight is cast once anyway, and a CUDA graph would not notice
        # that a cast from before its capture is out of date.
        with torch.autocast(
            X.device.type, torch.bfloat16, cache_enabled=False
        ):
            return self.net(X).float()


def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without a graph.

    With `training` BatchNorm uses the statistics of the batch. A network that
    came in training mode leaves in it. Differs: with `training` this moves
    the running statistics too; in MXNet only a backward pass does.
    """
    was_training = net.training
    net.train(training)
    with torch.no_grad():
        y_hat = net(X)
    net.train(was_training)
    return y_hat


def accuracy(y_hat, y):
    """Return the number of correct predictions, still on the device."""
    return (y_hat.argmax(dim=1) == y).sum()


def evaluate_accuracy_gpu(net, data_iter, device=None):
    """Compute the accuracy for a model on a dataset, in evaluation mode."""
    if device is None:
        device = next(net.parameters()).device
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        X, y = X.to(device), y.to(device)
        metric.add(accuracy(predict(net, X), y), len(y))
    return metric[0] / metric[1]


def split_batch(X, y, devices):
    """Split X and y into a part for each device, as even as can be."""
    return tuple(
        [
            part.to(device)
            for part, device in zip(
                whole.tensor_split(len(devices)), devices, strict=True
            )
        ]
        for whole in (X, y)
    )


def train_batch_ch13(net, X, y, loss, trainer, devices):
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` gives one value per example, and their mean is minimised: the book
    minimises the sum here and the mean in its MXNet tab. Returns the sum of
    the losses and the number of correct predictions, still on the device.
    """
    X, y = X.to(devices[0]), y.to(devices[0])
    net.train()
    if isinstance(net, OneGraph):  # what follows, as one launch
        return net.step(train_batch_ch13, X, y, loss, trainer, devices)
    trainer.zero_grad()
    pred = net(X)
    l = loss(pred, y)
    if l.shape != y.shape:
        raise ValueError("loss must give one value per example")
    l.mean().backward()
    trainer.step()
    return l.detach().sum(), accuracy(pred, y)


def train_epoch(
    net, train_iter, loss, trainer, devices, epoch, timer, animator
):
    """Train for one epoch; return the mean loss, the accuracy, the examples.

    About five times it reports loss and accuracy so far to `animator`; only
    then does the host wait for the device.
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
    plot; only then does the host wait for the device. Prints the chapter's
    closing lines and returns them as a TrainingSummary.
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
    net = net.to(devices[0])
    if len(devices) > 1:
        net = nn.DataParallel(net, device_ids=devices)
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
