"""What the checks see of MXNet: activations, gradients, states, defaults.

Training never asks for these. Names are those of common.weights. What is
called native is the framework left alone, for `run.py differences`.
"""

from multiprocessing import get_start_method

import numpy as onp
from mxnet import MXNetError, autograd, gluon, np, npx
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms

from common.reference import Conventions, State
from common.weights.gluon import LAYERS

from .resnet import resnet18
from .trainer import predict
from .weights import get_weights, parameters_by_name

# Differs: the running variance is biased, and Adam adds epsilon inside the
# bias correction.
CONVENTIONS = Conventions(bn_variance="biased", adam_epsilon_place="inside")
# Gluon has no public way to look into a network or into the state of an
# optimizer: the names with an underscore below are its own.
NAMES = {position: name for name, position in LAYERS.items()}
labels_first = False  # in the framework's losses, before the logits


def in_float64(net):
    """Return the network in float64, to compute in that precision."""
    net.cast("float64")
    return net


def activations(net, X, training=False):
    """Return the output of every layer on a batch, by canonical name.

    Differs: a hybridized network is one operator, which has no layers to
    look into, so here it computes layer by layer.
    """
    outputs = {}

    def keep_as(name):
        def keep(block, inputs, output):  # noqa: ARG001
            outputs[name] = output

        return keep

    hooks = [
        block.register_forward_hook(keep_as(name))
        for name, block in _layers(net).items()
    ]
    hybridized = net._active
    net.hybridize(False)
    predict(net, X, training)
    for hook in hooks:
        hook.detach()
    net.hybridize(hybridized, static_alloc=True, static_shape=True)
    return outputs


