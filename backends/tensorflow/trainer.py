"""The chapter-13 trainer in TensorFlow: one batch, all epochs, evaluation."""

import keras
import tensorflow as tf

from common.errors import ONE_VALUE_PER_EXAMPLE
from common.metrics import Accumulator, TrainingLog
from common.reference import State
from common.weights.keras import from_keras, to_keras

from . import _replicas
from ._graphs import forget_graphs, graph
from ._labels import checks_labels_on_host
from ._layers import in_float32, layers_of
from ._sgd import SGD, slots_of
from .processes import average_buffers, num_processes, replicate, total
from .weights import trained_by_name


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example.

    Differs: TensorFlow's and Keras' losses take the labels first.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Return an Adam optimizer for a network's weights.

    Differs: Keras and MXNet add eps inside the bias correction, PyTorch
    outside; Keras' own eps is 1e-7.
    """
    with net.distribute_strategy.scope():
        trainer = keras.optimizers.Adam(lr, *betas, epsilon=eps)
        trainer.build(net.trainable_variables)
    return trainer


def sgd(net, lr, momentum=0.0, weight_decay=0.0):
    """Return an SGD optimizer with momentum and L2 decay of all weights.

    The momentum does not include the learning rate. The decay is added to the
    gradient.
    """
    with net.distribute_strategy.scope():
        trainer = SGD(lr, momentum, weight_decay)
        trainer.build(net.trainable_variables)
    return trainer


def set_learning_rate(trainer, lr):
    """Set the learning rate of an optimizer, from the next step on."""
    trainer.learning_rate = lr


def get_state(net, trainer):
    """Return the state of this network's optimizer, in NumPy."""
    state = State(int(trainer.iterations.numpy()))
    for slot, variables in slots_of(trainer).items():
        for name, variable in trained_by_name(net).items():
            own = variables[trainer._get_variable_index(variable)]
            array = from_keras(own.numpy())
            state.slots.setdefault(slot, {})[name] = array
    return state


def set_state(net, trainer, state):
    """Copy a state into this network's optimizer."""
    trainer.iterations.assign(state.steps)
    for slot, arrays in state.slots.items():
        variables = slots_of(trainer)[slot]
        for name, variable in trained_by_name(net).items():
            own = variables[trainer._get_variable_index(variable)]
            own.assign(to_keras(arrays[name]))


def freeze(net):
    """Train only the last layer of a network; all other weights stay.

    BatchNorm uses its running statistics, also in training, and does not
    update them. Call this before `prepare` and before you make the optimizer.
    """
    # Keras' BatchNorm does so if it is not trainable.
    for layer in net.layers[:-1]:
        layer.trainable = False


def prepare(
    net, devices, precision="fp32", compile=False, sync_batch_norm=False
):
    """Prepare a network for devices, a precision and a compiler.

    Returns the network to train. It has the weights of `net`, in float32. With
    'bf16', convolutions and matrix products run in bfloat16, and the logits
    are float32. `compile` uses XLA. With `sync_batch_norm`, all processes and
    devices share BatchNorm's batch statistics. Several devices, or one that
    does not hold the variables, get a copy of `net`: make the optimizer then.
    """
    net = replicate(net, devices)
    mixed = precision == "bf16"
    net.layers[-1].activation = (
        in_float32 if mixed else keras.activations.linear
    )
    for layer in layers_of(net):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = sync_batch_norm
        if mixed:
            layer.dtype_policy = "mixed_bfloat16"
        elif layer.dtype_policy.name == "mixed_bfloat16":
            layer.dtype_policy = keras.config.dtype_policy()
    forget_graphs(net, xla=compile)
    return net


@graph
def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without gradients.

    With `training`, BatchNorm uses the statistics of the batch. The mode
    belongs to the call, not to the network. Differs: `training` also updates
    the running statistics; in MXNet only a backward pass does.
    """
    if net.distribute_strategy.num_replicas_in_sync > 1:
        return _replicas.predict(net, X, training)
    return net(X, training=training)


def accuracy(y_hat, y):
    """Return the number of correct predictions, as a tensor on the device."""
    correct = tf.cast(tf.argmax(y_hat, axis=1), y.dtype) == y
    return tf.reduce_sum(tf.cast(correct, tf.int64))


def evaluate_accuracy_gpu(net, data_iter, device=None):
    """Compute the accuracy for a model on a dataset, in evaluation mode."""
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        with tf.device(device):
            X, y = tf.identity(X), tf.identity(y)
        metric.add(accuracy(predict(net, X), y), len(y))
    correct, examples = total([metric[0], metric[1]])
    return correct / examples


@checks_labels_on_host
@graph
def train_batch_ch13(net, X, y, loss, trainer, devices):
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` returns one value per example, and the step minimises their mean.
    Returns the sum of the losses and the number of correct predictions, as
    tensors on the device. Raises ValueError for a label that is no class.
    """
    if len(devices) > 1 or num_processes() > 1:
        return _replicas.train_batch(net, X, y, loss, trainer, devices)
    with tf.GradientTape() as tape:
        pred = net(X, training=True)
        l = loss(y, pred)
        if l.shape != y.shape:
            raise ValueError(ONE_VALUE_PER_EXAMPLE)
        mean = tf.reduce_mean(l)
    gradients = tape.gradient(mean, net.trainable_variables)
    trainer.apply(gradients, net.trainable_variables)
    return tf.reduce_sum(l), accuracy(pred, y)


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
        average_buffers(net)
        log.end_epoch(evaluate_accuracy_gpu(net, test_iter))
    return log.close()
