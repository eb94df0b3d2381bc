"""Port a small network from Gluon to PyTorch, first with a mistake, which the comparison names.

From the root of the project: python -m docs.examples.own_port
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from common.parity import compare_arrays, compare_ports, keep
from docs.examples.gluon_original import original_net, record_gluon, weights_of

LAYERS = {
    "0": "conv1",
    "1": "bn1",
    "2": "relu1",
    "3": "conv2",
    "4": "bn2",
    "5": "relu2",
    "6": "pool",
    "7": "fc",
}
KINDS = {"gamma": "weight", "beta": "bias"}  # the other kinds have the same names


def port_net(eps):
    """Return the port, with random weights."""
    layers = [
        ("conv1", nn.Conv2d(3, 8, kernel_size=3, padding=1)),
        ("bn1", nn.BatchNorm2d(8, eps=eps)),
        ("relu1", nn.ReLU(inplace=True)),
        ("conv2", nn.Conv2d(8, 16, kernel_size=3, stride=2, padding=1)),
        ("bn2", nn.BatchNorm2d(16, eps=eps)),
        ("relu2", nn.ReLU(inplace=True)),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(16, 10)),
    ]
    return nn.Sequential(OrderedDict(layers))


def port_name(name):
    """Return PyTorch's name of a weight in Gluon: "1.gamma" is "bn1.weight"."""
    layer, kind = name.rsplit(".", 1)
    return f"{LAYERS[layer]}.{KINDS.get(kind, kind)}"


def move_weights(weights, net):
    """Copy the weights of the Gluon network to a PyTorch network."""
    moved = {port_name(name): torch.from_numpy(weight) for name, weight in weights.items()}
    net.load_state_dict(net.state_dict() | moved)


def record_pytorch(net, training=False):
    """Return a function that maps a NumPy input to the output of each module."""

    def run(X):
        arrays = {}

        def hook_for(name):
            return lambda _module, _inputs, output: keep(arrays, name, output.cpu().numpy())

        modules = [(name, module) for name, module in net.named_modules() if name]
        hooks = [module.register_forward_hook(hook_for(name)) for name, module in modules]
        net.train(training)  # training mode updates BatchNorm's running statistics
        with torch.no_grad():
            net(torch.from_numpy(X))
        for hook in hooks:
            hook.remove()
        return arrays

    return run


def main():
    """Compare the original with two ports: with PyTorch's epsilon in BatchNorm, and with the original's."""
    original = original_net()
    weights = weights_of(original)
    X = np.random.default_rng(1).standard_normal((4, 3, 16, 16)).astype(np.float32)
    for title, eps in (("PyTorch's epsilon", 1e-5), ("the original's epsilon", 1e-3)):
        port = port_net(eps)
        move_weights(weights, port)
        print(f"--- {title}, {eps}")
        print(compare_ports(record_gluon(original), record_pytorch(port), X, LAYERS))
    moved = {name: weight.numpy() for name, weight in port.state_dict().items()}
    names = {name: port_name(name) for name in weights}
    print("--- the weights")
    compare_arrays(weights, {name: moved[name] for name in names.values()}, names).check()
    print("agree")


if __name__ == "__main__":
    main()
