"""The chapter-13 trainer in Gluon: one batch, all epochs, evaluation."""

import mxnet as mx
from mxnet import autograd, gluon, npx

from common.metrics import (
    Accumulator,
    Timer,
    TrainingSummary,
    reporting_points,
)
from common.plotting import Animator

from .resnet import in_bfloat16, in_float32


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example."""
    return gluon.loss.SoftmaxCrossEntropyLoss()


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Return the Adam optimizer of a network's weights.

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
    """Return gradient descent with momentum and L2 decay of all weights.

    The learning rate stays out of the momentum; the decay is added to the
    gradient.
    """
    trainer = _SGD(lr, momentum, weight_decay)
    return gluon.Trainer(net.collect_params(), trainer)


class _SGD(mx.optimizer.Optimizer):
    """SGD with the update of PyTorch.

    Differs: MXNet's own bakes the learning rate into the momentum, so that a
    new one takes hold slowly. Its settings are rounded to float32.
    """

    def __init__(self, lr, momentum, weight_decay):
        super().__init__(learning_rate=lr, wd=weight_decay)
        self.momentum = momentum

    def create_state(self, index, weight):  # noqa: ARG002
        return weight.zeros_like() if self.momentum else None

    def update(self, index, weight, grad, state):
        self._update_count(index)
        decay, lr = self._get_wd(index), self._get_lr(index)
        w, g = weight.as_nd_ndarray(), grad.as_nd_ndarray()
        if state is None:
            mx.nd.sgd_update(
                w, g, out=w, lr=lr, wd=decay, rescale_grad=self.rescale_grad
            )
            return
        # The kernel computes w - lr * (rescale_grad * g + wd * w) in one pass.
        # Three of them here, v = mu * v + rescale * g, v += decay * w and
        # w -= lr * v: as operators of `np` they take 100 ms longer a step.
        v = state.as_nd_ndarray()
        mu, rescale = self.momentum, self.rescale_grad
        mx.nd.sgd_update(v, g, out=v, lr=-1, wd=mu - 1, rescale_grad=rescale)
        mx.nd.sgd_update(v, w, out=v, lr=-1, wd=0, rescale_grad=decay)
        mx.nd.sgd_update(w, v, out=w, lr=lr, wd=0)


def set_learning_rate(trainer, lr):
    """Change the learning rate of an optimizer, from the next step on."""
    trainer.set_learning_rate(lr)


def prepare(net, devices, precision="fp32", compile=False):  # noqa: ARG001
    """Return the network ready for the devices, a precision and a compiler.

    The weights stay those of `net`, in float32; with 'bf16', convolutions
    and products are computed in bfloat16 and the logits return as float32.
    Differs: the network is always compiled, as Gluon's `hybridize` does it.
    """
    net.collect_params().reset_ctx(devices)
    if precision == "bf16":
        in_bfloat16(net)
    else:
        in_float32(net)
    net.hybridize(static_alloc=True, static_shape=True)
    return net


def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without a graph.

    With `training` BatchNorm uses the statistics of the batch. The mode is
    not the network's but the scope's. Differs: with `training` the running
    statistics stay, as in MXNet only a backward pass moves them.
    """
    devices = _devices(net)
    if X.ctx not in devices:  # as what worker processes share
        X = X.as_in_ctx(devices[0])
    with autograd.pause(train_mode=training):
        return net(X)


def accuracy(y_hat, y):
    """Return the number of correct predictions, still on the device."""
    return (y_hat.argmax(axis=1).astype(y.dtype) == y).sum()


def evaluate_accuracy_gpu(net, data_iter, device=None):
    """Compute the accuracy for a model on a dataset, in evaluation mode."""
    if device is None:
        device = _devices(net)[0]
    return _evaluate_accuracy(net, data_iter, [device], split_batch)


def split_batch(X, y, devices):
    """Split X and y into a part for each device, as even as can be.

    Left alone, Gluon refuses a batch that does not divide evenly.
    """
    return _split(X, devices), _split(y, devices)


def _split(whole, devices):
    parts = gluon.utils.split_data(whole, len(devices), even_split=False)
    return [
        part.as_in_ctx(device)
        for part, device in zip(parts, devices, strict=True)
    ]


def evaluate_accuracy_gpus(net, data_iter, split_f=split_batch):
    """Compute the accuracy on all devices of a network, in evaluation mode."""
    return _evaluate_accuracy(net, data_iter, _devices(net), split_f)


def _devices(net):
    parameter, *_ = net.collect_params().values()
    return parameter.list_ctx()


