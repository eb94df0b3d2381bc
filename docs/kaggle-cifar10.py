# ruff: noqa: E402, F811, I001, N999 - cells, of which a notebook runs one framework's
"""The cells of the page kaggle-cifar10.md."""

# %% settings
num_train = 1_000
num_test = 300
num_epochs = 5
batch_size = 16
valid_ratio = 0.1

# %% imports [pytorch]
from backends import pytorch as d2l
from backends.pytorch.kaggle import train
import torch
import torchvision
from torch import nn
from torchvision import transforms

# %% imports [mxnet]
from backends import mxnet as d2l  # first: MXNet 1.9.1 needs its shims
from backends.mxnet.kaggle import train
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon.data.vision import transforms

# %% imports [tensorflow]
from backends import tensorflow as d2l
from backends.tensorflow.kaggle import train
import keras
import tensorflow as tf


# %% seeds [pytorch]
def set_seed(seed):
    """Seed PyTorch, and with it torchvision's transforms."""
    torch.manual_seed(seed)


set_seed(0)

# %% seeds [mxnet]
import random

import numpy as onp


def set_seed(seed):
    """Seed the three generators that Gluon draws from."""
    npx.random.seed(seed)  # flips, initial weights
    random.seed(seed)  # crops
    onp.random.seed(seed)  # the order of the examples


set_seed(0)


# %% seeds [tensorflow]
def set_seed(seed):
    """Seed TensorFlow, Keras, and Python's and NumPy's generators."""
    keras.utils.set_random_seed(seed)


set_seed(0)

# %% the files
from pathlib import Path

from common.datasets.kaggle_shapes import write_kaggle_shapes

data_dir = Path("data") / "kaggle-shapes"
written = write_kaggle_shapes(data_dir, num_train, num_test)

# %% the labels
labels = d2l.read_csv_labels(data_dir / "trainLabels.csv")
print("training examples:", len(labels))
print("classes:", len(set(labels.values())))
print("the first:", list(labels.items())[:3])

# %% sorting
files = d2l.reorg_cifar10_data(data_dir, valid_ratio)
print(files.num_train, "to train on,", files.num_valid, "to validate on")
print(files.num_train_valid, "labelled in all,", files.num_test, "to classify")

# %% the transforms [pytorch]
mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]

