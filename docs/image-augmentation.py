# ruff: noqa: E402, F811, I001, N999 - cells, of which a notebook runs one framework's
"""The cells of the page image-augmentation.md."""

# %% the tab [pytorch]
from backends import pytorch as d2l

# %% the tab [mxnet]
from backends import mxnet as d2l

# %% the tab [tensorflow]
from backends import tensorflow as d2l

# %% an image
import numpy as np
from skimage import data as photographs

img = photographs.chelsea()  # a cat, uint8 (300, 451, 3)
d2l.set_figsize()
d2l.plt.imshow(img)

# %% apply
from common.sampling import decide

backend, devices = d2l.BACKEND, d2l.try_all_gpus()


def apply(img, augs, num_rows=2, num_cols=4, scale=1.5):
    """Show an image augmented several times, as batches are."""
    n = num_rows * num_cols
    decisions = decide(augs, np.arange(n), seed=0, epoch=0, image_size=img.shape[:2])
    X = backend.transforms.from_images(np.stack([img] * n), devices[0])
    Y = backend.transforms.to_images(backend.transforms.augment(X, decisions))
    d2l.show_images(Y, num_rows, num_cols, scale=scale)


# %% left and right
from common.augmentation import RandomFlipLeftRight

apply(img, [RandomFlipLeftRight()])

# %% top and bottom
from common.augmentation import RandomFlipTopBottom

apply(img, [RandomFlipTopBottom()])

# %% crops
from common.augmentation import RandomResizedCrop

shape_aug = RandomResizedCrop((200, 200), scale=(0.1, 1), ratio=(0.5, 2))
apply(img, [shape_aug])

# %% brightness
from common.augmentation import ColorJitter

apply(img, [ColorJitter(brightness=0.5)])

# %% hue
apply(img, [ColorJitter(hue=0.5)])

# %% colours
color_aug = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)
apply(img, [color_aug])

# %% several
augs = [RandomFlipLeftRight(), color_aug, shape_aug]
apply(img, augs)

# %% the same in the framework's own words
transform = backend.transforms.native([RandomFlipLeftRight()])
X = backend.devices.to_numpy(transform(img))
print(X.shape, X.dtype, X.min(), X.max())

# %% the data
from pathlib import Path

from common.datasets import load_data
from common.sampling import epoch_order

# Drawn by the program; "cifar10" is the book's, and a download.
data = load_data("shapes", data_dir=Path("data"))
first = epoch_order(len(data.train), seed=0, epoch=0)[:32]
names = [data.train.classes[label] for label in data.train.labels[first]]
d2l.show_images(data.train.images[first], 4, 8, titles=names, scale=0.8)

# %% train and test augmentations
train_augs = [RandomFlipLeftRight()]
test_augs = []

# %% batches
batch_size = 16
train_iter = backend.loaders.load_batched(
    data.train, train_augs, batch_size, is_train=True, seed=0, device=devices[0]
)
test_iter = backend.loaders.load_batched(
    data.test, test_augs, batch_size, is_train=False, device=devices[0]
)
# Not of train_iter: a look at it would use up its first epoch.
X, y = next(iter(test_iter))
print(X.shape, X.dtype, y.shape, y.dtype)

# %% the network
from common.running import make_network
from common.weights import initial_weights

net = make_network(backend, devices, initial_weights(num_classes=10, seed=0))

# %% training
loss, trainer = backend.trainer.cross_entropy(), backend.trainer.adam(net, lr=3e-4)
summary = d2l.train_ch13(net, train_iter, test_iter, loss, trainer, num_epochs=5, devices=devices)

# %% looking at predictions
X, y = next(iter(test_iter))
y_hat = backend.trainer.predict(net, X)
names = [data.test.classes[i] for i in backend.devices.to_numpy(y_hat).argmax(axis=1)]
d2l.show_images(data.test.images[:16], 2, 8, titles=names, scale=1.2)
