"""The chapter-13 trainer in Gluon: one batch, all epochs, evaluation."""

from mxnet import autograd, gluon, np, npx

from backends import require_sync_batch_norm
from common.errors import ONE_VALUE_PER_EXAMPLE
from common.metrics import Accumulator, TrainingLog
from common.reference import State

from . import _replicas
from ._bfloat16 import in_bfloat16, in_float32
from ._labels import check_labels_on_host
from ._layers import batch_norms
from ._replicas import split_batch
from ._sgd import SGD
from .processes import average_buffers, num_processes, store, total
from .weights import trained_by_name


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
    return gluon.Trainer(net.collect_params(), "adam", settings, **store())


def sgd(net, lr, momentum=0.0, weight_decay=0.0):
    """Return an SGD optimizer with momentum and L2 decay of all weights.

    The momentum does not include the learning rate. The decay is added to the
    gradient.
    """
    settings = {"learning_rate": lr, "momentum": momentum, "wd": weight_decay}
    return gluon.Trainer(net.collect_params(), SGD(**settings), **store())


def set_learning_rate(trainer, lr):
    """Set the learning rate of an optimizer, from the next step on."""
    trainer.set_learning_rate(lr)


def get_state(net, trainer):
    """Return the state of this network's optimizer, in NumPy.

    Gluon's names for it are private.
    """
    state = State(trainer.optimizer.num_update)
    updater = _replicas.updaters_of(trainer)[0]
    for name, parameter in trained_by_name(net).items():
        kept = updater.states.get(trainer._param2idx[parameter.name])
        if isinstance(kept, tuple):  # Adam's
            for slot, array in zip(("first", "second"), kept, strict=True):
                state.slots.setdefault(slot, {})[name] = array.asnumpy()
        elif kept is not None:
            state.slots.setdefault("momentum", {})[name] = kept.asnumpy()
    return state


def set_state(net, trainer, state):
    """Copy a state into this network's optimizer."""
    trainer.optimizer.num_update = state.steps
    for name, parameter in trained_by_name(net).items():
        index = trainer._param2idx[parameter.name]
        trainer.optimizer._index_update_count[index] = state.steps
        for updater in _replicas.updaters_of(trainer):
            kept = tuple(
                # The optimizers accept only arrays of the old interface.
                np.array(slots[name], dtype=parameter.dtype).as_nd_ndarray()
                for _, slots in sorted(state.slots.items())
            )
            updater.states[index] = kept if len(kept) > 1 else kept[0]
            updater.states_synced[index] = False  # move them to the device


def freeze(net):
    """Train only the last layer of a network; all other weights stay.

    BatchNorm uses its running statistics, also in training, and does not
    update them. Call this before `prepare` and before you make the optimizer.
    """
    net.collect_params().setattr("grad_req", "null")
    net[-1].collect_params().setattr("grad_req", "write")
    for layer in batch_norms(net):
        # Gluon has no public name for it after the layer is made.
        layer._kwargs["use_global_stats"] = True


def prepare(
    net,
    devices,
    precision="fp32",
    compile=False,  # noqa: ARG001
    sync_batch_norm=False,
):
    """Prepare a network for devices, a precision and a compiler.

    Returns the network to train. It has the weights of `net`, in float32. With
    'bf16', convolutions and matrix products run in bfloat16, and the logits
    are float32. Differs: the network is always compiled, by Gluon's
    `hybridize`. Raises UserError for `sync_batch_norm`.
    """
    if sync_batch_norm:
        require_sync_batch_norm(["mxnet"])
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
    correct, examples = total([metric[0], metric[1]])
    return correct / examples


def train_batch_ch13(net, X, y, loss, trainer, devices, split_f=split_batch):
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` returns one value per example, and the step minimises their mean.
    Returns the sum of the losses and the number of correct predictions, as
    tensors on the device. Raises ValueError for a label that is no class.
    """
    if len(devices) > 1 or num_processes() > 1:
        return _replicas.train_batch(
            net, X, y, loss, trainer, devices, split_f, total(len(y))
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
    first_epoch=0,
):
    """Train a model with multiple GPUs (defined in Chapter 13).

    Reports each epoch to `animator`, by default the book's plot; see
    common.metrics.TrainingLog. Prints the chapter's closing lines and returns
    their numbers as a TrainingSummary. `first_epoch` epochs were done before:
    `net` and `trainer` are those after them.
    """
    log = TrainingLog(num_epochs, devices, animator, total=total)
    for epoch in range(first_epoch, num_epochs):
        for X, y in log.batches(train_iter, epoch):
            l, acc = train_batch_ch13(net, X, y, loss, trainer, devices)
            log.add(l, acc, len(y))
            npx.waitall()  # MXNet is asynchronous: time the whole step
        average_buffers(net)
        log.end_epoch(evaluate_accuracy_gpu(net, test_iter))
    return log.close()
