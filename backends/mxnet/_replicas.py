"""Train in Gluon on several devices, each with a copy of the network.

`split_f` splits a batch into a shard for each device. A small last batch may
leave a device without an example.
"""

from mxnet import autograd, gluon, npx

from common.errors import ONE_VALUE_PER_EXAMPLE
from common.metrics import Accumulator

from ._labels import check_labels_on_host
from ._layers import updated_statistics


def devices_of(net):
    """Return the devices that hold the parameters of a network."""
    parameter, *_ = net.collect_params().values()
    return parameter.list_ctx()


def split_batch(X, y, devices):
    """Split X and y into a shard for each device, as evenly as possible.

    By default Gluon refuses a batch that does not divide evenly.
    """
    return _split(X, devices), _split(y, devices)


def _split(whole, devices):
    parts = gluon.utils.split_data(whole, len(devices), even_split=False)
    return [
        part.as_in_ctx(device)
        for part, device in zip(parts, devices, strict=True)
    ]


def train_batch(net, X, y, loss, trainer, devices, split_f, num_examples):
    """Do what train_batch_ch13 does, on several devices or processes.

    `num_examples` is the size of the batch over all processes.
    """
    _synchronise(trainer)
    parts = list(zip(*split_f(X, y, devices), strict=True))
    shards = [(X_shard, y_shard) for X_shard, y_shard in parts if len(y_shard)]
    with autograd.record():
        preds = [net(X_shard) for X_shard, _ in shards]
        check_labels_on_host(y, preds[0])
        ls = [
            loss(pred, y_shard)
            for pred, (_, y_shard) in zip(preds, shards, strict=True)
        ]
    for l, (_, y_shard) in zip(ls, shards, strict=True):
        if l.shape != y_shard.shape:
            raise ValueError(ONE_VALUE_PER_EXAMPLE)
        l.backward()
    for device, (_, y_shard) in zip(devices, parts, strict=True):
        if not len(y_shard):
            _zero_gradients(net, device)
    # The store sums the gradients of all devices and processes; step divides
    # them by the batch size.
    trainer.step(num_examples)
    correct = [
        _correct(pred, y_shard)
        for pred, (_, y_shard) in zip(preds, shards, strict=True)
    ]
    return _total([l.sum() for l in ls]), _total(correct)


def evaluate_accuracy_gpus(net, data_iter, split_f=split_batch):
    """Compute the accuracy on all devices of a network, in evaluation mode."""
    devices = devices_of(net)
    npx.waitall()  # for BatchNorm's statistics, as in weights.get_weights
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        shards = zip(*split_f(X, y, devices), strict=True)
        with autograd.pause():
            correct = [
                _correct(net(X_shard), y_shard)
                for X_shard, y_shard in shards
                if len(y_shard)
            ]
        metric.add(_total(correct), len(y))
        npx.waitall()  # or Ctrl-C would wait for the whole queue
    return metric[0] / metric[1]


def average_buffers(net):
    """Average the BatchNorm statistics of all devices.

    Each device has seen other examples, and Gluon saves the mean. So the
    evaluation and the next epoch also use the mean.
    """
    npx.waitall()
    for parameter in updated_statistics(net):
        arrays = parameter.list_data()
        mean = _total(arrays) / len(arrays)
        # Not set_data: the trainer would create its store again, without the
        # optimizer's state.
        for array in arrays:
            array[:] = mean.as_in_ctx(array.ctx)


def _correct(pred, y):
    return (pred.argmax(axis=1).astype(y.dtype) == y).sum()


def _total(values):
    """Return the sum of one value per device, on the first of them."""
    return sum((v.as_in_ctx(values[0].ctx) for v in values[1:]), values[0])


def _synchronise(trainer):
    """Copy the same initial values to all devices.

    Raises ValueError for a trainer that does not keep the copies equal.
    """
    # No public name tells how a trainer sums gradients, or sets up its store
    # before the first step.
    if trainer._kvstore_params["kvstore"] is None:
        raise ValueError(
            "a gluon.Trainer with kvstore=None does not add up the gradients "
            "of several devices: leave kvstore at 'device'"
        )
    # In the first step, this would overwrite the BatchNorm statistics that its
    # backward pass has updated.
    if not trainer._kv_initialized:
        trainer._init_kvstore()
        trainer._init_params()
        npx.waitall()  # or values that arrive late would overwrite them, too


def updaters_of(trainer):
    """Return the objects that keep a trainer's state.

    With several devices it is the store, which is set up first. There are no
    public names for them.
    """
    if len(trainer._contexts) > 1:
        _synchronise(trainer)
    if trainer._update_on_kvstore:
        return [trainer._kvstore._updater]
    return trainer._updaters


def _zero_gradients(net, device):
    """Clear the gradients of a device that got no example of a small batch."""
    for parameter in net.collect_params().values():
        if parameter.grad_req != "null":
            parameter.grad(device)[:] = 0
            # Without this, step raises an error for stale gradients. (Its
            # ignore_stale_grad would leave this device out of the sum.)
            parameter.data(device)._fresh_grad = True
