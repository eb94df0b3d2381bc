"""Five reports in an epoch that has fewer batches."""


def trap(num_batches):
    """Return the batches after which to report."""
    every = num_batches // 5
    return [
        i
        for i in range(1, num_batches + 1)
        if i % every == 0
    ]


def fixed(num_batches):
    """Return the batches after which to report."""
    every = max(num_batches // 5, 1)
    return [
        i
        for i in range(1, num_batches + 1)
        if i % every == 0
    ]
