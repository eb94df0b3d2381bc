"""A Kaggle competition's folder: ids, images and label files, and the problems that they may have."""

import csv
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

from common.datasets.images import is_image
from common.errors import UserNotice, listed, printable
from common.system.files import open_regular

HEADER = ("id", "label")
ARCHIVES = (".7z", ".zip", ".tar", ".gz", ".tgz")
_NOT_IN_NAMES = frozenset("/\\\0\r\n")
_MAX_BYTES = 255  # of a file name, on almost all file systems


# ---- Ids: the names of the image files without their extensions


def image_id(name: str) -> str:
    """Return the id of the image in the file called ``name``."""
    return name.rpartition(".")[0] or name


def natural_key(name: str) -> str:
    """Return a sort key that puts numeric ids first, in numeric order (2 before 10).

    The key is a string, the number of digits and then the digits; it takes a third of the memory of a tuple.
    """
    if name.isdecimal() and name.isascii():
        digits = name.lstrip("0")
        padded = "" if digits == name else f" {name}"
        return f"0{len(digits):04}{digits}{padded}"
    return f"1{name}"


def in_order(names: Iterable[str]) -> list[str]:
    """Return the distinct names in the order of ids."""
    return sorted(set(names), key=natural_key)


def is_file_name(name: str) -> bool:
    """Return whether ``name`` can be a file name in a line of a csv: no path, not empty, not too long."""
    short = len(name) <= _MAX_BYTES and len(os.fsencode(name)) <= _MAX_BYTES
    return short and name not in ("", ".", "..") and _NOT_IN_NAMES.isdisjoint(name)


def is_id(name: str) -> bool:
    """Return whether ``name`` can be read back from a csv unchanged: valid UTF-8, without blanks around it."""
    # Python represents bytes that are not valid UTF-8 as surrogates.
    unicode = name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)
    return is_file_name(name) and name == name.strip() and unicode


# ---- Folders of images


@dataclass(frozen=True)
class ImageFolder:
    """The names of the images in a folder, in the order of their ids, and of the other entries."""

    path: Path
    names: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_images(path: Path) -> ImageFolder:
    """List the images of a folder, by extension, without hidden files; raises nothing.

    Problems are: a folder that is missing, cannot be listed or has no images; two images of one id;
    an id that cannot be in a csv; a broken link.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path's raises for names that are too long
        return ImageFolder(path, problems=[f"there is no folder {path}: {unpack_hint(path)}"])
    folder = ImageFolder(path)
    dangling: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not is_image(entry.name):
                    folder.ignored.append(entry.name)
                elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
                    dangling.append(entry.name)  # or circular, for which `is_file` would raise
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
        yield f"{folder.path} has broken links, {names}: remove them"
    if not folder.names and not dangling:
        yield f"{folder.path} has no images: {unpack_hint(folder.path)}"


def notice_ignored(*folders: ImageFolder) -> None:
    """Warn about files that are ignored because they are not images."""
    names = [f"{folder.path.name}/{name}" for folder in folders for name in sorted(folder.ignored)]
    if names:
        warnings.warn(
            UserNotice(f"ignored, because they are not images: {listed(names)}"), stacklevel=3
        )


def unpack_hint(path: Path) -> str:
    """Return what to do if a file or a folder's images are missing: often there is an archive next to it."""
    if os.path.isdir(path / path.name):  # noqa: PTH112 - as above
        return f"move the content of {path / path.name} up into it"
    # train.7z for train/, or Kaggle's archive of the whole competition.
    if archives := archives_of(path) or _archives_beside(path):
        return f"unpack {', '.join(archives[:3])}, in the same folder"
    return "unpack the competition's files there"


def archives_of(path: Path) -> list[str]:
    """Return the archives next to ``path`` with its name, such as train.7z or trainLabels.csv.zip."""
    return [n for n in _archives_beside(path) if Path(n).stem in (path.name, path.stem)]


def _archives_beside(path: Path) -> list[str]:
    try:
        names = os.listdir(path.parent)  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in names if name.lower().endswith(ARCHIVES))


# ---- Label files


