"""PyTorch's own operations, with their defaults.

The three files pytorch.py, mxnet.py and tensorflow.py define the same functions. Each takes and returns NumPy arrays.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional

from backends.pytorch.resnet import resnet18
from backends.pytorch.weights import get_weights


def conv2d(X, weight):
    """Convolve at stride 2 with the padding that keeps the size at stride 1.

    X is (n, channels, height, width), the weight (outputs, channels, 3, 3). PyTorch refuses 'same' at stride 2, so the
    padding is 1 on both sides.
    """
    X, weight = torch.from_numpy(X), torch.from_numpy(weight)
    return F.conv2d(X, weight, stride=2, padding=1).numpy()


def batch_norm(X):
    """Return the output of a new BatchNorm layer, and its new running mean and variance.

    In training mode, on one batch (n, channels, height, width).
    """
    layer = nn.BatchNorm2d(X.shape[1])
    Y = layer(torch.from_numpy(X)).detach().numpy()
    running = layer.state_dict()
    return Y, running["running_mean"].numpy(), running["running_var"].numpy()


def loss_gradient(y_hat, y):
    """Return the gradient of the framework's cross-entropy with respect to the logits."""
    y_hat = torch.from_numpy(y_hat).requires_grad_()
    l = nn.CrossEntropyLoss()(y_hat, torch.from_numpy(y))
    (gradient,) = torch.autograd.grad(l, y_hat)
    return gradient.numpy()


def updates(name, gradients, rates, momentum=0.0, weight_decay=0.0):
    """Return a weight that starts at 1 after each step of the optimizer "adam" or "sgd".

    Each step has its own gradient and learning rate. The momentum is for SGD.
    """
    settings = {"lr": rates[0], "weight_decay": weight_decay}
    weight, path = nn.Parameter(torch.ones(1)), []
    trainer = (
        torch.optim.Adam([weight], **settings)
        if name == "adam"
        else torch.optim.SGD([weight], momentum=momentum, **settings)
    )
    for gradient, rate in zip(gradients, rates, strict=True):
        trainer.param_groups[0]["lr"] = rate
        weight.grad = torch.full((1,), gradient)
        trainer.step()
        path.append(weight.item())
    return path


def adjust(name, images, factor):
    """Change the "brightness", "contrast", "saturation" or "hue" of uint8 images (n, height, width, 3).

    The result is uint8, or floats 0..255 if the framework computes in floats. A hue's factor is in turns. PyTorch's
    operations take PIL images here, as in the book.
    """
    operation = getattr(functional, f"adjust_{name}")
    pictures = [operation(Image.fromarray(image), factor) for image in images]
    return np.stack([np.asarray(picture) for picture in pictures])


def resize(images, size):
    """Resize uint8 images (n, height, width, 3) with bilinear interpolation.

    The result is uint8, or floats 0..255 if the framework computes in floats.
    """
    pictures = [functional.resize(Image.fromarray(x), size) for x in images]
    return np.stack([np.asarray(picture) for picture in pictures])


def initial_weights():
    """Return the default initial weights of ResNet-18's layers, by canonical name."""
    return get_weights(resnet18(10))


def layouts():
    """Return the shapes of weights, and the reaction of a convolution to images in the other layout.

    "kernel" is the shape of a convolution's weights with 7 outputs, 3 inputs, height 4 and width 2. "dense" is that of
    a dense layer with 9 inputs and 10 outputs. "refusal" is the error of that convolution on images of 5 x 6 in the
    other layout, "" if there is none. "unsized" is the shape of the weights of a convolution that learned its inputs
    from these images.
    """
    images = torch.zeros(8, 5, 6, 3)  # expected: (8, 3, 5, 6)
    layer, unsized = nn.Conv2d(3, 7, (4, 2)), nn.LazyConv2d(7, (4, 2))
    refusal = ""
    try:
        layer(images)
    except RuntimeError as error:
        refusal = str(error)
    unsized(images)
    return {
        "kernel": tuple(layer.weight.shape),
        "dense": tuple(nn.Linear(9, 10).weight.shape),
        "refusal": refusal,
        "unsized": tuple(unsized.weight.shape),
    }


def flips(images, batch_size, num_workers, seed):
    """Return uint8 images (n, height, width, 3), in order, flipped by the framework's loader.

    The seed is set as the framework's documentation says.
    """
    torch.manual_seed(seed)
    loader = DataLoader(_Flipped(images), batch_size, num_workers=num_workers)
    return torch.cat(list(loader)).permute(0, 2, 3, 1).numpy()


class _Flipped(Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.flip = transforms.RandomHorizontalFlip()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.flip(self.images[index])
