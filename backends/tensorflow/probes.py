"""What the checks see of TensorFlow: activations, gradients, states, defaults.

Training never asks for these. Names are those of common.weights. What is
called native is the framework left alone, for `run.py differences`.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from common.reference import Conventions, State
from common.weights.canonical import network_sizes
from common.weights.keras import from_keras, to_keras

from ._graphs import graph
from .resnet import Residual, resnet18
from .weights import get_weights, set_weights, variables_by_name

# Differs: Adam adds epsilon inside the bias correction.
CONVENTIONS = Conventions(adam_epsilon_place="inside")
labels_first = True  # in the framework's losses, before the logits


def in_float64(net):
    """Return the network in float64, to compute in that precision.

    Differs: the type of a variable is settled when it is made, so this is a
    copy.
    """
    weights = get_weights(net)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        copy = resnet18(*network_sizes(weights))
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
    set_weights(copy, weights)
    return copy


def activations(net, X, training=False):
    """Return the output of every layer on a batch, by canonical name.

    Differs: Keras has no hooks, so each layer's `call` is replaced for one
    eager pass.
    """
    outputs, layers = {}, _layers(net)

    def keeping(name, call):
        def keep(*inputs, **options):
            outputs[name] = call(*inputs, **options)
            return outputs[name]

        return keep

    for name, layer in layers.items():
        vars(layer)["call"] = keeping(name, layer.call)
    try:
        net(X, training=training)
    finally:
        for layer in layers.values():
            del vars(layer)["call"]
    return outputs


def _layers(net):
    """Return the layers of a network by their canonical names."""
    found = {}
    for layer in net.layers:
        if not isinstance(layer, keras.Sequential):
            found[layer.name] = layer
            continue
        for i, block in enumerate(layer.layers):
            name = f"{layer.name}.{i}"
            found[name] = block
            if isinstance(block, Residual):
                parts = (block.conv1, block.conv2, block.conv3)
                for part in (*parts, block.bn1, block.bn2):
                    if part is not None:
                        found[f"{name}.{part.name}"] = part
    return found


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss by every weight, in NumPy.

    In training mode; BatchNorm's running statistics move with it.
    """
    found = _gradients(net, X, y, loss)
    return {
        name: from_keras(gradient.numpy())
        for name, gradient in zip(_trained(net), found, strict=True)
    }


@graph
def _gradients(net, X, y, loss):
    with tf.GradientTape() as tape:
        l = tf.reduce_mean(loss(y, net(X, training=True)))
    return tape.gradient(l, list(_trained(net).values()))


def _trained(net):
    return {
        name: variable
        for name, variable in variables_by_name(net).items()
        if variable.trainable
    }


def get_state(net, trainer):
    """Return the state of an optimizer of this network, in NumPy."""
    state = State(int(trainer.iterations.numpy()))
    for slot, variables in _slots(trainer).items():
        for name, variable in _trained(net).items():
            own = variables[trainer._get_variable_index(variable)]
            array = from_keras(own.numpy())
            state.slots.setdefault(slot, {})[name] = array
    return state


def set_state(net, trainer, state):
    """Put a state into an optimizer of this network."""
    trainer.iterations.assign(state.steps)
    for slot, arrays in state.slots.items():
        variables = _slots(trainer)[slot]
        for name, variable in _trained(net).items():
            own = variables[trainer._get_variable_index(variable)]
            own.assign(to_keras(arrays[name]))


def _slots(trainer):
    """Return the optimizer's variables by the slots of common.reference."""
    # Keras has no public name for Adam's, nor for which belongs to which.
    if isinstance(trainer, keras.optimizers.SGD):
        return {"momentum": trainer.momentums} if trainer.momentum else {}
    return {"first": trainer._momentums, "second": trainer._velocities}


def native_conv2d(X, weight):
    """Convolve at stride 2 as the framework pads, in NumPy.

    X is (n, channels, height, width), the weight (outputs, channels, 3, 3);
    the padding is what keeps the size at stride 1. Here that is 'same'.
    """
    X = X.transpose(0, 2, 3, 1)
    Y = tf.nn.conv2d(X, to_keras(weight), 2, "SAME").numpy()
    return Y.transpose(0, 3, 1, 2)


