"""Minibatches in NumPy: image by image, and whole-batch loading.

Both visit the examples in the order of common.augmentation. Their draws for an
example depend only on (seed, epoch, index).
"""

import warnings

import numpy as np

from common.augmentation.decisions import (
    NATIVE,
    decide,
    epoch_batches,
    merged,
    random_bits,
)
from common.errors import UserNotice
from common.system.environment import cores

from . import transforms

NO_WORKERS = UserNotice("the native pipeline of NumPy has no workers")


def get_dataloader_workers():
    """Return how many processes read data: 4, or all cores if fewer."""
    return min(4, cores())


def load_native(
    dataset,
    augs,
    batch_size,
    is_train,
    seed=0,
    num_workers=0,
    device=None,  # noqa: ARG001
    first_epoch=0,
    part=(0, 1),
):
    """Return minibatches from the framework's own loader and transforms.

    Differs: NumPy has no loader, and therefore no workers.
    """
    if num_workers:
        warnings.warn(NO_WORKERS, stacklevel=2)
    transform = transforms.native(augs)

    def load(indices, epoch):
        bits = random_bits(seed, NATIVE, epoch, indices)
        images = dataset.images[indices]
        return np.stack(
            [transform(*pair) for pair in zip(images, bits, strict=True)]
        )

    return _Batches(
        dataset, batch_size, is_train, seed, load, first_epoch, part
    )


def load_batched(
    dataset,
    augs,
    batch_size,
    is_train,
    seed=0,
    device=None,
    first_epoch=0,
    part=(0, 1),
):
    """Return minibatches that are augmented as a whole, on the device.

    X is float32 in the framework's layout, in 0..1 or normalized; y is int64.
    """
    size = dataset.images.shape[1:3]

    def load(indices, epoch):
        decisions = decide(augs, indices, seed, epoch, size)
        levels = transforms.from_images(dataset.images[indices], device)
        return transforms.augment_to_float(levels, merged(decisions))

    return _Batches(
        dataset, batch_size, is_train, seed, load, first_epoch, part
    )


class _Batches:
    """The batches of an epoch, epoch after epoch; `load` makes the images."""

    def __init__(
        self, dataset, batch_size, is_train, seed, load, first_epoch, part
    ):
        self.labels, self.batch_size = dataset.labels, batch_size
        self.is_train, self.seed, self.load = is_train, seed, load
        self.epoch, self.part = first_epoch, part

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = self.batch_size, self.seed, epoch, self.is_train
        for indices in epoch_batches(len(self.labels), *order, self.part):
            yield self.load(indices, epoch), self.labels[indices]
