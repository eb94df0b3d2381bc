"""What lies in a Kaggle competition's folder, and everything that is wrong with it."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

from common.datasets.ids import image_id, in_order, is_file_name, is_id, natural
from common.datasets.images import is_image
from common.errors import UserNotice, listed

ARCHIVES = (".7z", ".zip", ".tar", ".gz", ".tgz")


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
    and a link that leads nowhere.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path's raises for names that are too long
        return ImageFolder(path, problems=[f"there is no {path}: {unpack(path)}"])
    folder = ImageFolder(path)
    dangling: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not is_image(entry.name) or not _leads_somewhere(entry):
                    kind = dangling if is_image(entry.name) else folder.ignored
                else:
                    kind = folder.names if entry.is_file() else folder.ignored
                kind.append(entry.name)
    except OSError as error:
        problem = f"cannot list {path} ({error.strerror}): check its permissions"
        return ImageFolder(path, problems=[problem])
    folder.names.sort(key=lambda name: natural(image_id(name)))
    folder.problems.extend(_folder_problems(folder, dangling))
    return folder


def _leads_somewhere(entry: "os.DirEntry[str]") -> bool:
    """Return false for a link that leads nowhere, or in a circle, which `is_file` would raise for."""
    return not entry.is_symlink() or os.path.exists(entry.path)  # noqa: PTH110


def _folder_problems(folder: ImageFolder, dangling: list[str]) -> Iterator[str]:
    if twice := [name for name, other in _neighbours(folder.names) if name == other]:
        yield f"{folder.path} has two images for the ids {listed(in_order(twice))}: keep one of each"
    if bad := [name for name in folder.names if not is_id(image_id(name))]:
        yield f"{folder.path} has names that cannot be in a csv, {listed(in_order(bad))}: rename them"
    if dangling:
        yield f"{folder.path} has links that lead nowhere, {listed(in_order(dangling))}: remove them"
    if not folder.names and not dangling:
        yield f"{folder.path} has no images: {unpack(folder.path)}"


def _neighbours(names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the ids of each two images that follow on each other."""
    before = ""
    for name in names:
        after = image_id(name)
        yield before, after
        before = after


def unpack(path: Path) -> str:
    """Say what to do where a folder's images are missing: most often an archive lies beside it."""
    if os.path.isdir(path / path.name):  # noqa: PTH112 - as above
        return f"move what is in {path / path.name} up into it"
    # train.7z for train/; else the one archive that Kaggle makes of all.
    if archives := archives_of(path) or archives_beside(path):
        return f"unpack {', '.join(archives[:3])}, in the same folder"
    return "unpack the competition's files there"


def archives_of(path: Path) -> list[str]:
    """Return the archives beside ``path`` that bear its name: train.7z, trainLabels.csv.zip."""
    names = archives_beside(path)
    return [name for name in names if os.path.splitext(name)[0] in (path.name, path.stem)]  # noqa: PTH122


def archives_beside(path: Path) -> list[str]:
    try:
        names = os.listdir(path.parent)  # noqa: PTH208
    except OSError:
        return []
    return sorted(name for name in names if name.lower().endswith(ARCHIVES))


def match_problems(images: ImageFolder, labels: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong between the training images and their labels."""
    if bad := {label for label in labels.values() if not is_file_name(label)}:
        yield f"classes that cannot be a folder's name: {listed(in_order(bad))}; rename them"
    if alike := _alike(set(labels.values())):
        yield f"classes that some disks take for one folder: {listed(alike)}; make them one"
    if not images.names or not labels:
        return
    ids = set(map(image_id, images.names))
    if unlabelled := [name for name in ids if name not in labels]:
        yield f"images without a label: {listed(in_order(unlabelled))}; complete the labels"
    if absent := [name for name in labels if name not in ids]:
        yield f"labels without an image: {listed(in_order(absent))}; complete train/"
    sizes = Counter(labels.values())
    if alone := {label: name for name, label in labels.items() if sizes[label] == 1}:
        one = listed([f"'{label}' of id {alone[label]}" for label in sorted(alone)])
        yield f"classes of one image, which validation would take: {one}; correct the label or add images"


def _alike(classes: set[str]) -> list[str]:
    """Return the classes that differ only in case or in how Unicode spells their accents."""
    folded = {name: normalize("NFC", normalize("NFC", name).casefold()) for name in classes}
    sizes = Counter(folded.values())
    return sorted(name for name in classes if sizes[folded[name]] > 1)


def notice_ignored(*folders: ImageFolder) -> None:
    """Say which files were passed over, as they are no images."""
    names = [f"{folder.path.name}/{name}" for folder in folders for name in sorted(folder.ignored)]
    if names:
        warnings.warn(UserNotice(f"ignored, as no images: {listed(names)}"), stacklevel=3)
