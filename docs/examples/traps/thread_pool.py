"""Threads that build the graph of one transform at the same time."""


def trap(dataset, transform):
    """Return the batches, loaded by two threads."""
    from mxnet.gluon.data import DataLoader

    return DataLoader(
        dataset.transform_first(transform),
        batch_size=1,
        num_workers=2,
        thread_pool=True,
    )


def fixed(dataset, transform):
    """Return the batches, loaded by two threads."""
    from mxnet.gluon.data import DataLoader

    X, _ = dataset[0]
    transform(X)  # builds the graph
    return DataLoader(
        dataset.transform_first(transform),
        batch_size=1,
        num_workers=2,
        thread_pool=True,
    )