transform_train = transforms.Compose(
    [
        transforms.Resize(40),
        transforms.RandomResizedCrop(
            32,
            scale=(0.64, 1.0),
            ratio=(1.0, 1.0),
        ),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
)

transform_test = transforms.Compose(
    [
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
)

# %% the transforms [mxnet]
mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]

transform_train = transforms.Compose(
    [
        transforms.Resize(40),
        transforms.RandomResizedCrop(
            32,
            scale=(0.64, 1.0),
            ratio=(1.0, 1.0),
        ),
        transforms.RandomFlipLeftRight(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
)

transform_test = transforms.Compose(
    [
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
)

# %% the transforms [tensorflow]
mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def transform_train(img):
    """Enlarge, cut out a square, bring it back to 32 pixels, mirror."""
    img = tf.image.resize(img / 255, (40, 40))
    area = 40 * 40 * tf.random.uniform((), 0.64, 1.0)
    side = tf.cast(tf.round(tf.sqrt(area)), tf.int32)
    img = tf.image.random_crop(img, (side, side, 3))
    img = tf.image.resize(img, (32, 32), antialias=True)
    img = tf.image.random_flip_left_right(img)
    return (img - mean) / std


def transform_test(img):
    """Bring the values to 0..1, and normalize."""
    return (img / 255 - mean) / std


# %% the data sets [pytorch]
def read(split, transform):
    """Return a split: transformed images with labels."""
    folder = data_dir / "train_valid_test" / split
    return torchvision.datasets.ImageFolder(folder, transform=transform)


train_ds = read("train", transform_train)
train_valid_ds = read("train_valid", transform_train)
valid_ds = read("valid", transform_test)
test_ds = read("test", transform_test)
classes = train_ds.classes
test_paths = [path for path, _ in test_ds.samples]

print(classes)
print([Path(path).name for path in test_paths[:4]])
img = test_ds.loader(test_paths[0])
print(type(img).__name__, img.mode, img.size, img.getextrema())


# %% the data sets [mxnet]
def read(split):
    """Return a split: images with labels."""
    folder = data_dir / "train_valid_test" / split
    return gluon.data.vision.ImageFolderDataset(folder)


train_ds, train_valid_ds = read("train"), read("train_valid")
valid_ds, test_ds = read("valid"), read("test")
classes = train_ds.synsets
test_paths = [path for path, _ in test_ds.items]

print(classes)
print([Path(path).name for path in test_paths[:4]])
img, _ = test_ds[0]
print(type(img).__name__, img.dtype, img.shape, img.min(), img.max())


# %% the data sets [tensorflow]
def read(split):
    """Return a split: images with labels, as a tf.data.Dataset."""
    return keras.utils.image_dataset_from_directory(
        data_dir / "train_valid_test" / split,
        image_size=(32, 32),
        batch_size=None,
        shuffle=False,
        verbose=False,
    )


train_ds, train_valid_ds = read("train"), read("train_valid")
valid_ds, test_ds = read("valid"), read("test")
classes = train_ds.class_names
test_paths = test_ds.file_paths

print(classes)
print([Path(path).name for path in test_paths[:4]])
img, _ = next(iter(test_ds))
print(img.dtype.name, img.shape, img.numpy().min(), img.numpy().max())


# %% what the network sees [pytorch]
def pixels(X):
    """Undo Normalize; return (n, height, width, channels)."""
    X = X * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    return X.permute(0, 2, 3, 1).clamp(0, 1)


img = test_ds.loader(train_ds.samples[0][0])
views = torch.stack([transform_train(img) for _ in range(7)])
titles = ["original"] + [""] * 7
d2l.show_images([img, *pixels(views)], 1, 8, titles=titles)


# %% what the network sees [mxnet]
def pixels(X):
    """Undo Normalize; return (n, height, width, channels)."""
    X = X.transpose(0, 2, 3, 1) * np.array(std) + np.array(mean)
    return np.clip(X, 0, 1)


img, _ = train_ds[0]
views = np.stack([transform_train(img) for _ in range(7)])
titles = ["original"] + [""] * 7
d2l.show_images([img, *pixels(views)], 1, 8, titles=titles)


# %% what the network sees [tensorflow]
def pixels(X):
    """Undo Normalize; return (n, height, width, channels)."""
    return tf.clip_by_value(X * std + mean, 0, 1)


img, _ = next(iter(train_ds))
views = tf.stack([transform_train(img) for _ in range(7)])
titles = ["original"] + [""] * 7
d2l.show_images([img / 255, *pixels(views)], 1, 8, titles=titles)


# %% the batches [pytorch]
def load(dataset, is_train):
    """Return the batches (X, y) of a data set."""
    return torch.utils.data.DataLoader(dataset, batch_size, shuffle=is_train)


train_iter, train_valid_iter = load(train_ds, True), load(train_valid_ds, True)
valid_iter, test_iter = load(valid_ds, False), load(test_ds, False)

X, y = next(iter(valid_iter))
print(tuple(X.shape), X.dtype, f"{X.min():.2f} to {X.max():.2f}")
print(tuple(y.shape), y.dtype, y.tolist())
print([len(y) for _, y in valid_iter])


# %% the batches [mxnet]
def load(dataset, is_train):
    """Return the batches (X, y) of a data set."""
    transform = transform_train if is_train else transform_test
    dataset = dataset.transform_first(transform)
    return gluon.data.DataLoader(dataset, batch_size, shuffle=is_train)


train_iter, train_valid_iter = load(train_ds, True), load(train_valid_ds, True)
valid_iter, test_iter = load(valid_ds, False), load(test_ds, False)

X, y = next(iter(valid_iter))
print(X.shape, X.dtype, f"{X.min().item():.2f} to {X.max().item():.2f}")
print(y.shape, y.dtype, y.tolist())
print([len(y) for _, y in valid_iter])


# %% the batches [tensorflow]
def load(dataset, is_train):
    """Return the batches (X, y) of a data set."""
    transform = transform_train if is_train else transform_test
    if is_train:
        dataset = dataset.shuffle(len(dataset))
    dataset = dataset.map(lambda img, y: (transform(img), y))
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


train_iter, train_valid_iter = load(train_ds, True), load(train_valid_ds, True)
valid_iter, test_iter = load(valid_ds, False), load(test_ds, False)

X, y = next(iter(valid_iter))
print(X.shape, X.dtype.name, f"{X.numpy().min():.2f} to {X.numpy().max():.2f}")
print(y.shape, y.dtype.name, y.numpy().tolist())
print([len(y) for _, y in valid_iter])

# %% the network [pytorch]
devices = d2l.try_all_gpus()


def init_cnn(module):
    """Draw Xavier-uniform weights, and set biases to zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def get_net():
    """Return a new network on the device."""
    net = d2l.resnet18(len(classes))
    net.apply(init_cnn)
    return net.to(devices[0])


net = get_net()
print(sum(p.numel() for p in net.parameters()), "parameters")
print(sum(b.numel() for b in net.buffers()), "values in buffers")

# %% the network [mxnet]
devices = d2l.try_all_gpus()


def get_net():
    """Return a new network on the devices."""
    net = d2l.resnet18(len(classes))
    net.initialize(init.Xavier(), ctx=devices)
    net.hybridize(static_alloc=True, static_shape=True)
    return net


net = get_net()
parameters = net.collect_params().values()
sizes = [p.data(devices[0]).size for p in parameters if p.grad_req == "write"]
print(sum(sizes), "parameters")
sizes = [p.data(devices[0]).size for p in parameters if p.grad_req == "null"]
print(sum(sizes), "values in running statistics")

# %% the network [tensorflow]
# Several GPUs: make the network in MirroredStrategy(devices).scope().
devices = [d2l.try_gpu()]


def get_net():
    """Return a new network: Xavier-uniform, as Keras draws it."""
    return d2l.resnet18(len(classes))


net = get_net()
print(sum(v.numpy().size for v in net.trainable_variables), "parameters")
sizes = [v.numpy().size for v in net.non_trainable_variables]
print(sum(sizes), "values in non-trainable variables")

# %% the loss [pytorch]
loss = nn.CrossEntropyLoss(reduction="none")
net.eval()
with torch.no_grad():
    l = loss(net(X.to(devices[0])), y.to(devices[0]))
print(tuple(l.shape), f"mean {l.mean():.3f}, sum {l.sum():.3f}")

# %% the loss [mxnet]
loss = gluon.loss.SoftmaxCrossEntropyLoss()
X, y = X.as_in_ctx(devices[0]), y.as_in_ctx(devices[0])
l = loss(net(X), y)
print(l.shape, f"mean {l.mean().item():.3f}, sum {l.sum().item():.3f}")

# %% the loss [tensorflow]
loss = keras.losses.SparseCategoricalCrossentropy(
    from_logits=True,
    reduction="none",
)
l = loss(y, net(X, training=False))
print(l.shape, f"mean {l.numpy().mean():.3f}, sum {l.numpy().sum():.3f}")


# %% the optimizer [pytorch]
def steps(rates, wd):
    """Return a weight of 1 after each step; its gradient is 1."""
    w = torch.ones(1, requires_grad=True)
    trainer = torch.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=wd)
    found = []
    for lr in rates:
        trainer.param_groups[0]["lr"] = lr
        trainer.zero_grad()
        w.sum().backward()
        trainer.step()
        found.append(f"{w.item():.4f}")
    return found


print("the rate falls:", *steps([0.1, 0.1, 0.01, 0.01], wd=0.0))
print("decay .1:      ", *steps([0.1, 0.1, 0.1, 0.1], wd=0.1))


# %% the optimizer [mxnet]
def steps(rates, wd):
    """Return a weight of 1 after each step; its gradient is 1."""
    w = gluon.Parameter("w", shape=(1,), init=init.One())
    w.initialize()
    settings = {"learning_rate": 0.1, "momentum": 0.9, "wd": wd}
    trainer = gluon.Trainer([w], "sgd", settings)
    found = []
    for lr in rates:
        trainer.set_learning_rate(lr)
        with autograd.record():
            l = w.data().sum()
        l.backward()
        trainer.step(1)
        found.append(f"{w.data().item():.4f}")
    return found


print("the rate falls:", *steps([0.1, 0.1, 0.01, 0.01], wd=0.0))
print("decay .1:      ", *steps([0.1, 0.1, 0.1, 0.1], wd=0.1))


# %% the optimizer [tensorflow]
def steps(rates, wd):
    """Return a weight of 1 after each step; its gradient is 1."""
    w = tf.Variable([1.0])
    trainer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=wd)
    found = []
    for lr in rates:
        trainer.learning_rate = lr
        with tf.GradientTape() as tape:
            l = tf.reduce_sum(w)
        gradients = tape.gradient(l, [w])
        trainer.apply(gradients, [w])
        found.append(f"{w.numpy().item():.4f}")
    return found


print("the rate falls:", *steps([0.1, 0.1, 0.01, 0.01], wd=0.0))
print("decay .1:      ", *steps([0.1, 0.1, 0.1, 0.1], wd=0.1))

# %% training and validating
set_seed(0)
lr, wd, lr_period, lr_decay = 0.02, 5e-4, 1, 0.6
net = get_net()
summary = train(
    net,
    train_iter,
    valid_iter,
    num_epochs,
    lr,
    wd,
    devices,
    lr_period,
    lr_decay,
)

# %% training on all
set_seed(0)
net = get_net()
summary = train(
    net,
    train_valid_iter,
    None,
    num_epochs,
    lr,
    wd,
    devices,
    lr_period,
    lr_decay,
)

# %% predicting [pytorch]
preds = []
net.eval()
with torch.no_grad():
    for X, _ in test_iter:
        y_hat = net(X.to(devices[0]))
        preds.extend(y_hat.argmax(dim=1).tolist())
print(len(preds), "predictions, the first:", preds[:5])

# %% predicting [mxnet]
preds = []
for X, _ in test_iter:
    y_hat = net(X.as_in_ctx(devices[0]))
    preds.extend(y_hat.argmax(axis=1).astype("int64").tolist())
print(len(preds), "predictions, the first:", preds[:5])

# %% predicting [tensorflow]
preds = []
for X, _ in test_iter:
    y_hat = net(X, training=False)
    preds.extend(tf.argmax(y_hat, axis=1).numpy().tolist())
print(len(preds), "predictions, the first:", preds[:5])

# %% submitting
from common.datasets.submission import check_submission

df = d2l.pd.DataFrame(
    {
        "id": [int(Path(path).stem) for path in test_paths],
        "label": [classes[label] for label in preds],
    }
)
df = df.sort_values("id")
submission = data_dir.parent / "submission.csv"
df.to_csv(submission, index=False)
print(df.head(3).to_string(index=False))
print(check_submission(submission, data_dir))

# %% looking at predictions
answers = data_dir / "testLabels.csv"
known = d2l.read_csv_labels(answers) if answers.exists() else {}
images, titles = [], []
for row in df.head(16).itertuples():
    truth = known.get(str(row.id), row.label)
    images.append(d2l.Image.open(data_dir / "test" / f"{row.id}.png"))
    titles.append(row.label if row.label == truth else f"{row.label}, is {truth}")
d2l.show_images(images, 2, 8, titles=titles)

# %% saving [pytorch]
path = data_dir.parent / "kaggle.pt"
torch.save(net.state_dict(), path)

clone = get_net()
clone.load_state_dict(torch.load(path, weights_only=True))
clone.eval()
with torch.no_grad():
    y_hat = clone(X.to(devices[0]))
labels = y_hat.argmax(dim=1).tolist()
print("the same predictions:", labels == preds[-len(X) :])
print(len(net.state_dict()), "arrays:", ", ".join(list(net.state_dict())[:7]))

# %% saving [mxnet]
path = str(data_dir.parent / "kaggle.params")
net.save_parameters(path)

clone = get_net()
clone.load_parameters(path, ctx=devices)
y_hat = clone(X.as_in_ctx(devices[0]))
labels = y_hat.argmax(axis=1).astype("int64").tolist()
print("the same predictions:", labels == preds[-len(X) :])
arrays = npx.load(path)
print(len(arrays), "arrays:", ", ".join(list(arrays)[:6]))

# %% saving [tensorflow]
path = data_dir.parent / "kaggle.weights.h5"
net.save_weights(path)

clone = get_net()
clone.load_weights(path)
labels = tf.argmax(clone(X, training=False), axis=1).numpy().tolist()
print("the same predictions:", labels == preds[-len(X) :])
paths = [v.path for v in net.weights]
print(len(paths), "arrays:", ", ".join(paths[:6]))

# %% one array
from common.datasets.kaggle import load_split

train_split = load_split(data_dir, "train", files.classes, image_size=32)
print(train_split.images.shape, train_split.images.dtype)
print(train_split.labels.shape, train_split.labels.dtype)

# %% decisions
from common.augmentation.operations import kaggle_train_augs
from common.augmentation.decisions import decide, epoch_order, merged

augs = kaggle_train_augs((32, 32))
order = epoch_order(len(train_split), seed=0, epoch=0)
chosen = order[:8]
decisions = decide(augs, chosen, seed=0, epoch=0, image_size=(32, 32))
resize, crop, flip, normalize = decisions
print("examples", chosen.tolist())
print("boxes (top, left, height, width)", crop.boxes[:3].tolist())
print("flips", flip.flips.tolist())
print(len(decisions), "decisions,", len(merged(decisions)), "operations")

# %% the decisions carried out
backend = d2l.BACKEND
X = backend.transforms.from_images(train_split.images[chosen], devices[0])
Y = backend.transforms.augment(X, [resize, crop, flip])
titles = [f"original, {i}" for i in chosen]
for (top, left, height, _), flipped in zip(crop.boxes, flip.flips, strict=True):
    mirrored = "\nmirrored" if flipped else "\n"
    titles.append(f"{height} pixels at {top}, {left}{mirrored}")
images = [*train_split.images[chosen], *backend.transforms.to_images(Y)]
d2l.show_images(images, 2, 8, titles=titles)


# %% the same batches
def load_batched():
    """Return the batches that every framework makes of this seed."""
    return backend.loaders.load_batched(
        train_split,
        augs,
        batch_size,
        is_train=True,
        seed=0,
        device=devices[0],
    )


for X, y in list(load_batched())[:3]:
    values, numbers = map(backend.devices.to_numpy, (X, y))
    print(values.shape, f"mean {values.mean():.5f}, labels {numbers[:8].tolist()}")

# %% the same start
from itertools import islice

from common.commands.training import make_network
from common.augmentation.decisions import epoch_batches
from common.weights.canonical import initial_weights


def first_losses(dtype, num_steps=4):
    """Return the losses of the first steps from the weights of seed 0."""
    net = make_network(backend, devices, initial_weights(len(classes), seed=0))
    if dtype == "float64":
        net = backend.probes.in_float64(net)
    loss = backend.trainer.cross_entropy()
    trainer = backend.trainer.sgd(net, lr, momentum=0.9, weight_decay=wd)
    found = []
    for chosen in islice(epoch_batches(len(train_split), 8, seed=0, epoch=0), num_steps):
        images = train_split.images[chosen].astype(dtype) / 255
        if backend.devices.image_layout == "NCHW":
            images = images.transpose(0, 3, 1, 2)
        X = backend.devices.from_numpy(images, devices[0])
        y = backend.devices.from_numpy(train_split.labels[chosen], devices[0])
        l, _ = d2l.train_batch_ch13(net, X, y, loss, trainer, devices)
        found.append(f"{float(l) / len(y):.5f}")
    return found


print("float32:", *first_losses("float32"))
print("float64:", *first_losses("float64"))

# %% streaming
import numpy

from common.augmentation.operations import kaggle_test_augs
from common.datasets import Dataset
from common.datasets.kaggle import list_test_images

test_images = list_test_images(data_dir)
streamed = {}
for names, images in test_images.chunks(image_size=32, chunk_size=128):
    unknown = Dataset(images, numpy.zeros(len(images), numpy.int64), files.classes)
    batches = backend.loaders.load_batched(
        unknown,
        kaggle_test_augs(),
        batch_size,
        is_train=False,
        device=devices[0],
    )
    found = backend.kaggle.predict_labels(net, batches)
    for name, label in zip(names, found, strict=True):
        streamed[int(Path(name).stem)] = files.classes[label]
agree = sum(streamed[row.id] == row.label for row in df.itertuples())
print(agree, "of", len(df), "labels as above")
