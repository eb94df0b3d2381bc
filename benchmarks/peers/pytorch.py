"""PyTorch as it comes: the book's training, torchvision's transforms one image at a time, v2's on batches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.timing import noise, timed

from ._shared import (
    CROP,
    CROP_RATIO,
    CROP_SCALE,
    ENLARGED,
    JITTER,
    KAGGLE_RATIO,
    KAGGLE_SCALE,
    MEAN,
    STD,
    WORKERS,
    epoch,
)


def wait() -> None:
    """Wait for all queued work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def product(precision: str, size: int) -> Callable[[], None]:
    """Return a function that multiplies two square matrices and waits for the result."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    A = torch.rand(size, size, device=device).to(dtype)

    def multiply() -> None:
        C = A @ A
        if device == "cuda":
            float(C[0, 0])

    return multiply


def per_image(recipe: str) -> Any:
    """Return the chapters' transforms for a PIL image."""
    from torchvision import transforms

    flip, to_tensor = transforms.RandomHorizontalFlip(), transforms.ToTensor()
    return transforms.Compose(
        {
            "flip": [flip, to_tensor],
            "kaggle": [
                transforms.Resize(ENLARGED),
                transforms.RandomResizedCrop(CROP, KAGGLE_SCALE, KAGGLE_RATIO),
                flip,
                to_tensor,
                transforms.Normalize(MEAN, STD),
            ],
            "jitter": [
                flip,
                transforms.ColorJitter(JITTER, JITTER, JITTER, JITTER),
                transforms.RandomResizedCrop(CROP, CROP_SCALE, CROP_RATIO),
                to_tensor,
            ],
        }[recipe]
    )


def v2(recipe: str) -> Any:
    """Return torchvision's v2 transforms for uint8 tensors: one image, or a batch with a single draw."""
    from torchvision.transforms import v2 as t

    flip, to_float = t.RandomHorizontalFlip(), t.ToDtype(torch.float32, scale=True)
    return t.Compose(
        {
            "flip": [flip, to_float],
            "kaggle": [
                t.Resize(ENLARGED, antialias=True),
                t.RandomResizedCrop(CROP, KAGGLE_SCALE, KAGGLE_RATIO, antialias=True),
                flip,
                to_float,
                t.Normalize(MEAN, STD),
            ],
            "jitter": [
                flip,
                t.ColorJitter(JITTER, JITTER, JITTER, JITTER),
                t.RandomResizedCrop(CROP, CROP_SCALE, CROP_RATIO, antialias=True),
                to_float,
            ],
        }[recipe]
    )


class _Examples(torch.utils.data.Dataset[tuple[Any, int]]):
    """Transformed images and labels."""

    def __init__(self, images: Any, labels: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def _data_loader(
    recipe: str, num_images: int, batch_size: int, workers: int, transform: Any = None
) -> Any:
    """Return the book's loader: images as PIL's, as torchvision's CIFAR10 has them."""
    from PIL import Image

    images, labels = noise(num_images)
    if transform is None:
        on_pil = per_image(recipe)

        def transform(image: Any) -> Any:
            return on_pil(Image.fromarray(image))

    return torch.utils.data.DataLoader(
        _Examples(images, labels, transform),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        # The book's workers start again for every epoch, which is negligible in its epochs of 50,000 images.
        persistent_workers=workers > 0,
    )


def loader(
    pipeline: str, recipe: str, num_images: int, batch_size: int, workers: int = WORKERS
) -> Any:
    """Measure an epoch of batches: 'book', 'v2' (one image at a time) or 'v2 batch' (one draw per batch)."""
    if pipeline == "book":
        batches = _data_loader(recipe, num_images, batch_size, workers)
        return epoch(batches, lambda batch: float(batch[0][-1, -1, -1, -1]), num_images)
    images, labels = noise(num_images)
    X = torch.as_tensor(images).permute(0, 3, 1, 2)
    transform = v2(recipe)
    if pipeline == "v2":
        data = _Examples(X, labels, transform)
        batches = torch.utils.data.DataLoader(
            data,
            batch_size=batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        return epoch(batches, lambda batch: float(batch[0][-1, -1, -1, -1]), num_images)
    if pipeline != "v2 batch":
        raise ValueError(pipeline)

    def run() -> None:
        for chosen in torch.split(torch.randperm(num_images), batch_size):
            float(transform(X[chosen])[-1, -1, -1, -1])

    return lambda: timed(run, images=num_images)


def book(batch_size: int, batches: int) -> Any:
    """Measure the book's training: per-image transforms in 4 workers, loss and accuracy read after every batch.

    The network has the framework's layout; the sum of the losses is minimised.
    """
    from . import backend_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    resnet = backend_file("pytorch", "resnet")
    net = resnet.resnet18(10)
    net.apply(resnet.init_cnn)
    net = net.to(device)
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = torch.optim.Adam(net.parameters(), lr=0.001)
    train_iter = _data_loader("flip", batch_size * batches, batch_size, WORKERS)

    def run() -> None:
        metric = [0.0, 0.0]
        for X, y in train_iter:
            X, y = X.to(device), y.to(device)
            net.train()
            trainer.zero_grad()
            y_hat = net(X)
            l = loss(y_hat, y)
            l.sum().backward()
            trainer.step()
            metric[0] += float(l.detach().sum())
            metric[1] += float((y_hat.argmax(dim=1) == y).sum())
        wait()

    return lambda: timed(run, images=batch_size * batches)
