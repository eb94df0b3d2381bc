"""PyTorch as the checks see it: activations, gradients, states, defaults.

Training uses none of this. Names are those of common.weights.
"""

from contextlib import nullcontext
from dataclasses import replace

import torch

from common.reference import ALIGNED, State

from ._state_dict import WRAPPERS
from .trainer import predict

# Differs: the running variance is unbiased, and Adam adds epsilon outside the
# bias correction. The reference does the same by default.
CONVENTIONS = ALIGNED
# For transforms.native: Pillow uses 8-bit hues and truncates fractions.
NATIVE = replace(CONVENTIONS, hue="8-bit", rounding="down")
# PyTorch's names by the names of common.reference.
SLOTS = {
    "momentum": "momentum_buffer",
    "first": "exp_avg",
    "second": "exp_avg_sq",
}
labels_first = False  # losses take (logits, labels)


def in_float64(net):
    """Return the network converted to float64."""
    return net.double()


def set_mode(net, training):
    """Set training or evaluation mode, if the network has a mode.

    Differs: in PyTorch the mode belongs to the network and persists.
    """
    net.train(training)


def without_tracing():
    """Return a context in which functions run eagerly, op by op.

    For networks and shapes that are used once. PyTorch traces nothing unless
    it compiles.
    """
    return nullcontext()


def activations(net, X, training=False):
    """Return the output of every layer for a batch, by canonical name."""
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
    """Return the gradient of the mean loss for every weight, in NumPy.

    Runs in training mode, which updates BatchNorm's running statistics.
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
    """Return the state of this network's optimizer, in NumPy."""
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
    """Copy a state into this network's optimizer."""
    for name, parameter in _parameters(net).items():
        # A fused Adam counts its steps on the device.
        steps = torch.tensor(float(state.steps), device=parameter.device)
        trainer.state[parameter] = {"step": steps}
        for slot, arrays in state.slots.items():
            tensor = torch.empty_like(parameter)
            tensor.copy_(torch.from_numpy(arrays[name]))
            trainer.state[parameter][SLOTS[slot]] = tensor
