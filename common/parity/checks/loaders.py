"""Parity of the batched loader: pixels, labels and order, for data sets and batches of many sizes."""

from collections.abc import Iterator

import numpy as np

from common.augmentation.decisions import epoch_batches
from common.config import MAX_SEED
from common.interface import DataIter
from common.parity.adapter import Adapter
from common.parity.checks.cases import MANY_EPOCHS, LoaderCase, loader_cases
from common.parity.comparison import Array, Arrays, CheckResult, at, difference, together
from common.reference import Conventions, transforms

PARTS = ("transforms",)
Visit = tuple[
    int, int | None
]  # an epoch, counted from 0, and the number of batches to read; None reads all


def batched_loader_checks(
    adapter: Adapter, quick: bool = False, seed: int = 0
) -> Iterator[CheckResult]:
    """Check `load_batched` in every case, or with ``quick`` in few. A check stops at the first case that fails."""
    found: dict[str, list[CheckResult]] = {}
    for number, case in enumerate(loader_cases(seed, quick)):
        check = _check(case)
        results = found.setdefault(check, [])
        if not results or results[-1].passed:
            # Also use the largest seed: some generators accept only 31 bits.
            own = MAX_SEED - seed if case is MANY_EPOCHS else seed + number
            results.append(at(str(case), _case(adapter, check, case, own)))
    for results in found.values():
        yield together(results)


def _check(case: LoaderCase) -> str:
    """Return the name of the check that a case belongs to. Each check has its own tolerance."""
    if case.recipe == "Kaggle":
        return f"Kaggle batches, {case.split}"
    return "batches, not augmented" if case.recipe == "none" else "batches, augmented"


def _case(adapter: Adapter, check: str, case: LoaderCase, seed: int) -> CheckResult:
    dataset, device = case.dataset(seed), adapter.devices[0]
    images = np.asarray(dataset.images)
    before = images.copy()
    batches = adapter.backend.loaders.load_batched(
        dataset, case.augs, case.batch_size, case.is_train, seed, device
    )
    number = -(-case.num_examples // case.batch_size)
    got = {"number of batches": np.array(len(batches)), **_read(adapter, batches, case)}
    got["images of the data set"] = images

    def expected(conventions: Conventions) -> Arrays:
        found = {"number of batches": np.array(number)}
        for epoch, most in _visits(case):
            order = list(epoch_batches(len(dataset), case.batch_size, seed, epoch, case.is_train))
            for i, indices in enumerate(order[:most]):
                X = transforms.augmented(images, case.augs, indices, seed, epoch, conventions)
                found |= _placed(epoch, i, X, dataset.labels[indices], np.array(1.0))
        return found | {"images of the data set": before}

    return adapter.compare(check, got, expected, difference, PARTS)


def _visits(case: LoaderCase) -> list[Visit]:
    """Return the epochs to read. The second epoch stops after one batch."""
    return [(epoch, 1 if epoch == 1 else None) for epoch in range(case.epochs)]


def _read(adapter: Adapter, batches: DataIter, case: LoaderCase) -> dict[str, Array]:
    """Return what the loader yields. Each iteration starts the next epoch, also after one that was stopped."""
    found: dict[str, Array] = {}

    def keep(epoch: int, i: int, X: Array, y: Array) -> None:
        types = "float32" in str(X.dtype) and "int64" in str(y.dtype)
        found.update(_placed(epoch, i, adapter.array(X), adapter.array(y), np.array(float(types))))

    sequential, parallel = _visits(case)[:3], _visits(case)[3:]
    for epoch, most in sequential:
        for i, batch in enumerate(batches):
            keep(epoch, i, *batch)
            if i + 1 == most:
                break
    iterators = [iter(batches) for _ in parallel]
    for i, several in enumerate(zip(*iterators, strict=True)):
        for (epoch, _), batch in zip(parallel, several, strict=True):
            keep(epoch, i, *batch)
    return found


def _placed(epoch: int, i: int, X: Array, y: Array, types: Array) -> dict[str, Array]:
    place = f"epoch {epoch + 1}, batch {i + 1}"
    return {f"{place}: float32 and int64": types, f"{place}: labels": y, f"{place}: images": X}
