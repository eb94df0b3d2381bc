"""Minibatches in PyTorch: the book's DataLoader, and whole-batch loading.

Both visit the examples in the order of common.augmentation. Their draws for an
example depend only on (seed, epoch, index).
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from common.augmentation.decisions import (
    NATIVE,
    decide,
    epoch_batches,
    merged,
    random_bits,
)
from common.augmentation.operations import output_size
from common.datasets.array_file import images_at
from common.system.environment import cores
from common.system.workers import WorkerBatches, check_shared_memory

from . import transforms
from ._workers import end_on_send_error, without_locks
from .devices import from_numpy


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

    For a GPU as `device`, a thread copies them to pinned memory, from which
    the step copies them while the GPU computes.
    """
    size = output_size(augs, dataset.images.shape[1:3])
    check_shared_memory(len(dataset), size, batch_size, num_workers)
    loader = DataLoader(
        _Examples(dataset, transforms.native(augs), seed),
        batch_sampler=_Visits(
            len(dataset), batch_size, is_train, seed, first_epoch, part
        ),
        num_workers=num_workers,
        multiprocessing_context=without_locks() if num_workers else None,
        generator=torch.Generator(),  # not the default one, for each epoch
        worker_init_fn=end_on_send_error,
        persistent_workers=num_workers > 0,
        pin_memory=device is not None and torch.device(device).type == "cuda",
    )
    return WorkerBatches(loader) if num_workers else loader


class _Visits(Sampler):
    """Batches of pairs (epoch, index); each iteration is the next epoch."""

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
        for indices in epoch_batches(
            self.num_examples,
            self.batch_size,
            self.seed,
            epoch,
            self.is_train,
            self.part,
        ):
            yield [(epoch, index) for index in indices.tolist()]


class _Examples(Dataset):
    """Transformed images and their labels, by (epoch, index)."""

    def __init__(self, dataset, transform, seed):
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, visit):
        epoch, index = visit
        # Differs: torchvision draws from PyTorch's default generator, whose
        # seed differs between workers. Without a seed for each example, the
        # draws would depend on the number of workers.
        generator = torch.default_generator
        state = generator.get_state()
        bits = random_bits(self.seed, NATIVE, epoch, index)
        generator.manual_seed(int(bits))
        image = self.transform(self.dataset.images[index])
        generator.set_state(state)
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
    On a GPU, the images stay there as uint8 if they fill at most half of its
    free memory. Otherwise each batch is copied.
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
        self.on_gpu = None
        if _fits_on_gpu(dataset.images, device):
            self.on_gpu = transforms.from_images(dataset.images, device)
        self.labels = torch.as_tensor(dataset.labels, device=device)
        self.augs, self.batch_size, self.seed = augs, batch_size, seed
        self.is_train, self.epoch = is_train, first_epoch
        self.part = part

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        size = self.dataset.images.shape[1:3]
        for indices in epoch_batches(
            len(self.labels),
            self.batch_size,
            self.seed,
            epoch,
            self.is_train,
            self.part,
        ):
            decisions = decide(self.augs, indices, self.seed, epoch, size)
            chosen = from_numpy(indices, self.device)
            if self.on_gpu is not None:
                levels = self.on_gpu.index_select(0, chosen)
            else:
                levels = images_at(self.dataset.images, indices)
                levels = from_numpy(levels, self.device)
                levels = levels.permute(0, 3, 1, 2).contiguous()
            X = transforms.augment_to_float(levels, merged(decisions))
            yield X, self.labels[chosen]


def _fits_on_gpu(images, device):
    """Return whether the device is a GPU with twice the memory of images."""
    if device is None or torch.device(device).type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return isinstance(images, np.ndarray) and images.nbytes <= free // 2
