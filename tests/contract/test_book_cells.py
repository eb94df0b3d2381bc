"""A reader of the book can run the chapters' cells after `from backends import NAME as d2l`.

The cells here are our own. They use the same names of d2l as the book's cells, with the same arguments.
"""

import csv
import hashlib
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import load_or_skip, random_dataset
from PIL import Image

import backends

SHARED = {
    "Accumulator",
    "accuracy",
    "Animator",
    "copyfile",
    "cpu",
    "DATA_HUB",
    "DATA_URL",
    "download",
    "download_extract",
    "get_dataloader_workers",
    "gpu",
    "Image",
    "init_cnn",
    "np",
    "num_gpus",
    "os",
    "pd",
    "plt",
    "read_csv_labels",
    "reorg_cifar10_data",
    "reorg_test",
    "reorg_train_valid",
    "Residual",
    "resnet18",
    "set_figsize",
    "show_images",
    "Timer",
    "train_batch_ch13",
    "train_ch13",
    "try_all_gpus",
    "try_gpu",
    "use_svg_display",
}


# Names that only one tab's cells use.
OWN = {
    "pytorch": {"evaluate_accuracy_gpu"},
    "mxnet": {"evaluate_accuracy_gpus", "split_batch"},
    "tensorflow": set(),
}


@pytest.fixture
def d2l():
    load_or_skip("pytorch")
    from backends import pytorch as d2l

    return d2l


@pytest.fixture
def mxnet_d2l():
    load_or_skip("mxnet")
    from backends import mxnet as d2l

    return d2l


@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_every_name_that_the_cells_take_from_d2l_is_there(name):
    load_or_skip(name)
    tab = import_module(f"backends.{name}")
    missing = [name for name in SHARED | OWN[name] if not hasattr(tab, name)]
    assert missing == []
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(tab, "no_such_name")  # noqa: B009


@pytest.mark.parametrize("name", backends.FRAMEWORKS)
def test_try_all_gpus_is_never_empty(name):
    load_or_skip(name)
    tab = import_module(f"backends.{name}")
    assert tab.try_all_gpus()
    assert tab.try_gpu(99) == tab.cpu()


class Pictures:
    """A stand-in for torchvision's CIFAR-10: PIL images and labels, with a transform."""

    def __init__(self, n, transform=None):
        self.data, self.transform = random_dataset(n, size=8), transform

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        image = Image.fromarray(self.data.images[i])
        return (self.transform(image) if self.transform else image), int(self.data.labels[i])


def test_the_cells_of_image_augmentation_run(d2l, tmp_path, capsys):
    import torch
    import torchvision
    from torch import nn

    d2l.set_figsize()
    Image.fromarray(random_dataset(1, size=40).images[0]).save(tmp_path / "cat.png")
    img = d2l.Image.open(tmp_path / "cat.png")
    d2l.plt.imshow(img)
    aug = torchvision.transforms.RandomHorizontalFlip()
    axes = d2l.show_images([aug(img) for _ in range(8)], 2, 4, scale=1.5)
    assert len(axes) == 8
    d2l.show_images([Pictures(32)[i][0] for i in range(32)], 4, 8, scale=0.8)

    batch_size, devices, net = 16, d2l.try_all_gpus(), d2l.resnet18(10, 3)
    net.apply(d2l.init_cnn)

    def load(n, shuffle):
        transform = torchvision.transforms.Compose([aug, torchvision.transforms.ToTensor()])
        dataset = Pictures(n, transform)
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            num_workers=d2l.get_dataloader_workers(),
        )

    train_iter, test_iter = load(48, True), load(20, False)
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = torch.optim.Adam(net.parameters(), lr=0.001)
    net(next(iter(train_iter))[0])
    d2l.train_ch13(net, train_iter, test_iter, loss, trainer, 2, devices)
    assert "examples/sec on [" in capsys.readouterr().out
    d2l.plt.close("all")


