"""A validation set that is sorted by class, without its last batch."""


def trap(valid):
    """Return the labels of the validation batches."""
    from torch.utils.data import DataLoader

    batches = DataLoader(valid, 32, drop_last=True)
    return [int(label) for _, y in batches for label in y]


def fixed(valid):
    """Return the labels of the validation batches."""
    from torch.utils.data import DataLoader

    batches = DataLoader(valid, 32)
    return [int(label) for _, y in batches for label in y]
