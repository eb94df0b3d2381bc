"""Planted mistakes in whole runs, as edits of the NumPy tab, and the checks that must reject each of them."""

from collections.abc import Iterator

from numpy_backend import Edit

from common.interface import Backend
from common.parity.adapter import Adapter
from common.parity.comparison import CheckResult
from common.parity.suite import Extent, whole_runs

SGD_RUN, ADAM_RUN = "train_ch13, SGD", "train_ch13, Adam"
VALIDATED, ALL_IMAGES = "kaggle.train, with validation", "kaggle.train, all images"
CH13, KAGGLE = (SGD_RUN, ADAM_RUN), (VALIDATED, ALL_IMAGES)
TRAINED = "losses", "weights", "buffers"


def runs(backend: Backend) -> Iterator[CheckResult]:
    """Yield the whole runs of the parity suite, on a narrow network."""
    adapter = Adapter(backend, "float64", num_channels=16)
    for result in whole_runs(adapter, Extent(locked_steps=2), seed=0):
        if not result.check.startswith("locked"):
            yield result


def of(runs: tuple[str, ...], *parts: str) -> set[str]:
    return {f"{run}: {part}" for run in runs for part in parts}


# Lines of the two training loops in the tab.
EPOCH = "        for X, y in log.batches(train_iter, epoch):\n"
EPOCHS = "for epoch in range(first_epoch, num_epochs):"
STEP = "            l, acc = train_batch_ch13(net, X, y, loss, trainer, devices)\n"
ADD = "            log.add(l, acc, len(y))\n"
TEST = "log.end_epoch(evaluate_accuracy_gpu(net, test_iter))"
RATE = "set_learning_rate(trainer, lr * lr_decay ** (epoch // lr_period))"
REPORTED = "log.end_epoch(valid_acc, trainer.lr)"
SGD = "sgd(net, lr, momentum=0.9, weight_decay=wd)\n"
PREDICT = "logits = [predict(net, X) for X, _ in test_iter]"
LABELS = "return labels_of(np.concatenate(logits))"
BEGUN = "epoch, self.epoch = self.epoch, self.epoch + 1"
LOADER = "    return _Batches(\n        dataset, batch_size, is_train, seed, load, first_epoch, part\n    )\n"
BATCHED = "        return transforms.augment_to_float(levels, merged(decisions))\n\n" + LOADER
NATIVE = (
    "            [transform(*pair) for pair in zip(images, bits, strict=True)]\n        )\n\n"
    + LOADER
)
GIVEN = "    trainer.state = state\n"
RETURNED = "    return trainer.state\n"

