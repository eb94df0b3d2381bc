"""A learning rate that falls, and a momentum that contains the old one."""


def trap(sgd, lr):
    """Change the learning rate of Keras' SGD."""
    sgd.learning_rate = lr


def fixed(sgd, lr):
    """Change the learning rate of Keras' SGD."""
    for momentum in sgd.momentums:
        momentum.assign(momentum * lr / sgd.learning_rate)
    sgd.learning_rate = lr
