"""Which files of a data folder belong to which split and class, in each of the layouts that people have.

``find_layout`` recognizes them by what is there:

- ``train/<class>/`` with ``test/<class>/``, or with ``val/``, ``valid/`` or ``validation/``, or with both;
- only ``train/<class>/``, or ``<class>/`` without a split: some images of each class are held out;
- a csv of file names and labels, and the images in the folder itself or below it: likewise.

Images may lie in folders below a class folder. Links are followed. Files that are not read are in `Layout.left_out`,
except hidden ones and those that operating systems leave.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias

from common.datasets import share_of
from common.datasets.competition import LabelFile, image_id, read_label_file
from common.datasets.images import HEIF_EXTENSIONS, is_image
from common.errors import UserError, counted, listed, printable, raise_problems

MOST_KINDS = 5
DEFAULT_RATIO = 0.2  # of each class is held out if the folder has no split
VALID = ("val", "valid", "validation")
# Folders of these names are splits, not classes. So `Train/` is an error, not a class.
SPLITS = frozenset((*VALID, *("train", "training", "test", "testing", "dev", "eval")))
LAYOUTS = (
    "expected train/<class>/ with test/<class>/ or val/<class>/, or <class>/ folders without a split, "
    "or a labels.csv of file names and labels"
)
JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"))
RAW_EXTENSIONS = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".kdc", ".mrw", ".nef", ".nrw"),
        *(".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw", ".x3f"),
    )
)
# Names of columns in a csv's header, in lower case.
FILE_COLUMNS = frozenset(
    (
        *("file", "filename", "file_name", "filepath", "file_path", "path", "name"),
        *("image", "image_name", "image_path", "image_id", "img"),
    )
)
LABEL_COLUMNS = frozenset(("label", "labels", "class", "class_name", "category", "target"))


class ImageFile(NamedTuple):
    """An image of a split, with the values that show whether it has changed."""

    name: str  # relative to the split's folder: "<class>/<file>", perhaps with folders between
    size: int  # bytes
    mtime: int  # nanoseconds
    ctime: int  # nanoseconds, of the last change; unlike `mtime`, no program can set it


Classes: TypeAlias = Mapping[str, list[ImageFile]]  # {class: its images}, both in sorted order


class Draw(NamedTuple):
    """Which share of each class is held out, and the seed with which it is drawn."""

    ratio: float
    seed: int

    def describe(self, where: str = "") -> str:
        """Return the draw in words."""
        return f"{self.ratio:g} of each class{where}, drawn with seed {self.seed}"


class LeftOut:
    """The files of a data folder that are not read, by kind, to be named once."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str, str], list[str]] = {}

    def add(self, name: str, word: str, plural: str, hint: str = "") -> None:
        """Add a file of a kind, called ``word`` or in the ``plural``; ``hint`` says what to do."""
        self._names.setdefault((word, plural, hint), []).append(name)

    def add_file(self, name: str) -> None:
        """Add a file that is not read, of the kind that its extension says."""
        extension = os.path.splitext(name)[1].lower()  # noqa: PTH122 - faster than a Path per file
        kind = printable(extension[1:].upper())
        if extension in HEIF_EXTENSIONS:
            self.add(name, kind, kind, "install pillow-heif to read them")
        elif extension in RAW_EXTENSIONS:
            self.add(name, kind, kind, "raw: develop them to JPEG")
        elif kind:
            self.add(name, kind, kind)
        else:
            self.add(name, "file without an extension", "files without an extension")

    def describe(self, start: str = "") -> str:
        """Return the number of each kind and its first file, of the names that begin with ``start``, or ''.

        Five kinds of files that can be no images have their own number, the most frequent ones.
        """
        found = {}
        for kind, every in self._names.items():
            if names := sorted(name for name in every if name.startswith(start)):
                found[kind] = names
        plain = [kind for kind in found if kind[0] == kind[1] and not kind[2]]
        others = sorted(plain, key=lambda kind: -len(found[kind]))[MOST_KINDS:]
        if others:
            names = sorted(name for kind in others for name in found.pop(kind))
            found["file of another kind", "files of other kinds", ""] = names
        texts = []
        for (word, plural, hint), names in found.items():
            first = printable(names[0], 300) + (", ..." if len(names) > 1 else "")
            texts.append(f"{counted(len(names), word, plural)} ({first}{hint and f'; {hint}'})")
        return ", ".join(texts)


