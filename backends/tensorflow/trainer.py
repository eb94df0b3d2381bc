"""The chapter-13 trainer in TensorFlow: one batch, all epochs, evaluation."""

import keras
import tensorflow as tf

from common.metrics import (
    Accumulator,
    Timer,
    TrainingSummary,
    reporting_points,
)
from common.plotting import Animator

from ._graphs import forget_graphs, graph, per_replica, replicate

MIXED = "mixed_bfloat16"  # weights in float32, products in bfloat16


def cross_entropy():
    """Return the softmax cross-entropy loss, one value per example.

    Differs: Keras' own losses take the labels first.
    """
    return _cross_entropy


def _cross_entropy(y_hat, y):
    y = tf.cast(y, tf.int64)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, y_hat)


def adam(net, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
    """Return the Adam optimizer of a network's weights.

    Differs: Keras and MXNet add eps inside the bias correction, PyTorch
    outside; Keras' own eps is 1e-7.
    """
    with net.distribute_strategy.scope():
        trainer = _Adam(lr, *betas, epsilon=eps, name="adam")
        trainer.build(net.trainable_variables)
    return trainer


def sgd(net, lr, momentum=0.0, weight_decay=0.0):
    """Return gradient descent with momentum and L2 decay of all weights.

    The learning rate stays out of the momentum; the decay is added to the
    gradient.
    """
    with net.distribute_strategy.scope():
        trainer = _SGD(lr, momentum, weight_decay)
        trainer.build(net.trainable_variables)
    return trainer


class _Adam(keras.optimizers.Adam):
    """Keras' Adam, with one operator of TensorFlow for each variable.

    Keras' own takes about twenty, which makes the first step longer: all of
    them are traced.
    """

    def update_step(self, gradient, variable, learning_rate):
        index, dtype = self._get_variable_index(variable), variable.dtype
        beta1, beta2, eps = (
            tf.constant(value, dtype)
            for value in (self.beta_1, self.beta_2, self.epsilon)
        )
        steps = tf.cast(self.iterations.value + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta1**steps,
            beta2_power=beta2**steps,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta1,
            beta2=beta2,
            epsilon=eps,
            grad=gradient,
        )


class _SGD(keras.optimizers.SGD):
    """Keras' SGD with the update of PyTorch.

    Differs: Keras' own bakes the learning rate into the momentum, so that a
    new one takes hold slowly, and decays the weights past the gradient.
    """

    def __init__(self, lr, momentum, weight_decay):
        super().__init__(lr, momentum, name="sgd")
        self.l2 = weight_decay

    def update_step(self, gradient, variable, learning_rate):
        dtype, lr = variable.dtype, tf.cast(learning_rate, variable.dtype)
        gradient = gradient + tf.constant(self.l2, dtype) * variable
        if not self.momentum:
            variable.assign_sub(lr * gradient)
            return
        buffer = self.momentums[self._get_variable_index(variable)].value
        # TensorFlow's own operator keeps the rate out of the momentum.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=buffer.handle,
            lr=lr,
            grad=gradient,
            momentum=tf.constant(self.momentum, dtype),
        )


def set_learning_rate(trainer, lr):
    """Change the learning rate of an optimizer, from the next step on."""
    trainer.learning_rate = lr


def prepare(net, devices, precision="fp32", compile=False):
    """Return the network ready for the devices, a precision and a compiler.

    The weights stay those of `net`, in float32; with 'bf16', convolutions
    and products are computed in bfloat16 and the logits return as float32.
    For several devices, or one where its variables are not, the network is a
    copy; the optimizer comes after.
    """
    net = replicate(net, devices)
    for layer in net._flatten_layers():
        if precision == "bf16":
            layer.dtype_policy = MIXED
        elif layer.dtype_policy.name == MIXED:
            layer.dtype_policy = keras.config.dtype_policy()
    forget_graphs(net, xla=compile)
    return net


