"""What the checks see of PyTorch: activations, gradients, states, defaults.

Training never asks for these. Names are those of common.weights.
"""

from contextlib import nullcontext
from dataclasses import replace

import torch

from common.reference import ALIGNED, State

from ._state_dict import WRAPPERS
from .trainer import predict

# Differs: the running variance is unbiased, and Adam adds epsilon outside the
# bias correction; these are the reference's defaults too.
CONVENTIONS = ALIGNED
# Of transforms.native: Pillow turns hues in 8 bits, and cuts fractions off.
NATIVE = replace(CONVENTIONS, hue="8-bit", rounding="down")
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


def set_mode(net, training):
    """Leave the network in training or evaluation mode, if it has one.

    Differs: in PyTorch the mode belongs to the network, and stays.
    """
    net.train(training)


def without_tracing():
    """Return a context in which functions run op by op, untraced.

    For networks and shapes that are used once. PyTorch traces nothing unless
    it compiles.
    """
    return nullcontext()


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