@pytest.fixture
def tiny_zip(tmp_path: Path) -> Path:
    """A competition of 40 labelled and 6 unlabelled images, with the layout of the book's kaggle_cifar10_tiny.zip."""
    path = tmp_path / "data" / "kaggle_cifar10_tiny.zip"
    path.parent.mkdir()
    dataset = random_dataset(40, size=8)
    with zipfile.ZipFile(path, "w") as archive:
        rows = ["id,label"]
        for i, (image, label) in enumerate(
            zip(dataset.images, dataset.labels, strict=True), start=1
        ):
            Image.fromarray(image).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"kaggle_cifar10_tiny/train/{i}.png")
            rows.append(f"{i},{dataset.classes[label]}")
            if i <= 6:
                archive.write(tmp_path / "one.png", f"kaggle_cifar10_tiny/test/{i}.png")
        archive.writestr("kaggle_cifar10_tiny/trainLabels.csv", "\n".join(rows) + "\n")
    return path


def test_the_cells_of_kaggle_cifar10_run(d2l, tiny_zip, tmp_path, monkeypatch):
    import torch
    import torchvision
    from torch import nn

    monkeypatch.chdir(tmp_path)
    sha1 = hashlib.sha1(tiny_zip.read_bytes()).hexdigest()
    monkeypatch.setitem(d2l.DATA_HUB, "cifar10_tiny", (d2l.DATA_URL + tiny_zip.name, sha1))
    data_dir = d2l.download_extract("cifar10_tiny")
    labels = d2l.read_csv_labels(d2l.os.path.join(data_dir, "trainLabels.csv"))
    assert (len(labels), len(set(labels.values()))) == (40, 10)
    assert d2l.reorg_train_valid(data_dir, labels, 0.1) == 1
    d2l.reorg_test(data_dir)

    to_tensor = torchvision.transforms.ToTensor()

    def folder(name):
        return torchvision.datasets.ImageFolder(
            d2l.os.path.join(data_dir, "train_valid_test", name), transform=to_tensor
        )

    train_ds, valid_ds, test_ds = folder("train"), folder("valid"), folder("test")
    assert (len(train_ds), len(valid_ds), len(test_ds)) == (30, 10, 6)
    load = torch.utils.data.DataLoader
    train_iter, valid_iter = load(train_ds, 8, shuffle=True), load(valid_ds, 5)
    net, devices = d2l.resnet18(10, 3), d2l.try_all_gpus()
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = torch.optim.SGD(net.parameters(), lr=2e-3, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(trainer, 4, 0.9)
    timer = d2l.Timer()
    animator = d2l.Animator(
        xlabel="epoch", xlim=[1, 2], legend=["train loss", "train acc", "valid acc"]
    )
    net = nn.DataParallel(net, device_ids=devices).to(devices[0])
    for epoch in range(2):
        net.train()
        metric = d2l.Accumulator(3)
        for features, y in train_iter:
            timer.start()
            l, acc = d2l.train_batch_ch13(net, features, y, loss, trainer, devices)
            metric.add(l, acc, y.shape[0])
            timer.stop()
        animator.add(epoch + 1, (metric[0] / metric[2], metric[1] / metric[2], None))
        animator.add(epoch + 1, (None, None, d2l.evaluate_accuracy_gpu(net, valid_iter)))
        scheduler.step()
    assert metric[2] == 30
    assert timer.sum() > 0

    preds = []
    net.eval()
    for X, _ in load(test_ds, 4):
        preds.extend(net(X.to(devices[0])).argmax(dim=1).type(torch.int32).cpu().numpy())
    df = d2l.pd.DataFrame({"id": range(1, 7), "label": preds})
    df["label"] = df["label"].apply(lambda i: train_ds.classes[i])
    df.to_csv("submission.csv", index=False)
    with Path("submission.csv").open() as file:
        assert len(list(csv.reader(file))) == 7
    d2l.plt.close("all")


def test_a_training_loop_of_one_s_own_may_return_losses_that_carry_graphs(d2l):
    """The book's own train_batch_ch13 returns `l.sum()` undetached; summing it must not keep every graph alive."""
    import torch

    metric = d2l.Accumulator(1)
    weight = torch.ones(1, requires_grad=True)
    for _ in range(3):
        metric.add((weight * 2).sum())
    assert metric.data[0].grad_fn is None
    assert metric[0] == 6.0


def test_show_images_takes_tensors_arrays_and_pil_images(d2l):
    import torch

    image = random_dataset(1, size=8).images[0]
    kinds = [image, Image.fromarray(image), torch.from_numpy(image).permute(2, 0, 1) / 255]
    axes = d2l.show_images(kinds, 1, 3, titles=["array", "PIL", "tensor"])
    shown = [np.asarray(axis.images[0].get_array(), float) for axis in axes]
    np.testing.assert_array_equal(shown[0], shown[1])
    np.testing.assert_allclose(shown[2] * 255, shown[0], atol=1e-4)
    assert [axis.get_title() for axis in axes] == ["array", "PIL", "tensor"]
    d2l.plt.close("all")


# --- MXNet -----------------------------------------------------------------------------------------------------------


class Shown:
    """A stand-in for Gluon's CIFAR-10, which no longer downloads: MXNet arrays and labels."""

    def __new__(cls, n):
        from mxnet import gluon, np

        data = random_dataset(n, size=8)
        return gluon.data.ArrayDataset(np.array(data.images, dtype="uint8"), data.labels)


def test_the_mxnet_cells_of_image_augmentation_run(mxnet_d2l, tmp_path, capsys):
    d2l = mxnet_d2l
    from mxnet import autograd, gluon, image, init

    d2l.set_figsize()
    Image.fromarray(random_dataset(1, size=40).images[0]).save(tmp_path / "cat.png")
    img = image.imread(str(tmp_path / "cat.png"))
    d2l.plt.imshow(img.asnumpy())
    vision = gluon.data.vision.transforms
    flip, jitter = vision.RandomFlipLeftRight(), vision.RandomColorJitter(0.5, 0.5, 0, 0.5)
    augs = vision.Compose([flip, jitter, vision.RandomResizedCrop((20, 20), scale=(0.1, 1))])
    axes = d2l.show_images([augs(img) for _ in range(8)], 2, 4, scale=1.5)
    assert axes[0].images[0].get_array().shape == (20, 20, 3)
    d2l.show_images(Shown(32)[:][0], 4, 8, scale=0.8)

    def train_batch_ch13(net, features, labels, loss, trainer, devices, split_f=d2l.split_batch):
        X_shards, y_shards = split_f(features, labels, devices)
        with autograd.record():
            pred_shards = [net(X_shard) for X_shard in X_shards]
            ls = [loss(pred, y) for pred, y in zip(pred_shards, y_shards, strict=True)]
        for l in ls:
            l.backward()
        trainer.step(labels.shape[0], ignore_stale_grad=True)
        train_loss_sum = sum(float(l.sum()) for l in ls)
        pairs = zip(pred_shards, y_shards, strict=True)
        return train_loss_sum, sum(d2l.accuracy(pred, y) for pred, y in pairs)

    batch_size, devices, net = 16, d2l.try_all_gpus(), d2l.resnet18(10)
    net.initialize(init=init.Xavier(), ctx=devices)

    def load(n, is_train):
        return gluon.data.DataLoader(
            Shown(n).transform_first(vision.Compose([flip, vision.ToTensor()])),
            batch_size=batch_size,
            shuffle=is_train,
            num_workers=d2l.get_dataloader_workers(),
        )

    train_iter, test_iter = load(48, True), load(20, False)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.001})
    metric = d2l.Accumulator(4)
    for features, labels in train_iter:
        l, acc = train_batch_ch13(net, features, labels, loss, trainer, devices)
        metric.add(l, acc, labels.shape[0], labels.size)
    assert metric[2] == metric[3] == 48
    assert 0 <= d2l.evaluate_accuracy_gpus(net, test_iter, d2l.split_batch) <= 1
    d2l.train_ch13(net, train_iter, test_iter, loss, trainer, 2, devices)
    assert "examples/sec on [" in capsys.readouterr().out
    d2l.plt.close("all")


