"""The training that the examples port, as a Gluon user wrote it: three steps of SGD, the last at a lower rate."""

import numpy as onp

from docs.examples.gluon_original import original_net, weights_of

from mxnet import autograd, gluon, np  # isort: skip

# Powers of two and 7/8 are exact in float32, to which Gluon and Keras round
# their settings.
RATES, MOMENTUM, WD = (2**-6, 2**-6, 2**-8), 7 / 8, 2**-6


def batches():
    """Yield a batch for each step: images (8, 3, 16, 16) and labels (8,), the same in every framework."""
    rng = onp.random.default_rng(2)
    for _ in RATES:
        yield rng.standard_normal((8, 3, 16, 16)), rng.integers(0, 10, 8)


def train_gluon(net):
    """Train a network in float64; return the mean loss of each step."""
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    settings = {"learning_rate": RATES[0], "momentum": MOMENTUM, "wd": WD}
    trainer = gluon.Trainer(net.collect_params(), "sgd", settings)
    losses = []
    for rate, (X, y) in zip(RATES, batches(), strict=True):
        trainer.set_learning_rate(rate)
        with autograd.record():
            l = loss(net(np.array(X, dtype="float64")), np.array(y, dtype="int64"))
        l.backward()  # the gradient of the sum: l has one value for each example
        trainer.step(len(y))  # divides it by the size of the batch
        losses.append(float(l.mean()))
    return losses


def trained_original():
    """Return the weights before the training, the loss of each step, and the weights after it."""
    net = original_net()
    before = weights_of(net)
    net.cast("float64")
    losses = train_gluon(net)
    return before, losses, weights_of(net)
