"""The contract: one Protocol per file of a backend, and the records of a framework and of its backend.

A backend's files are modules of plain functions, as in the book. A module satisfies a Protocol if it has functions with
these names and arguments. This is checked by mypy where each backend builds its `Backend`. Argument names, defaults and
first docstring lines are compared by tests/contract/test_interface.py.

Tensors have the type ``Any``: they are the framework's own, in its own layout (`Devices.image_layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # run.py --help imports this file and should not import NumPy
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from common.augmentation.decisions import Decision, Resamples
    from common.augmentation.operations import Augmentation
    from common.datasets import Dataset
    from common.drawing.plots import Animator
    from common.metrics import KaggleSummary, Listener, TrainingSummary
    from common.reference import Conventions, State
    from common.weights.canonical import Weights

Tensor = Any
Net = Any
Device = Any
# Takes (logits, labels), or (labels, logits) if the framework's losses do: `Probes.labels_first`.
Loss = Callable[[Tensor, Tensor], Tensor]
Trainer = Any


class DataIter(Protocol):
    """Minibatches (X, y) of one epoch; each iteration is the next epoch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...
    def __len__(self) -> int: ...


class Devices(Protocol):
    """The devices, their settings, and conversions to and from NumPy."""

    image_layout: str  # "NCHW" or "NHWC": the axes of a batch of images

    def cpu(self) -> Device: ...
    def gpu(self, i: int = 0) -> Device: ...
    def num_gpus(self) -> int: ...
    def try_gpu(self, i: int = 0) -> Device: ...
    def try_all_gpus(self) -> list[Device]: ...
    def get_devices(self, name: str) -> list[Device]: ...
    def describe(
        self,
        devices: list[Device],
        precision: str = "fp32",
        compile: bool = False,
        sync_batch_norm: bool = False,
    ) -> dict[str, str]: ...
    def from_numpy(self, array: NDArray[Any], device: Device | None = None) -> Tensor: ...
    def to_numpy(self, X: Tensor) -> NDArray[Any]: ...
    def set_seed(self, seed: int) -> None: ...


class Transforms(Protocol):
    """Augmentation: the framework's own transforms, and operations on whole batches."""

    def native(self, augs: Sequence[Augmentation]) -> Callable[[Any], Tensor]: ...
    def from_images(self, images: NDArray[np.uint8], device: Device) -> Tensor: ...
    def to_images(self, X: Tensor) -> NDArray[np.uint8]: ...
    def to_float(self, X: Tensor) -> Tensor: ...
    def augment(self, X: Tensor, decisions: Sequence[Decision]) -> Tensor: ...
    def augment_to_float(self, X: Tensor, decisions: Sequence[Decision | Resamples]) -> Tensor: ...
    def flip_left_right(self, X: Tensor, flips: NDArray[np.bool_]) -> Tensor: ...
    def flip_top_bottom(self, X: Tensor, flips: NDArray[np.bool_]) -> Tensor: ...
    def crop_resize(
        self, X: Tensor, rows: NDArray[np.float32], columns: NDArray[np.float32]
    ) -> Tensor: ...
    def adjust_brightness(self, X: Tensor, factors: NDArray[np.float32]) -> Tensor: ...
    def adjust_contrast(self, X: Tensor, factors: NDArray[np.float32]) -> Tensor: ...
    def adjust_saturation(self, X: Tensor, factors: NDArray[np.float32]) -> Tensor: ...
    def adjust_hue(self, X: Tensor, shifts: NDArray[np.float32]) -> Tensor: ...
    def color_jitter(
        self, X: Tensor, factors: NDArray[np.float32], order: NDArray[np.int64]
    ) -> Tensor: ...
    def normalize(
        self, X: Tensor, mean: NDArray[np.float32], std: NDArray[np.float32]
    ) -> Tensor: ...


