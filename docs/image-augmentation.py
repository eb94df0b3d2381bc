# ruff: noqa: E402, F811, I001, N999 - cells, of which a notebook runs one framework's
"""The cells of the page image-augmentation.md."""

# %% imports [pytorch]
from backends import pytorch as d2l
import torch
import torchvision
from torch import nn

# %% imports [mxnet]
import random

import numpy as onp

from backends import mxnet as d2l  # before MXNet, which needs its shims
from mxnet import gluon, image, init, np, npx

# %% imports [tensorflow]
from backends import tensorflow as d2l
import keras
import tensorflow as tf


# %% seeds [pytorch]
def set_seed(seed):
    """Seed PyTorch, and with it torchvision's transforms."""
    torch.manual_seed(seed)


set_seed(0)


# %% seeds [mxnet]
def set_seed(seed):
    """Seed the three generators that Gluon draws from."""
    npx.random.seed(seed)  # flips, colours, initial weights
    random.seed(seed)  # crops
    onp.random.seed(seed)  # the order of the examples


set_seed(0)


# %% seeds [tensorflow]
def set_seed(seed):
    """Seed TensorFlow, Keras, and Python's and NumPy's generators."""
    keras.utils.set_random_seed(seed)


set_seed(0)

# %% a photograph
from pathlib import Path

import skimage

path = str(Path(skimage.__file__).parent / "data" / "chelsea.png")

# %% reading it [pytorch]
d2l.set_figsize()
img = d2l.Image.open(path)
d2l.plt.imshow(img)
print(type(img).__name__, img.size, img.mode)  # width, height

# %% reading it [mxnet]
d2l.set_figsize()
img = image.imread(path)[:, :450]  # an even width: flips need it
d2l.plt.imshow(img.asnumpy())
print(type(img).__name__, img.shape, img.dtype)

# %% reading it [tensorflow]
d2l.set_figsize()
img = tf.io.decode_png(tf.io.read_file(path), channels=3)
d2l.plt.imshow(img)
print(type(img).__name__, img.shape, img.dtype)


# %% apply [pytorch]
def apply(img, aug, num_rows=2, num_cols=4, scale=1.5):
    """Show an image, and what an augmentation makes of it."""
    Y = [img] + [aug(img) for _ in range(num_rows * num_cols - 1)]
    titles = ["original"] + [""] * (len(Y) - 1)
    d2l.show_images(Y, num_rows, num_cols, titles=titles, scale=scale)


# %% apply [mxnet]
def apply(img, aug, num_rows=2, num_cols=4, scale=1.5):
    """Show an image, and what an augmentation makes of it."""
    Y = [img] + [aug(img) for _ in range(num_rows * num_cols - 1)]
    titles = ["original"] + [""] * (len(Y) - 1)
    d2l.show_images(Y, num_rows, num_cols, titles=titles, scale=scale)


# %% apply [tensorflow]
def apply(img, aug, num_rows=2, num_cols=4, scale=1.5):
    """Show an image, and what an augmentation makes of it."""
    Y = [img] + [aug(img) for _ in range(num_rows * num_cols - 1)]
    titles = ["original"] + [""] * (len(Y) - 1)
    d2l.show_images(Y, num_rows, num_cols, titles=titles, scale=scale)


# %% left and right [pytorch]
apply(img, torchvision.transforms.RandomHorizontalFlip())

# %% left and right [mxnet]
apply(img, gluon.data.vision.transforms.RandomFlipLeftRight())

# %% left and right [tensorflow]
apply(img, tf.image.random_flip_left_right)

# %% top and bottom [pytorch]
apply(img, torchvision.transforms.RandomVerticalFlip())

# %% top and bottom [mxnet]
apply(img, gluon.data.vision.transforms.RandomFlipTopBottom())

# %% top and bottom [tensorflow]
apply(img, tf.image.random_flip_up_down)

# %% crops [pytorch]
shape_aug = torchvision.transforms.RandomResizedCrop(
    (200, 200),  # height, width
    scale=(0.1, 1),
    ratio=(0.5, 2),
)
apply(img, shape_aug)

# %% crops [mxnet]
shape_aug = gluon.data.vision.transforms.RandomResizedCrop(
    (200, 200),  # width, height
    scale=(0.1, 1),
    ratio=(0.5, 2),
)
apply(img, shape_aug)


