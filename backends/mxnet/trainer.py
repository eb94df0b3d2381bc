"""The chapter-13 trainer in Gluon: one batch, all epochs, evaluation."""

from mxnet import autograd, gluon, npx

from common.errors import ONE_VALUE_PER_EXAMPLE
from common.metrics import Accumulator, TrainingLog

from . import _replicas
from ._bfloat16 import in_bfloat16, in_float32
from ._labels import check_labels_on_host
from ._replicas import split_batch
from ._sgd import SGD


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example."""
    return gluon.loss.SoftmaxCrossEntropyLoss()


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Return an Adam optimizer for a network's weights.

    Differs: MXNet and Keras add eps inside the bias correction, PyTorch
    outside.
    """
    settings = {
        "learning_rate": lr,
        "beta1": betas[0],
        "beta2": betas[1],
        "epsilon": eps,
    }
    return gluon.Trainer(net.collect_params(), "adam", settings)


def sgd(net, lr, momentum=0.0, weight_decay=0.0):
    """Return an SGD optimizer with momentum and L2 decay of all weights.

    The momentum does not include the learning rate. The decay is added to the
    gradient.
    """
    settings = {"learning_rate": lr, "momentum": momentum, "wd": weight_decay}
    return gluon.Trainer(net.collect_params(), SGD(**settings))


def set_learning_rate(trainer, lr):
    """Set the learning rate of an optimizer, from the next step on."""
    trainer.set_learning_rate(lr)


def prepare(net, devices, precision="fp32", compile=False):  # noqa: ARG001
    """Prepare a network for devices, a precision and a compiler.

    Returns the network to train. It has the weights of `net`, in float32. With
    'bf16', convolutions and matrix products run in bfloat16, and the logits
    are float32. Differs: the network is always compiled, by Gluon's
    `hybridize`.
    """
    net.collect_params().reset_ctx(devices)
    if precision == "bf16":
        in_bfloat16(net)
    else:
        in_float32(net)
    net.hybridize(static_alloc=True, static_shape=True)
    return net


def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without gradients.

    With `training`, BatchNorm uses the statistics of the batch. The mode
    belongs to the autograd scope, not to the network. Differs: `training` does
    not update the running statistics; in MXNet only a backward pass does.
    """
    devices = _replicas.devices_of(net)
    if X.ctx not in devices:  # such as memory shared by worker processes
        X = X.as_in_ctx(devices[0])
    with autograd.pause(train_mode=training):
        return net(X)


def accuracy(y_hat, y):
    """Return the number of correct predictions, as a tensor on the device."""
    return (y_hat.argmax(axis=1).astype(y.dtype) == y).sum()


def evaluate_accuracy_gpu(net, data_iter, device=None):
    """Compute the accuracy for a model on a dataset, in evaluation mode.

    Runs on `device`, by default on all devices of the network.
    """
    devices = _replicas.devices_of(net) if device is None else [device]
    if len(devices) > 1:
        return _replicas.evaluate_accuracy_gpus(net, data_iter)
    npx.waitall()  # for BatchNorm's statistics, as in weights.get_weights
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        X, y = X.as_in_ctx(devices[0]), y.as_in_ctx(devices[0])
        metric.add(accuracy(predict(net, X), y), len(y))
        npx.waitall()  # or Ctrl-C would wait for the whole queue
    return metric[0] / metric[1]


def train_batch_ch13(net, X, y, loss, trainer, devices, split_f=split_batch):
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` returns one value per example, and the step minimises their mean.
    Returns the sum of the losses and the number of correct predictions, as
    tensors on the device. Raises ValueError for a label that is no class.
    """
    if len(devices) > 1:
        return _replicas.train_batch(
            net, X, y, loss, trainer, devices, split_f
        )
    labels = y
    X, y = X.as_in_ctx(devices[0]), y.as_in_ctx(devices[0])
    with autograd.record():
        pred = net(X)
        check_labels_on_host(labels, pred)
        l = loss(pred, y)
    if l.shape != y.shape:
        raise ValueError(ONE_VALUE_PER_EXAMPLE)
    l.backward()  # the gradient of the sum ...
    trainer.step(len(y))  # ... which the step divides by the batch size
    return l.sum(), accuracy(pred, y)


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

    Reports each epoch to `animator`, by default the book's plot; see
    common.metrics.TrainingLog. Prints the chapter's closing lines and returns
    their numbers as a TrainingSummary.
    """
    log = TrainingLog(num_epochs, devices, animator)
    for _ in range(num_epochs):
        for X, y in log.batches(train_iter):
            l, acc = train_batch_ch13(net, X, y, loss, trainer, devices)
            log.add(l, acc, len(y))
            npx.waitall()  # MXNet is asynchronous: time the whole step
        if len(devices) > 1:
            _replicas.average_buffers(net)
        log.end_epoch(evaluate_accuracy_gpu(net, test_iter))
    return log.close()
