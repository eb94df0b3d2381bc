"""The network that the examples port, as a Gluon user wrote it, and functions that record its layers."""

import re

import numpy as onp

import backends.mxnet  # noqa: F401 (restores NumPy's old aliases before mxnet is imported)
from common.parity import keep

import mxnet as mx  # isort: skip
from mxnet import autograd, init, np  # isort: skip
from mxnet.gluon import SymbolBlock, nn  # isort: skip


def original_net():
    """Return the network with weights and running statistics like those after training."""
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(8, kernel_size=3, padding=1, in_channels=3),
        nn.BatchNorm(epsilon=1e-3, in_channels=8),
        nn.Activation("relu"),
        nn.Conv2D(16, kernel_size=3, strides=2, padding=1, in_channels=8),
        nn.BatchNorm(epsilon=1e-3, in_channels=16),
        nn.Activation("relu"),
        nn.GlobalAvgPool2D(),
        nn.Dense(10, in_units=16),
    )
    net.initialize(init.Xavier())
    rng = onp.random.default_rng(0)
    for name, parameter in net._collect_params_with_prefix().items():
        low, high = (0.5, 2) if name.endswith(("gamma", "running_var")) else (-0.5, 0.5)
        parameter.set_data(np.array(rng.uniform(low, high, parameter.shape)))
    return net


def weights_of(net):
    """Return the weights as NumPy arrays, by the names of save_parameters."""
    parameters = net._collect_params_with_prefix()
    return {name: parameter.data().asnumpy() for name, parameter in parameters.items()}


def blocks(net, prefix=""):
    """Yield all blocks inside a Gluon block, with names such as "4.0.conv1"."""
    for name, block in net._children.items():
        yield prefix + name, block
        yield from blocks(block, f"{prefix}{name}.")


def record_gluon(net, training=False):
    """Return a function that maps a NumPy input to the output of each block."""
    net.hybridize(False)  # a hybridized network does not call its blocks

    def run(X):
        arrays = {}

        def hook_for(name):
            return lambda _block, _inputs, output: keep(arrays, name, output.asnumpy())

        hooks = [block.register_forward_hook(hook_for(name)) for name, block in blocks(net)]
        with autograd.train_mode() if training else autograd.predict_mode():
            net(np.array(X, dtype=X.dtype))
        for hook in hooks:
            hook.detach()
        return arrays

    return run


def record_exported(symbol_file, params_file, data="data"):
    """Return the same function for an exported graph and its weights, in evaluation mode."""
    graph = mx.sym.load(symbol_file).get_internals()
    names = [name for name in graph.list_outputs() if re.search(r"_output\d*$", name)]
    outputs = mx.sym.Group([graph[name] for name in names])
    net = SymbolBlock(outputs, mx.sym.var(data, dtype="float32"))
    net.load_parameters(params_file)

    def run(X):
        with mx.util.np_array(False):  # a loaded graph returns arrays of the old interface
            outputs = net(mx.nd.array(X, dtype="float32"))
        arrays = {}
        for name, output in zip(names, outputs, strict=True):
            keep(arrays, name, output.asnumpy())
        return arrays

    return run
