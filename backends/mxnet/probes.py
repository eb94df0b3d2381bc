"""What the checks see of MXNet: activations, gradients, states, defaults.

Training never asks for these. Names are those of common.weights.
"""

from contextlib import nullcontext
from dataclasses import replace

from mxnet import autograd, np

from common.reference import Conventions, State
from common.weights.gluon import LAYERS

from .trainer import predict
from .weights import parameters_by_name

# Differs: the running variance is biased, and Adam adds epsilon inside the
# bias correction.
CONVENTIONS = Conventions(bn_variance="biased", adam_epsilon_place="inside")
# Of transforms.native: see _native.py.
NATIVE = replace(CONVENTIONS, saturation="blue", rounding="down")
# Gluon has no public way to look into a network or into the state of an
# optimizer: the names with an underscore below are its own.
NAMES = {position: name for name, position in LAYERS.items()}
labels_first = False  # in the framework's losses, before the logits


def in_float64(net):
    """Return the network in float64, to compute in that precision."""
    net.cast("float64")
    return net


def set_mode(net, training):
    """Leave the network in training or evaluation mode, if it has one.

    Differs: in MXNet the mode belongs to the call.
    """


def without_tracing():
    """Return a context in which functions run op by op, untraced.

    For networks and shapes that are used once. MXNet's static graphs are made
    in milliseconds, so they stay on.
    """
    return nullcontext()


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