def _layers(block, prefix=""):
    """Return all blocks in a network by their canonical names."""
    found = {}
    for name, child in block._children.items():
        full = f"{prefix}.{name}" if prefix else NAMES.get(name, name)
        found[full] = child
        found |= _layers(child, full)
    return found


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss by every weight, in NumPy.

    In training mode; BatchNorm's running statistics move with it.
    """
    with autograd.record():
        l = loss(net(X), y).mean()
    l.backward()
    return {
        name: parameter.grad().asnumpy()
        for name, parameter in _trained(net).items()
    }


def _trained(net):
    return {
        name: parameter
        for name, parameter in parameters_by_name(net).items()
        if parameter.grad_req != "null"
    }


def get_state(net, trainer):
    """Return the state of an optimizer of this network, in NumPy."""
    state = State(trainer.optimizer.num_update)
    for name, parameter in _trained(net).items():
        kept = trainer._updaters[0].states.get(_index(trainer, parameter))
        if isinstance(kept, tuple):  # Adam's
            for slot, array in zip(("first", "second"), kept, strict=True):
                state.slots.setdefault(slot, {})[name] = array.asnumpy()
        elif kept is not None:
            state.slots.setdefault("momentum", {})[name] = kept.asnumpy()
    return state


def set_state(net, trainer, state):
    """Put a state into an optimizer of this network."""
    optimizer, updater = trainer.optimizer, trainer._updaters[0]
    optimizer.num_update = state.steps
    for name, parameter in _trained(net).items():
        index = _index(trainer, parameter)
        optimizer._index_update_count[index] = state.steps
        arrays = [kept[name] for kept in state.slots.values()]
        kept = tuple(
            # The optimizers know the arrays of the old interface alone.
            np.array(a, dtype=parameter.dtype).as_nd_ndarray()
            for a in arrays
        )
        updater.states[index] = kept if len(kept) > 1 else kept[0]
        updater.states_synced[index] = True


def _index(trainer, parameter):
    """Return the number by which the optimizer knows a parameter."""
    return trainer._param2idx[parameter.name]


def native_conv2d(X, weight):
    """Convolve at stride 2 as the framework pads, in NumPy.

    X is (n, channels, height, width), the weight (outputs, channels, 3, 3);
    the padding is what keeps the size at stride 1. Here that is 1 on both
    sides: MXNet has no 'same'.
    """
    return npx.convolution(
        np.array(X, dtype=X.dtype),
        np.array(weight, dtype=X.dtype),
        kernel=(3, 3),
        stride=(2, 2),
        pad=(1, 1),
        num_filter=len(weight),
        no_bias=True,
    ).asnumpy()


def native_batch_norm(X):
    """Return BatchNorm's result, and its new running mean and variance.

    Of the framework's own layer with its own numbers, in training mode, on
    one batch (n, channels, height, width); in NumPy.
    """
    layer = nn.BatchNorm(in_channels=X.shape[1])
    layer.initialize()
    with autograd.record():
        Y = layer(np.array(X))
    Y.backward()  # which moves the statistics
    npx.waitall()
    running = layer.running_mean, layer.running_var
    return Y.asnumpy(), *(value.data().asnumpy() for value in running)


def native_loss_gradient(y_hat, y):
    """Return the gradient of the framework's own loss by the logits.

    Here that of the sum: Gluon's loss is one value per example, and it is
    `trainer.step` that divides by the size of the batch.
    """
    y_hat = np.array(y_hat)
    y_hat.attach_grad()
    with autograd.record():
        l = gluon.loss.SoftmaxCrossEntropyLoss()(y_hat, np.array(y))
    l.backward()
    return y_hat.grad.asnumpy()


def native_updates(name, gradients, rates, momentum=0.0, weight_decay=0.0):
    """Return a weight of 1 after each step of the framework's optimizer.

    `name` is "adam" or "sgd", momentum is for the second; a gradient and a
    learning rate for each step.
    """
    settings = {"learning_rate": rates[0], "wd": weight_decay}
    if name == "sgd":
        settings["momentum"] = momentum
    weight, path = gluon.Parameter("weight", shape=(1,), init="ones"), []
    weight.initialize()
    trainer = gluon.Trainer([weight], name, settings)
    for gradient, rate in zip(gradients, rates, strict=True):
        trainer.set_learning_rate(rate)
        with autograd.record():
            l = weight.data() * gradient
        l.backward()
        trainer.step(1)
        path.append(weight.data().item())
    return path


def native_adjust(name, images, factor):
    """Change "brightness", "contrast", "saturation" or "hue" of images.

    Levels (n, height, width, 3) become levels, in NumPy; floats where the
    framework's way is to compute in floats. A hue's factor is in turns. Here
    by the operator that draws the factor, from a range of one number.
    """
    adjust = getattr(npx.image, f"random_{name}")
    drawn = factor + (name == "hue")  # 1 is no turn
    pictures = [
        adjust(np.array(x, dtype=x.dtype), min_factor=drawn, max_factor=drawn)
        for x in images
    ]
    return onp.stack([picture.asnumpy() for picture in pictures])


def native_resize(images, size):
    """Resize levels (n, height, width, 3), bilinear, in NumPy.

    Returns levels, floats where the framework does.
    """
    height, width = size
    X = np.array(images, dtype=images.dtype)
    return npx.image.resize(X, size=(width, height)).asnumpy()


def native_weights():
    """Return the canonical weights that the layers themselves start from."""
    net = resnet18(10)
    net.initialize()
    return get_weights(net)


def native_layouts():
    """Return the shapes of weights, and the answer to images laid otherwise.

    "kernel" is a convolution's, of 7 outputs, 3 inputs, 4 high, 2 wide;
    "dense" that of 9 inputs and 10 outputs; "refusal" what the convolution
    says of images in the other layout, 5 high and 6 wide; "unsized" its
    shape where it had been left to learn its inputs from these images.
    """
    images = np.zeros((8, 5, 6, 3))  # where 3 x 5 x 6 is wanted
    layer, unsized = nn.Conv2D(7, (4, 2), in_channels=3), nn.Conv2D(7, (4, 2))
    dense = nn.Dense(10, in_units=9)
    for block in (layer, unsized, dense):
        block.initialize()
    refusal = ""
    try:
        layer(images).wait_to_read()
    except MXNetError as error:
        refusal = str(error)
    unsized(images)
    return {
        "kernel": layer.weight.shape,
        "dense": dense.weight.shape,
        "refusal": refusal,
        "unsized": unsized.weight.shape,
    }


def native_flips(images, batch_size, num_workers, seed):
    """Return images as the framework's own loader gives them, flipped or not.

    uint8 (n, height, width, 3), in their order, through as many workers,
    from a seed that is set as the framework's manual has it. Where Python
    does not fork, there are no workers.
    """
    npx.random.seed(seed)
    forks = get_start_method() == "fork"
    loader = gluon.data.DataLoader(
        _Flipped(images), batch_size, num_workers=num_workers * forks
    )
    return onp.concatenate([batch.asnumpy() for batch in loader])


class _Flipped(gluon.data.Dataset):
    def __init__(self, images):
        self.images, self.flip = images, transforms.RandomFlipLeftRight()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.flip(np.array(self.images[index], dtype=onp.uint8))
