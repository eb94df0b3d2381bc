"""Minibatches in MXNet: the book's DataLoader, and whole-batch loading.

Both visit the examples in the order of common.augmentation. The batched
loader's draws for an example depend only on (seed, epoch, index), the native
loader's on (seed, epoch, batch, part).
"""

import random
import warnings
from multiprocessing import get_start_method

from mxnet import gluon, np, npx

from common.augmentation.decisions import (
    NATIVE,
    decide,
    epoch_batches,
    merged,
    random_bits,
)
from common.augmentation.operations import output_size
from common.datasets.array_file import images_at
from common.errors import UserNotice
from common.system.environment import cores
from common.system.workers import WorkerBatches, check_shared_memory

from . import transforms
from ._workers import ForkingDataLoader

NO_WORKERS = UserNotice(
    "the native pipeline of MXNet has no workers here: they must be forks"
)


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
    device=None,
    first_epoch=0,
    part=(0, 1),
):
    """Return minibatches from the framework's own loader and transforms.

    For a GPU as `device`, they are in pinned memory, from which the step
    copies them while the GPU computes. Differs: MXNet's random state cannot be
    read, so loading without workers changes it for good. Workers are forks; if
    Python does not fork, there are none. With several processes, the draws
    depend on their number.
    """
    if num_workers and get_start_method() != "fork":
        warnings.warn(NO_WORKERS, stacklevel=2)
        num_workers = 0
    examples = _Examples(dataset, transforms.native(augs))
    visits = _Visits(
        len(dataset), batch_size, is_train, seed, first_epoch, part
    )
    pinned = {
        "pin_memory": device is not None and device.device_type == "gpu",
        "pin_device_id": 0 if device is None else device.device_id,
    }
    if not num_workers:
        return gluon.data.DataLoader(examples, batch_sampler=visits, **pinned)
    size = output_size(augs, dataset.images.shape[1:3])
    check_shared_memory(len(dataset), size, batch_size, num_workers)
    loader = ForkingDataLoader(examples, visits, num_workers, **pinned)
    return WorkerBatches(loader)


class _Visits(gluon.data.Sampler):
    """Batches of pairs (seed to set or None, index), epoch after epoch."""

    def __init__(
        self, num_examples, batch_size, is_train, seed, first_epoch, part
    ):
        self.num_examples, self.batch_size = num_examples, batch_size
        self.is_train, self.seed, self.epoch = is_train, seed, first_epoch
        self.part = part

    def __len__(self):
        return -(-self.num_examples // self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        batches = epoch_batches(
            self.num_examples,
            self.batch_size,
            self.seed,
            epoch,
            self.is_train,
            self.part,
        )
        rank, num_processes = self.part
        for number, indices in enumerate(batches):
            visit = number * num_processes + rank
            bits = int(random_bits(self.seed, NATIVE, epoch, visit))
            seeds = [bits] + [None] * (len(indices) - 1)
            yield list(zip(seeds, indices.tolist(), strict=True))


class _Examples(gluon.data.Dataset):
    """Transformed images and their labels, by (seed to set or None, index)."""

    def __init__(self, dataset, transform):
        self.dataset, self.transform = dataset, transform
        self.state = random.getstate()

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, visit):
        bits, index = visit
        # Differs: Gluon's workers are forks that share MXNet's random state.
        # Without new seeds, they draw the same flips for different batches.
        # Gluon draws its crops from Python's generator, which a fork reseeds.
        # One worker makes a whole batch, so its first example seeds both.
        # Seeding MXNet takes a millisecond, too long for every example.
        outside = random.getstate()
        if bits is None:
            random.setstate(self.state)
        else:
            random.seed(bits)
            # On the CPU only: a fork must not touch the GPUs' generators.
            npx.random.seed(bits % 2**31, npx.cpu())
        image = self.transform(self.dataset.images[index])
        self.state = random.getstate()
        random.setstate(outside)
        return image, int(self.dataset.labels[index])


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
    Differs: the images stay on the host as uint8, and each batch is copied. On
    the CPU, MXNet would hold all of them a second time.
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
            levels = transforms.from_images(
                images_at(images, indices), self.device
            )
            X = transforms.augment_to_float(levels, merged(decisions))
            y = np.array(labels[indices], dtype="int64", ctx=self.device)
            yield X, y