# %% crops [tensorflow]
def shape_aug(img):
    """Cut out a random box and resize it to 200 x 200 pixels."""
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(img),
        bounding_boxes=[[[0.0, 0.0, 1.0, 1.0]]],  # all of the image
        min_object_covered=0.0,
        area_range=(0.1, 1.0),
        aspect_ratio_range=(0.5, 2.0),
    )
    box = tf.slice(img, begin, size)
    box = tf.image.resize(box, (200, 200), antialias=True)  # float32
    return tf.cast(tf.round(box), img.dtype)


apply(img, shape_aug)

# %% brightness [pytorch]
apply(img, torchvision.transforms.ColorJitter(brightness=0.5))

# %% brightness [mxnet]
apply(img, gluon.data.vision.transforms.RandomBrightness(0.5))


# %% brightness [tensorflow]
def brightness_aug(img):
    """Add up to half of the value range, or take it away."""
    return tf.image.random_brightness(img, max_delta=0.5)


apply(img, brightness_aug)

# %% hue [pytorch]
apply(img, torchvision.transforms.ColorJitter(hue=0.5))

# %% hue [mxnet]
apply(img, gluon.data.vision.transforms.RandomHue(0.5))


# %% hue [tensorflow]
def hue_aug(img):
    """Turn the hue by up to half a turn, either way."""
    return tf.image.random_hue(img, max_delta=0.5)


apply(img, hue_aug)

# %% colours [pytorch]
color_aug = torchvision.transforms.ColorJitter(
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    hue=0.5,
)
apply(img, color_aug)

# %% colours [mxnet]
transforms = gluon.data.vision.transforms
color_aug = transforms.Compose(  # not RandomColorJitter: see below
    [
        transforms.RandomBrightness(0.5),
        transforms.RandomContrast(0.5),
        transforms.RandomSaturation(0.5),  # wrong in MXNet 1.9.1
        transforms.RandomHue(0.5),
    ]
)
apply(img, color_aug)


# %% colours [tensorflow]
def color_aug(img):
    """Change brightness, contrast, saturation and hue, in this order."""
    img = tf.image.random_brightness(img, max_delta=0.5)
    img = tf.image.random_contrast(img, lower=0.5, upper=1.5)
    img = tf.image.random_saturation(img, lower=0.5, upper=1.5)
    return tf.image.random_hue(img, max_delta=0.5)


apply(img, color_aug)

# %% several [pytorch]
augs = torchvision.transforms.Compose(
    [
        torchvision.transforms.RandomHorizontalFlip(),
        color_aug,
        shape_aug,
    ]
)
apply(img, augs)

# %% several [mxnet]
augs = transforms.Compose(
    [
        transforms.RandomFlipLeftRight(),
        color_aug,
        shape_aug,
    ]
)
apply(img, augs)


# %% several [tensorflow]
def augs(img):
    """Flip, recolour and crop."""
    img = tf.image.random_flip_left_right(img)
    img = color_aug(img)
    return shape_aug(img)


apply(img, augs)

# %% settings
num_train = 700
num_test = 400
num_epochs = 5
batch_size = 16

# %% the data
from common.datasets import load_data

data_dir = Path("data")
data_dir.mkdir(exist_ok=True)
data = load_data("shapes", data_dir=data_dir, limit=(num_train, num_test))


def names(labels):
    """Return the names of classes."""
    return [data.train.classes[label] for label in labels]


images, labels = data.train.images, data.train.labels
d2l.show_images(images[:32], 4, 8, titles=names(labels[:32]), scale=0.8)
print(images.shape, images.dtype, labels.shape, labels.dtype)

# %% train and test augmentations [pytorch]
train_augs = torchvision.transforms.Compose(
    [
        torchvision.transforms.RandomHorizontalFlip(),
        torchvision.transforms.ToTensor(),
    ]
)

test_augs = torchvision.transforms.Compose(
    [
        torchvision.transforms.ToTensor(),
    ]
)

# %% train and test augmentations [mxnet]
train_augs = transforms.Compose(
    [
        transforms.RandomFlipLeftRight(),
        transforms.ToTensor(),
    ]
)

test_augs = transforms.Compose(
    [
        transforms.ToTensor(),
    ]
)


# %% train and test augmentations [tensorflow]
def train_augs(img):
    """Flip at random; return floats in 0..1."""
    return test_augs(tf.image.random_flip_left_right(img))


def test_augs(img):
    """Return floats in 0..1."""
    return tf.cast(img, tf.float32) / 255


