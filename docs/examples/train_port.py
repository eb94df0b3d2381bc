"""Port gluon_training.py to PyTorch: with Gluon's settings it agrees, and with any one left at its default it does not.

From the root of the project: python -m docs.examples.train_port
"""

import math

import torch
from torch import nn

from common.weights.params import read_params
from docs.examples.divergence import rows_of, table
from docs.examples.gluon_training import MOMENTUM, RATES, WD, batches, trained_original
from docs.examples.own_port import move_weights, port_name, port_net

from mxnet import np  # isort: skip


def set_rate(trainer, rate):
    """Set the learning rate as in PyTorch: the accumulated momentum takes the new rate too."""
    for group in trainer.param_groups:
        group["lr"] = rate


def set_rate_as_gluon(trainer, rate):
    """Set the learning rate as in Gluon and Keras: the accumulated momentum keeps the old rate."""
    for group in trainer.param_groups:
        for parameter in group["params"]:
            buffer = trainer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                buffer *= group["lr"] / rate
        group["lr"] = rate


def set_epsilon_as_gluon(trainer, eps, step):
    """Make PyTorch's Adam add epsilon as Gluon and Keras do, in this step, counted from 1."""
    for group in trainer.param_groups:
        group["eps"] = eps / math.sqrt(1 - group["betas"][1] ** step)


def train_pytorch(net, summed=False, set_rate=set_rate_as_gluon):
    """Train a network; return the mean loss of each step. ``summed`` minimizes the sum."""
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = torch.optim.SGD(net.parameters(), lr=RATES[0], momentum=MOMENTUM, weight_decay=WD)
    net.train()
    losses = []
    for rate, (X, y) in zip(RATES, batches(), strict=True):
        set_rate(trainer, rate)
        trainer.zero_grad()  # Gluon overwrites gradients, PyTorch adds to them
        l = loss(net(torch.from_numpy(X)), torch.from_numpy(y))
        (l.sum() if summed else l.mean()).backward()
        trainer.step()
        losses.append(l.mean().item())
    return losses


def double_port(eps=1e-3, momentum=0.1):
    """Return the port in float64. BatchNorm's momentum is one minus Gluon's."""
    net = port_net(eps).double()
    for layer in net:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    return net


def move_file(path, net):
    """Copy the weights of a `.params` file to a PyTorch network, without MXNet."""
    move_weights(read_params(path), net)


def named_as_gluon(net, names):
    """Return the weights of the port as NumPy arrays, by Gluon's names."""
    state = net.state_dict()
    return {name: state[port_name(name)].numpy() for name in names}


def move_back(net, original):
    """Copy the weights of the port to the Gluon network."""
    parameters = original._collect_params_with_prefix()
    for name, weight in named_as_gluon(net, parameters).items():
        parameters[name].set_data(np.array(weight, dtype=parameters[name].dtype))


PORTS = {
    "Gluon's settings": ({}, {}),
    "the sum of the losses": ({}, {"summed": True}),
    "momentum not rescaled at the new rate": ({}, {"set_rate": set_rate}),
    "BatchNorm's default epsilon, 1e-05": ({"eps": 1e-5}, {}),
    "BatchNorm's momentum copied, 0.9": ({"momentum": 0.9}, {}),
}


def trained_port(before, names, of_net, of_training):
    """Train a port from Gluon's weights; return its losses and its new weights by Gluon's names."""
    net = double_port(**of_net)
    move_weights(before, net)
    losses = train_pytorch(net, **of_training)
    return losses, named_as_gluon(net, names)


def rows():
    """Return how much each port differs from the original, by title."""
    return rows_of(PORTS, trained_port, *trained_original())


def main():
    """Print the table."""
    print(table(rows()))


if __name__ == "__main__":
    main()
