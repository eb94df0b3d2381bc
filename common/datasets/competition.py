"""A Kaggle competition's folder: its ids, its images, its files of labels, and everything that is wrong with them."""

import csv
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

from common.datasets.images import is_image
from common.errors import UserNotice, listed, printable

HEADER = ("id", "label")
ARCHIVES = (".7z", ".zip", ".tar", ".gz", ".tgz")
_NOT_IN_NAMES = frozenset("/\\\0\r\n")
_MAX_BYTES = 255  # of a file's name, on almost all file systems


# ---- Ids: the names of the images' files without their extensions


def image_id(name: str) -> str:
    """Return the id of the image in the file called ``name``."""
    return name.rpartition(".")[0] or name


def natural_key(name: str) -> str:
    """Return what orders ids as numbers where they are numbers (2 before 10), before any others.

    One string takes a third of the memory of a tuple: how many digits, then the digits.
    """
    if name.isdecimal() and name.isascii():
        digits = name.lstrip("0")
        padded = "" if digits == name else f" {name}"
        return f"0{len(digits):04}{digits}{padded}"
    return f"1{name}"


def in_order(names: Iterable[str]) -> list[str]:
    """Return the different names in the order of ids."""
    return sorted(set(names), key=natural_key)


def is_file_name(name: str) -> bool:
    """Return whether ``name`` can be a file's in one line of a csv: no path, not empty, not too long."""
    short = len(name) <= _MAX_BYTES and len(os.fsencode(name)) <= _MAX_BYTES
    return short and name not in ("", ".", "..") and _NOT_IN_NAMES.isdisjoint(name)


def is_id(name: str) -> bool:
    """Return whether ``name`` comes back from a csv as it is: no blanks around it, and UTF-8."""
    # Python keeps bytes that are no UTF-8 as surrogates.
    unicode = name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)
    return is_file_name(name) and name == name.strip() and unicode


# ---- Folders of images


@dataclass(frozen=True)
class ImageFolder:
    """The names of the images in one folder in the order of their ids, and of all else there."""

    path: Path
    names: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_images(path: Path) -> ImageFolder:
    """List a folder's images, by extension and not hidden; raises nothing.

    A problem is a folder that is missing, cannot be listed or has no images, two images of one id,
    an id that cannot be in a csv, and a link that leads nowhere.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path's raises for names that are too long
        return ImageFolder(path, problems=[f"there is no {path}: {unpack_hint(path)}"])
    folder = ImageFolder(path)
    dangling: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not is_image(entry.name):
                    folder.ignored.append(entry.name)
                elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
                    dangling.append(entry.name)  # or in a circle, for which `is_file` would raise
                else:
                    (folder.names if entry.is_file() else folder.ignored).append(entry.name)
    except OSError as error:
        problem = f"cannot list {path} ({error.strerror}): check its permissions"
        return ImageFolder(path, problems=[problem])
    folder.names.sort(key=lambda name: natural_key(image_id(name)))
    folder.problems.extend(_folder_problems(folder, dangling))
    return folder


def _folder_problems(folder: ImageFolder, dangling: list[str]) -> Iterator[str]:
    ids = list(map(image_id, folder.names))
    if twice := [name for name, other in pairwise(ids) if name == other]:
        yield f"{folder.path} has two images for the ids {listed(in_order(twice))}: keep one of each"
    if bad := [name for name in folder.names if not is_id(image_id(name))]:
        yield f"{folder.path} has names that cannot be in a csv, {listed(in_order(bad))}: rename them"
    if dangling:
        names = listed(in_order(dangling))
        yield f"{folder.path} has links that lead nowhere, {names}: remove them"
    if not folder.names and not dangling:
        yield f"{folder.path} has no images: {unpack_hint(folder.path)}"


def notice_ignored(*folders: ImageFolder) -> None:
    """Say which files were passed over, as they are no images."""
    names = [f"{folder.path.name}/{name}" for folder in folders for name in sorted(folder.ignored)]
    if names:
        warnings.warn(UserNotice(f"ignored, as no images: {listed(names)}"), stacklevel=3)


def unpack_hint(path: Path) -> str:
    """Say what to do where a file or a folder's images are missing: most often an archive lies beside it."""
    if os.path.isdir(path / path.name):  # noqa: PTH112 - as above
        return f"move what is in {path / path.name} up into it"
    # train.7z for train/; else the one archive that Kaggle makes of all.
    if archives := archives_of(path) or _archives_beside(path):
        return f"unpack {', '.join(archives[:3])}, in the same folder"
    return "unpack the competition's files there"