def native_batch_norm(X):
    """Return BatchNorm's result, and its new running mean and variance.

    Of the framework's own layer with its own numbers, in training mode, on
    one batch (n, channels, height, width); in NumPy.
    """
    layer = layers.BatchNormalization()
    Y = layer(X.transpose(0, 2, 3, 1), training=True).numpy()
    running = layer.moving_mean, layer.moving_variance
    return Y.transpose(0, 3, 1, 2), *(value.numpy() for value in running)


def native_loss_gradient(y_hat, y):
    """Return the gradient of the framework's own loss by the logits."""
    y_hat = tf.constant(y_hat)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        tape.watch(y_hat)
        l = loss(y, y_hat)
    return tape.gradient(l, y_hat).numpy()


def native_updates(name, gradients, rates, momentum=0.0, weight_decay=0.0):
    """Return a weight of 1 after each step of the framework's optimizer.

    `name` is "adam" or "sgd", momentum is for the second; a gradient and a
    learning rate for each step.
    """
    settings = {"weight_decay": weight_decay or None}
    if name == "adam":
        trainer = keras.optimizers.Adam(rates[0], **settings)
    else:
        trainer = keras.optimizers.SGD(rates[0], momentum, **settings)
    weight, path = keras.Variable(np.ones(1, np.float32)), []
    for gradient, rate in zip(gradients, rates, strict=True):
        trainer.learning_rate = rate
        trainer.apply([tf.fill([1], np.float32(gradient))], [weight])
        path.append(weight.numpy().item())
    return path


def native_adjust(name, images, factor):
    """Change "brightness", "contrast", "saturation" or "hue" of images.

    Levels (n, height, width, 3) become levels, in NumPy; floats where the
    framework's way is to compute in floats. A hue's factor is in turns. Here
    in floats 0..1, and brightness is added: 0.5 for a factor of 1.5.
    """
    adjust = getattr(tf.image, f"adjust_{name}")
    X = adjust(
        tf.cast(images, tf.float32) / 255, factor - (name == "brightness")
    )
    return 255 * tf.clip_by_value(X, 0, 1).numpy()


def native_resize(images, size):
    """Resize levels (n, height, width, 3), bilinear, in NumPy.

    Returns levels, floats where the framework does.
    """
    return tf.image.resize(images, size).numpy()


def native_weights():
    """Return the canonical weights that the layers themselves start from."""
    return get_weights(resnet18(10))


def native_layouts():
    """Return the shapes of weights, and the answer to images laid otherwise.

    "kernel" is a convolution's, of 7 outputs, 3 inputs, 4 high, 2 wide;
    "dense" that of 9 inputs and 10 outputs; "refusal" what the convolution
    says of images in the other layout, 5 high and 6 wide; "unsized" its
    shape where it had been left to learn its inputs from these images.
    """
    images = np.zeros((8, 3, 5, 6), np.float32)  # where 5 x 6 x 3 is wanted
    # 'same': else the 3 rows are too few for it.
    layer, unsized, dense = (
        layers.Conv2D(7, (4, 2), padding="same"),
        layers.Conv2D(7, (4, 2), padding="same"),
        layers.Dense(10),
    )
    layer.build((None, None, None, 3))
    dense.build((None, 9))
    refusal = ""
    try:
        layer(images)
    except ValueError as error:
        refusal = str(error)
    unsized(images)
    return {
        "kernel": tuple(layer.kernel.shape),
        "dense": tuple(dense.kernel.shape),
        "refusal": refusal,
        "unsized": tuple(unsized.kernel.shape),
    }


def native_flips(images, batch_size, num_workers, seed):
    """Return images as the framework's own loader gives them, flipped or not.

    uint8 (n, height, width, 3), in their order, through as many workers,
    from a seed that is set as the framework's manual has it. Workers are
    threads.
    """
    keras.utils.set_random_seed(seed)
    loader = tf.data.Dataset.from_tensor_slices(images).map(
        tf.image.random_flip_left_right,
        num_parallel_calls=num_workers or None,
    )
    return np.concatenate(list(loader.batch(batch_size).as_numpy_iterator()))
