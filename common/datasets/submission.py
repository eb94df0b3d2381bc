"""Write, read, check and score ``submission.csv``, the file that is uploaded to Kaggle.

It has a line ``id,label`` for each test image, with the names of the classes.

300,000 rows take 0.6 s to write, 0.6 s to read, and 2.4 s and 170 MiB to check against as many files (two shared cores
of an AMD EPYC under other load, Python 3.11).
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.datasets import AnyPath
from common.datasets.competition import (
    HEADER,
    LabelFile,
    as_csv,
    image_id,
    in_order,
    is_id,
    list_images,
    natural_key,
    read_label_file,
)
from common.errors import UserError, listed, raise_problems
from common.system.files import atomic_write

Labels: TypeAlias = Sequence[str] | Sequence[int] | NDArray[np.integer[Any]]

TEST_LABELS = (
    "testLabels.csv"  # the labels of the test images, if known; Kaggle does not publish them
)


@dataclass(frozen=True)
class Score:
    """The number of correct labels among the ids whose label is known."""

    correct: int
    count: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.count


@dataclass(frozen=True)
class SubmissionReport:
    """The content of a submission that Kaggle would accept."""

    rows: int
    rows_per_class: dict[str, int]  # every class, in sorted order; 0 if it was never predicted
    notes: tuple[str, ...]  # unusual, but accepted
    score: Score | None  # None if no label of a test image is known

    def __str__(self) -> str:
        per_class = ", ".join(f"{name} {count:,}" for name, count in self.rows_per_class.items())
        text = f"{self.rows:,} rows: {per_class}"
        if self.score:
            text += f"; accuracy {self.score.accuracy:.3f} on {self.score.count:,} known labels"
        return "; ".join([text, *self.notes])


def write_submission(
    path: AnyPath,
    ids: Sequence[str],
    labels: Labels,
    classes: Sequence[str],
) -> None:
    """Write one row for each id, in numeric order of the ids, atomically.

    ``labels`` are class names or indices into ``classes``. Raises UserError, before anything is written, if the numbers
    of labels and ids differ, for repeated ids, and for labels that are not classes; also as
    `common.system.files.atomic_write` does.
    """
    names = _names(labels, classes)
    problems = []
    if len(ids) != len(names):
        problems.append(f"{len(ids):,} ids and {len(names):,} labels: pass one label for each id")
    if twice := [name for name, count in Counter(ids).items() if count > 1]:
        problems.append(f"repeated ids, {listed(in_order(twice))}: pass each id once")
    if bad := [name for name in ids if not is_id(name)]:
        problems.append(f"ids that cannot be in a csv, {listed(in_order(bad))}: rename their files")
    if unknown := set(names) - set(classes):
        problems.append(
            f"labels that are not classes, {listed(in_order(unknown))}: use the names of the classes"
        )
    if not len(ids):
        problems.append("there are no ids: predict the test images first")
    raise_problems(f"the submission for {path}", problems)
    order = sorted(range(len(ids)), key=lambda place: natural_key(ids[place]))
    rows = as_csv((ids[place], names[place]) for place in order)
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(rows)


def _names(labels: Labels, classes: Sequence[str]) -> Sequence[str]:
    """Return labels as names; an invalid index becomes a name that no class has."""
    given = labels.tolist() if isinstance(labels, np.ndarray) else labels
    return [label if isinstance(label, str) else _name_at(label, classes) for label in given]


def _name_at(position: Any, classes: Sequence[str]) -> str:
    whole = isinstance(position, int | np.integer) and not isinstance(position, bool)
    return classes[position] if whole and 0 <= position < len(classes) else f"index {position}"


def read_submission(path: AnyPath) -> dict[str, str]:
    """Return the label of each id. Raises one UserError that lists all problems of the file."""
    file = _read(Path(path))
    raise_problems(str(path), [*file.problems, *_header_problems(file)])
    return file.labels


def check_submission(path: AnyPath, data_dir: AnyPath) -> SubmissionReport:
    """Check a submission against the competition's ``test/`` and the classes of ``trainLabels.csv``.

    Raises one UserError that lists all problems. Problems of the format are a header other than ``id,label``, malformed
    rows, blanks around a field, and repeated ids. Problems of the content are images of ``test/`` without a row, rows
    without an image, and labels that are not classes. Also raises it if ``test/`` or ``trainLabels.csv`` cannot be
    read. If there is a ``testLabels.csv`` for some or all images, the report has the accuracy.
    """
    root = Path(data_dir)
    images = list_images(root / "test")
    known = read_label_file(root / "trainLabels.csv", "put a complete copy there")
    answers = LabelFile()
    if os.path.exists(root / TEST_LABELS):  # noqa: PTH110 - Path's raises for names that are too long
        answers = read_label_file(root / TEST_LABELS, "put a complete copy there, or remove it")
    raise_problems(str(root), [*images.problems, *known.problems, *answers.problems])
    classes = sorted(set(known.labels.values()))
    file = _read(Path(path))
    problems = [*file.problems, *_header_problems(file)]
    if file.labels:
        problems += _row_problems(file, set(map(image_id, images.names)), set(classes))
    raise_problems(str(path), problems)
    counts = Counter(file.labels.values())
    sorted_ids = all(one < other for one, other in pairwise(map(natural_key, file.labels)))
    return SubmissionReport(
        rows=len(file.labels),
        rows_per_class={name: counts[name] for name in classes},
        notes=() if sorted_ids else ("the ids are not sorted, which Kaggle accepts",),
        score=score(file.labels, answers.labels) if answers.labels else None,
    )


def score(submission: Mapping[str, str], labels: Mapping[str, str]) -> Score:
    """Compare a submission with the known labels, each ``{id: label}``.

    Ids that are only in one of the two are ignored. Raises UserError if no id is in both.
    """
    shared = [name for name in labels if name in submission]
    if not shared:
        raise UserError("no id of the submission has a known label: use labels of the same images")
    return Score(sum(submission[name] == labels[name] for name in shared), len(shared))


def _read(path: Path) -> LabelFile:
    return read_label_file(path, "pass a file with rows id,label")


def _header_problems(file: LabelFile) -> Iterator[str]:
    if file.header and not file.header[0].isdecimal() and file.header != HEADER:
        yield f"the header is '{','.join(file.header)}': it must be 'id,label'"


def _row_problems(file: LabelFile, images: set[str], classes: set[str]) -> Iterator[str]:
    missing = images - file.labels.keys()
    unknown = file.labels.keys() - images
    if missing or unknown:
        yield f"{len(file.labels):,} ids for {len(images):,} images of test/: write one row for each image"
    if missing:
        yield f"images of test/ without a row: {listed(in_order(missing))}; predict them too"
    if unknown:
        yield f"ids without an image in test/: {listed(in_order(unknown))}; remove them"
    if file.padded:
        ids = listed(in_order(file.padded))
        yield f"rows with blanks around the id or the label, which are part of it in a csv: {ids}; remove the blanks"
    if bad := [name for name, label in file.labels.items() if label not in classes]:
        rows = listed(f"'{file.labels[name]}' of id {name}" for name in in_order(bad))
        yield f"labels that are not classes of trainLabels.csv: {rows}; correct them"
