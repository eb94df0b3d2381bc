"""Labels that are no class, which MXNet replaces by the nearest class."""


def trap(logits, labels):
    """Return the loss of each example."""
    from mxnet.gluon.loss import SoftmaxCrossEntropyLoss

    return SoftmaxCrossEntropyLoss()(logits, labels)


def fixed(logits, labels):
    """Return the loss of each example."""
    from mxnet.gluon.loss import SoftmaxCrossEntropyLoss

    for label in labels.asnumpy():
        if label not in range(logits.shape[1]):
            raise ValueError(f"label {label} is no class")
    return SoftmaxCrossEntropyLoss()(logits, labels)
