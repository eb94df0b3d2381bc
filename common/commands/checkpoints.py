"""Save a training at the end of its epochs, and find where to go on."""

import re
import time
import warnings
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage
from types import TracebackType
from typing import Self

from common.commands.processes import COPY, all_or_none, check_same
from common.errors import UserError, UserNotice
from common.interface import Backend, Net, Trainer
from common.metrics import Epoch
from common.reference import State
from common.weights.canonical import Weights, trained_names
from common.weights.checkpoint import (
    Checkpoint,
    digest,
    load_checkpoint,
    num_bytes,
    save_checkpoint,
)
from common.weights.files import BEST
from common.weights.safetensors import save_weights

SHARE = 0.02  # of the time of a training, at most, is spent on saving
KEPT = 2  # the newest may be damaged, for instance by a failing disk


class Checkpoints:
    """The checkpoints of one training, ``checkpoints/NAME-0001.safetensors`` in the folder of its run.

    A file is written while the next epoch is trained. Used as a context, it waits for the last one. A file that cannot
    be written is a notice, and the training goes on; the older files are kept. ``slots`` are those of the optimizer.
    With ``best``, the weights of the epoch with the best accuracy on held-out images are kept too. ``later`` more
    trainings will need room in the same folder. Without ``keeps``, files are only read. With ``freeze``, only the
    last layer is trained.
    """

    def __init__(
        self,
        run: Path,
        name: str,
        backend: Backend,
        net: Net,
        trainer: Trainer,
        slots: Collection[str],
        best: bool = True,
        later: int = 0,
        keeps: bool = True,
        freeze: bool = False,
    ) -> None:
        self.run, self.folder, self.name = run, run / "checkpoints", name
        self.slots, self.best, self.later, self.keeps = slots, best, later, keeps
        self.freeze = freeze
        self.backend, self.net, self.trainer = backend, net, trainer
        self.epochs: list[Epoch] = []  # that are finished
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None
        self.saved_at, self.cost = time.monotonic(), 0.0  # in seconds
        self.unsaved_best: Checkpoint | None = None
        self.pending_best: Checkpoint | None = None  # written with the pending checkpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait()
        self.writer.shutdown()
        if kind is None and self.keeps:  # the training is finished
            self._keep(1)

    def start(self, resume: bool, num_epochs: int) -> int:
        """Return the number of finished epochs, and give the network and the optimizer their state after them.

        Raises UserError if the disk has no room for the files of the training, or if no checkpoint can be read. With
        several processes, all raise it if one does, or if their checkpoints differ.
        """
        processes = self.backend.processes
        with all_or_none(processes):
            weights = self.backend.weights.get_weights(self.net)
            checkpoint = self._latest(weights) if resume else None
            if self.keeps:
                self._check_room(weights, checkpoint is not None and checkpoint.epoch >= num_epochs)
        if processes.num_processes() > 1:
            # No engine notices other weights, and each host may have its own copy of the folder.
            number, content = (checkpoint.epoch, digest(checkpoint)) if checkpoint else (0, "")
            found = {"the training": self.name, "the number of finished epochs": number}
            check_same(processes, {**found, "the checkpoint": content}, COPY)
        if checkpoint is None:
            return 0
        self.backend.weights.set_weights(self.net, checkpoint.weights)
        self.backend.trainer.set_state(self.net, self.trainer, checkpoint.state)
        self.epochs.extend(checkpoint.epochs)
        return len(self.epochs)

    def add(self, epoch: Epoch, is_last: bool, metadata: Mapping[str, str]) -> None:
        """Save the training after this ``epoch``, unless the last time was a moment ago.

        With it, save the weights of the best epoch since then, if it is the best so far.
        """
        self.epochs.append(epoch)
        best, began = self.best and self._is_best(), time.monotonic()
        due = is_last or began - self.saved_at >= self.cost / SHARE
        if not (self.keeps and (best or due)):
            return
        weights = self.backend.weights.get_weights(self.net)
        if best:
            self.unsaved_best = Checkpoint(weights, State(), tuple(self.epochs), metadata)
        if due:
            self._wait()
            state = self.backend.trainer.get_state(self.net, self.trainer)
            checkpoint = Checkpoint(weights, state, tuple(self.epochs), metadata)
            self.pending_best = self.unsaved_best
            self.pending = self.writer.submit(
                self._write, checkpoint, self.pending_best, time.monotonic() - began
            )
            self.saved_at = began

    def _is_best(self) -> bool:
        """Return whether the last epoch has the best accuracy on held-out images; of equal ones, the first is best."""
        *before, last = (epoch.held_out_acc for epoch in self.epochs)
        return last is not None and all(acc is None or acc < last for acc in before)

    def _latest(self, weights: Weights) -> Checkpoint | None:
        """Return the newest checkpoint that can be read and has the shapes of ``weights``, None if there is no file.

        Raises UserError if there are files, but none can be read.
        """
        problems: list[str] = []
        for path in reversed(self._paths()):
            try:
                checkpoint = load_checkpoint(path)
                self._check_fit(path, checkpoint, weights)
            except UserError as error:
                problems.append(error.args[0])
                continue
            for problem in problems:
                notice = f"{problem}; the training goes on from {path.name}"
                warnings.warn(UserNotice(notice), stacklevel=2)
            return checkpoint
        if problems:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; remove that folder to train from the start: {problems[0]}"
            )
        return None

    def _check_fit(self, path: Path, checkpoint: Checkpoint, weights: Weights) -> None:
        """Raise UserError unless a checkpoint is of this training."""
        shapes = [{n: w.shape for n, w in of.items()} for of in (weights, checkpoint.weights)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{path} is a checkpoint of another network")
        trained = set(trained_names(weights, self.freeze))
        of_layers = [arrays.keys() == trained for arrays in checkpoint.state.slots.values()]
        if checkpoint.state.slots.keys() != set(self.slots) or not all(of_layers):
            raise UserError(f"{path} is a checkpoint of another optimizer")
        if checkpoint.epoch != _number(path):
            raise UserError(f"{path} is a checkpoint after epoch {checkpoint.epoch}")

    def _check_room(self, weights: Weights, finished: bool) -> None:
        one = num_bytes(weights, 0)
        checkpoint = num_bytes(weights, len(self.slots), self.freeze)
        # One more than are kept, since a file is removed only after the new one is complete; the best and last weights.
        unfinished = (KEPT + 1 + self.later) * checkpoint + (2 + self.later) * one
        needed = one if finished else unfinished
        free = disk_usage(self.run).free + sum(path.stat().st_size for path in self._paths())
        if free < needed:
            raise UserError(
                f"{self.run} has {free / 1e6:,.0f} MB of free space, but the checkpoints and weights of this training "
                f"need {needed / 1e6:,.0f} MB: free some, or choose another --output"
            )

    def _write(self, checkpoint: Checkpoint, best: Checkpoint | None, seconds: float) -> None:
        """Write the files. Gathering their content has taken ``seconds``."""
        began = time.monotonic()
        # The best weights first: a run that goes on after the checkpoint does not train their epoch again.
        if best is not None:
            self._save_best(best)
        path = self.folder / f"{self.name}-{checkpoint.epoch:04}.safetensors"
        save_checkpoint(path, checkpoint)
        self._keep(KEPT)
        self.cost = seconds + time.monotonic() - began

    def _save_best(self, checkpoint: Checkpoint) -> None:
        accuracy = f"{checkpoint.epochs[-1].held_out_acc:.4f}"
        about = {"epoch": str(checkpoint.epoch), "accuracy": accuracy}
        save_weights(self.run / BEST, checkpoint.weights, dict(checkpoint.metadata) | about)

    def _keep(self, number: int) -> None:
        """Remove all but the last files."""
        for path in self._paths()[:-number]:
            with suppress(OSError):
                path.unlink()

    def _wait(self) -> None:
        """Wait for the file that is being written."""
        pending, self.pending = self.pending, None
        if pending is None:
            return
        try:
            pending.result()
        except UserError as error:
            notice = f"no checkpoint of this epoch: {error}; the training goes on"
            warnings.warn(UserNotice(notice), stacklevel=2)
            return
        # Here and not in the thread, while `add` may set a newer one.
        if self.unsaved_best is self.pending_best:
            self.unsaved_best = None

    def _paths(self) -> list[Path]:
        """Return the files of this training, the newest last."""
        paths = self.folder.glob(f"{self.name}-*.safetensors")
        return sorted((path for path in paths if _number(path)), key=_number)


def _number(path: Path) -> int:
    """Return the number of epochs in the name of a checkpoint, 0 if it has none."""
    found = re.fullmatch("[0-9]{4,9}", path.stem.rpartition("-")[2])
    return int(found[0]) if found else 0
