"""A table of labels that has more rows than there are images."""

from collections import Counter


def trap(ids, labels, ratio):
    """Return the ids for training and validation."""
    rarest = min(Counter(labels.values()).values())
    return split(ids, labels, int(ratio * rarest))


def fixed(ids, labels, ratio):
    """Return the ids for training and validation."""
    rarest = min(Counter(labels[i] for i in ids).values())
    return split(ids, labels, int(ratio * rarest))


def split(ids, labels, num_valid):
    """Return two lists; the second: `num_valid` of each class."""
    train, valid, seen = [], [], Counter()
    for i in ids:
        seen[labels[i]] += 1
        first = seen[labels[i]] <= num_valid
        (valid if first else train).append(i)
    return train, valid
