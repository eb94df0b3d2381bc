"""MXNet as it comes: the book's training with eager blocks, and Gluon's transforms one image at a time."""

from collections.abc import Callable
from typing import Any

from . import backend_file

backend_file("mxnet", "_compat").import_mxnet()

import mxnet as mx  # noqa: E402
from mxnet import autograd, gluon, init, np, npx  # noqa: E402
from mxnet.gluon.data.vision import transforms  # noqa: E402

from benchmarks.timing import noise, timed  # noqa: E402

from ._shared import (  # noqa: E402
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
    """Wait for all queued work: a loss is ready long before its backward pass."""
    npx.waitall()


def product(precision: str, size: int) -> Callable[[], None]:
    """Return a function that multiplies two square matrices and waits for the result."""
    A = np.random.uniform(size=(size, size))
    if precision == "fp32":
        return lambda: np.dot(A, A).wait_to_read()
    # In bfloat16, only the layers of the old interface have a product.
    B = mx.nd.amp_cast(A.as_nd_ndarray(), dtype=backend_file("mxnet", "_bfloat16").BFLOAT16)

    def multiply() -> None:
        mx.nd.FullyConnected(B, B, no_bias=True, num_hidden=size).wait_to_read()

    return multiply


def per_image(recipe: str) -> Any:
    """Return the chapters' transforms for an image, uint8 (height, width, 3)."""
    flip, to_tensor = transforms.RandomFlipLeftRight(), transforms.ToTensor()
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
                # Not RandomColorJitter: its hue reads past the end of a table, which crashed the workers.
                transforms.RandomBrightness(JITTER),
                transforms.RandomContrast(JITTER),
                transforms.RandomSaturation(JITTER),
                transforms.RandomHue(JITTER),
                transforms.RandomResizedCrop(CROP, CROP_SCALE, CROP_RATIO),
                to_tensor,
            ],
        }[recipe]
    )


def _data_loader(recipe: str, num_images: int, batch_size: int, workers: int) -> Any:
    images, labels = noise(num_images)
    data = gluon.data.ArrayDataset(np.array(images, dtype="uint8"), labels)
    return gluon.data.DataLoader(
        data.transform_first(per_image(recipe)), batch_size, shuffle=True, num_workers=workers
    )


def loader(
    pipeline: str, recipe: str, num_images: int, batch_size: int, workers: int = WORKERS
) -> Any:
    """Measure an epoch of batches of the 'book'."""
    if pipeline != "book":
        raise ValueError(pipeline)
    batches = _data_loader(recipe, num_images, batch_size, workers)
    return epoch(batches, lambda batch: float(batch[0][-1, -1, -1, -1]), num_images)


def book(batch_size: int, batches: int) -> Any:
    """Measure the book's training: per-image transforms in 4 workers, eager blocks, metrics read after every batch."""
    device = npx.gpu() if npx.num_gpus() else npx.cpu()
    resnet = backend_file("mxnet", "resnet")
    vars(resnet)["relu"] = lambda F, X: F.npx.relu(X)  # the book's; ours is oneDNN's
    vars(resnet)["add"] = lambda F, X, Y: X + Y  # noqa: ARG005
    net = resnet.resnet18(10)
    net.initialize(init.Xavier(), ctx=device)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.001})
    train_iter = _data_loader("flip", batch_size * batches, batch_size, WORKERS)

    def run() -> None:
        metric = [0.0, 0.0]
        for X, y in train_iter:
            X, y = X.as_in_ctx(device), y.as_in_ctx(device)
            with autograd.record():
                y_hat = net(X)
                l = loss(y_hat, y)
            l.backward()
            trainer.step(batch_size)
            metric[0] += float(l.sum())
            metric[1] += float((y_hat.argmax(axis=1).astype(y.dtype) == y).sum())
        wait()

    return lambda: timed(run, images=batch_size * batches)