# %% batches [pytorch]
class Shapes(torch.utils.data.Dataset):
    """The images of a split, transformed when asked for, and labels."""

    def __init__(self, split, transform):
        self.split, self.transform = split, transform

    def __len__(self):
        return len(self.split)

    def __getitem__(self, i):
        img = d2l.Image.fromarray(self.split.images[i])
        return self.transform(img), int(self.split.labels[i])


def load_shapes(is_train, augs, batch_size):
    """Return the batches (X, y) of a split, augmented anew each epoch."""
    split = data.train if is_train else data.test
    dataset = Shapes(split, augs)
    return torch.utils.data.DataLoader(dataset, batch_size, shuffle=is_train)


X, y = next(iter(load_shapes(False, test_augs, batch_size)))
print(tuple(X.shape), X.dtype, f"{X.min():.2f} to {X.max():.2f}")
print(tuple(y.shape), y.dtype)


# %% batches [mxnet]
def load_shapes(is_train, augs, batch_size):
    """Return the batches (X, y) of a split, augmented anew each epoch."""
    split = data.train if is_train else data.test
    images = np.array(split.images, dtype="uint8")
    dataset = gluon.data.ArrayDataset(images, split.labels)
    dataset = dataset.transform_first(augs)
    return gluon.data.DataLoader(dataset, batch_size, shuffle=is_train)


X, y = next(iter(load_shapes(False, test_augs, batch_size)))
print(X.shape, X.dtype, f"{X.min().item():.2f} to {X.max().item():.2f}")
print(y.shape, y.dtype)


# %% batches [tensorflow]
def load_shapes(is_train, augs, batch_size):
    """Return the batches (X, y) of a split, augmented anew each epoch."""
    split = data.train if is_train else data.test
    arrays = split.images, split.labels
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    if is_train:
        dataset = dataset.shuffle(len(split))
    dataset = dataset.map(lambda img, y: (augs(img), y))
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


X, y = next(iter(load_shapes(False, test_augs, batch_size)))
print(X.shape, X.dtype, f"{X.numpy().min():.2f} to {X.numpy().max():.2f}")
print(y.shape, y.dtype)

# %% the network [pytorch]
set_seed(0)
devices, net = d2l.try_all_gpus(), d2l.resnet18(10)


