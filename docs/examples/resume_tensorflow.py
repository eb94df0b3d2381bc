"""Save a training after each epoch, and resume it, with TensorFlow's own means."""

import keras
import tensorflow as tf

from docs.examples.resume_batches import batches


def new_training():
    """Return a network and its optimizer."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.BatchNormalization()])
    net.add(layers.ReLU())
    net.add(layers.Dense(3))
    trainer = keras.optimizers.Adam(0.01)
    trainer.build(net.trainable_variables)  # before restoring: see assert_consumed
    return net, trainer


def save(folder, net, trainer, num_epochs):
    """Save a training after some epochs."""
    epochs = tf.Variable(num_epochs)
    checkpoint = tf.train.Checkpoint(net=net, trainer=trainer, epochs=epochs)
    manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2)
    manager.save(checkpoint_number=num_epochs)


def restore(folder, net, trainer):
    """Restore the last saved state, if any; return the number of finished epochs."""
    path = tf.train.latest_checkpoint(str(folder))
    if path is None:
        return 0
    epochs = tf.Variable(0)
    checkpoint = tf.train.Checkpoint(net=net, trainer=trainer, epochs=epochs)
    checkpoint.restore(path).assert_consumed()
    return int(epochs)


def train(folder, num_epochs):
    """Train, or go on with the training in a folder; return the network."""
    net, trainer = new_training()
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits
    for epoch in range(restore(folder, net, trainer), num_epochs):
        for X, y in batches(epoch):
            with tf.GradientTape() as tape:
                l = tf.reduce_mean(loss(y, net(X, training=True)))
            gradients = tape.gradient(l, net.trainable_variables)
            trainer.apply(gradients, net.trainable_variables)
        save(folder, net, trainer, epoch + 1)
    return net
