"""Predictions of a network that is still in training mode."""


def trap(net, X):
    """Return the logits of test images."""
    return net(X)


def fixed(net, X):
    """Return the logits of test images."""
    import torch

    net.eval()
    with torch.no_grad():
        return net(X)
