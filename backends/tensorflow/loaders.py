"""Minibatches in TensorFlow: tf.data, and whole-batch loading.

Both visit the examples in the order of common.augmentation. Their draws for an
example depend only on (seed, epoch, index).
"""

import numpy as np
import tensorflow as tf

from common.augmentation.decisions import (
    NATIVE,
    decide,
    epoch_batches,
    merged,
    random_bits,
)
from common.datasets.array_file import images_at
from common.errors import UserError
from common.system.environment import cores

from . import transforms

# Bytes of an array up to which tf.data gets a copy of it. Python reads images
# from larger ones and from files.
MOST_COPIED = 2**30


def get_dataloader_workers():
    """Return how many processes read data: 4, or all cores if fewer.

    Differs: in tf.data they are threads.
    """
    return min(4, cores())


def load_native(
    dataset,
    augs,
    batch_size,
    is_train,
    seed=0,
    num_workers=0,
    device=None,
    first_epoch=0,
    part=(0, 1),
):
    """Return minibatches from the framework's own loader and transforms.

    For a GPU as `device`, they are copied there while it computes.
    """
    return _NativeBatches(
        dataset,
        augs,
        batch_size,
        is_train,
        seed,
        num_workers,
        device,
        first_epoch,
        part,
    )


class _NativeBatches:
    """The batches of an epoch, from tf.data; each iteration is a new epoch."""

    def __init__(
        self,
        dataset,
        augs,
        batch_size,
        is_train,
        seed,
        num_workers,
        device,
        first_epoch,
        part,
    ):
        self.images, self.problem = dataset.images, None
        if _is_small_array(self.images):
            self.images = tf.constant(self.images)
        self.labels = tf.constant(dataset.labels, tf.int64)
        self.transform = tf.function(transforms.native(augs))
        self.batch_size, self.is_train = batch_size, is_train
        self.seed, self.epoch = seed, first_epoch
        self.num_workers, self.device, self.part = num_workers, device, part

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        batches = list(
            epoch_batches(
                len(self.labels),
                self.batch_size,
                self.seed,
                epoch,
                self.is_train,
                self.part,
            )
        )
        if not batches:  # another process has the only example
            return iter(())
        order = np.concatenate(batches)
        # Differs: threads share tf.image's random state and draw from it in
        # any order. With a seed for each example, the draws do not depend on
        # the threads.
        bits = random_bits(self.seed, NATIVE, epoch, order)
        seeds = bits.view(np.int32).reshape(-1, 2)
        visits = tf.data.Dataset.from_tensor_slices((seeds, order))
        examples = visits.map(
            self._example,
            num_parallel_calls=self.num_workers or None,
            deterministic=True if self.num_workers else None,
        )
        batches = examples.batch(len(batches[0]))
        if "GPU" in (self.device or ""):
            copied = tf.data.experimental.prefetch_to_device(self.device)
            return self._explained(batches.apply(copied))
        return self._explained(batches.prefetch(1))

    def _explained(self, batches):
        try:
            yield from batches
        except tf.errors.OpError:
            if self.problem is None:
                raise
            raise self.problem from None

    def _example(self, seed, index):
        return self.transform(self._image(index), seed), self.labels[index]

    def _image(self, index):
        if tf.is_tensor(self.images):
            return self.images[index]
        image = tf.numpy_function(self._read, [index], tf.uint8)
        return tf.ensure_shape(image, self.images.shape[1:])

    def _read(self, index):
        try:
            return self.images[index]
        except UserError as error:
            self.problem = error
            raise


def _is_small_array(images):
    return isinstance(images, np.ndarray) and images.nbytes <= MOST_COPIED


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
    Differs: the images stay on the host as uint8, and each batch is copied.
    TensorFlow has no `gather` of uint8 on a GPU.
    """
    return _Batches(
        dataset, augs, batch_size, is_train, seed, device, first_epoch, part
    )


class _Batches:
    """The batches of an epoch; each iteration is the next epoch."""

    def __init__(
        self,
        dataset,
        augs,
        batch_size,
        is_train,
        seed,
        device,
        first_epoch,
        part,
    ):
        self.dataset, self.device = dataset, device
        self.augs, self.batch_size, self.seed = augs, batch_size, seed
        self.is_train, self.epoch = is_train, first_epoch
        self.part = part

    def __len__(self):
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        images, labels = self.dataset.images, self.dataset.labels
        for indices in epoch_batches(
            len(labels),
            self.batch_size,
            self.seed,
            epoch,
            self.is_train,
            self.part,
        ):
            size = images.shape[1], images.shape[2]
            decisions = decide(self.augs, indices, self.seed, epoch, size)
            with tf.device(self.device):
                levels = transforms.from_images(
                    images_at(images, indices), self.device
                )
                X = transforms.augment_to_float(levels, merged(decisions))
                y = tf.constant(labels[indices], tf.int64)
            yield X, y