def archives_of(path: Path) -> list[str]:
    """Return the archives beside ``path`` that bear its name: train.7z, trainLabels.csv.zip."""
    return [n for n in _archives_beside(path) if Path(n).stem in (path.name, path.stem)]


def _archives_beside(path: Path) -> list[str]:
    try:
        names = os.listdir(path.parent)  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in names if name.lower().endswith(ARCHIVES))


# ---- Files of labels


@dataclass(frozen=True)
class LabelFile:
    """What a csv of rows ``id,label`` holds, and each thing that is wrong with it, with its way out."""

    header: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)  # {id: label}, in the order of the rows
    problems: list[str] = field(default_factory=list)
    padded: list[str] = field(
        default_factory=list
    )  # ids of rows with blanks around a field, left out above


def read_label_file(path: Path, fix: str) -> LabelFile:
    """Read rows ``id,label`` below a header line; blank lines do not count. Raises nothing.

    A problem is a file that is missing, unreadable or without labels (``fix`` says what to do),
    rows of another form, names that cannot be a file's, ids that come twice, and a missing header.
    """
    labels: dict[str, str] = {}
    twice: list[str] = []
    malformed: list[str] = []
    padded: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # some editors put a mark first
            rows = csv.reader(file)
            header = tuple(field.strip() for field in next(rows, []))
            for number, row in enumerate(rows, start=2):
                fields = [field.strip() for field in row]
                if len(fields) == 2 and all(map(is_file_name, fields)):
                    if fields[0] in labels:
                        twice.append(fields[0])
                    if fields != row:
                        padded.append(fields[0])
                    labels[fields[0]] = fields[1]
                elif any(fields):
                    malformed.append(f"row {number} '{printable(','.join(row), 60)}'")
    except FileNotFoundError:
        return LabelFile(problems=[f"there is no {path}: {fix}"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        return LabelFile(problems=[f"cannot read {path} as a csv ({reason}): {fix}"])
    problems = []
    if labels and (not header or header[0].isdecimal()):
        problems.append(
            f"{path} begins with '{','.join(header)}': put the header id,label above it"
        )
    if malformed:
        rows_named = listed(malformed)
        problems.append(
            f"{path} has rows of another form than id,label: {rows_named}; correct them"
        )
    if twice:
        ids = listed(in_order(twice))
        problems.append(f"{path} has ids that come twice, {ids}: keep one row of each")
    if not labels and not malformed:
        problems.append(f"{path} has no labels: {fix}")
    return LabelFile(header, labels, problems, padded)


def as_csv(rows: Iterable[tuple[str, str]]) -> bytes:
    """Return rows ``id,label`` below that header, in UTF-8; lines end as on Unix."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows)
    return file.getvalue().encode("utf-8", "surrogateescape")  # the bytes of any file's name


def match_problems(images: ImageFolder, labels: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong between the training images and their labels."""
    sizes = Counter(labels.values())
    if bad := [label for label in sizes if not is_file_name(label)]:
        yield f"classes that cannot be a folder's name: {listed(in_order(bad))}; rename them"
    # In case, or in how Unicode spells their accents.
    folded = {name: normalize("NFC", normalize("NFC", name).casefold()) for name in sizes}
    spellings = Counter(folded.values())
    if alike := [name for name in sorted(sizes) if spellings[folded[name]] > 1]:
        yield f"classes that some disks take for one folder: {listed(alike)}; make them one"
    if not images.names or not labels:
        return
    ids = set(map(image_id, images.names))
    if unlabelled := ids - labels.keys():
        yield f"images without a label: {listed(in_order(unlabelled))}; complete the labels"
    if absent := labels.keys() - ids:
        yield f"labels without an image: {listed(in_order(absent))}; complete train/"
    if alone := {label: name for name, label in labels.items() if sizes[label] == 1}:
        one = listed(f"'{label}' of id {alone[label]}" for label in sorted(alone))
        yield f"classes of one image, which validation would take: {one}; correct the label or add images"
