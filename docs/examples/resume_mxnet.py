"""Save a training after each epoch, and resume it, with Gluon's own means."""

import backends.mxnet  # noqa: F401 (restores NumPy's old aliases before mxnet is imported)
from docs.examples.resume_batches import batches

import mxnet as mx  # isort: skip
from mxnet import autograd, gluon, init, np, npx  # isort: skip
from mxnet.gluon import nn  # isort: skip


def new_training():
    """Return a network and its optimizer."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(nn.Dense(16, in_units=8), nn.BatchNorm(in_channels=16), nn.Activation("relu"))
    net.add(nn.Dense(3, in_units=16))
    net.initialize(init.Xavier())
    net.hybridize(static_alloc=True, static_shape=True)
    # In their own order: a trainer sorts a dict by name, and dense10 comes before dense9.
    parameters = list(net.collect_params().values())
    return net, gluon.Trainer(parameters, "adam", {"learning_rate": 0.01})


def save(folder, net, trainer, num_epochs):
    """Save a training after some epochs."""
    npx.waitall()  # a static graph writes BatchNorm's statistics late
    net.save_parameters(str(folder / f"{num_epochs:04}.params"))
    trainer.save_states(str(folder / "new"))
    (folder / "new").replace(folder / f"{num_epochs:04}.states")  # now both are complete


def restore(folder, net, trainer):
    """Restore the last saved state, if any; return the number of finished epochs."""
    path = max(folder.glob("*.states"), default=None)
    if path is None:
        return 0
    net.load_parameters(str(path.with_suffix(".params")))
    trainer.load_states(str(path))
    return int(path.stem)


def train(folder, num_epochs):
    """Train, or go on with the training in a folder; return the network."""
    net, trainer = new_training()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for epoch in range(restore(folder, net, trainer), num_epochs):
        for X, y in batches(epoch):
            with autograd.record():
                l = loss(net(np.array(X)), np.array(y))
            l.backward()
            trainer.step(len(y))
        save(folder, net, trainer, epoch + 1)
    return net
