"""Planted mistakes that only some inputs show (other sizes, later epochs, last batches), and their checks."""

from collections.abc import Callable, Iterator

import numpy as np
from mistakes import Checks, adapter, cases, edited, initial
from numpy_backend import changed

from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.checks.loaders import batched_loader_checks
from common.parity.checks.operations import operation_checks
from common.parity.comparison import CheckResult


def batches(backend: Backend) -> Iterator[CheckResult]:
    single, uint8 = adapter(backend, "float32"), Adapter(backend, "uint8")
    yield from operation_checks(single, uint8, quick=True)
    yield from batched_loader_checks(single, quick=True)


def with_transposed_files(backend: Backend) -> Backend:
    """Return a backend that transposes square kernels when it writes files, and again when it reads them."""
    save, load = backend.weights.save_file, backend.weights.load_file

    def turned(weights):
        return {
            name: np.ascontiguousarray(w.swapaxes(2, 3)) if w.ndim == 4 else w
            for name, w in weights.items()
        }

    return changed(
        backend,
        "weights",
        save_file=lambda path, weights: save(path, turned(weights)),
        load_file=lambda path: turned(load(path)),
    )


def wrong_where(condition: str) -> Callable[[Backend], Backend]:
    """Return a function that makes the NumPy tab with wrong logits under a condition.

    The condition is an expression of images X and logits y.
    """
    return edited(
        (
            "trainer",
            "    return net(X, training)\n",
            f"    y = net(X, training)\n    return y * 1.001 if {condition} else y\n",
        )
    )


STEP = "pred, l = backpropagate(net, X, y, loss)"
FLIP = "return reference.flip_left_right(X, flips)"
NEXT_EPOCH = "epoch, self.epoch = self.epoch, self.epoch + 1"
VISITS = "self.seed, epoch, self.is_train"
LAST = "yield self.load(indices, epoch), self.labels[indices]"
LABELS = "logits = [predict(net, X) for X, _ in test_iter]"
RETURN_LABELS = "return labels_of(np.concatenate(logits))"
BRIGHTNESS = "reference.adjust_brightness(to_float(X), factors)"

