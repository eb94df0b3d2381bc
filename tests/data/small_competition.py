"""A small competition in Kaggle's layout, and its sorted files: shared by the tests that sort one."""

from pathlib import Path

import pytest

from common.errors import UserError

CLASSES = {"cat": 12, "dog": 8, "eel": 5}  # images of each
LABELS = {
    str(number): name
    for number, name in enumerate(
        (name for i in range(12) for name, count in CLASSES.items() if i < count), start=1
    )
}


def make_competition(root: Path) -> Path:
    """Make 25 training images of three classes with ids 1 to 25, and 7 test images."""
    for folder, count in (("train", 25), ("test", 7)):
        (root / folder).mkdir()
        for i in range(1, count + 1):
            (root / folder / f"{i}.png").write_bytes(f"{folder} {i}".encode())
    write_csv(root, LABELS)
    return root


def write_csv(root: Path, labels: dict[str, str]) -> None:
    rows = [f"{name},{label}\n" for name, label in labels.items()]
    (root / "trainLabels.csv").write_text("id,label\n" + "".join(rows))


def tree(root: Path) -> dict[str, bytes]:
    """Return every file in train_valid_test, including hidden ones."""
    base = root / "train_valid_test"
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in base.rglob("*") if p.is_file()}


def ids(root: Path, split: str) -> set[str]:
    return {path.stem for path in (root / "train_valid_test" / split).glob("*/*.png")}


def refused(call, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)