class Loaders(Protocol):
    """Minibatches: from the framework's own loader, or augmented as whole batches on the device."""

    def get_dataloader_workers(self) -> int: ...
    def load_native(
        self,
        dataset: Dataset,
        augs: Sequence[Augmentation],
        batch_size: int,
        is_train: bool,
        seed: int = 0,
        num_workers: int = 0,
        device: Device | None = None,
        first_epoch: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> DataIter: ...
    def load_batched(
        self,
        dataset: Dataset,
        augs: Sequence[Augmentation],
        batch_size: int,
        is_train: bool,
        seed: int = 0,
        device: Device | None = None,
        first_epoch: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> DataIter: ...


class Processes(Protocol):
    """Training by several processes, on the framework's own engine. Each has a part of every batch."""

    def join(self) -> None: ...
    def rank(self) -> int: ...
    def num_processes(self) -> int: ...
    def replicate(self, net: Net, devices: list[Device]) -> Net: ...
    def total(self, values: Any) -> Any: ...
    def average_buffers(self, net: Net) -> None: ...


class ResNet(Protocol):
    """The book's ResNet-18 for small images."""

    Residual: Any

    def resnet18(self, num_classes: int, in_channels: int = 3, num_channels: int = 64) -> Net: ...
    def init_cnn(self, module: Any) -> None: ...


class WeightFiles(Protocol):
    """Convert the weights of `common.weights` to and from a network, or a file in the framework's own format."""

    def get_weights(self, net: Net) -> Weights: ...
    def set_weights(self, net: Net, weights: Weights) -> None: ...
    def save_file(self, path: Path, weights: Weights) -> None: ...
    def load_file(self, path: Path) -> Weights: ...
    def load_net(self, path: Path) -> Net: ...


class Trainers(Protocol):
    """The chapter-13 trainer. `prepare` may return another network: make the optimizer for it, and train it."""

    def cross_entropy(self) -> Loss: ...
    def adam(
        self,
        net: Net,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> Trainer: ...
    def sgd(
        self, net: Net, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> Trainer: ...
    def set_learning_rate(self, trainer: Trainer, lr: float) -> None: ...
    def get_state(self, net: Net, trainer: Trainer) -> State: ...
    def set_state(self, net: Net, trainer: Trainer, state: State) -> None: ...
    def freeze(self, net: Net) -> None: ...
    def prepare(
        self,
        net: Net,
        devices: list[Device],
        precision: str = "fp32",
        compile: bool = False,
        sync_batch_norm: bool = False,
    ) -> Net: ...
    def predict(self, net: Net, X: Tensor, training: bool = False) -> Tensor: ...
    def accuracy(self, y_hat: Tensor, y: Tensor) -> Tensor: ...
    def evaluate_accuracy_gpu(
        self, net: Net, data_iter: DataIter, device: Device | None = None
    ) -> float: ...
    def train_batch_ch13(
        self,
        net: Net,
        X: Tensor,
        y: Tensor,
        loss: Loss,
        trainer: Trainer,
        devices: list[Device],
    ) -> tuple[Tensor, Tensor]: ...
    def train_ch13(
        self,
        net: Net,
        train_iter: DataIter,
        test_iter: DataIter,
        loss: Loss,
        trainer: Trainer,
        num_epochs: int,
        devices: list[Device],
        animator: Listener | Animator | None = None,
        first_epoch: int = 0,
    ) -> TrainingSummary: ...


class Kaggle(Protocol):
    """The training of the Kaggle chapter, and its predictions."""

    def train(
        self,
        net: Net,
        train_iter: DataIter,
        valid_iter: DataIter | None,
        num_epochs: int,
        lr: float,
        wd: float,
        devices: list[Device],
        lr_period: int,
        lr_decay: float,
        animator: Listener | Animator | None = None,
        trainer: Trainer | None = None,
        first_epoch: int = 0,
    ) -> KaggleSummary: ...
    def predict_labels(self, net: Net, test_iter: DataIter) -> NDArray[np.int64]: ...


class Probes(Protocol):
    """The parity checks' access to a framework, which training does not need."""

    # The reference's conventions, except where this backend declares a difference.
    CONVENTIONS: Conventions
    # The conventions of `Transforms.native`, that is, of the framework's own transforms.
    NATIVE: Conventions
    labels_first: bool  # whether the framework's losses take (labels, logits)

    def in_float64(self, net: Net) -> Net: ...
    def set_mode(self, net: Net, training: bool) -> None: ...
    def without_tracing(self) -> AbstractContextManager[None]: ...
    def activations(self, net: Net, X: Tensor, training: bool = False) -> dict[str, Tensor]: ...
    def gradients(self, net: Net, X: Tensor, y: Tensor, loss: Loss) -> Weights: ...


@dataclass(frozen=True)
class Role:
    """A process of a training by several: its name for the user, and the variables that tell it its role."""

    name: str
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Engine:
    """The facts about a framework's engine for several processes, known before the framework is imported.

    ``roles`` takes their number, a function that returns free ports, and the GPU of each process ([]: the CPU). It
    returns the processes of a training. ``addresses`` takes the environment's variables, and returns the addresses at
    which the processes first meet.
    """

    roles: Callable[[int, Callable[[], int], Sequence[str]], Sequence[Role]]
    variable: str  # that makes a process join others
    addresses: Callable[[Mapping[str, str]], Sequence[str]]
    reachable: str  # what to do if processes do not reach each other
    lost: tuple[str, ...] = ()  # words of the errors that report a lost process
    # The program must end without finalizers. MXNet's workers need them: they tell the servers that they leave.
    skips_finalizers: bool = False
    # Why processes cannot share BatchNorm's statistics, and what to do; "" if they can.
    no_sync_batch_norm: str = ""


@dataclass(frozen=True)
class Framework:
    """The facts about a framework that are needed before it is imported."""

    name: str  # of its folder in backends/, and in --backend
    title: str
    packages: tuple[str, ...]  # the framework's packages, the framework itself first
    # Environment variables to set before the import, unless the user has set them.
    variables: Mapping[str, str] = field(default_factory=dict)
    # Environment variables that would change the results: (the value that does not, what others do).
    refused: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    # Called with the precision before the import, for settings that depend on it.
    before_import: Callable[[str], None] | None = None
    engine: Engine | None = None  # None: it trains in one process
    suffixes: tuple[str, ...] = ()  # of its weights files
    # (system, processor) for which wheels exist; () if they exist for all.
    wheels: tuple[tuple[str, str], ...] = ()
    # The newest Python and the newest major version of NumPy, as in pyproject.toml; None for any.
    newest_python: tuple[int, int] | None = None
    newest_numpy: int | None = None
    # Arguments of matplotlib's `plot`: colour, dash and marker of its curves.
    style: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Backend:
    """One framework's implementation of the contract: its nine files."""

    framework: Framework
    devices: Devices
    transforms: Transforms
    loaders: Loaders
    processes: Processes
    resnet: ResNet
    weights: WeightFiles
    trainer: Trainers
    kaggle: Kaggle
    probes: Probes

    @property
    def name(self) -> str:
        """Return the name of the backend, as in --backend."""
        return self.framework.name

    @property
    def title(self) -> str:
        """Return the framework's name in text."""
        return self.framework.title

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the packages whose versions a run records."""
        return self.framework.packages


class Registry(Protocol):
    """The package `backends`, as commands use it."""

    __name__: str
    FRAMEWORKS: dict[str, Framework]

    def installed(self, name: str) -> bool: ...
    def without_obstacle(self, names: Sequence[str]) -> list[str]: ...
    def require(self, names: Sequence[str]) -> None: ...
    def load(self, name: str, precision: str = "fp32") -> Backend: ...
    def load_several(
        self, needed: Sequence[str], wanted: Sequence[str] = (), precision: str = "fp32"
    ) -> dict[str, Backend]: ...
