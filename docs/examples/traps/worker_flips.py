"""Worker processes with the same random state."""


def trap(dataset, batch_size):
    """Return the batches of an epoch from two workers."""
    from mxnet.gluon.data import DataLoader

    return DataLoader(dataset, batch_size, num_workers=2)


def fixed(dataset, batch_size, epoch):
    """Return the batches of an epoch from two workers."""
    from mxnet.gluon.data import DataLoader

    seeded = Seeded(dataset, epoch)
    return DataLoader(seeded, batch_size, num_workers=2)


class Seeded:
    """A dataset seeded by example and epoch."""

    def __init__(self, dataset, epoch):
        self.dataset, self.epoch = dataset, epoch

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, i):
        from mxnet import npx

        npx.random.seed(self.epoch * len(self) + i)
        return self.dataset[i]