def test_the_mxnet_cells_of_kaggle_cifar10_run(mxnet_d2l, tiny_zip, tmp_path, monkeypatch):
    d2l = mxnet_d2l
    from mxnet import gluon, init

    monkeypatch.chdir(tmp_path)
    sha1 = hashlib.sha1(tiny_zip.read_bytes()).hexdigest()
    monkeypatch.setitem(d2l.DATA_HUB, "cifar10_tiny", (d2l.DATA_URL + tiny_zip.name, sha1))
    data_dir = d2l.download_extract("cifar10_tiny")
    labels = d2l.read_csv_labels(d2l.os.path.join(data_dir, "trainLabels.csv"))
    assert d2l.reorg_train_valid(data_dir, labels, 0.1) == 1
    d2l.reorg_test(data_dir)

    vision = gluon.data.vision.transforms
    transform_train = vision.Compose(
        [
            vision.Resize(10),
            vision.RandomResizedCrop(8, scale=(0.64, 1.0), ratio=(1.0, 1.0)),
            vision.RandomFlipLeftRight(),
            vision.ToTensor(),
            vision.Normalize([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
        ]
    )
    to_tensor = vision.ToTensor()

    def folder(name):
        path = d2l.os.path.join(data_dir, "train_valid_test", name)
        return gluon.data.vision.ImageFolderDataset(path)

    train_ds, valid_ds, test_ds = folder("train"), folder("valid"), folder("test")
    load = gluon.data.DataLoader
    train_iter = load(train_ds.transform_first(transform_train), 8, shuffle=True)
    valid_iter = load(valid_ds.transform_first(to_tensor), 5)
    net, devices = d2l.resnet18(10), d2l.try_all_gpus()
    net.initialize(ctx=devices, init=init.Xavier())
    net.hybridize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    settings = {"learning_rate": 0.02, "momentum": 0.9, "wd": 5e-4}
    trainer = gluon.Trainer(net.collect_params(), "sgd", settings)
    for epoch in range(2):
        metric = d2l.Accumulator(3)
        if epoch > 0:
            trainer.set_learning_rate(trainer.learning_rate * 0.9)
        for features, y in train_iter:
            l, acc = d2l.train_batch_ch13(
                net, features, y.astype("float32"), loss, trainer, devices, d2l.split_batch
            )
            metric.add(l, acc, y.shape[0])
        assert 0 <= d2l.evaluate_accuracy_gpus(net, valid_iter, d2l.split_batch) <= 1
    assert metric[2] == 30
    assert 0 < metric[0] / metric[2] < 20

    preds = []
    for X, _ in load(test_ds.transform_first(to_tensor), 4):
        y_hat = net(X.as_in_ctx(devices[0]))
        preds.extend(y_hat.argmax(axis=1).astype(int).asnumpy())
    df = d2l.pd.DataFrame({"id": range(1, 7), "label": preds})
    df["label"] = df["label"].apply(lambda i: train_ds.synsets[i])
    assert set(df["label"]) <= set("abcdefghij")


def test_show_images_takes_mxnet_s_arrays(mxnet_d2l):
    from mxnet import np as mnp

    image = random_dataset(1, size=8).images[0]
    last, first = mnp.array(image), mnp.array(image / 255).transpose(2, 0, 1)
    axes = mxnet_d2l.show_images([last, first], 1, 2)
    shown = [np.asarray(axis.images[0].get_array(), float) for axis in axes]
    np.testing.assert_array_equal(shown[0], image)
    np.testing.assert_allclose(shown[1] * 255, image, atol=1e-4)
    mxnet_d2l.plt.close("all")
