"""The start of the Kaggle chapter: sort the files, check all of them, and print what will run."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from common.augmentation.operations import kaggle_train_augs
from common.commands.processes import all_or_none, announce, check_equal, first_process_first
from common.commands.resume import describe_resume, digests, named, open_folder
from common.commands.run_folder import RunFolder, check_output
from common.commands.training import (
    check_batch_size,
    describe_backend,
    describe_machine,
    describe_pipeline,
    print_block,
    record,
)
from common.config import KAGGLE_PRESETS, SHAPES_LABELLED, SHAPES_TEST, KaggleConfig
from common.datasets.decoding import whole_batches
from common.datasets.kaggle import (
    Reorganized,
    Unlabelled,
    list_test_images,
    load_split,
    read_csv_labels,
    reorg_cifar10_data,
)
from common.datasets.kaggle_shapes import write_kaggle_shapes
from common.datasets.submission import TEST_LABELS
from common.drawing.progress import progress_bar
from common.errors import UserError, counted
from common.interface import Backend, Device, Processes
from common.system.console import PlainConsole

EMBEDDED = Path("data/kaggle-shapes")
CHUNK_IMAGES = 1024  # approximate number of test images that are decoded and predicted together


@dataclass(frozen=True)
class Session:
    """The backend, its devices, the competition's files and the run folder."""

    backend: Backend
    config: KaggleConfig
    devices: list[Device]
    data_dir: Path
    files: Reorganized
    test: Unlabelled
    folder: RunFolder
    console: Console

    @property
    def keeps(self) -> bool:
        """Whether this process draws and keeps the results: only the first of several."""
        return self.backend.processes.rank() == 0

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels that all images are resized to."""
        return self.config.image_size, self.config.image_size

    @property
    def data_name(self) -> str:
        """The competition's name in pictures and weights: the name of its folder, also if that is given as '.'."""
        return self.data_dir.resolve().name


def begin(config: KaggleConfig, backend: Backend) -> Session:
    """Check the settings, sort the files, check all images, then print what will run."""
    console, processes = PlainConsole(), backend.processes
    with all_or_none(processes):
        devices = backend.devices.get_devices(config.device)
        # Fail early: `describe` raises UserError for settings that cannot work here.
        backend.devices.describe(devices, config.precision, config.compile, config.sync_batch_norm)
        check_output(config.output)
        data_dir = config.data_dir or EMBEDDED
        with first_process_first(processes):
            if config.data_dir is None:
                write_kaggle_shapes(EMBEDDED, SHAPES_LABELLED, SHAPES_TEST)
            files = reorg_cifar10_data(data_dir, config.valid_ratio)
        for number in (files.num_train, files.num_train_valid):
            num_processes = processes.num_processes()
            check_batch_size(number, config.batch_size, config.image_size, num_processes)
        test = list_test_images(data_dir)
        _check_answers(data_dir, test)
        # Fail before the training, and before a run folder is made, if an image cannot be read.
        labelled = load_split(data_dir, "train_valid", files.classes, config.image_size)
        _check_test_images(part_of(test, processes), config, console)
        augs = kaggle_train_augs((config.image_size, config.image_size))
        found = digests([labelled], augs, config.seed)
    ids = {"the names of the test images": " ".join(test.ids)}
    check_equal("kaggle", backend, config, devices, named(found) | ids)
    with (
        all_or_none(processes),
        open_folder(config, f"{config.backend}-kaggle", found, processes.rank() == 0) as folder,
    ):
        session = Session(backend, config, devices, data_dir, files, test, folder, console)
        description = _describe(session)
        content = record("kaggle", backend, config, files.classes, description) | {"digests": found}
        print_block(console, description | describe_resume(config, content))
        folder.write_json("config.json", content)
        announce(backend, "kaggle", folder.path)
    return session


def part_of(test: Unlabelled, processes: Processes) -> Unlabelled:
    """Return the part of the test images that this process predicts."""
    part = range(len(test.names))[processes.rank() :: processes.num_processes()]
    return test._replace(names=[test.names[i] for i in part])


def _check_answers(data_dir: Path, test: Unlabelled) -> None:
    """Raise UserError for a ``testLabels.csv`` without a label for any test image."""
    path = data_dir / TEST_LABELS
    if path.exists() and not set(read_csv_labels(path)) & set(test.ids):
        raise UserError(
            f"{path} has no label for any image of {data_dir / 'test'}: "
            "put the labels of these images there, or remove the file"
        )


def _check_test_images(test: Unlabelled, config: KaggleConfig, console: Console) -> None:
    """Raise UserError if a test image cannot be read."""
    chunks = test.chunks(config.image_size, chunk_size(config))
    with progress_bar("checking test images", len(test.names), console=console) as advance:
        for chunk, _ in chunks:
            advance(len(chunk))


def _describe(session: Session) -> dict[str, str]:
    """Return the opening block of the run, by name."""
    config, files, backend = session.config, session.files, session.backend
    height, width = session.image_size
    period = "each epoch" if config.lr_period == 1 else f"every {config.lr_period} epochs"
    embedded = "" if config.data_dir else ", generated shapes as a competition"
    return {
        "chapter": "Kaggle CIFAR-10",
        "backend": describe_backend(backend),
        "data": f"{session.data_dir}{embedded}: {images_in(session, 'train_valid')}, {images_in(session, 'test')}, "
        f"{height} x {width}, {counted(len(files.classes), 'class', 'classes')}",
        "sorted": f"{session.data_dir / 'train_valid_test'}: {files.num_train:,} to train on, {files.num_valid:,} to "
        f"validate ({files.valid_per_class} of each class); {files.placed}",
        "preset": config.preset + ("" if _as_preset(config) else ", with changes"),
        "training": f"ResNet-18, batch {config.batch_size}, twice {counted(config.num_epochs, 'epoch')}, "
        f"SGD lr {config.lr:g}, times {config.lr_decay:g} after {period}, "
        f"momentum 0.9, weight decay {config.wd:g}",
        "augment": f"resize to {round(1.25 * height)}, crop to {height}, flip, normalize",
        "pipeline": describe_pipeline(backend, config),
        "seed": str(config.seed),
        **describe_machine(backend, config, session.devices),
        "output": str(session.folder.path),
    }


def _as_preset(config: KaggleConfig) -> bool:
    """Return whether the training settings are those of the preset."""
    preset = KAGGLE_PRESETS[config.preset]
    free = (
        "backend",
        "output",
        "device",
        "workers",
        "processes",
        "sync_batch_norm",
        "seed",
        "data_dir",
        "resume",
    )
    return replace(config, **{name: getattr(preset, name) for name in free}) == preset


def images_in(session: Session, split: str) -> str:
    """Return the number of images of a split, in words."""
    files = session.files
    if split == "train_valid":
        return f"all {counted(files.num_train_valid, 'labelled image')}"
    if split == "test":
        return counted(files.num_test, "test image")
    return counted(files.num_train, "image")


def chunk_size(config: KaggleConfig) -> int:
    """Return the number of test images that are decoded and predicted together: whole batches, at least one."""
    return whole_batches(config.batch_size, config.image_size, CHUNK_IMAGES)