def _evaluate_accuracy(net, data_iter, devices, split_f):
    npx.waitall()  # for BatchNorm's statistics, as in weights.get_weights
    metric = Accumulator(2)  # number of correct predictions, of examples
    previous = None
    for X, y in data_iter:
        X_shards, y_shards = split_f(X, y, devices)
        correct = _total(
            [
                accuracy(predict(net, X_shard), y_shard)
                for X_shard, y_shard in zip(X_shards, y_shards, strict=True)
                if len(y_shard)
            ]
        )
        metric.add(correct, len(y))
        previous = _keep_up(previous, correct)
    return metric[0] / metric[1]


def _total(values):
    """Return the sum of one value per device, on the first of them."""
    return sum((v.as_in_ctx(values[0].ctx) for v in values[1:]), values[0])


def _keep_up(previous, result):
    """Wait for the result of the batch before, and return this one's.

    MXNet computes behind Python's back. One batch late, it never idles; a
    whole epoch late, progress would lie and Ctrl-C would have to wait.
    """
    if previous is not None:
        previous.wait_to_read()
    return result


def train_batch_ch13(net, X, y, loss, trainer, devices, split_f=split_batch):
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` gives one value per example, and their mean is minimised. Returns
    the sum of the losses and the number of correct predictions, still on
    the device.
    """
    _synchronise(trainer, devices)
    X_shards, y_shards = split_f(X, y, devices)
    shards = [
        (X_shard, y_shard)
        for X_shard, y_shard in zip(X_shards, y_shards, strict=True)
        if len(y_shard)
    ]
    with autograd.record():
        preds = [net(X_shard) for X_shard, _ in shards]
        ls = [
            loss(pred, y_shard)
            for pred, (_, y_shard) in zip(preds, shards, strict=True)
        ]
    for l, (_, y_shard) in zip(ls, shards, strict=True):
        if l.shape != y_shard.shape:
            raise ValueError("loss must give one value per example")
        l.backward()
    for device, y_shard in zip(devices, y_shards, strict=True):
        if not len(y_shard):
            _zero_gradients(net, device)
    # The gradients are those of the sum; step divides them by its argument.
    trainer.step(len(y))
    correct = [
        accuracy(pred, y_shard)
        for pred, (_, y_shard) in zip(preds, shards, strict=True)
    ]
    return _total([l.sum() for l in ls]), _total(correct)


def _synchronise(trainer, devices):
    """Make the devices start from the same values, and stay in step.

    Raises ValueError for a trainer that lets them drift apart.
    """
    if len(devices) == 1:
        return
    if trainer._kvstore_params["kvstore"] is None:
        raise ValueError(
            "a gluon.Trainer with kvstore=None does not add up the gradients "
            "of several devices: leave kvstore at 'device'"
        )
    # Left to the first step, this would undo what its backward pass has
    # done to BatchNorm's statistics.
    if not trainer._kv_initialized:
        trainer._init_kvstore()
        trainer._init_params()


def _zero_gradients(net, device):
    """Clear the gradients of a device that got no example of a small batch."""
    for parameter in net.collect_params().values():
        if parameter.grad_req != "null":
            parameter.grad(device)[:] = 0
            # Else step takes them for forgotten ones, and stops.
            parameter.data(device)._fresh_grad = True


def train_epoch(
    net, train_iter, loss, trainer, devices, epoch, timer, animator
):
    """Train for one epoch; return the mean loss, the accuracy, the examples.

    About five times it reports loss and accuracy so far to `animator`; only
    then are the metrics read.
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
        # MXNet computes behind Python's back. What the timer did not wait
        # for here, the loader would, to copy its batch in. On two cores
        # nothing is won by letting the step run on: 51 images/s either way.
        npx.waitall()
        if i in reports:
            train_loss = metric[0] / metric[2]
            train_acc = metric[1] / metric[2]
        timer.stop()
        if i in reports:
            x = epoch + i / num_batches
            animator.add(x, (train_loss, train_acc, None))
    _average_buffers(net)
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
    plot; only then are the metrics read. Prints the chapter's closing lines
    and returns them as a TrainingSummary.
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
        test_acc = evaluate_accuracy_gpus(net, test_iter)
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


def _average_buffers(net):
    """Give all devices the mean of their BatchNorm statistics.

    Each device has seen other examples, and Gluon saves the mean: so it is
    the mean that is evaluated, and the next epoch starts from.
    """
    npx.waitall()
    for parameter in net.collect_params().values():
        if parameter.grad_req == "null" and len(parameter.list_ctx()) > 1:
            mean = parameter._reduce()
            # Not set_data, which would have the trainer's store made anew,
            # without the optimizer's state.
            for array in parameter.list_data():
                array[:] = mean.as_in_ctx(array.ctx)