# A mistake in the NumPy backend: a function that plants it, its group of checks, and the checks that reject it.
INPUT_MISTAKES: dict[str, tuple[Callable[[Backend], Backend], Checks, set[str]]] = {
    "losses divided by the batch size rounded up to a multiple of 4": (
        edited(("trainer", "1 / len(y)", "1 / (-(-len(y) // 4) * 4)")),
        cases,
        {
            "cases: buffers after training",
            "cases: gradients",
            "cases: training losses",
            "cases: weights after training",
        },
    ),
    "wrong logits unless there are 10 classes": (
        wrong_where("y.shape[1] != 10"),
        cases,
        {"cases: logits", "cases: logits from a file"},
    ),
    "wrong logits for grey images": (
        wrong_where("X.shape[1] == 1"),
        cases,
        {"cases: logits", "cases: logits from a file"},
    ),
    "wrong logits for wide images": (
        wrong_where("X.shape[3] > X.shape[2]"),
        cases,
        {"cases: logits", "cases: logits from a file"},
    ),
    "wrong logits for a batch of 3": (
        wrong_where("len(X) == 3"),
        cases,
        {"cases: logits", "cases: logits from a file"},
    ),
    "grey images are inverted": (
        edited(
            (
                "resnet",
                "layers.conv2d(X, weight, bias, self.strides)",
                "layers.conv2d(X if X.shape[1] > 1 else 1 - X, weight, bias, self.strides)",
            )
        ),
        cases,
        {
            "cases: activations",
            "cases: buffers after training",
            "cases: gradients",
            "cases: logits",
            "cases: logits from a file",
            "cases: training losses",
            "cases: training metrics",
            "cases: weights after training",
        },
    ),
    "a batch of one uses the running statistics": (
        edited(("resnet", "if self.training:", "if self.training and len(X) > 1:")),
        cases,
        {
            "cases: activations",
            "cases: buffers after training",
            "cases: gradients",
            "cases: logits",
            "cases: training losses",
            "cases: training metrics",
            "cases: weights after training",
        },
    ),
    "a step uses at most 32 images": (
        edited(("trainer", STEP, f"X, y = X[:32], y[:32]\n    {STEP}")),
        cases,
        {
            "cases: buffers after training",
            "cases: training losses",
            "cases: weights after training",
        },
    ),
    "the last batch of each epoch is skipped": (
        edited(
            (
                "trainer",
                "for X, y in log.batches(train_iter, epoch):\n",
                "for i, (X, y) in enumerate(log.batches(train_iter, epoch), 1):\n"
                "            if i == len(train_iter):\n"
                "                continue\n",
            )
        ),
        cases,
        {
            "cases: buffers after training",
            "cases: training losses",
            "cases: training metrics",
            "cases: weights after training",
        },
    ),
    "the last batch is counted as a full one": (
        edited(("trainer", "log.add(l, acc, len(y))", "log.add(l, acc, len(train_iter[0][1]))")),
        cases,
        {"cases: training losses", "cases: training metrics"},
    ),
    "accuracy on the training set reported as test accuracy": (
        edited(
            (
                "trainer",
                "evaluate_accuracy_gpu(net, test_iter)",
                "evaluate_accuracy_gpu(net, train_iter)",
            )
        ),
        cases,
        {"cases: training metrics"},
    ),
    "accuracy averaged over batches": (
        edited(
            (
                "trainer",
                "metric.add(accuracy(predict(net, X), y), len(y))",
                "metric.add(accuracy(predict(net, X), y) / len(y), 1)",
            )
        ),
        cases,
        {"cases: training metrics"},
    ),
    "argmax of equal logits is the last": (
        edited(
            (
                "trainer",
                "return (y_hat.argmax(axis=1) == y).sum()",
                "return (y_hat.shape[1] - 1 - y_hat[:, ::-1].argmax(axis=1) == y).sum()",
            )
        ),
        cases,
        {"cases: loss"},
    ),
    "labels predicted in training mode": (
        edited(("kaggle", LABELS, LABELS.replace("(net, X)", "(net, X, True)"))),
        cases,
        {"cases: training metrics"},
    ),
    "labels predicted without the last batch": (
        edited(("kaggle", LABELS, LABELS.replace("test_iter", "list(test_iter)[:-1]"))),
        cases,
        {"cases: training metrics"},
    ),
    "predicted labels are int32": (
        edited(("kaggle", RETURN_LABELS, f"{RETURN_LABELS}.astype(np.int32)")),
        cases,
        {"cases: training metrics"},
    ),
    "saving and loading both transpose the kernels": (
        with_transposed_files,
        cases,
        {"cases: files", "cases: logits from a file"},
    ),
    "files store float16": (
        edited(
            (
                "weights",
                "np.savez(file, **weights)",
                "np.savez(file, **{k: w.astype(np.float16).astype(np.float32) for k, w in weights.items()})",
            )
        ),
        cases,
        {"cases: files", "cases: logits from a file"},
    ),
    "load_net does not restore the running statistics": (
        edited(
            (
                "weights",
                "    net = resnet18(*network_sizes(weights))\n    set_weights(net, weights)\n",
                "    net = resnet18(*network_sizes(weights))\n"
                "    fresh = get_weights(net)\n"
                "    kept = {k: w for k, w in fresh.items() if 'running' in k}\n"
                "    set_weights(net, weights | kept)\n",
            )
        ),
        cases,
        {"cases: files", "cases: logits from a file"},
    ),
    "only the first 8 images of a batch are flipped": (
        edited(("transforms", FLIP, FLIP.replace("flips)", "flips & (np.arange(len(X)) < 8))"))),
        batches,
        {
            "batches, augmented",
            "operations",
            "operations on uint8 images, largest",
            "operations on uint8 images, mean",
        },
    ),
    "brightness is rounded in batches of 16 or more": (
        edited(
            (
                "transforms",
                BRIGHTNESS,
                f"{BRIGHTNESS}.round(2 if len(X) >= 16 else 9)",
            )
        ),
        batches,
        {"operations", "operations on uint8 images, largest", "operations on uint8 images, mean"},
    ),
    "augmentation repeats from the third epoch on": (
        edited(
            (
                "loaders",
                "decide(augs, indices, seed, epoch, size)",
                "decide(augs, indices, seed, min(epoch, 1), size)",
            )
        ),
        batches,
        {"Kaggle batches, training", "batches, augmented"},
    ),
    "non-square images are upside down": (
        edited(
            (
                "transforms",
                "return np.moveaxis(images, -1, 1)",
                "square = images.shape[1] == images.shape[2]\n"
                "    return np.moveaxis(images if square else images[:, ::-1], -1, 1)",
            )
        ),
        batches,
        {"Kaggle batches, test", "Kaggle batches, training", "batches, augmented", "conversions"},
    ),
    "labels of the last class are off by one": (
        edited(
            (
                "loaders",
                LAST,
                "last = self.labels.max()\n"
                "            y = self.labels[indices]\n"
                "            yield self.load(indices, epoch), y - (y == last)",
            )
        ),
        batches,
        {
            "Kaggle batches, test",
            "Kaggle batches, training",
            "batches, augmented",
            "batches, not augmented",
        },
    ),
    "a test set of 24 images is shuffled": (
        edited(("loaders", VISITS, f"{VISITS} or len(self.labels) == 24")),
        batches,
        {"batches, not augmented"},
    ),
    "an interrupted epoch is read again": (
        edited(
            ("loaders", NEXT_EPOCH, "epoch = self.epoch"),
            ("loaders", LAST, f"{LAST}\n        self.epoch = epoch + 1"),
        ),
        batches,
        {"Kaggle batches, training", "batches, augmented"},
    ),
    "batches of 33 lose an image": (
        edited(
            (
                "loaders",
                LAST,
                LAST.replace("[indices]", "[indices[:32]]").replace("(indices,", "(indices[:32],"),
            )
        ),
        batches,
        {"batches, augmented"},
    ),
    "initial weights 10% too small": (
        edited(
            (
                "resnet",
                "found[layer].weights[kind] = weight",
                "found[layer].weights[kind] = 0.9 * weight",
            )
        ),
        initial,
        {"initial weights"},
    ),
    "initial weights are not reproducible": (
        edited(("resnet", "seed=int(seed)", "seed=id(module)")),
        initial,
        {"initial weights"},
    ),
    "initial weights are always the same": (
        edited(("resnet", "seed=int(seed)", "seed=0")),
        initial,
        {"initial weights"},
    ),
}