@dataclass(frozen=True)
class Split:
    """The images of each class, in sorted order, relative to the folder ``root``."""

    root: Path
    classes: Classes


@dataclass(frozen=True)
class Layout:
    """The training images and the held-out ones, as `common.datasets.Data` has them, and the files left out."""

    train: Split
    held_out: Split
    kind: str  # of the held-out images: "test" or "valid"
    how: str = ""  # where those come from, in words; '' for test/
    drawn: bool = False  # whether they come from the same folders as the training images
    left_out: LeftOut = field(default_factory=LeftOut)


def find_layout(
    path: Path, *, valid_ratio: float | None = None, seed: int = 0, evaluation: bool = False
) -> Layout:
    """Return which images of the folder ``path`` to train on, and which to hold out.

    Held out are those of ``val/``, else of ``test/``. For an ``evaluation``, those of ``test/`` come first. Without
    either, or with a ``valid_ratio``, that share of the images of each class is drawn from the training images with the
    ``seed``. At least one of each class is held out, and at least one is not.

    Raises UserError for a folder of no known layout, for classes that are in only one split or have too few images, and
    for a ``valid_ratio`` beside ``val/``. Also raises it for names and labels that do not match, and for files that
    cannot be listed.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path's raises for names that are too long
        raise UserError(f"there is no folder {printable(str(path), 300)}: check the path")
    draw = Draw(DEFAULT_RATIO if valid_ratio is None else valid_ratio, seed)
    entries = _entries(path)
    folders = [entry.name for entry in entries if _is_folder(entry)]
    if "train" in folders and any(map(_is_folder, _entries(path / "train"))):
        return _splits(path, entries, folders, valid_ratio, draw, evaluation)
    if any(entry.name == "trainLabels.csv" for entry in entries):
        raise UserError(
            f"{path} is the folder of a Kaggle competition: python run.py kaggle --data-dir {path}"
        )
    if (labels := _label_file(path, entries, folders)) is not None:
        return _from_csv(path, *labels, draw)
    if "train" in folders:
        raise UserError(f"{path / 'train'} has no class folders: {LAYOUTS}")
    if splits := [name for name in folders if name.lower() in SPLITS]:
        raise UserError(f"{path} has {listed(splits)}, but no folder train/: {LAYOUTS}")
    if not folders:
        raise UserError(f"{path} has no class folders: {LAYOUTS}")
    return _class_folders(path, entries, draw)


# ---- Folders with a split


def _splits(
    path: Path,
    entries: list["os.DirEntry[str]"],
    folders: list[str],
    ratio: float | None,
    draw: Draw,
    evaluation: bool,
) -> Layout:
    valid = [name for name in VALID if name in folders]
    # A flat test/ beside val/ is left out. Without val/, it is an error.
    test = "test" in folders and (not valid or any(map(_is_folder, _entries(path / "test"))))
    if len(valid) > 1:
        raise UserError(f"{path} has {' and '.join(f'{n}/' for n in valid)}: keep one of them")
    if valid and ratio is not None:
        raise UserError(
            f"--valid-ratio {ratio:g}: {path} has validation images in {valid[0]}/; leave the option out, or rename "
            "that folder"
        )
    left_out = LeftOut()
    _leave_beside(entries, {"train", *(["test"] if test else []), *valid}, left_out, "train/")
    train = _class_lists(path, "train", left_out)
    for_evaluate = "; test/ is for evaluate" if test else ""
    if ratio is not None or not (valid or test):
        how = draw.describe(" of train/") + for_evaluate
        return Layout(*_drawn(path / "train", train, draw), "valid", how, True, left_out)
    name = "test" if test and (evaluation or not valid) else valid[0]
    held_out = Split(path / name, _class_lists(path, name, left_out))
    _check_same_classes(path, name, train, held_out.classes)
    if name == "test":
        return Layout(Split(path / "train", train), held_out, "test", left_out=left_out)
    how = f"{name}/{for_evaluate}"
    return Layout(Split(path / "train", train), held_out, "valid", how, left_out=left_out)


def _class_lists(path: Path, split: str, left_out: LeftOut) -> Classes:
    """Return the images of each class in a split."""
    root = path / split
    names = _leave_beside(_entries(root), (), left_out, "the class folders", f"{split}/")
    listing = {name: list(_walk(root, name, left_out, f"{split}/")) for name in names}
    if not any(listing.values()):
        fix = f"put them into {split}/<class>/"
        if split == "test":  # those of a competition have no labels
            fix = f"{fix}, or hold out some of train/ with --valid-ratio {DEFAULT_RATIO}"
        skipped = left_out.describe(f"{split}/")
        raise UserError(f"{root} has no images: {fix}{skipped and f'; it has {skipped}'}")
    if split == "train":
        _check_not_empty(root, listing, left_out, "train/")
    return listing


def _check_not_empty(root: Path, listing: Classes, left_out: LeftOut, start: str) -> None:
    if not (empty := [name for name, files in listing.items() if not files]):
        return
    skipped = ((name, left_out.describe(f"{start}{name}/")) for name in empty[:5])
    shown = "".join(f"; {printable(name)} has {text}" for name, text in skipped if text)
    raise UserError(
        f"{root} has no images of {listed(empty)}: add some or remove the folder{shown}"
    )


def _check_same_classes(path: Path, split: str, train: Classes, held_out: Classes) -> None:
    if unknown := [name for name in held_out if name not in train]:
        raise UserError(
            f"{path / split} has {listed(unknown)}, but train/ does not: both must have the same classes"
        )
    if absent := [name for name in train if name not in held_out]:
        raise UserError(
            f"{path / split} has no folder for {listed(absent)}: "
            f"add it, or an empty one if there are no {split} images"
        )


# ---- Folders without a split


def _drawn(root: Path, classes: Classes, draw: Draw) -> tuple[Split, Split]:
    """Return the images to train on, and those of each class that are held out.

    They are the first in the order of a hash of the seed and the name. So the choice is the same on every system, and
    adding or removing a file changes few of the others.
    """
    if single := [name for name, files in classes.items() if len(files) < 2]:
        raise UserError(
            f"{root} has only one image of {listed(single)}, and one of each class is held out: add images, or remove "
            "the class"
        )
    kept, held_out = {}, {}
    for name, files in classes.items():
        count = min(max(share_of(draw.ratio, len(files)), 1), len(files) - 1)
        order = sorted(files, key=lambda file: _hash(f"{draw.seed}/{file.name}"))
        kept[name], held_out[name] = sorted(order[count:]), sorted(order[:count])
    return Split(root, kept), Split(root, held_out)


def _hash(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()


def _class_folders(path: Path, entries: list["os.DirEntry[str]"], draw: Draw) -> Layout:
    left_out = LeftOut()
    names = _leave_beside(entries, (), left_out, "the class folders")
    listing = {name: list(_walk(path, name, left_out)) for name in names}
    if not any(listing.values()):
        skipped = left_out.describe()
        raise UserError(f"{path} has no images{skipped and f', but {skipped}'}: {LAYOUTS}")
    _check_not_empty(path, listing, left_out, "")
    if len(listing) == 1:
        raise UserError(
            f"{path} has only the folder {printable(names[0])}/, so only one class: pass {path / names[0]} if the "
            f"classes are in it; {LAYOUTS}"
        )
    return Layout(*_drawn(path, listing, draw), "valid", draw.describe(), True, left_out)


# ---- A csv of names and labels


def _columns(header: tuple[str, ...]) -> tuple[int, int] | str:
    """Return the columns of the file names and of the labels, or why they are not known."""
    names = [name.lower().replace(" ", "_").replace("-", "_") for name in header]
    files = [i for i, name in enumerate(names) if name in FILE_COLUMNS]
    files = files or [i for i, name in enumerate(names) if name == "id"]
    labels = [i for i, name in enumerate(names) if name in LABEL_COLUMNS]
    if len(files) == 1 and len(header) == 2:
        labels = [1 - files[0]]
    if len(files) == len(labels) == 1:
        return files[0], labels[0]
    for what, found in (("file names", files), ("labels", labels)):
        if len(found) > 1:
            several = listed(header[i] for i in found)
            return f"has several columns that may be the {what}, {several}: keep one"
    shown = printable(",".join(header))
    return f"has the header '{shown}': name the column of the files filename, and that of the labels label"


def _label_file(
    path: Path, entries: list["os.DirEntry[str]"], folders: list[str]
) -> tuple[str, LabelFile] | None:
    """Return the name and the content of the csv with the labels, or None if there is none.

    It is ``labels.csv``, or the only csv with such a header. Beside several folders that may be classes, only the name
    counts: the csv may hold anything about them.
    """
    names = sorted(e.name for e in entries if e.name.lower().endswith(".csv"))
    fix = "put a complete file of names and labels there"
    if "labels.csv" in names:
        return "labels.csv", read_label_file(path / "labels.csv", fix, _columns)
    if len([name for name in folders if name.lower() not in SPLITS]) > 1:
        return None
    found = {name: read_label_file(path / name, fix, _columns) for name in names}
    usable = [n for n, file in found.items() if not isinstance(_columns(file.header), str)]
    if len(usable) > 1:
        raise UserError(
            f"{path} has several files of labels, {listed(usable)}: call the right one labels.csv"
        )
    return (usable[0], found[usable[0]]) if usable else None


def _from_csv(path: Path, name: str, file: LabelFile, draw: Draw) -> Layout:
    raise_problems(str(path / name), file.problems)
    left_out = LeftOut()
    images = {image.name: image for image in _walk(path, "", left_out, but=name)}
    named, problems = _match(path, name, file.labels, list(images))
    raise_problems(str(path / name), problems)
    classes: dict[str, list[ImageFile]] = {label: [] for label in sorted(set(file.labels.values()))}
    for image in sorted(images):
        if (row := named.get(image)) is not None:
            classes[file.labels[row]].append(images[image])
        else:
            word = f"without a label in {name}"
            left_out.add(image, f"image {word}", f"images {word}")
    how = f"labels of {printable(name)}; {draw.describe()}"
    return Layout(*_drawn(path, classes, draw), "valid", how, True, left_out)


def _match(
    path: Path, csv: str, rows: Iterable[str], images: list[str]
) -> tuple[dict[str, str], list[str]]:
    """Return {image: its row}, and the rows without an image or with several.

    A row names an image by its path in the folder, by the name of the file, or by that without its extension.
    """
    last = [image.rpartition("/")[2] for image in images]
    ways: list[dict[str, list[str]]] = [{}, {}, {}]
    for image, name in zip(images, last, strict=True):
        for way, key in zip(ways, (image, name, image_id(name)), strict=True):
            way.setdefault(key, []).append(image)
    named: dict[str, str] = {}
    absent: list[str] = []
    unclear: list[str] = []
    twice: list[str] = []
    for row in rows:
        key = row.replace("\\", "/").removeprefix("./")
        found = next((way[key] for way in ways if key in way), [])
        if len(found) != 1:
            (unclear if found else absent).append(row)
        elif found[0] in named:
            twice.append(found[0])
        else:
            named[found[0]] = row
    problems = []
    if absent:
        problems.append(
            f"{path / csv} has names without an image, {listed(absent)}: add them or remove the rows"
        )
    if unclear:
        problems.append(
            f"{path / csv} has names of several images, {listed(unclear)}: give their paths in {path}"
        )
    if twice:
        problems.append(f"{path / csv} has several rows for {listed(twice)}: keep one of each")
    return named, problems


# ---- Listing


def _leave_beside(
    entries: list["os.DirEntry[str]"],
    expected: Iterable[str],
    left_out: LeftOut,
    what: str,
    start: str = "",
) -> list[str]:
    """Return the names of the folders in ``entries``; leave out files, and the folders that are not ``expected``.

    Without expected names, all folders are.
    """
    folders, known = [], set(expected)
    for entry in entries:
        # A broken link may be that of a class.
        if _is_folder(entry) if known else stat.S_ISDIR(_status(entry).st_mode):
            folders.append(entry.name)
            if known and entry.name not in known:
                left_out.add(
                    f"{start}{entry.name}/", f"folder beside {what}", f"folders beside {what}"
                )
        elif is_image(entry.name):
            left_out.add(f"{start}{entry.name}", f"image beside {what}", f"images beside {what}")
        elif entry.name.lower().endswith(".csv") and not (known or start):
            left_out.add(entry.name, "CSV", "CSV", "a file of labels must be called labels.csv")
        else:
            left_out.add_file(f"{start}{entry.name}")
    return folders


def _walk(
    root: Path, inner: str, left_out: LeftOut, start: str = "", but: str = ""
) -> Iterator[ImageFile]:
    """Yield the images in the folder ``root/inner`` and below it, in sorted order, named relative to ``root``.

    Each folder is visited once, so links cannot form a loop. Other files are ``left_out``, their names behind
    ``start``, except the file ``but``.
    """
    entries = image_entries(root, left_out, inner, start, but)
    yield from sorted(_image_file(entry, name) for name, entry in entries)


def image_entries(
    root: Path, left_out: LeftOut, inner: str = "", start: str = "", but: str = ""
) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield the images in the folder ``root/inner`` and below it, in any order: their names and entries.

    See `_walk`. A broken link with the name of an image is yielded too. A link to something in ``root`` is left out,
    because an image could otherwise be in two parts or classes.
    """
    real = root.resolve()
    seen = set(map(_identity, [root, *real.parents] if inner else real.parents))
    folders = [inner]
    while folders:
        folder = folders.pop()
        if (identity := _identity(root / folder)) in seen or _is_link_into(real, root / folder):
            words = "to a folder above it, or in the same folder of images"
            left_out.add(f"{start}{folder}/", f"link {words}", f"links {words}")
            continue
        seen.add(identity)
        below = []
        for entry in _entries(root / folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            if _is_folder(entry):
                below.append(name)
            elif is_image(entry.name):
                if entry.is_symlink() and _is_link_into(real, Path(entry.path)):
                    words = "to another image of the folder"
                    left_out.add(f"{start}{name}", f"link {words}", f"links {words}")
                else:
                    yield name, entry
            elif name != but:
                left_out.add_file(f"{start}{name}")
        folders += reversed(below)


def _is_link_into(folder: Path, path: Path) -> bool:
    """Return whether ``path`` is a link to something in ``folder``, which has no links in its own path."""
    with suppress(OSError, RuntimeError):  # a loop of links
        return path.is_symlink() and folder in path.resolve(strict=True).parents
    return False


def _image_file(entry: "os.DirEntry[str]", name: str) -> ImageFile:
    status = _status(entry)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{entry.path} cannot be read (not a regular file): remove it")
    return ImageFile(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the entries in sorted order, without hidden ones and what operating systems leave."""
    try:
        with os.scandir(folder) as entries:
            shown = [e for e in entries if e.name[0] != "." and e.name.lower() not in JUNK]
    except OSError as error:
        raise UserError(
            f"cannot list {folder} ({error.strerror}): check its permissions"
        ) from error
    return sorted(shown, key=lambda entry: entry.name)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder or a link to one."""
    with suppress(OSError):  # a link to itself
        return entry.is_dir()
    return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _status(entry: "os.DirEntry[str]") -> os.stat_result:
    """Return the status of a file or folder, of its target if it is a link."""
    try:
        return entry.stat()
    except OSError as error:  # usually a broken link
        raise UserError(f"{entry.path} cannot be read ({error.strerror}): remove it") from error
