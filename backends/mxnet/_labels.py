"""The check of labels in a training step, without waiting for a GPU."""

from common.labels import check_labels


def check_labels_on_host(y, pred):
    """Raise ValueError for a label that is no class of the logits.

    Labels on a GPU are not read: the host would wait for them. The loaders of
    this tab take them from a Dataset, which has checked them.
    """
    if y.ctx.device_type != "gpu":
        check_labels(y.asnumpy(), pred.shape[1])
