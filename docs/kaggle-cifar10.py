# ruff: noqa: E402, F811, I001, N999 - cells, of which a notebook runs one framework's
"""The cells of the page kaggle-cifar10.md."""

# %% the tab [pytorch]
from backends import pytorch as d2l

# %% the tab [mxnet]
from backends import mxnet as d2l

# %% the tab [tensorflow]
from backends import tensorflow as d2l

# %% the files
from pathlib import Path

from common.datasets.kaggle_shapes import write_kaggle_shapes

data_dir = Path("data/kaggle-shapes")
write_kaggle_shapes(data_dir, num_train=600, num_test=300)
labels = d2l.read_csv_labels(data_dir / "trainLabels.csv")
print(f"{len(labels)} labelled images of {len(set(labels.values()))} classes")

# %% sorting
files = d2l.reorg_cifar10_data(data_dir, valid_ratio=0.1)
print(files)

# %% augmentations
from common.augmentation import kaggle_test_augs, kaggle_train_augs

train_augs, test_augs = kaggle_train_augs((32, 32)), kaggle_test_augs()
for aug in train_augs:
    print(aug)

# %% reading
from common.datasets.kaggle import load_split

train, valid, train_valid = (
    load_split(data_dir, split, files.classes, image_size=32)
    for split in ("train", "valid", "train_valid")
)
print(len(train), len(valid), len(train_valid))

# %% batches
backend, devices, batch_size = d2l.BACKEND, d2l.try_all_gpus(), 16


def batches(dataset, augs, is_train):
    """Return the batches of a split: of the training images in a drawn order."""
    return backend.loaders.load_batched(
        dataset, augs, batch_size, is_train, seed=0, device=devices[0]
    )


train_iter = batches(train, train_augs, is_train=True)
valid_iter = batches(valid, test_augs, is_train=False)

# %% the network
from common.running import make_network
from common.weights import initial_weights


def get_net():
    """Return the network with the weights of the seed."""
    return make_network(backend, devices, initial_weights(len(files.classes), seed=0))


# %% training and validating
settings = {"num_epochs": 5, "lr": 0.02, "wd": 5e-4, "lr_period": 2, "lr_decay": 0.3}
summary = backend.kaggle.train(get_net(), train_iter, valid_iter, devices=devices, **settings)

# %% training on all
net = get_net()
train_valid_iter = batches(train_valid, train_augs, is_train=True)
summary = backend.kaggle.train(net, train_valid_iter, None, devices=devices, **settings)

# %% predicting
import numpy as np

from common.datasets import Dataset
from common.datasets.kaggle import list_test_images

test = list_test_images(data_dir)
found = []
# Decoded ahead, in the order of their ids.
for _, images in test.chunks(image_size=32, chunk_size=1024):
    unknown = Dataset(images, np.zeros(len(images), np.int64), files.classes)
    found.append(backend.kaggle.predict_labels(net, batches(unknown, test_augs, is_train=False)))
predicted = np.concatenate(found)

# %% submitting
from common.datasets.submission import check_submission, write_submission

submission = data_dir.parent / "submission.csv"
write_submission(submission, test.ids, predicted, files.classes)
print(check_submission(submission, data_dir))
