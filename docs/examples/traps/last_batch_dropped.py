"""A validation set that comes class by class, without its last batch."""


def trap(valid):
    """Return the labels that are validated on."""
    from torch.utils.data import DataLoader

    batches = DataLoader(valid, 32, drop_last=True)
    return [int(label) for _, y in batches for label in y]


def fixed(valid):
    """Return the labels that are validated on."""
    from torch.utils.data import DataLoader

    batches = DataLoader(valid, 32)
    return [int(label) for _, y in batches for label in y]
