"""Parity of weights files: a backend and an independent reader read back what the backend wrote."""

from collections.abc import Iterator

import numpy as np

from common.parity.adapter import Adapter
from common.parity.checks.cases import NetworkCase
from common.parity.comparison import Arrays, CheckResult, difference, logits_difference
from common.reference import Conventions, forward
from common.system.temporary import temporary_folder
from common.weights.canonical import Weights
from common.weights.files import READERS


def file_checks(adapter: Adapter, case: NetworkCase, seed: int) -> Iterator[CheckResult]:
    """Check that a file stores the weights bit for bit, and that a network from `load_net` computes with them.

    If NumPy or h5py can read the framework's files, their reader is compared too. It finds mistakes that saving and
    loading have in common.
    """
    backend, drawn = adapter.backend, adapter.weights(seed)
    weights = {name: weight.astype(np.float32) for name, weight in drawn.items()}
    suffix = backend.framework.suffixes[0]
    (batch,) = case.batches([case.last_size], seed + 3)
    with temporary_folder() as folder:
        path = folder / f"net{suffix}"
        backend.weights.save_file(path, weights)
        net = backend.weights.load_net(path)
        found = {
            "load_file": backend.weights.load_file(path),
            "load_net": backend.weights.get_weights(net),
        }
        if suffix in READERS:
            found["another reader"] = READERS[suffix](path)[0]
    got = {place: array for by, read in found.items() for place, array in _placed(by, read).items()}
    expected = {place: array for by in found for place, array in _placed(by, weights).items()}
    yield adapter.compare("cases: files", got, lambda _: expected, difference, parts=())
    net = backend.trainer.prepare(net, adapter.devices)
    y_hat = adapter.array(backend.trainer.predict(net, adapter.tensor(batch.X)))

    def logits(conventions: Conventions) -> Arrays:
        return {"logits": forward(drawn, batch.X, False, conventions).logits}

    yield adapter.compare("cases: logits from a file", {"logits": y_hat}, logits, logits_difference)


def _placed(reader: str, weights: Weights) -> Arrays:
    """Return weights by reader and name, and whether all are float32."""
    found = {f"{reader}: {name}": weight for name, weight in weights.items()}
    single = all(weight.dtype == np.float32 for weight in weights.values())
    return {**found, f"{reader}: all float32": np.array(float(single))}