def predict(net, X, training=False):
    """Return the logits of a batch, in evaluation mode, without a graph.

    With `training` BatchNorm uses the statistics of the batch. The mode is
    not the network's but the call's. Differs: with `training` this moves the
    running statistics too; in MXNet only a backward pass does.
    """
    strategy = net.distribute_strategy
    forward = graph(net, f"forward, training {training}", _forward, training)
    if strategy.num_replicas_in_sync == 1:
        return forward(X)
    parts = _split(X, strategy.extended.worker_devices)
    y_hat = forward(per_replica(strategy, [_some(part, X) for part in parts]))
    results = strategy.experimental_local_results(y_hat)
    pairs = zip(results, parts, strict=True)
    return tf.concat([result[: len(part)] for result, part in pairs], axis=0)


def _forward(net, training):
    def forward(X):
        return net.distribute_strategy.run(_logits, (net, X, training))

    return forward


def _logits(net, X, training):
    y_hat = net(X, training=training)
    return tf.cast(y_hat, tf.float32) if y_hat.dtype == tf.bfloat16 else y_hat


def _some(part, whole):
    """Return a device's part, or one example that counts for nothing.

    Without any example, BatchNorm would divide by zero there.
    """
    return part if len(part) else whole[:1]


def accuracy(y_hat, y):
    """Return the number of correct predictions, still on the device."""
    correct = tf.cast(tf.argmax(y_hat, axis=1), y.dtype) == y
    return tf.reduce_sum(tf.cast(correct, tf.int64))


def evaluate_accuracy_gpu(net, data_iter, device=None):
    """Compute the accuracy for a model on a dataset, in evaluation mode."""
    metric = Accumulator(2)  # number of correct predictions, of examples
    for X, y in data_iter:
        with tf.device(device):
            X, y = tf.identity(X), tf.identity(y)
        metric.add(accuracy(predict(net, X), y), len(y))
    return metric[0] / metric[1]


def split_batch(X, y, devices):
    """Split X and y into a part for each device, as even as can be."""
    return _split(X, devices), _split(y, devices)


def _split(whole, devices):
    size, larger = divmod(len(whole), len(devices))
    sizes = [size + (i < larger) for i in range(len(devices))]
    parts = []
    for part, device in zip(tf.split(whole, sizes), devices, strict=True):
        with tf.device(device):
            parts.append(tf.identity(part))
    return parts


def train_batch_ch13(net, X, y, loss, trainer, devices):
    """Train for a minibatch with multiple GPUs (defined in Chapter 13).

    `loss` gives one value per example, and their mean is minimised. Returns
    the sum of the losses and the number of correct predictions, still on
    the device.
    """
    strategy = net.distribute_strategy
    if len(devices) != strategy.num_replicas_in_sync:
        raise ValueError(
            f"the network is not on {devices}: call trainer.prepare for them, "
            "then make the optimizer"
        )
    X_shards, y_shards = split_batch(X, y, devices)
    counts = [tf.fill([max(len(part), 1)], len(part) > 0) for part in y_shards]
    num_examples = tf.constant(len(y), tf.float32)
    X_shards = [_some(part, X) for part in X_shards]
    y_shards = [_some(part, y) for part in y_shards]
    shards = [
        per_replica(strategy, parts) for parts in (X_shards, y_shards, counts)
    ]
    step = graph(net, "train", _train_step, loss, trainer)
    return step(*shards, num_examples)


def _train_step(net, loss, trainer):
    strategy = net.distribute_strategy

    def replica_step(X, y, counts, num_examples):
        with tf.GradientTape() as tape:
            y_hat = _logits(net, X, training=True)
            l = loss(y_hat, y)
            if l.shape != y.shape:
                raise ValueError("loss must give one value per example")
            l = tf.where(counts, l, tf.zeros_like(l))
            # A device's part of the mean: the optimizer adds the parts up.
            objective = tf.reduce_sum(l) / tf.cast(num_examples, l.dtype)
        gradients = tape.gradient(objective, net.trainable_variables)
        trainer.apply(gradients, net.trainable_variables)
        correct = accuracy(y_hat[counts], y[counts])
        return tf.reduce_sum(l), correct

    def step(X, y, counts, num_examples):
        results = strategy.run(replica_step, (X, y, counts, num_examples))
        return [
            strategy.reduce(tf.distribute.ReduceOp.SUM, result, axis=None)
            for result in results
        ]

    return step


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