def init_cnn(module):
    """Draw Xavier-uniform weights, and set biases to zero."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


net.apply(init_cnn)
print(tuple(net.conv.weight.shape), net.conv.weight.dtype)

# %% the network [mxnet]
set_seed(0)
devices, net = d2l.try_all_gpus(), d2l.resnet18(10)
net.initialize(init.Xavier(), ctx=devices)
net.hybridize()
weight = net[0].weight.data(devices[0])
print(weight.shape, weight.dtype)

# %% the network [tensorflow]
set_seed(0)
# Several GPUs: make net and optimizer in MirroredStrategy(devices).scope().
devices, net = [d2l.try_gpu()], d2l.resnet18(10)
# Keras has drawn Xavier-uniform weights and zero biases.
kernel = net.get_layer("conv").kernel
print(kernel.shape, kernel.dtype)


# %% train with data augmentation [pytorch]
def train_with_data_aug(train_augs, test_augs, net, lr=3e-4):
    """Train a network on augmented images, with Adam."""
    train_iter = load_shapes(True, train_augs, batch_size)
    test_iter = load_shapes(False, test_augs, batch_size)
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = torch.optim.Adam(net.parameters(), lr=lr)
    d2l.train_ch13(
        net,
        train_iter,
        test_iter,
        loss,
        trainer,
        num_epochs,
        devices,
    )


# %% train with data augmentation [mxnet]
def train_with_data_aug(train_augs, test_augs, net, lr=3e-4):
    """Train a network on augmented images, with Adam."""
    train_iter = load_shapes(True, train_augs, batch_size)
    test_iter = load_shapes(False, test_augs, batch_size)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    settings = {"learning_rate": lr}
    trainer = gluon.Trainer(net.collect_params(), "adam", settings)
    d2l.train_ch13(
        net,
        train_iter,
        test_iter,
        loss,
        trainer,
        num_epochs,
        devices,
    )


# %% train with data augmentation [tensorflow]
def train_with_data_aug(train_augs, test_augs, net, lr=3e-4):
    """Train a network on augmented images, with Adam."""
    train_iter = load_shapes(True, train_augs, batch_size)
    test_iter = load_shapes(False, test_augs, batch_size)
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True,
        reduction="none",
    )
    trainer = keras.optimizers.Adam(lr)
    d2l.train_ch13(
        net,
        train_iter,
        test_iter,
        loss,
        trainer,
        num_epochs,
        devices,
    )


# %% training
train_with_data_aug(train_augs, test_augs, net)

# %% predictions [pytorch]
X, y = next(iter(load_shapes(False, test_augs, batch_size)))
net.eval()
with torch.no_grad():
    y_hat = net(X.to(devices[0])).argmax(dim=1).cpu()
d2l.show_images(X, 2, 8, titles=names(y_hat), scale=1.2)
print((y_hat == y).sum().item(), "of", len(y), "are right")

# %% predictions [mxnet]
X, y = next(iter(load_shapes(False, test_augs, batch_size)))
# Outside of autograd.record() a network is in evaluation mode.
y_hat = net(X.as_in_ctx(devices[0])).argmax(axis=1).asnumpy()
d2l.show_images(X, 2, 8, titles=names(y_hat.astype(int)), scale=1.2)
print((y_hat == y.asnumpy()).sum(), "of", len(y), "are right")

# %% predictions [tensorflow]
X, y = next(iter(load_shapes(False, test_augs, batch_size)))
y_hat = tf.argmax(net(X, training=False), axis=1).numpy()
d2l.show_images(X, 2, 8, titles=names(y_hat), scale=1.2)
print((y_hat == y.numpy()).sum(), "of", len(y), "are right")

# %% saving and loading [pytorch]
torch.save(net.state_dict(), data_dir / "resnet18.pt")

clone = d2l.resnet18(10).to(devices[0])
state = torch.load(data_dir / "resnet18.pt", weights_only=True)
clone.load_state_dict(state)
clone.eval()
X = X.to(devices[0])
with torch.no_grad():
    difference = (net(X) - clone(X)).abs().max()
print(f"{len(state)} tensors, largest difference {difference:.1g}")

# %% saving and loading [mxnet]
net.save_parameters(str(data_dir / "resnet18.params"))

clone = d2l.resnet18(10)
clone.load_parameters(str(data_dir / "resnet18.params"))
clone.collect_params().reset_ctx(devices)
X = X.as_in_ctx(devices[0])
difference = np.abs(net(X) - clone(X)).max().item()
count = len(npx.load(str(data_dir / "resnet18.params")))
print(f"{count} arrays, largest difference {difference:.1g}")

# %% saving and loading [tensorflow]
net.save_weights(data_dir / "resnet18.weights.h5")

clone = d2l.resnet18(10)
clone.load_weights(data_dir / "resnet18.weights.h5")
difference = tf.reduce_max(tf.abs(net(X) - clone(X)))
count = len(clone.weights)
print(f"{count} variables, largest difference {difference:.1g}")

# %% decisions
import numpy
from skimage.data import chelsea

from common.augmentation.operations import ColorJitter, RandomFlipLeftRight, RandomResizedCrop
from common.augmentation.decisions import decide

augs = [
    RandomFlipLeftRight(),
    ColorJitter(brightness=0.5, hue=0.5),
    RandomResizedCrop((200, 200), scale=(0.1, 1), ratio=(0.5, 2)),
]
cats = numpy.stack([chelsea()] * 7)
decisions = decide(augs, numpy.arange(7), seed=0, epoch=0, image_size=(300, 451))
flips, jitters, crops = decisions
print(flips.flips)
print(crops.boxes[4])  # top, left, height, width

(again,) = decide(augs[:1], numpy.array([4]), seed=0, epoch=0, image_size=(300, 451))
print(again.flips[0] == flips.flips[4])

# %% augmenting
from common.drawing.captions import captions

backend = d2l.BACKEND
X = backend.transforms.from_images(cats, devices[0])
Y = backend.transforms.to_images(backend.transforms.augment(X, decisions))
drawn = [captions(decisions, i) for i in range(len(Y))]
d2l.show_images([cats[0], *Y], 2, 4, titles=["original", *drawn], scale=1.8)
d2l.plt.tight_layout()

# %% one batch
from zlib import crc32

train_iter = backend.loaders.load_batched(
    data.train, augs[:1], batch_size, is_train=True, seed=0, device=devices[0]
)
X, y = next(iter(train_iter))
pixels = backend.transforms.to_images(X)  # uint8 (16, 32, 32, 3)
print(backend.devices.to_numpy(y))
print(f"checksum of the pixels: {crc32(pixels.tobytes()):08x}")
