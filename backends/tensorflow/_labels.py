"""The check of labels in a training step, without waiting for a GPU."""

import functools

import tensorflow as tf

from common.labels import check_labels


def checks_labels_on_host(step):
    """Make a training step raise ValueError for a label that is no class.

    Labels on a GPU are not read: the host would wait for them. The loaders of
    this tab take them from a Dataset, which has checked them. Differs: a graph
    cannot raise this error on a GPU or with XLA, so the check comes before it.
    """

    @functools.wraps(step)
    def checked(net, X, y, *args, **kwargs):
        y = tf.convert_to_tensor(y)
        if not tf.is_symbolic_tensor(y) and "GPU" not in y.device:
            check_labels(y.numpy(), _num_classes(net, X))
        return step(net, X, y, *args, **kwargs)

    return checked


def _num_classes(net, X):
    """Return the number of logits; computed once for each network."""
    if not net.built:
        net(X)  # which makes the weights
    known = vars(net)
    if "_num_classes" not in known:
        known["_num_classes"] = net.compute_output_shape(X.shape)[-1]
    return known["_num_classes"]