@dataclass(frozen=True)
class LabelFile:
    """The content of a csv with rows ``id,label``, and its problems, each with what to do."""

    header: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)  # {id: label}, in the order of the rows
    problems: list[str] = field(default_factory=list)
    padded: list[str] = field(
        default_factory=list
    )  # ids of rows with blanks around a field; the blanks are stripped above


def read_label_file(
    path: Path, fix: str, columns: Callable[[tuple[str, ...]], tuple[int, int] | str] | None = None
) -> LabelFile:
    """Read rows ``id,label`` below a header line, ignoring blank lines. Raises nothing.

    ``columns`` returns, for a header, the columns of the ids and of the labels, or why there are none. There may then
    be other columns, and any text is an id or a label.

    Problems are: a file that is missing, unreadable or without labels (``fix`` says what to do), malformed rows, names
    that cannot be file names, repeated ids, and a missing header.
    """
    labels: dict[str, str] = {}
    twice: list[str] = []
    malformed: list[str] = []
    padded: list[str] = []
    try:
        # Some editors write a BOM.
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = tuple(field.strip() for field in next(rows, []))
            chosen = (0, 1) if columns is None else columns(header)
            if isinstance(chosen, str):
                return LabelFile(header, problems=[f"{path} {chosen}"])
            width, is_valid = (2, is_file_name) if columns is None else (len(header), bool)
            for number, row in enumerate(rows, start=2):
                fields = [field.strip() for field in row]
                pair = [fields[column] for column in chosen] if len(fields) == width else []
                if pair and all(map(is_valid, pair)):
                    name, label = pair
                    if name in labels:
                        twice.append(name)
                    if fields != row:
                        padded.append(name)
                    labels[name] = label
                elif any(fields):
                    malformed.append(f"row {number} '{printable(','.join(row), 60)}'")
    except FileNotFoundError:
        return LabelFile(problems=[f"there is no file {path}: {fix}"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        return LabelFile(problems=[f"cannot read {path} as a csv ({reason}): {fix}"])
    problems = []
    if columns is None and labels and (not header or header[0].isdecimal()):
        problems.append(
            f"{path} has no header; it begins with '{','.join(header)}': add the line id,label above"
        )
    if malformed:
        names = ",".join(HEADER if columns is None else header)
        problems.append(f"{path} has rows that are not {names}: {listed(malformed)}; correct them")
    if twice:
        ids = listed(in_order(twice))
        problems.append(f"{path} has repeated ids, {ids}: keep one row of each")
    if not labels and not malformed:
        problems.append(f"{path} has no labels: {fix}")
    return LabelFile(header, labels, problems, padded)


def as_csv(rows: Iterable[tuple[str, str]]) -> bytes:
    """Return rows ``id,label`` below the header, as UTF-8 with Unix line ends."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows)
    return file.getvalue().encode("utf-8", "surrogateescape")  # keeps the bytes of any file name


def match_problems(images: ImageFolder, labels: Mapping[str, str]) -> Iterator[str]:
    """Yield the mismatches between the training images and their labels."""
    sizes = Counter(labels.values())
    if bad := [label for label in sizes if not is_file_name(label)]:
        yield f"classes that cannot be folder names: {listed(in_order(bad))}; rename them"
    # Names that differ only in case or in the Unicode form of their accents.
    folded = {name: normalize("NFC", normalize("NFC", name).casefold()) for name in sizes}
    spellings = Counter(folded.values())
    if alike := [name for name in sorted(sizes) if spellings[folded[name]] > 1]:
        yield f"classes that are the same folder on some disks: {listed(alike)}; use one spelling"
    if not images.names or not labels:
        return
    ids = set(map(image_id, images.names))
    if unlabelled := ids - labels.keys():
        yield f"images without a label: {listed(in_order(unlabelled))}; complete the labels"
    if absent := labels.keys() - ids:
        yield f"labels without an image: {listed(in_order(absent))}; complete train/"
    if single := {label: name for name, label in labels.items() if sizes[label] == 1}:
        one = listed(f"'{label}' of id {single[label]}" for label in sorted(single))
        yield f"classes with only one image, which validation would use: {one}; correct the label or add images"
