"""The chapter-13 trainer in PyTorch: one batch, all epochs, evaluation."""

import torch
from torch import nn

from common.errors import ONE_VALUE_PER_EXAMPLE
from common.metrics import Accumulator, TrainingLog
from common.reference import State

from ._frozen_batch_norm import FrozenBatchNorm
from ._labels import check_labels_on_host
from ._sync_batch_norm import synchronise
from ._wrappers import MixedPrecision, on_devices, share
from .processes import average_buffers, replicate, total
from .weights import trained_by_name

# PyTorch's names of an optimizer's tensors, by the names of common.reference.
SLOTS = {
    "momentum": "momentum_buffer",
    "first": "exp_avg",
    "second": "exp_avg_sq",
}


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example."""
    return nn.CrossEntropyLoss(reduction="none")


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Return an Adam optimizer for a network's weights.

    Differs: PyTorch adds eps outside the bias correction, MXNet and Keras
    inside.
    """
    return torch.optim.Adam(
        net.parameters(), lr=lr, betas=betas, eps=eps, fused=True
    )


def sgd(net, lr, momentum=0.0, weight_decay=0.0):
    """Return an SGD optimizer with momentum and L2 decay of all weights.

    The momentum does not include the learning rate. The decay is added to the
    gradient.
    """
    return torch.optim.SGD(
        net.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
    )


def set_learning_rate(trainer, lr):
    """Set the learning rate of an optimizer, from the next step on."""
    for group in trainer.param_groups:
        group["lr"] = lr


def get_state(net, trainer):
    """Return the state of this network's optimizer, in NumPy."""
    state = State()
    for name, parameter in trained_by_name(net).items():
        own = trainer.state.get(parameter, {})
        # Differs: PyTorch's SGD does not count its steps.
        state.steps = int(own.get("step", 0))
        for slot, key in SLOTS.items():
            if own.get(key) is not None:
                array = own[key].cpu().contiguous().numpy().copy()
                state.slots.setdefault(slot, {})[name] = array
    return state


def set_state(net, trainer, state):
    """Copy a state into this network's optimizer."""
    for name, parameter in trained_by_name(net).items():
        # A fused Adam counts its steps on the device.
        steps = torch.tensor(float(state.steps), device=parameter.device)
        trainer.state[parameter] = {"step": steps}
        for slot, arrays in state.slots.items():
            tensor = torch.empty_like(parameter)
            tensor.copy_(torch.from_numpy(arrays[name]))
            trainer.state[parameter][SLOTS[slot]] = tensor


def freeze(net):
    """Train only the last layer of a network; all other weights stay.

    BatchNorm uses its running statistics, also in training, and does not
    update them. Call this before `prepare` and before you make the optimizer.
    """
    net.requires_grad_(False)
    net.fc.requires_grad_(True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FrozenBatchNorm  # its tensors stay
            module.eval()


def prepare(
    net, devices, precision="fp32", compile=False, sync_batch_norm=False
):
    """Prepare a network for devices, a precision and a compiler.

    Returns the network to train. It has the weights of `net`, in float32. With
    'bf16', convolutions and matrix products run in bfloat16, and the logits
    are float32. `compile` uses torch.compile, on a GPU with CUDA graphs. With
    `sync_batch_norm`, several processes share BatchNorm's batch statistics.
    """
    # Convolutions run faster if the channels come last in memory.
    net = net.to(devices[0], memory_format=torch.channels_last)
    if sync_batch_norm:
        net = synchronise(net, devices)
    if precision == "bf16":
        net = MixedPrecision(net)
    net = replicate(net, devices)
    if not compile:
        return net
    on_cpu = devices[0].type == "cpu"
    return torch.compile(net, mode="default" if on_cpu else "reduce-overhead")


def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without gradients.

    With `training`, BatchNorm uses the statistics of the batch. The network's
    mode is restored. Differs: `training` also updates the running statistics;
    in MXNet only a backward pass does.
    """
    was_training = net.training
    net.train(training)
    with torch.no_grad():
        y_hat = net(X.to(next(net.parameters()).device))
    net.train(was_training)
    return y_hat


def accuracy(y_hat, y):
    """Return the number of correct predictions, as a tensor on the device."""
    return (y_hat.argmax(dim=1) == y).sum()


def evaluate_accuracy_gpu(net, data_iter, device=None):
    """Compute the accuracy for a model on a dataset, in evaluation mode."""
    if device is None:
        device = next(net.parameters()).device
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        X = X.to(device, non_blocking=True)
        y = y.to(device, non_blocking=True)
        metric.add(accuracy(predict(net, X), y), len(y))
    correct, examples = total([metric[0], metric[1]])
    return correct / examples


def train_batch_ch13(net, X, y, loss, trainer, devices):
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` returns one value per example, and the step minimises their mean.
    The book minimises the sum in PyTorch and the mean in MXNet. Returns the
    sum of the losses and the number of correct predictions, as tensors on the
    device. Raises ValueError for a label that is no class.
    """
    labels = y
    X = X.to(devices[0], non_blocking=True)
    y = y.to(devices[0], non_blocking=True)
    net.train()
    trainer.zero_grad()
    pred = net(X)
    check_labels_on_host(labels, pred)
    l = loss(pred, y)
    if l.shape != y.shape:
        raise ValueError(ONE_VALUE_PER_EXAMPLE)
    # DistributedDataParallel averages over the processes, not the examples.
    (l.mean() * share(len(y))).backward()
    trainer.step()
    return l.detach().sum(), accuracy(pred, y)


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
    net = on_devices(net, devices)
    log = TrainingLog(num_epochs, devices, animator, total=total)
    for epoch in range(first_epoch, num_epochs):
        for X, y in log.batches(train_iter, epoch):
            l, acc = train_batch_ch13(net, X, y, loss, trainer, devices)
            log.add(l, acc, len(y))
        average_buffers(net)
        log.end_epoch(evaluate_accuracy_gpu(net, test_iter))
    return log.close()
