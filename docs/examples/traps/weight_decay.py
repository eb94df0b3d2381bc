"""Weight decay, which Keras does not add to the gradient."""


def trap(lr, decay):
    """Return a step function."""
    from keras.optimizers import SGD

    sgd = SGD(lr, momentum=0.9, weight_decay=decay)

    def step(gradient, weight):
        sgd.apply([gradient], [weight])

    return step


def fixed(lr, decay):
    """Return a step function."""
    from keras.optimizers import SGD

    sgd = SGD(lr, momentum=0.9)

    def step(gradient, weight):
        sgd.apply([gradient + decay * weight], [weight])

    return step
