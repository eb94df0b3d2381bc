"""Predictions that get their ids by counting."""


def trap(names, labels):
    """Return the rows of a submission: id and label."""
    ids = sorted(range(1, len(names) + 1), key=str)
    return list(zip(ids, labels, strict=True))


def fixed(names, labels):
    """Return the rows of a submission: id and label."""
    ids = [int(name.removesuffix(".png")) for name in names]
    return list(zip(ids, labels, strict=True))
