"""What the checks see of PyTorch: activations, gradients, states, defaults.

Training never asks for these. Names are those of common.weights. What is
called native is the framework left alone, for `run.py differences`.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from common.reference import ALIGNED, State

from ._state_dict import WRAPPERS
from .resnet import resnet18
from .trainer import predict
from .weights import get_weights

# Differs: the running variance is unbiased, and Adam adds epsilon outside the
# bias correction; these are the arbiter's defaults too.
CONVENTIONS = ALIGNED
# Name of a slot in common.reference: PyTorch's.
SLOTS = {
    "momentum": "momentum_buffer",
    "first": "exp_avg",
    "second": "exp_avg_sq",
}
labels_first = False  # in the framework's losses, before the logits


def in_float64(net):
    """Return the network in float64, to compute in that precision."""
    return net.double()


def activations(net, X, training=False):
    """Return the output of every layer on a batch, by canonical name."""
    outputs = {}

    def keep_as(name):
        def keep(module, inputs, output):  # noqa: ARG001
            outputs[name] = output

        return keep

    hooks = [
        module.register_forward_hook(keep_as(WRAPPERS.sub("", name, count=1)))
        for name, module in net.named_modules()
    ]
    predict(net, X, training)
    for hook in hooks:
        hook.remove()
    return outputs


def gradients(net, X, y, loss):
    """Return the gradient of the mean loss by every weight, in NumPy.

    In training mode; BatchNorm's running statistics move with it.
    """
    net.train()
    net.zero_grad()
    loss(net(X), y).mean().backward()
    return {
        name: parameter.grad.cpu().contiguous().numpy()
        for name, parameter in _parameters(net).items()
    }


def _parameters(net):
    return {
        WRAPPERS.sub("", name, count=1): parameter
        for name, parameter in net.named_parameters()
    }


def get_state(net, trainer):
    """Return the state of an optimizer of this network, in NumPy."""
    state = State()
    for name, parameter in _parameters(net).items():
        own = trainer.state.get(parameter, {})
        # Differs: PyTorch's SGD does not count its steps.
        state.steps = int(own.get("step", 0))
        for slot, key in SLOTS.items():
            if own.get(key) is not None:
                array = own[key].cpu().contiguous().numpy().copy()
                state.slots.setdefault(slot, {})[name] = array
    return state


def set_state(net, trainer, state):
    """Put a state into an optimizer of this network."""
    for name, parameter in _parameters(net).items():
        # A fused Adam counts on the device.
        steps = torch.tensor(float(state.steps), device=parameter.device)
        trainer.state[parameter] = {"step": steps}
        for slot, arrays in state.slots.items():
            tensor = torch.empty_like(parameter)
            tensor.copy_(torch.from_numpy(arrays[name]))
            trainer.state[parameter][SLOTS[slot]] = tensor


def native_conv2d(X, weight):
    """Convolve at stride 2 as the framework pads, in NumPy.

    X is (n, channels, height, width), the weight (outputs, channels, 3, 3);
    the padding is what keeps the size at stride 1. Here that is 1 on both
    sides: PyTorch refuses 'same' at stride 2.
    """
    X, weight = torch.from_numpy(X), torch.from_numpy(weight)
    return F.conv2d(X, weight, stride=2, padding=1).numpy()


def native_batch_norm(X):
    """Return BatchNorm's result, and its new running mean and variance.

    Of the framework's own layer with its own numbers, in training mode, on
    one batch (n, channels, height, width); in NumPy.
    """
    layer = nn.BatchNorm2d(X.shape[1])
    Y = layer(torch.from_numpy(X)).detach().numpy()
    running = layer.state_dict()
    return Y, running["running_mean"].numpy(), running["running_var"].numpy()


def native_loss_gradient(y_hat, y):
    """Return the gradient of the framework's own loss by the logits."""
    y_hat = torch.from_numpy(y_hat).requires_grad_()
    l = nn.CrossEntropyLoss()(y_hat, torch.from_numpy(y))
    (gradient,) = torch.autograd.grad(l, y_hat)
    return gradient.numpy()


def native_updates(name, gradients, rates, momentum=0.0, weight_decay=0.0):
    """Return a weight of 1 after each step of the framework's optimizer.

    `name` is "adam" or "sgd", momentum is for the second; a gradient and a
    learning rate for each step.
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


def native_adjust(name, images, factor):
    """Change "brightness", "contrast", "saturation" or "hue" of images.

    Levels (n, height, width, 3) become levels, in NumPy; floats where the
    framework's way is to compute in floats. A hue's factor is in turns. Here
    on PIL images, as the book has them.
    """
    from torchvision.transforms import functional

    adjust = getattr(functional, f"adjust_{name}")
    pictures = [adjust(Image.fromarray(image), factor) for image in images]
    return np.stack([np.asarray(picture) for picture in pictures])


def native_resize(images, size):
    """Resize levels (n, height, width, 3), bilinear, in NumPy.

    Returns levels, floats where the framework does.
    """
    from torchvision.transforms import functional

    pictures = [functional.resize(Image.fromarray(x), size) for x in images]
    return np.stack([np.asarray(picture) for picture in pictures])


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
    images = torch.zeros(8, 5, 6, 3)  # where 3 x 5 x 6 is wanted
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


def native_flips(images, batch_size, num_workers, seed):
    """Return images as the framework's own loader gives them, flipped or not.

    uint8 (n, height, width, 3), in their order, through as many workers,
    from a seed that is set as the framework's manual has it.
    """
    torch.manual_seed(seed)
    loader = DataLoader(_Flipped(images), batch_size, num_workers=num_workers)
    return torch.cat(list(loader)).permute(0, 2, 3, 1).numpy()


class _Flipped(Dataset):
    def __init__(self, images):
        from torchvision import transforms

        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.flip = transforms.RandomHorizontalFlip()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.flip(self.images[index])
