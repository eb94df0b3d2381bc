"""The sum of a batch's losses instead of the mean."""


def trap(losses, optimizer):
    """Take a step from the loss of each example."""
    optimizer.zero_grad()
    losses.sum().backward()
    optimizer.step()


def fixed(losses, optimizer):
    """Take a step from the loss of each example."""
    optimizer.zero_grad()
    losses.mean().backward()
    optimizer.step()
