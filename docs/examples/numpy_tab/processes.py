"""Several processes in NumPy: there is no engine, so there is one process."""


def join():
    """Join the other processes of this run, if the engine's variables are set.

    NumPy has no engine.
    """


def rank():
    """Return the number of this process, from 0."""
    return 0


def num_processes():
    """Return the number of processes that train together."""
    return 1


def replicate(net, devices):  # noqa: ARG001
    """Return the network with the same weights in every process."""
    return net


def total(values):
    """Return the sum of a number or an array over all processes."""
    return values


def average_buffers(net):
    """Average BatchNorm's running statistics over all processes."""