# A mistake in a whole run: the edits that plant it, and checks that reject it. Other checks may reject it too.
IN_RUNS: dict[str, tuple[tuple[Edit, ...], set[str]]] = {
    "run: the last batch of an epoch is skipped": (
        (("trainer", STEP + ADD, "            if len(y) == 8:\n    " + STEP + "    " + ADD),),
        of(CH13, *TRAINED, "state", "metrics"),
    ),
    "run: the last batch is not counted": (
        (("trainer", ADD, "            if len(y) == 8:\n    " + ADD),),
        of(CH13, "losses", "metrics"),
    ),
    "run: training accuracy reported as test accuracy": (
        (("trainer", TEST, "log.end_epoch(log.acc)"),),
        of(CH13, "batches", "metrics"),
    ),
    "run: each epoch is evaluated before it trains": (
        (
            ("trainer", EPOCH, "        acc0 = evaluate_accuracy_gpu(net, test_iter)\n" + EPOCH),
            ("trainer", TEST, "log.end_epoch(acc0)"),
        ),
        of((ADAM_RUN,), "metrics"),
    ),
    "run: only the first test batch is evaluated": (
        (
            (
                "trainer",
                "    return metric[0] / metric[1]",
                "        break\n    return metric[0] / metric[1]",
            ),
        ),
        of((*CH13, VALIDATED), "batches", "metrics"),
    ),
    "run: one epoch too few": (
        (("trainer", EPOCHS, EPOCHS.replace("num_epochs", "num_epochs - 1")),),
        of(CH13, "batches", "summary"),
    ),
    "run: the same augmentation from the third epoch on": (
        (("loaders", BEGUN, "epoch, self.epoch = min(self.epoch, 2), self.epoch + 1"),),
        {"train_ch13, SGD: batches", "kaggle.train, with validation: batches"},
    ),
    "run: mean loss instead of the sum in batches of other than 8 images": (
        (
            (
                "trainer",
                "return l.sum(), accuracy(pred, y)",
                "return l.sum() / len(y) ** (len(y) != 8), accuracy(pred, y)",
            ),
        ),
        of((*CH13, *KAGGLE), "losses"),
    ),
    "run: the learning rate drops one epoch early": (
        (("kaggle", RATE, RATE.replace("epoch //", "(epoch + 1) //")),),
        of(KAGGLE, "losses", "metrics", "weights"),
    ),
    "run: the learning rate never drops, but is reported to drop": (
        (
            ("kaggle", RATE, "rate = lr * lr_decay ** (epoch // lr_period)"),
            ("kaggle", REPORTED, "log.end_epoch(valid_acc, rate)"),
        ),
        of(KAGGLE, "losses", "weights"),
    ),
    "run: the learning rate drops, but is reported not to": (
        (("kaggle", REPORTED, "log.end_epoch(valid_acc, lr)"),),
        of(KAGGLE, "metrics"),
    ),
    "run: no weight decay": (
        (("kaggle", SGD, SGD.replace(", weight_decay=wd", "")),),
        of(KAGGLE, "weights"),
    ),
    "run: momentum 0.95": (
        (("kaggle", SGD, SGD.replace("0.9", "0.95")),),
        of(KAGGLE, *TRAINED),
    ),
    "run: the momentum buffer is reset every epoch": (
        (("kaggle", f"        {RATE}\n", f"        trainer = {SGD}        {RATE}\n"),),
        of(KAGGLE, *TRAINED),
    ),
    "run: validated on the training images": (
        (
            (
                "kaggle",
                "evaluate_accuracy_gpu(net, valid_iter)",
                "evaluate_accuracy_gpu(net, train_iter)",
            ),
        ),
        of((VALIDATED,), "batches", "metrics"),
    ),
    "run: predicted in training mode": (
        (("kaggle", PREDICT, PREDICT.replace("(net, X)", "(net, X, True)")),),
        of(KAGGLE, "predictions"),
    ),
    "run: the last batch is not predicted": (
        (("kaggle", LABELS, "return labels_of(np.concatenate(logits[:-1]))"),),
        of(KAGGLE, "predictions"),
    ),
    "run: predicted labels are int32": (
        (("kaggle", LABELS, f"{LABELS}.astype(np.int32)"),),
        of(KAGGLE, "predictions"),
    ),
    "run: predictions of the batches in reverse order": (
        (("kaggle", LABELS, "return labels_of(np.concatenate(logits[::-1]))"),),
        of(KAGGLE, "predictions"),
    ),
    "resume: train_ch13 starts at the first epoch": (
        (("trainer", EPOCHS, EPOCHS.replace("first_epoch, ", "")),),
        of(CH13, "resumed"),
    ),
    "resume: kaggle.train starts at the first epoch": (
        (("kaggle", EPOCHS, EPOCHS.replace("first_epoch, ", "")),),
        of(KAGGLE, "resumed"),
    ),
    "resume: the falling rate starts again": (
        (("kaggle", RATE, RATE.replace("epoch //", "(epoch - first_epoch) //")),),
        of(KAGGLE, "resumed"),
    ),
    "resume: kaggle.train ignores the given optimizer": (
        (("kaggle", f"trainer or {SGD}", SGD),),
        of(KAGGLE, "resumed"),
    ),
    "resume: the batched loader starts at the first epoch": (
        (("loaders", BATCHED, BATCHED.replace("first_epoch", "0")),),
        of((SGD_RUN, VALIDATED), "resumed"),
    ),
    "resume: the native loader starts at the first epoch": (
        (("loaders", NATIVE, NATIVE.replace("first_epoch", "0")),),
        of((ADAM_RUN, ALL_IMAGES), "resumed"),
    ),
    "resume: set_state forgets the slots": (
        (("trainer", GIVEN, "    trainer.state = type(state)(state.steps)\n"),),
        of((*CH13, *KAGGLE), "resumed"),
    ),
    "resume: set_state forgets Adam's second moments": (
        (("trainer", GIVEN, f"    state.slots.pop('second', None)\n{GIVEN}"),),
        of((ADAM_RUN,), "resumed"),
    ),
    "resume: set_state swaps Adam's moments": (
        (
            (
                "trainer",
                GIVEN,
                "    swapped = dict(zip(state.slots, reversed(state.slots.values())))\n"
                "    trainer.state = type(state)(state.steps, swapped)\n",
            ),
        ),
        of((ADAM_RUN,), "resumed"),
    ),
    "resume: set_state forgets the number of steps": (
        (("trainer", GIVEN, "    trainer.state = type(state)(0, state.slots)\n"),),
        of((ADAM_RUN,), "resumed"),
    ),
    "resume: get_state forgets the number of steps": (
        (("trainer", RETURNED, "    return type(trainer.state)(0, trainer.state.slots)\n"),),
        of((ADAM_RUN,), "resumed"),
    ),
}
