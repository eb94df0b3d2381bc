"""A training that is saved without its optimizer."""


def trap(path, net):
    """Save a training after an epoch."""
    net.save_parameters(f"{path}.params")


def fixed(path, net, trainer):
    """Save a training after an epoch."""
    net.save_parameters(f"{path}.params")
    trainer.save_states(f"{path}.states")
