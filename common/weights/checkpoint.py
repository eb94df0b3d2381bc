"""A training that can go on: weights, optimizer state and finished epochs, in one safetensors file.

The file belongs to no framework, so a training can go on in another one. No generator is saved: every random decision
is a function of (seed, epoch, index), and the learning rate one of the epoch.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError, printable
from common.metrics import Epoch
from common.reference import State
from common.weights.canonical import Weights, trained_names
from common.weights.checks import check_values
from common.weights.safetensors import (
    CHECKPOINT,
    OF_CHECKPOINTS,
    OPTIMIZER,
    read_arrays,
    write_arrays,
)

ADAM, SGD = frozenset({"first", "second"}), frozenset({"momentum"})  # the optimizers' slots
MOST = 2**31 - 1  # steps or images: Keras counts steps in int32


@dataclass(frozen=True)
class Checkpoint:
    """A training after its ``epochs``; ``metadata`` is that of its weights files."""

    weights: Weights
    state: State
    epochs: tuple[Epoch, ...]
    metadata: Mapping[str, str]

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.epochs)


def num_bytes(weights: Weights, slots: int, freeze: bool = False) -> int:
    """Return the size of a checkpoint's arrays, for an optimizer with this number of slots.

    With ``freeze``, the optimizer trains only the last layer.
    """
    trained = sum(weights[name].nbytes for name in trained_names(weights, freeze))
    return sum(w.nbytes for w in weights.values()) + slots * trained


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically; it is on the disk when this returns, also after a power cut."""
    arrays: dict[str, NDArray[Any]] = dict(checkpoint.weights)
    for slot, kept in checkpoint.state.slots.items():
        arrays |= {f"{OPTIMIZER}{slot}.{name}": array for name, array in kept.items()}
    own = {
        "format": CHECKPOINT,
        "steps": str(checkpoint.state.steps),
        "epochs": json.dumps([asdict(epoch) for epoch in checkpoint.epochs]),
    }
    write_arrays(path, arrays, dict(checkpoint.metadata) | own)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises UserError for any other file, and for a damaged one."""
    weights, optimizer, metadata = read_arrays(path)
    if metadata.get("format") != CHECKPOINT:
        raise UserError(f"{path} is a weights file, not a checkpoint: use it with --weights")
    check_values(weights, str(path))
    try:
        slots = _slots(weights, optimizer)
        epochs = _epochs(json.loads(metadata["epochs"]))
        state = State(int(metadata["steps"]), slots)
        # At least one image a step, and PyTorch's SGD does not count them.
        if not 0 <= state.steps <= min(MOST, sum(epoch.images for epoch in epochs)):
            raise ValueError("its number of steps does not fit its epochs")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is a damaged checkpoint ({printable(str(error))})") from error
    kept = {name: text for name, text in metadata.items() if name not in OF_CHECKPOINTS}
    return Checkpoint(weights, state, epochs, kept)


def digest(checkpoint: Checkpoint) -> str:
    """Return a digest of all that a training goes on from."""
    state = checkpoint.state
    found = hashlib.sha256(repr((checkpoint.epochs, state.steps)).encode())
    for part, arrays in sorted({"": checkpoint.weights, **state.slots}.items()):
        for name, array in sorted(arrays.items()):
            found.update(f"{part}.{name}".encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _slots(
    weights: Weights, optimizer: Mapping[str, NDArray[Any]]
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the optimizer's arrays by slot and name. Raises ValueError unless they fit the weights."""
    slots: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in optimizer.items():
        slot, _, own = name.removeprefix(OPTIMIZER).partition(".")
        slots.setdefault(slot, {})[own] = array
    if set(slots) not in (ADAM, SGD):
        raise ValueError("its optimizer is unknown")
    trained = [
        {name: weights[name].shape for name in trained_names(weights, freeze)}
        for freeze in (False, True)
    ]
    for arrays in slots.values():
        if {name: array.shape for name, array in arrays.items()} not in trained:
            raise ValueError("its optimizer's state does not fit its weights")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("its optimizer's state is not finite")
    return slots


def _epochs(read: Any) -> tuple[Epoch, ...]:
    """Return the epochs in a file's metadata. Raises TypeError or ValueError if they are not from `save_checkpoint`."""
    epochs = tuple(Epoch(**values) for values in read)
    if not epochs or [epoch.epoch for epoch in epochs] != list(range(1, len(epochs) + 1)):
        raise ValueError("its epochs are incomplete")
    for epoch in epochs:
        if type(epoch.images) is not int or not 1 <= epoch.images <= MOST:
            raise ValueError("an epoch has no valid number of images")
        numbers = [epoch.train_loss, epoch.train_acc, epoch.seconds, epoch.step_seconds]
        numbers += [n for n in (epoch.held_out_acc, epoch.learning_rate) if n is not None]
        if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
            raise ValueError("the metrics of an epoch are not finite numbers")
    return epochs
