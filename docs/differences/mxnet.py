"""MXNet's own operations, with their defaults."""

from multiprocessing import get_start_method

import numpy as onp
from mxnet import MXNetError, autograd, gluon, np, npx
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms

from backends.mxnet.resnet import resnet18
from backends.mxnet.weights import get_weights


def conv2d(X, weight):
    """Convolve at stride 2 with the padding that keeps the size at stride 1.

    MXNet has no 'same', so the padding is 1 on both sides.
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


def batch_norm(X):
    """Return the output of a new BatchNorm layer, and its new running mean and variance."""
    layer = nn.BatchNorm(in_channels=X.shape[1])
    layer.initialize()
    with autograd.record():
        Y = layer(np.array(X))
    Y.backward()  # updates the running statistics
    npx.waitall()
    running = layer.running_mean, layer.running_var
    return Y.asnumpy(), *(value.data().asnumpy() for value in running)


def loss_gradient(y_hat, y):
    """Return the gradient of the framework's cross-entropy with respect to the logits.

    Gluon's loss is one value per example, so this is the gradient of the sum. `trainer.step` divides it by the
    batch size.
    """
    y_hat = np.array(y_hat)
    y_hat.attach_grad()
    with autograd.record():
        l = gluon.loss.SoftmaxCrossEntropyLoss()(y_hat, np.array(y))
    l.backward()
    return y_hat.grad.asnumpy()


def updates(name, gradients, rates, momentum=0.0, weight_decay=0.0):
    """Return a weight that starts at 1 after each step of the optimizer "adam" or "sgd"."""
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


def adjust(name, images, factor):
    """Change the "brightness", "contrast", "saturation" or "hue" of uint8 images (n, height, width, 3).

    MXNet has only operators that draw the factor. Here they draw it from a range of one number.
    """
    operation = getattr(npx.image, f"random_{name}")
    drawn = factor + (name == "hue")  # 1 is no turn
    pictures = [
        operation(np.array(x, dtype=x.dtype), min_factor=drawn, max_factor=drawn) for x in images
    ]
    return onp.stack([picture.asnumpy() for picture in pictures])


def resize(images, size):
    """Resize uint8 images (n, height, width, 3) with bilinear interpolation."""
    height, width = size
    X = np.array(images, dtype=images.dtype)
    return npx.image.resize(X, size=(width, height)).asnumpy()


def initial_weights():
    """Return the default initial weights of ResNet-18's layers, by canonical name."""
    net = resnet18(10)
    net.initialize()
    return get_weights(net)


def layouts():
    """Return the shapes of weights, and the reaction of a convolution to images in the other layout."""
    images = np.zeros((8, 5, 6, 3))  # expected: (8, 3, 5, 6)
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


def flips(images, batch_size, num_workers, seed):
    """Return uint8 images (n, height, width, 3), in order, flipped by the framework's loader.

    Without fork, MXNet has no worker processes.
    """
    npx.random.seed(seed)
    forks = get_start_method() == "fork"
    loader = gluon.data.DataLoader(_Flipped(images), batch_size, num_workers=num_workers * forks)
    return onp.concatenate([batch.asnumpy() for batch in loader])


class _Flipped(gluon.data.Dataset):
    def __init__(self, images):
        self.images, self.flip = images, transforms.RandomFlipLeftRight()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.flip(np.array(self.images[index], dtype=onp.uint8))
